//! What is known of one source: what it holds, how fast it is, and what it did wrong.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Reason;
use crate::geometry::{ChunkIndex, PieceIndex};
use crate::ranges::ChunkRanges;

/// Requests in flight to a source whose speed is not known, and the least to a known one: while
/// one is answered the next is already there.
pub(super) const REQUESTS_MIN: u32 = 4;

/// Requests in flight to one peer, at most: half the streams of a connection.
pub(super) const REQUESTS_PEER_MAX: u32 = 32;

/// Requests in flight to one vendor, at most: public mirrors ban those who open many.
pub(super) const REQUESTS_VENDOR_MAX: u32 = 4;

/// How long the two ends may be busy with what they have: reading, verifying, writing. Requests that
/// began together end together, so on a fast line a few of them would leave the sender with nothing
/// to do while the asker stores their last chunks. What is in flight lies in memory at either end, so
/// it is no longer than that: at 25 ms a server of 8 GiB held 86 MiB.
const TURNAROUND: Duration = Duration::from_millis(10);

/// How long goodput is averaged over before it is believed.
const MEASURE_OVER: Duration = Duration::from_millis(200);

/// What a source is, as far as the choice of requests depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A peer or node, over QUIC.
    Peer,
    /// A vendor's server, over HTTP: every byte of it crosses the site's line. It may turn out to
    /// give a file whole or not at all.
    Vendor,
}

/// Whether a source may come to have more than it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It fetches, or mends, or has not said otherwise.
    Open,
    /// Nobody brings it more: what it lacks it will lack.
    Settled,
}

/// Whether a source gives parts of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// It does.
    Given,
    /// Its first answer will tell. Until then it is asked for one thing at a time: were it to send
    /// the whole in answer to each of several requests, each would cost the line all of it.
    Unknown,
    /// It gives all or nothing.
    Never,
}

/// What a source gave in the course of a fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Bytes that were verified and had not been had before.
    pub good_bytes: u64,
    /// Bytes that were of no use: they did not verify, or were had already.
    pub wasted_bytes: u64,
    /// Measured goodput in bytes a second; `None` if too little came to tell.
    pub bytes_per_second: Option<u64>,
    /// Why it was left; `None` if it was not.
    pub left: Option<Reason>,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) parts: Parts,
    pub(super) outlook: Outlook,
    pub(super) held: ChunkRanges,
    pub(super) rtt: Duration,
    pub(super) requests: u32,
    pub(super) bad_pieces: BTreeSet<PieceIndex>,
    /// Chunks that did not verify; a source that has mended one may be asked for it again, once.
    pub(super) bad_chunks: BTreeSet<ChunkIndex>,
    pub(super) faults: u32,
    pub(super) paused_until: Option<Instant>,
    pub(super) left: Option<Reason>,
    in_flight_bytes: u64,
    rate: Option<u64>,
    window_start: Option<Instant>,
    window_bytes: u64,
    good_bytes: u64,
    wasted_bytes: u64,
}

impl Source {
    pub(super) fn new(kind: Kind, held: ChunkRanges, rtt: Duration) -> Self {
        let (parts, outlook) = match kind {
            Kind::Peer => (Parts::Given, Outlook::Open),
            Kind::Vendor => (Parts::Unknown, Outlook::Settled),
        };
        Self {
            kind,
            parts,
            outlook,
            held,
            rtt,
            requests: 0,
            bad_pieces: BTreeSet::new(),
            bad_chunks: BTreeSet::new(),
            faults: 0,
            paused_until: None,
            left: None,
            in_flight_bytes: 0,
            rate: None,
            window_start: None,
            window_bytes: 0,
            good_bytes: 0,
            wasted_bytes: 0,
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        self.left.is_none()
    }

    /// Returns whether another request may be sent now.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        if !self.is_live() || self.paused_until.is_some_and(|until| now < until) {
            return false;
        }
        // One that failed or was slow proves itself with one request at a time.
        if self.faults > 0 {
            return self.requests == 0;
        }
        let requests_max = match (self.kind, self.parts) {
            (Kind::Peer, _) => REQUESTS_PEER_MAX,
            (Kind::Vendor, Parts::Given) => REQUESTS_VENDOR_MAX,
            (Kind::Vendor, Parts::Unknown | Parts::Never) => 1,
        };
        let enough = self.rate.is_none_or(|rate| self.in_flight_bytes >= wanted(rate, self.rtt));
        self.requests < if enough { REQUESTS_MIN.min(requests_max) } else { requests_max }
    }

    /// Returns measured goodput in bytes a second.
    pub(super) const fn rate(&self) -> Option<u64> {
        self.rate
    }

    pub(super) fn open(&mut self, bytes: u64, now: Instant) {
        if self.requests == 0 {
            self.window_start = Some(now);
            self.window_bytes = 0;
        }
        self.paused_until = None;
        self.requests += 1;
        self.in_flight_bytes += bytes;
    }

    pub(super) fn close(&mut self, open_bytes: u64) {
        self.requests = self.requests.saturating_sub(1);
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(open_bytes);
    }

    pub(super) fn settle(&mut self, bytes: u64, fresh: bool) {
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        self.credit(bytes, fresh);
    }

    /// Counts bytes that came, as new or as of no use.
    pub(super) const fn credit(&mut self, bytes: u64, fresh: bool) {
        if fresh {
            self.good_bytes += bytes;
        } else {
            self.wasted_bytes += bytes;
        }
    }

    /// Counts bytes into the goodput: a moving average over windows in which something was asked.
    pub(super) fn measure(&mut self, bytes: u64, now: Instant) {
        self.window_bytes += bytes;
        let start = *self.window_start.get_or_insert(now);
        if now.duration_since(start) >= MEASURE_OVER {
            self.take_window(now.duration_since(start));
            self.window_start = Some(now);
        }
    }

    /// Closes the window early where nothing is known yet, so that a short fetch is measured too,
    /// and after a request that came to nothing, so that silence counts.
    pub(super) fn measure_end(&mut self, now: Instant) {
        let Some(start) = self.window_start else { return };
        let elapsed = now.duration_since(start);
        if self.rate.is_none() || elapsed >= MEASURE_OVER {
            self.take_window(elapsed);
            self.window_start = Some(now);
        }
    }

    pub(super) fn report(&self) -> SourceReport {
        SourceReport {
            good_bytes: self.good_bytes,
            wasted_bytes: self.wasted_bytes,
            bytes_per_second: self.rate,
            left: self.left.clone(),
        }
    }

    fn take_window(&mut self, elapsed: Duration) {
        let micros = elapsed.as_micros().max(1);
        let sample = (u128::from(self.window_bytes) * 1_000_000 / micros) as u64;
        self.rate = Some(self.rate.map_or(sample, |rate| rate - rate / 4 + sample / 4));
        self.window_bytes = 0;
    }
}

/// Returns the bytes in flight that keep a line of this rate and round trip busy, and the machines
/// at its ends.
fn wanted(rate: u64, rtt: Duration) -> u64 {
    (u128::from(rate) * (rtt * 2 + TURNAROUND).as_micros() / 1_000_000) as u64
}
