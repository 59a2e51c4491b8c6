//! The time by which certificates are judged: the machine's clock, but never before what a believed
//! statement says has passed.
//!
//! A machine without a battery starts in 1970, where nothing is valid yet. Its own certificate is a
//! statement of its organisation that the day it was issued has come, and so is every signed
//! timestamp later on. The floor only rises, and only for as long as the process lives: what is kept
//! on disk are the statements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// A clock with a floor. Cheap to clone; all clones share the floor.
#[derive(Clone, Debug, Default)]
pub struct TrustedClock {
    floor_secs: Arc<AtomicU64>,
}

impl TrustedClock {
    /// Returns a clock that never shows a time before `floor`.
    pub fn not_before(floor: UnixTime) -> Self {
        Self { floor_secs: Arc::new(floor.as_secs().into()) }
    }

    /// Takes note that a believed statement says that `time` has passed.
    pub fn raise(&self, time: UnixTime) {
        self.floor_secs.fetch_max(time.as_secs(), Ordering::Relaxed);
    }

    /// Returns the time: the machine's, or the floor if that is later.
    pub fn now(&self) -> UnixTime {
        self.or_floor(UnixTime::now())
    }

    fn or_floor(&self, machine: UnixTime) -> UnixTime {
        let floor = self.floor_secs.load(Ordering::Relaxed);
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(machine.as_secs().max(floor)))
    }
}

impl TimeProvider for TrustedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(secs: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(secs))
    }

    // T13
    #[test]
    fn a_clock_at_1970_shows_the_newest_statement_and_never_goes_back() {
        let clock = TrustedClock::not_before(at(1_000));
        assert_eq!(clock.or_floor(at(0)), at(1_000));
        clock.clone().raise(at(2_000));
        assert_eq!(clock.or_floor(at(0)), at(2_000));
        clock.raise(at(1_500));
        assert_eq!(clock.or_floor(at(0)), at(2_000));
        assert_eq!(clock.or_floor(at(3_000)), at(3_000));
    }
}
