//! Whether the device's clock is to be trusted for windows.
//!
//! A new statement that control made a short while ago, as the clock has it, confirms the clock. From then on it is
//! trusted for as long as it goes on evenly; one that jumps, or that is behind what it was before a restart, has
//! to be confirmed anew (T13).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How old a statement may be that confirms a clock: control signs one every hour, and it may have waited.
const AGE_MAX: SignedDuration = SignedDuration::from_hours(2);

/// How far a clock may be behind the statement that confirms it.
const BEHIND_MAX: SignedDuration = SignedDuration::from_mins(5);

/// How far a clock may jump, forwards or back.
const JUMP_MAX: SignedDuration = SignedDuration::from_mins(5);

/// A clock under watch.
#[derive(Clone, Debug)]
pub struct Clock {
    is_confirmed: bool,
    last: Timestamp,
    /// How much time had passed since the start by then, by what no clock's setting changes.
    last_elapsed: Duration,
}

impl Clock {
    /// Watches a clock from `now` on. `trusted` is when it was last trusted, if it ever was.
    pub fn new(now: Timestamp, trusted: Option<Timestamp>) -> Self {
        let is_confirmed = trusted.is_some_and(|trusted| now >= trusted);
        Self { is_confirmed, last: now, last_elapsed: Duration::ZERO }
    }

    /// Looks at the clock again, after `elapsed` since the start; returns whether it is trusted.
    pub fn look(&mut self, now: Timestamp, elapsed: Duration) -> bool {
        let passed = elapsed.saturating_sub(self.last_elapsed);
        let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
        let jumped = now.duration_since(self.last).saturating_sub(passed).abs();
        if jumped > JUMP_MAX {
            self.is_confirmed = false;
        }
        (self.last, self.last_elapsed) = (now, elapsed);
        self.is_confirmed
    }

    /// Takes note that a new statement came, made at `issued`.
    pub fn handle_statement(&mut self, issued: Timestamp, now: Timestamp) {
        let age = now.duration_since(issued);
        if age <= AGE_MAX && age >= -BEHIND_MAX {
            self.is_confirmed = true;
        }
    }

    /// Returns whether it is trusted.
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    // T13
    #[test]
    fn only_a_statement_of_just_now_confirms_a_clock() {
        let mut clock = Clock::new(at(0), None);
        assert!(!clock.look(at(1), Duration::from_secs(1)));
        for (issued, confirms) in [(-7_300, false), (301, false), (-7_200, true), (200, true)] {
            let mut clock = clock.clone();
            clock.handle_statement(at(1 + issued), at(1));
            assert_eq!(clock.is_confirmed(), confirms, "{issued}");
        }
        let year = 365 * 24 * 3_600;
        clock.handle_statement(at(-year), at(0));
        assert!(!clock.is_confirmed());
    }

    // T13
    #[test]
    fn a_clock_that_jumps_is_trusted_no_longer() {
        let mut clock = Clock::new(at(0), Some(at(-10)));
        assert!(clock.look(at(100), Duration::from_secs(100)));
        // 200 ms back are nothing.
        let back = at(160).checked_sub(SignedDuration::from_millis(200)).unwrap();
        assert!(clock.look(back, Duration::from_secs(160)));
        for jump in [-400, 400] {
            let mut clock = clock.clone();
            assert!(!clock.look(at(200 + jump), Duration::from_secs(200)));
            assert!(!clock.look(at(201 + jump), Duration::from_secs(201)));
            clock.handle_statement(at(200 + jump), at(201 + jump));
            assert!(clock.look(at(202 + jump), Duration::from_secs(202)));
        }
    }

    // T13
    #[test]
    fn a_clock_that_is_behind_what_it_was_before_a_restart_is_not_trusted() {
        assert!(Clock::new(at(0), Some(at(0))).is_confirmed());
        assert!(!Clock::new(at(0), Some(at(1))).is_confirmed());
        assert!(!Clock::new(Timestamp::UNIX_EPOCH, Some(at(0))).is_confirmed());
        assert!(!Clock::new(at(0), None).is_confirmed());
    }
}
