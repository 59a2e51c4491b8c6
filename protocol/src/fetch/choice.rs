//! Which chunks a source is asked for next, and whether another one would be faster.

use std::time::{Duration, Instant};

use super::source::{Parts, Source};
use super::{Fetch, Kind, Request, SourceId};
use crate::geometry::{ChunkIndex, PieceIndex};
use crate::ranges::ChunkRange;

/// What a request is expected to take where nothing was measured yet.
const UNKNOWN_EXPECTED: Duration = Duration::from_secs(5);

/// The least that a request is expected to take, so that a hiccup of the scheduler or the disk is
/// not mistaken for a slow source.
const EXPECTED_MIN: Duration = Duration::from_millis(300);

impl Fetch {
    /// Returns what to ask a source for, if it has room and anything is left for it.
    pub(super) fn choose(&mut self, id: SourceId, now: Instant) -> Option<ChunkRange> {
        let source = self.sources.get(&id)?;
        if !source.has_room(now) {
            return None;
        }
        if source.parts == Parts::Never {
            return self.is_whole_wanted(id, now).then(|| self.geometry.all());
        }
        if let Some(last) = self.last_chunk_first(id, source) {
            return Some(last);
        }
        match self.unasked_piece(id) {
            Some(run) => Some(run),
            None => self.second_asking(id, now),
        }
    }

    /// Returns whether a vendor other than this one is bringing what is missing, or could be asked
    /// for it. To have all of it from this one too would cost the line a second copy.
    pub(super) fn another_vendor_brings(&self, id: SourceId, now: Instant) -> bool {
        let free = |source: &Source| {
            let held = |chunk: &ChunkIndex| source.held.contains(*chunk);
            source.parts == Parts::Given
                && source.has_room(now)
                && self.missing.iter().any(|chunk| held(&chunk))
        };
        self.sources.iter().any(|(other, source)| {
            *other != id
                && source.kind == Kind::Vendor
                && source.is_live()
                && (source.requests > 0 || free(source))
        })
    }

    /// Returns whether all of a content is to be asked of a vendor that gives no parts: something
    /// is missing that it has, that nobody was asked for, and that no other vendor brings.
    fn is_whole_wanted(&self, id: SourceId, now: Instant) -> bool {
        let Some(source) = self.sources.get(&id) else { return false };
        let unasked = |chunk: ChunkIndex| self.asked[chunk.0 as usize] == 0;
        self.missing.iter().any(|chunk| unasked(chunk) && source.held.contains(chunk))
            && !self.another_vendor_brings(id, now)
    }

    /// Returns whether a request that is due would come sooner from another source.
    pub(super) fn another_would_be_faster(&self, request: &Request, now: Instant) -> bool {
        let Some(rest) = ChunkRange::new(request.next, request.chunks.end()) else { return false };
        let bytes = self.geometry.bytes(rest);
        let left = self.time_left(request, now);
        self.sources.iter().any(|(id, source)| {
            *id != request.source
                && source.is_live()
                && source.faults == 0
                && source.held.contains(rest.start())
                && source.rate().is_some_and(|rate| time(bytes.end - bytes.start, rate) < left)
        })
    }

    /// Returns whether nobody else could take the request over.
    pub(super) fn is_sole(&self, request: &Request) -> bool {
        !self.sources.iter().any(|(id, source)| {
            *id != request.source && source.is_live() && source.held.contains(request.next)
        })
    }

    /// Returns how long `bytes` should take from a source: by the fastest, so that a slow one is
    /// measured against what could be had.
    pub(super) fn expected(&self, id: SourceId, bytes: u64) -> Duration {
        let live = self.sources.values().filter(|source| source.is_live());
        let Some(rate) = live.filter_map(Source::rate).max().filter(|rate| *rate > 0) else {
            return UNKNOWN_EXPECTED;
        };
        let source = self.sources.get(&id);
        let queued = u64::from(source.map_or(0, |source| source.requests)) + 1;
        let rtt = source.map_or(Duration::ZERO, |source| source.rtt);
        (time(bytes * queued, rate) + rtt).max(EXPECTED_MIN)
    }

    /// Returns the last chunk, while only its hash can settle the length and nobody was asked.
    fn last_chunk_first(&self, id: SourceId, source: &Source) -> Option<ChunkRange> {
        let claimant = self.claimant?;
        let last = self.geometry.last();
        if self.asked[last.0 as usize] > 0 || !source.held.contains(last) {
            return None;
        }
        // The claimant answers for its claim itself where it can, so that no liar in between
        // can make an honest one look wrong.
        let fits =
            if self.may_show_last(claimant) { id == claimant } else { !self.doubts.contains(&id) };
        (fits || self.sources.len() == 1).then(|| ChunkRange::one(last))
    }

