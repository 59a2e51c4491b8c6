//! Where disk work runs: here and now while the disk answers at once, on a thread of its own when
//! it does not.
//!
//! A chunk that goes to or comes from memory takes some 30 us, and handing it to another thread and
//! back costs as much again. A disk that makes its caller wait would hold up the whole runtime, so
//! after the first slow answer the next ones are handed over.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinError;

/// An answer that took longer was not from memory.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Calls that are handed over after a slow one, before the disk is tried again.
const HANDED_OVER: u32 = 64;

/// Runs disk work, and remembers whether the disk was slow lately.
#[derive(Debug)]
pub struct Disk {
    at_once: Duration,
    hand_over: AtomicU32,
}

impl Default for Disk {
    fn default() -> Self {
        Self { at_once: AT_ONCE, hand_over: AtomicU32::new(0) }
    }
}

impl Disk {
    /// Runs `work`, which may block.
    ///
    /// Cancel-safe: work that was begun ends, and its result is dropped.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if the work panicked on a thread of its own.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let left = self.hand_over.load(Ordering::Relaxed);
        if left > 0 {
            self.hand_over.store(left - 1, Ordering::Relaxed);
            return tokio::task::spawn_blocking(work).await;
        }
        let started = Instant::now();
        let result = work();
        if started.elapsed() >= self.at_once {
            self.hand_over.store(HANDED_OVER, Ordering::Relaxed);
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_slow_answer_the_next_calls_are_handed_over_and_then_one_is_tried() {
        let never = Disk { at_once: Duration::ZERO, ..Disk::default() };
        let always = Disk { at_once: Duration::MAX, ..Disk::default() };
        let here = std::thread::current().id();
        let thread = || std::thread::current().id();
        for _ in 0..2 {
            assert_eq!(never.run(thread).await.unwrap(), here);
            for _ in 0..HANDED_OVER {
                assert_ne!(never.run(thread).await.unwrap(), here);
            }
        }
        for _ in 0..=HANDED_OVER {
            assert_eq!(always.run(thread).await.unwrap(), here);
        }
    }
}
