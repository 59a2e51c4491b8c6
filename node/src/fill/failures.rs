//! What could not be filled a moment ago, so that an origin in trouble is not asked by every client
//! again and again.
//!
//! Told the time, never reads it. Holds at most [`FAILURES_MAX`] failures.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sutler_protocol::frame::Refusal;

/// How long the first failure stands; each that follows stands twice as long.
const STANDS_MIN: Duration = Duration::from_secs(2);

/// How long a failure stands at most. More than a client waits for a source that gives nothing, so
/// that a fill which always fails is given up by those who wait for it.
const STANDS_MAX: Duration = Duration::from_mins(1);

/// Failures that are remembered; the one that ends first goes.
const FAILURES_MAX: usize = 1_024;

/// The failures of fills, by what was to be filled.
#[derive(Debug)]
pub(super) struct Failures<K>(BTreeMap<K, Failure>);

#[derive(Debug)]
struct Failure {
    refusal: Refusal,
    until: Instant,
    stands: Duration,
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Failures<K> {
    /// Returns the answer to who asks for it now, if it failed a moment ago.
    pub(super) fn standing(&self, key: &K, now: Instant) -> Option<Refusal> {
        let failure = self.0.get(key)?;
        (now < failure.until).then(|| failure.refusal.clone())
    }

    /// Takes note that it failed.
    pub(super) fn failed(&mut self, key: K, refusal: Refusal, now: Instant) {
        let before = self.0.get(&key);
        // Long after the last failure it is a first one again.
        let recent = before.filter(|before| now < before.until + STANDS_MAX);
        let stands = recent.map_or(STANDS_MIN, |recent| (recent.stands * 2).min(STANDS_MAX));
        self.0.insert(key, Failure { refusal, until: now + stands, stands });
        if self.0.len() > FAILURES_MAX
            && let Some(first) = self.0.iter().min_by_key(|(_, failure)| failure.until)
        {
            let first = first.0.clone();
            self.0.remove(&first);
        }
    }

    /// Takes note that it did not fail.
    pub(super) fn succeeded(&mut self, key: &K) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_failure_stands_longer_each_time_and_ends_with_a_success() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        assert_eq!(failures.standing(&'a', now), None);
        failures.failed('a', Refusal::DigestDiffers, now);
        assert_eq!(failures.standing(&'a', now + SECOND), Some(Refusal::DigestDiffers));
        assert_eq!(failures.standing(&'b', now), None);
        assert_eq!(failures.standing(&'a', now + 2 * SECOND), None);
        failures.failed('a', Refusal::NotHeld, now + 2 * SECOND);
        assert_eq!(failures.standing(&'a', now + 5 * SECOND), Some(Refusal::NotHeld));
        assert_eq!(failures.standing(&'a', now + 6 * SECOND), None);
        failures.succeeded(&'a');
        failures.failed('a', Refusal::NotHeld, now + 7 * SECOND);
        assert_eq!(failures.standing(&'a', now + 9 * SECOND), None);
        let much_later = now + 600 * SECOND;
        failures.failed('a', Refusal::NotHeld, much_later);
        assert_eq!(failures.standing(&'a', much_later + 2 * SECOND), None);
    }

    #[test]
    fn they_are_bounded_in_number_and_time() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        for number in 0..2 * FAILURES_MAX {
            failures.failed(number, Refusal::NotHeld, now);
        }
        assert_eq!(failures.0.len(), FAILURES_MAX);
        let mut at = now;
        for _ in 0..20 {
            failures.failed(0, Refusal::NotHeld, at);
            at += STANDS_MAX;
            assert_eq!(failures.standing(&0, at), None);
        }
    }
}
