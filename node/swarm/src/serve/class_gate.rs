//! Holds the lower classes back while something urgent is being sent.

use sutler_protocol::frame::Class;
use tokio::sync::watch;

/// Counts urgent requests; the others pass only while there are none.
pub(super) struct ClassGate {
    urgent: watch::Sender<usize>,
}

/// Says that a request is being answered. Others wait while an urgent one lives.
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
    /// Takes note of a request that is about to be answered.
    pub(super) fn enter(&self, class: Class) -> Passing<'_> {
        if class == Class::Urgent {
            self.urgent.send_modify(|urgent| *urgent += 1);
        }
        Passing { gate: self, class }
    }
}

impl Passing<'_> {
    /// Waits until nothing more urgent is being sent.
    ///
    /// Cancel-safe: it only waits.
    pub(super) async fn wait(&self) {
        if self.class == Class::Urgent {
            return;
        }
        let mut urgent = self.gate.urgent.subscribe();
        // The sender lives as long as the gate, which outlives this borrow.
        let _ = urgent.wait_for(|urgent| *urgent == 0).await;
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
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn passes(passing: &Passing<'_>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(passing.wait()).as_mut().poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn others_wait_while_an_urgent_request_is_answered() {
        let gate = ClassGate::default();
        let normal = gate.enter(Class::Normal);
        assert!(passes(&normal));
        let urgent = gate.enter(Class::Urgent);
        assert!(passes(&urgent) && !passes(&normal));
        drop(urgent);
        assert!(passes(&normal));
    }
}
