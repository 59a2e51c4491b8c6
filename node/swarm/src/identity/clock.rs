//! The time by which certificates are judged: the machine's clock, but never before what a believed
//! statement says has passed.
//!
//! A machine without a battery starts in 1970, where nothing is valid yet. Its own certificate is a
//! statement of its organisation that the day it was issued has come, and so is every signed
//! timestamp later on. The floor only rises, and only for as long as the process lives: what is kept
//! on disk are the statements.
//!
//! Timestamps are signed by a key that is online. Whoever steals it can write any year into one, and no machine that
//! has a clock is to be cut off by that: such a one, whose clock shows that its certificate has begun, is led no
//! further than [`AHEAD_MAX`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// How far ahead of a machine's own clock statements lead it, at most. A certificate has ten days left when it is
/// renewed, and a statement nearly seven when it is signed anew, so that a day too many ends neither.
const AHEAD_MAX: Duration = Duration::from_hours(24);

/// A clock with a floor. Cheap to clone; all clones share the floor.
#[derive(Clone, Debug, Default)]
pub struct TrustedClock(Arc<Floor>);

#[derive(Debug, Default)]
struct Floor {
    /// When the machine's own certificate begins: what a clock shows before it is no time.
    begins_secs: AtomicU64,
    /// What the newest statement says.
    stated_secs: AtomicU64,
}

impl TrustedClock {
    /// Returns the clock of a machine whose certificate begins at `begins`: it never shows a time before that.
    pub fn not_before(begins: UnixTime) -> Self {
        let clock = Self::default();
        clock.begin(begins);
        clock
    }

    /// Takes note that the machine's certificate begins at `begins`.
    pub fn begin(&self, begins: UnixTime) {
        self.0.begins_secs.fetch_max(begins.as_secs(), Ordering::Relaxed);
    }

    /// Takes note that a believed statement says that `time` has passed.
    pub fn raise(&self, time: UnixTime) {
        self.0.stated_secs.fetch_max(time.as_secs(), Ordering::Relaxed);
    }

    /// Returns the time: the machine's, or the floor if that is later.
    pub fn now(&self) -> UnixTime {
        self.or_floor(UnixTime::now())
    }

    fn or_floor(&self, machine: UnixTime) -> UnixTime {
        let begins = self.0.begins_secs.load(Ordering::Relaxed);
        let stated = self.0.stated_secs.load(Ordering::Relaxed);
        let machine = machine.as_secs();
        let floor = if machine < begins {
            begins.max(stated)
        } else {
            stated.min(machine.saturating_add(AHEAD_MAX.as_secs()))
        };
        UnixTime::since_unix_epoch(Duration::from_secs(machine.max(floor)))
    }
}

impl TimeProvider for TrustedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGINS: u64 = 1_000_000;
    const DAY: u64 = 24 * 60 * 60;

    fn at(secs: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(secs))
    }

    // T13
    #[test]
    fn a_clock_at_1970_shows_the_newest_statement_and_never_goes_back() {
        let clock = TrustedClock::not_before(at(BEGINS));
        assert_eq!(clock.or_floor(at(0)), at(BEGINS));
        clock.clone().raise(at(BEGINS + 9 * DAY));
        assert_eq!(clock.or_floor(at(0)), at(BEGINS + 9 * DAY));
        clock.raise(at(BEGINS + 8 * DAY));
        assert_eq!(clock.or_floor(at(0)), at(BEGINS + 9 * DAY));
        assert_eq!(clock.or_floor(at(BEGINS + 10 * DAY)), at(BEGINS + 10 * DAY));
    }

    // T13
    #[test]
    fn a_clock_that_is_a_little_behind_shows_the_newest_statement() {
        let clock = TrustedClock::not_before(at(BEGINS));
        clock.raise(at(BEGINS + 9 * DAY));
        assert_eq!(clock.or_floor(at(BEGINS + 8 * DAY)), at(BEGINS + 9 * DAY));
        assert_eq!(clock.or_floor(at(BEGINS + 8 * DAY - 1)), at(BEGINS + 9 * DAY - 1));
    }

    // T13, T10
    #[test]
    fn a_statement_of_2099_leads_a_clock_that_goes_no_further_than_a_day() {
        let clock = TrustedClock::not_before(at(BEGINS));
        clock.raise(at(BEGINS + 26_000 * DAY));
        assert_eq!(clock.or_floor(at(BEGINS)), at(BEGINS + DAY));
        assert_eq!(clock.or_floor(at(BEGINS + 90 * DAY)), at(BEGINS + 91 * DAY));
    }
}
