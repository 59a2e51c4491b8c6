//! What a swarm has done since it started, for status and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Returns the number.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that is as it is now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Says what the number is now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Returns the number.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one process. Bytes are payload, without packet headers and retransmissions.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections let in.
    pub connections_opened: Counter,
    /// Connections that were let in and have ended.
    pub connections_closed: Counter,
    /// Attempts that were not let in: wrong certificate, too slow, too many.
    pub connections_refused: Counter,
    /// Requests received.
    pub requests: Counter,
    /// Requests answered with a refusal.
    pub requests_refused: Counter,
    /// Peers that broke the protocol.
    pub violations: Counter,
    /// Times that a machine spoke whose identity another one has too.
    pub duplicate_identities: Counter,
    /// Chunks that peers reported as not verifying.
    pub mismatches: Counter,
    /// Bytes of contents and hash lists sent.
    pub served_bytes: Counter,
    /// Bytes fetched from agents, verified.
    pub fetched_peer_bytes: Counter,
    /// Bytes fetched from nodes, verified.
    pub fetched_node_bytes: Counter,
    /// Bytes fetched from vendors, verified.
    pub fetched_vendor_bytes: Counter,
    /// Bytes fetched that were of no use: they did not verify, or came twice.
    pub wasted_bytes: Counter,
    /// Published contents that control had lost and has back from nodes.
    pub returned_contents: Counter,
    /// Published contents of which control lacks what it once had, as far as it looks for them.
    pub lacking_contents: Gauge,
}
