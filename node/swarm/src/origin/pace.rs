//! How long and how slowly an origin may keep us waiting (T6), without a clock of its own.
//!
//! Only time spent waiting *for the origin* counts: a reader that is slow itself, because a disk or
//! a bandwidth limit holds it back, is never mistaken for a slow origin.

use std::time::Duration;

use crate::origin::config::OriginConfig;

/// The patience of a config.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long nothing may come.
    pub(crate) stall: Duration,
    /// The least bytes a second; zero: any.
    rate_min: u64,
    /// Over how much waiting the rate is measured.
    window: Duration,
}

/// The measure of one body.
#[derive(Debug)]
pub(crate) struct Pace {
    patience: Patience,
    /// Waited since the last bytes came.
    silent: Duration,
    /// Waited, and received, in this window.
    waited: Duration,
    bytes: u64,
}

/// A window in which too little came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooSlow {
    /// Bytes that came.
    pub(crate) bytes: u64,
    /// In how much waiting.
    pub(crate) over: Duration,
}

impl Patience {
    pub(crate) fn new(config: &OriginConfig) -> Self {
        Self {
            stall: Duration::from_millis(config.stall_timeout_ms.get()),
            rate_min: config.rate_bytes_min,
            window: Duration::from_millis(config.rate_window_ms.get()),
        }
    }
}

impl Pace {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, silent: Duration::ZERO, waited: Duration::ZERO, bytes: 0 }
    }

    /// Returns how much longer the origin may be silent.
    pub(crate) fn silence_left(&self) -> Duration {
        self.patience.stall.saturating_sub(self.silent)
    }

    /// Returns how long the origin may be silent at a time.
    pub(crate) fn stall(&self) -> Duration {
        self.patience.stall
    }

    /// Counts a wait in which nothing came yet.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.silent += time;
    }

    /// Counts what came after the waits so far.
    pub(crate) fn received(&mut self, bytes: u64) -> Result<(), TooSlow> {
        self.waited += std::mem::take(&mut self.silent);
        self.bytes += bytes;
        if self.waited < self.patience.window {
            return Ok(());
        }
        let (over, bytes) = (std::mem::take(&mut self.waited), std::mem::take(&mut self.bytes));
        let least = u128::from(self.patience.rate_min) * over.as_millis() / 1000;
        if u128::from(bytes) < least { Err(TooSlow { bytes, over }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        Pace::new(Patience { stall: 20 * SECOND, rate_min: 1000, window: 30 * SECOND })
    }

    // T6
    #[test]
    fn a_byte_now_and_then_is_too_slow_at_the_end_of_the_window() {
        let mut pace = pace();
        for _ in 0..2 {
            pace.waited(14 * SECOND);
            assert_eq!(pace.received(1), Ok(()));
        }
        pace.waited(14 * SECOND);
        assert_eq!(pace.received(1), Err(TooSlow { bytes: 3, over: 42 * SECOND }));
    }

    #[test]
    fn the_least_rate_is_fast_enough_in_every_window() {
        let mut pace = pace();
        for _ in 0..100 {
            pace.waited(SECOND);
            assert_eq!(pace.received(1000), Ok(()));
        }
    }

    #[test]
    fn silence_adds_up_over_abandoned_waits_and_ends_with_bytes() {
        let mut pace = pace();
        pace.waited(12 * SECOND);
        pace.waited(5 * SECOND);
        assert_eq!(pace.silence_left(), 3 * SECOND);
        pace.received(1_000_000).expect("fast enough");
        assert_eq!(pace.silence_left(), 20 * SECOND);
        pace.waited(21 * SECOND);
        assert_eq!(pace.silence_left(), Duration::ZERO);
    }
}
