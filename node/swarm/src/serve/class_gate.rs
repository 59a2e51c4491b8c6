//! Holds the lower classes back while something urgent is being sent.
//!
//! Held back, not shut out: a step of theirs goes after [`HELD_BACK_MAX`] at the latest. Otherwise
//! anyone who calls its requests urgent, and then reads slowly, would stop everybody else, and what
//! stands still long enough is taken for a broken source.

use std::time::Duration;

use sutler_protocol::frame::Class;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long one step of a lower class waits for urgent ones.
const HELD_BACK_MAX: Duration = Duration::from_secs(1);

/// Counts urgent answers; the others go while there are none.
pub(super) struct ClassGate {
    urgent: watch::Sender<usize>,
}

/// An answer that is being sent. Others wait while an urgent one lives.
pub(super) struct Passing<'a> {
    gate: &'a ClassGate,
    class: Class,
}

impl Default for ClassGate {
    fn default() -> Self {
        Self { urgent: watch::Sender::new(0) }
    }
}

impl ClassGate {
    /// Takes note of an answer of which something can be sent now.
    pub(super) fn enter(&self, class: Class) -> Passing<'_> {
        if class == Class::Urgent {
            self.urgent.send_modify(|urgent| *urgent += 1);
        }
        Passing { gate: self, class }
    }
}

impl Passing<'_> {
    /// Waits until nothing more urgent is being sent, or for as long as one step may be held back.
    ///
    /// Cancel-safe: it only waits.
    pub(super) async fn wait(&self) {
        if self.class == Class::Urgent {
            return;
        }
        let mut urgent = self.gate.urgent.subscribe();
        // Both ways it goes on. The sender lives as long as the gate, which outlives this borrow.
        let _ = timeout(HELD_BACK_MAX, urgent.wait_for(|urgent| *urgent == 0)).await;
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        if self.class == Class::Urgent {
            self.gate.urgent.send_modify(|urgent| *urgent -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waited(passing: &Passing<'_>) -> Duration {
        let start = tokio::time::Instant::now();
        passing.wait().await;
        start.elapsed()
    }

    #[tokio::test]
    async fn others_wait_while_an_urgent_request_is_answered_but_not_for_ever() {
        let gate = ClassGate::default();
        let normal = gate.enter(Class::Normal);
        assert!(waited(&normal).await < HELD_BACK_MAX);
        let urgent = gate.enter(Class::Urgent);
        assert!(waited(&urgent).await < HELD_BACK_MAX);
        assert!(waited(&normal).await >= HELD_BACK_MAX);
        drop(urgent);
        assert!(waited(&normal).await < HELD_BACK_MAX);
    }
}
