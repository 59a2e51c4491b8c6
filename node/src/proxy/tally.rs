//! What the proxy has done since its start, in all and by origin, for `status` and `/metrics` (D6).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sutler_swarm::counters::Counter;
use url::Url;

/// Origins that are counted by name; the rest are [`OTHERS`] together, because each name is a label
/// that monitoring keeps for ever.
const ORIGINS_MAX: usize = 64;

/// The name of the origins that are not counted by name.
const OTHERS: &str = "others";

/// The proxy's counters.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests received.
    pub requests: Counter,
    /// Requests answered with what was held, asked after or not.
    pub hits: Counter,
    /// Requests answered with what was held although its origin was in trouble.
    pub stale: Counter,
    /// Requests refused, of clients that ask for what they may not have.
    pub refused: Counter,
    /// Connections that were closed unread: foreign networks, or too many.
    pub connections_refused: Counter,
    /// Tunnels opened.
    pub tunnels: Counter,
    /// Bytes of bodies sent to clients that were on the disk already.
    pub disk_bytes: Counter,
    /// Bytes of bodies sent to clients while they came from elsewhere.
    pub passed_bytes: Counter,
    origins: Mutex<BTreeMap<String, OriginTally>>,
}

/// What became of requests for files of one origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OriginTally {
    /// Requests for its files.
    pub requests: u64,
    /// Those that were answered with what was held.
    pub hits: u64,
    /// Bytes that came from it over the line.
    pub vendor_bytes: u64,
    /// Bytes of its files that came from other nodes.
    pub node_bytes: u64,
}

impl Tally {
    /// Changes what is counted of a URL's origin.
    pub(super) fn of(&self, url: &Url, change: impl FnOnce(&mut OriginTally)) {
        let host = url.host_str().unwrap_or_default();
        let name = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut origins = self.origins();
        let is_named = origins.contains_key(&name) || origins.len() < ORIGINS_MAX;
        let name = if is_named { name } else { OTHERS.to_owned() };
        change(origins.entry(name).or_default());
    }

    /// Returns what was counted, by origin.
    pub fn by_origin(&self) -> BTreeMap<String, OriginTally> {
        self.origins().clone()
    }

    fn origins(&self) -> MutexGuard<'_, BTreeMap<String, OriginTally>> {
        // Each change leaves the table whole, so a panic elsewhere does not spoil it.
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_beyond_the_bound_are_counted_together() {
        let tally = Tally::default();
        for number in 0..2 * ORIGINS_MAX {
            let url: Url = format!("http://host-{number}/x").parse().expect("a URL");
            tally.of(&url, |origin| origin.requests += 1);
        }
        let counted = tally.by_origin();
        assert_eq!(counted.len(), ORIGINS_MAX + 1);
        assert_eq!(counted[OTHERS].requests, ORIGINS_MAX as u64);
        assert_eq!(counted["host-0"].requests, 1);
    }
}