    /// Returns the next run of chunks that nobody was asked for: in order from a single source,
    /// else from the rarest piece, ties at random.
    fn unasked_piece(&mut self, id: SourceId) -> Option<ChunkRange> {
        let in_order = self.sources.values().filter(|source| source.is_live()).count() <= 1;
        let mut best: Option<(usize, ChunkRange)> = None;
        let mut ties = 0;
        for piece in (0..self.geometry.pieces()).map(PieceIndex) {
            let Some(run) = self.unasked_run(id, piece) else { continue };
            if in_order {
                return Some(run);
            }
            let holders = self.holders(run.start());
            match best {
                Some((rarest, _)) if holders > rarest => continue,
                Some((rarest, _)) if holders == rarest => ties += 1,
                _ => ties = 1,
            }
            if self.random.below(ties) == 0 {
                best = Some((holders, run));
            }
        }
        best.map(|(_, run)| run)
    }

    /// Returns the first run of a piece that is missing, held by the source, and not asked for.
    fn unasked_run(&self, id: SourceId, piece: PieceIndex) -> Option<ChunkRange> {
        let source = self.sources.get(&id)?;
        // The last chunk goes its own way until the length is settled.
        let settling = self.claimant.map(|_| self.geometry.last());
        let free = |chunk: &ChunkIndex| {
            self.missing.contains(*chunk)
                && settling != Some(*chunk)
                && self.asked[chunk.0 as usize] == 0
                && source.held.contains(*chunk)
        };
        let piece = self.geometry.piece(piece)?;
        let start = piece.iter().find(free)?;
        // One of which a part is here begins a request: only then can the rest be asked for.
        let goes_on = |chunk: &ChunkIndex| free(chunk) && !self.partials.contains(*chunk);
        let more = (start.0 + 1..piece.end().0).map(ChunkIndex).take_while(goes_on).count() as u32;
        ChunkRange::new(start, ChunkIndex(start.0 + 1 + more))
    }

    fn holders(&self, chunk: ChunkIndex) -> usize {
        self.sources
            .values()
            .filter(|source| source.is_live() && source.held.contains(chunk))
            .count()
    }

    /// Returns a run that another source still owes and this one would bring in less than half the
    /// time. Never of the vendor: a second copy over the line costs more than the wait.
    fn second_asking(&self, id: SourceId, now: Instant) -> Option<ChunkRange> {
        let source = self.sources.get(&id)?;
        if source.kind != Kind::Peer {
            return None;
        }
        let rate = source.rate()?;
        self.requests
            .values()
            .filter(|request| request.source != id)
            .filter_map(|request| {
                let rest = ChunkRange::new(request.next, request.chunks.end())?;
                let free = rest.iter().all(|chunk| self.asked[chunk.0 as usize] == 1);
                let bytes = self.geometry.bytes(rest);
                let left = self.time_left(request, now);
                let here = time(bytes.end - bytes.start, rate) + source.rtt;
                let helps = free && source.held.contains_range(rest) && here * 2 < left;
                helps.then_some((left, rest))
            })
            .max_by_key(|(left, _)| *left)
            .map(|(_, rest)| rest)
    }

    /// Returns how long a request will still take at the pace it has shown.
    fn time_left(&self, request: &Request, now: Instant) -> Duration {
        let owed_bytes = self.owed_bytes(request);
        if owed_bytes == 0 {
            return Duration::ZERO;
        }
        let rate = self.sources.get(&request.source).and_then(Source::rate);
        match rate {
            Some(rate) => time(owed_bytes, rate),
            // It has shown nothing: as long again as it has already been.
            None => now.duration_since(request.started),
        }
    }
}

/// Returns how long `bytes` take at `rate` bytes a second; a day where nothing moves.
fn time(bytes: u64, rate: u64) -> Duration {
    const DAY: Duration = Duration::from_hours(24);
    if rate == 0 {
        return DAY;
    }
    Duration::from_micros((u128::from(bytes) * 1_000_000 / u128::from(rate)) as u64).min(DAY)
}

/// Breaks ties. `SplitMix64`: a few instructions, and the same choices for the same seed.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`, or 0 if `bound` is 0.
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        if bound == 0 { 0 } else { mixed % bound }
    }
}
