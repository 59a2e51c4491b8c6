//! Who asks an origin about a URL: one at a time, and who waited for the answer takes it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// URLs that are asked about or were lately, before those that nobody waits for are forgotten.
const TURNS_MAX: usize = 1_024;

/// When the last question was put that was answered.
type Answered = Option<Instant>;

/// The questions under way, by URL.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<String, Arc<AsyncMutex<Answered>>>>);

/// The right to ask.
#[derive(Debug)]
pub(super) struct Turn {
    answered: OwnedMutexGuard<Answered>,
    came: Instant,
    began: Instant,
}

impl Turns {
    /// Waits for one's turn. Cancel-safe: who leaves gives way to the next.
    pub(super) async fn take(&self, url: &str) -> Turn {
        let came = Instant::now();
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() >= TURNS_MAX {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(turns.entry(url.to_owned()).or_default())
        };
        let answered = turn.lock_owned().await;
        Turn { answered, came, began: Instant::now() }
    }
}

impl Turn {
    /// Returns whether the origin was asked by somebody else since one came, so that the answer is
    /// as good as one's own.
    pub(super) fn was_answered(&self) -> bool {
        self.answered.is_some_and(|began| began >= self.came)
    }

    /// Says that the origin has answered.
    pub(super) fn answered(mut self) {
        *self.answered = Some(self.began);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_came_while_another_asked_takes_his_answer_only_if_it_was_asked_for_later() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a").await;
        assert!(!first.was_answered());
        let other = turns.clone();
        let second = tokio::spawn(async move { other.take("a").await });
        while Arc::strong_count(turns.0.lock().expect("no panic").get("a").expect("it is there"))
            < 3
        {
            tokio::task::yield_now().await;
        }
        // The first had asked before the second came: what it learnt may be too old.
        first.answered();
        let second = second.await.expect("no panic");
        assert!(!second.was_answered());
        let (came, other) = (Instant::now(), turns.clone());
        drop(second);
        let third = turns.take("a").await;
        let fourth = tokio::spawn(async move { other.take("a").await });
        drop(third);
        assert!(fourth.await.expect("no panic").came >= came);
        assert!(turns.take("b").await.answered.is_none());
    }
}
