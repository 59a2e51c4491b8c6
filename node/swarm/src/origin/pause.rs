//! Origins that asked to be left alone for a while (`429` with `Retry-After`).
//!
//! Many tasks ask one origin. What it told one of them holds for all: asking on would make it
//! angrier, and get every site behind one address refused. `503` is not remembered here, since it
//! is often about one file's backend and not about us.
//!
//! Told the time, never reads it. Holds at most one moment for each origin of the allow-list.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Until when which origin is not asked.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    until: BTreeMap<String, Instant>,
}

impl Pauses {
    /// Returns how long `origin` is still to be left alone.
    pub(crate) fn left(&mut self, origin: &str, now: Instant) -> Option<Duration> {
        let left = self.until.get(origin)?.saturating_duration_since(now);
        if left.is_zero() {
            self.until.remove(origin);
            return None;
        }
        Some(left)
    }

    /// Leaves `origin` alone for `time`, unless it is left alone for longer already.
    pub(crate) fn pause(&mut self, origin: String, time: Duration, now: Instant) {
        let until = self.until.entry(origin).or_insert(now);
        *until = (*until).max(now + time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_origin_is_left_alone_as_long_as_it_asked_and_no_other() {
        let (mut pauses, now) = (Pauses::default(), Instant::now());
        pauses.pause("http://a".to_owned(), 7 * SECOND, now);
        pauses.pause("http://a".to_owned(), 2 * SECOND, now + SECOND);
        assert_eq!(pauses.left("http://a", now + 2 * SECOND), Some(5 * SECOND));
        assert_eq!(pauses.left("http://b", now), None);
        assert_eq!(pauses.left("http://a", now + 7 * SECOND), None);
        assert!(pauses.until.is_empty());
    }
}
