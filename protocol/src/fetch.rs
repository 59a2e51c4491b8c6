//! The fetching half of a transfer, without IO: which source is asked for which chunks, and when
//! one is given up.
//!
//! A [`Fetch`] gathers the missing chunks of one content from all its sources at once. Its driver
//! tells it what happened (bytes came, a run was stored, a request ended, time passed) and asks
//! what to do: [`Fetch::poll_ask`] for requests to send, [`Fetch::poll_event`] for requests to stop
//! and sources to leave. `swarm` drives it from sockets, tests from virtual time.
//!
//! The rules:
//! - the last chunk first, alone: only its hash vouches for the length;
//! - rarest pieces first where several sources hold different parts, ties at random; in order from
//!   a single one, so that its disk reads and ours write straight through;
//! - in flight per source: goodput x (2 x the least round trip + what the ends take), within bounds;
//! - a chunk of which a part had come when its source died is gone on with in its middle; where it
//!   then does not verify nobody is blamed, and it is fetched whole from one source;
//! - a request that takes [`SLOW_FACTOR`] times as long as another source would need is taken over;
//! - what is left at the end is asked for twice where that helps, but never of the vendor;
//! - a vendor is asked for one thing at a time until it has shown that it gives parts; one that
//!   sends the whole instead is read to the end, and no other is asked for what that brings;
//! - two bad pieces, or a chunk that is bad twice, ban a source; two stalls leave it.
//!
//! Invariants:
//! - a chunk is asked for at most twice at a time, and never twice of one source at a time; a whole
//!   that was sent unasked counts once more;
//! - nothing here blocks, reads a clock, or panics on what a source sent.

mod choice;
mod partial;
mod request;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::frame::Refusal;
use crate::geometry::{ChunkIndex, Geometry};
use crate::ranges::{ChunkRange, ChunkRanges};
use choice::Random;
use partial::Partials;
pub use partial::{PARTIAL_BYTES_MAX, Partial};
use request::Request;
pub use source::{Kind, Outlook, SourceReport};
use source::{Parts, Source};

/// How much longer than expected a request may take before another source takes it over.
pub const SLOW_FACTOR: u32 = 3;

/// How long a request may go without a byte before it counts as stalled: longer than an honest
/// server waits for a promised chunk ([`crate::serve::WAIT_MAX`]) before it says so. Where others
/// have the chunk, a silent source is taken over long before.
pub const STALL_MAX: Duration = Duration::from_secs(40);

/// The least bytes of a request that must come in [`STALL_MAX`]: 400 a second. Whoever sends less
/// would keep a fetch from ever ending, and nobody could tell why.
pub const STALL_BYTES_MIN: u64 = 16 * 1024;

/// When a request that is late, and that nobody would finish sooner, is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// How long a fetch may go on with nothing coming and nothing to ask for, while some source may come
/// to have what is missing.
pub const IDLE_MAX: Duration = Duration::from_secs(30);

/// Pieces that did not verify before a source is banned.
pub const BAD_PIECES_MAX: usize = 2;

/// Stalls and failed requests in a row before a source is left.
pub const FAULTS_MAX: u32 = 2;

/// How long a source that found a chunk damaged is left alone.
const DAMAGED_PAUSE: Duration = Duration::from_secs(1);

/// Names a source within one fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// Names a request within one fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What to call it from now on.
    pub request: RequestId,
    /// Whom to ask.
    pub source: SourceId,
    /// What to ask for.
    pub chunks: ChunkRange,
    /// Bytes of the first chunk that are here and need not come: those of
    /// [`Fetch::take_partial`].
    pub skip_bytes: u64,
}

/// Something the driver acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Stop this request: what it still owes was had elsewhere, or is asked for elsewhere.
    Cancel(RequestId),
    /// Leave this source. Its requests are over.
    Left(SourceId, Reason),
    /// The length that this source claimed is wrong. The fetch is void; begin another with the
    /// length of another source.
    WrongLength(SourceId),
}

/// Why a source was left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It sent bytes that did not verify, twice.
    #[error("sent bytes that did not verify")]
    BadBytes,
    /// It claimed a length that is not the content's.
    #[error("claimed a wrong length")]
    WrongLength,
    /// It sent less than [`STALL_BYTES_MIN`] in [`STALL_MAX`], twice.
    #[error("sent next to nothing for {} s", STALL_MAX.as_secs())]
    Stalled,
    /// Others are many times faster, and it was taken over twice.
    #[error("was {SLOW_FACTOR} times slower than the others")]
    Slow,
    /// It said that it cannot.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It broke the protocol or the connection, and the driver says how.
    #[error("{0}")]
    Lost(String),
}

impl Reason {
    /// Returns whether this speaks against the length that was believed.
    pub const fn disputes_length(&self) -> bool {
        matches!(
            self,
            Self::BadBytes | Self::WrongLength | Self::Refused(Refusal::LengthDiffers { .. })
        )
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The source sent all that it was asked for.
    Finished,
    /// The source refused.
    Refused(Refusal),
    /// The source cannot be reached now; it may be asked again at this moment.
    Later(Instant),
    /// The request failed, for this reason.
    Failed(String),
}

/// Where a fetch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Chunks are missing, and there is hope.
    Running,
    /// Every chunk was stored.
    Done,
    /// Chunks are missing, and no source is left that has them.
    Stuck,
}

/// Gathers the missing chunks of one content from many sources.
///
/// After each `handle_*` call drain [`Fetch::poll_event`] and [`Fetch::poll_ask`], then call
/// [`Fetch::handle_timeout`] when [`Fetch::poll_timeout`] says. Calling it early is harmless.
#[derive(Debug)]
pub struct Fetch {
    geometry: Geometry,
    /// Not yet stored.
    missing: ChunkRanges,
    /// How many requests each chunk is asked for in, at most 2.
    asked: Vec<u8>,
    /// Who claimed the length, until the last chunk was stored.
    claimant: Option<SourceId>,
    /// Other sources whose last chunk did not verify while the length was a claim.
    doubts: Vec<SourceId>,
    sources: BTreeMap<SourceId, Source>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    partials: Partials,
    events: VecDeque<Event>,
    random: Random,
    last_progress: Instant,
    void: bool,
}

impl Fetch {
    /// Begins a fetch of the `missing` chunks. `seed` breaks ties between equally rare pieces.
    /// `claimant` is the source whose word the length is; `None` if the length is known for sure,
    /// because the last chunk was verified before.
    pub fn new(
        geometry: Geometry,
        missing: ChunkRanges,
        claimant: Option<SourceId>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let claimant = claimant.filter(|_| missing.contains(geometry.last()));
        Self {
            geometry,
            asked: vec![0; geometry.chunks() as usize],
            missing,
            claimant,
            doubts: Vec::new(),
            sources: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            partials: Partials::default(),
            events: VecDeque::new(),
            random: Random::new(seed),
            last_progress: now,
            void: false,
        }
    }

    /// Adds a source that may be asked for the chunks in `held`, with the round trip to it as far
    /// as known. A source that was left stays left.
    pub fn add_source(&mut self, id: SourceId, kind: Kind, held: ChunkRanges, rtt: Duration) {
        self.sources.entry(id).or_insert_with(|| Source::new(kind, held, rtt));
    }

    /// Replaces what a source may be asked for, as it says itself.
    pub fn handle_holding(&mut self, id: SourceId, held: ChunkRanges, now: Instant) {
        if let Some(source) = self.sources.get_mut(&id) {
            if held.count() > source.held.count() {
                self.last_progress = now;
            }
            source.held = held;
        }
    }

    /// Takes note of whether a source that says what it has may come to have more. Until it says
    /// so, a peer may.
    pub fn handle_outlook(&mut self, id: SourceId, outlook: Outlook) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.outlook = outlook;
        }
    }

    /// Takes note that a source that was paused can be asked again, and for what.
    pub fn handle_back(&mut self, id: SourceId, held: ChunkRanges, now: Instant) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.paused_until = None;
        }
        self.handle_holding(id, held, now);
    }

    /// Takes note that `bytes` of a request's answer came.
    pub fn handle_bytes(&mut self, id: RequestId, bytes: u64, now: Instant) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.trickle_bytes += bytes;
        if request.trickle_bytes >= STALL_BYTES_MIN {
            request.trickle_bytes = 0;
            request.last_byte = now;
        }
        self.last_progress = now;
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.measure(bytes, now);
        }
    }

    /// Takes note that a run of a request's chunks was verified and stored.
    pub fn handle_stored(&mut self, id: RequestId, chunks: ChunkRange) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let (owner, first) = (request.source, request.chunks.start());
        let skip_bytes = request.skip_bytes;
        let skipped_from = if chunks.contains(first) {
            std::mem::take(&mut request.skipped_from)
        } else {
            Vec::new()
        };
        request.next = request.next.max(chunks.end());
        for chunk in chunks.iter() {
            let skipped = if chunk == first { skip_bytes } else { 0 };
            let bytes = self.chunk_len(chunk) - skipped;
            let fresh = self.missing.remove(chunk);
            self.forget(chunk);
            if let Some(source) = self.sources.get_mut(&owner) {
                source.settle(bytes, fresh);
                // Who sends again and again what is had must not be asked for ever.
                if fresh {
                    source.faults = 0;
                }
            }
            if chunk == first {
                self.credit(&skipped_from, fresh);
            }
            self.drop_partial(chunk);
        }
        if chunks.contains(self.geometry.last()) {
            self.claimant = None;
        }
        self.cancel_superfluous();
    }

    /// Takes note that a chunk of a request's answer did not verify, and decides who is to blame.
    /// Returns whether all of it came from the request's source.
    pub fn handle_corrupt(&mut self, id: RequestId, chunk: ChunkIndex) -> bool {
        let Some(request) = self.requests.get_mut(&id) else { return false };
        let owner = request.source;
        request.next = request.next.max(ChunkIndex(chunk.0 + 1));
        let (skip_bytes, from) = if chunk == request.chunks.start() {
            (request.skip_bytes, std::mem::take(&mut request.skipped_from))
        } else {
            (0, Vec::new())
        };
        self.forget(chunk);
        let bytes = self.chunk_len(chunk) - skip_bytes;
        self.credit(&from, false);
        let is_mixed = from.iter().any(|(source, _)| *source != owner);
        if let Some(source) = self.sources.get_mut(&owner) {
            source.settle(bytes, false);
            if !is_mixed {
                // Asked again, it would most likely send the same bytes; unless it mends them.
                source.held.remove(chunk);
                if source.kind == Kind::Peer {
                    source.outlook = Outlook::Open;
                }
            }
        }
        if is_mixed {
            self.fetch_whole(chunk);
            return false;
        }
        match self.claimant {
            None => self.blame_sender(owner, chunk),
            Some(claimant) if claimant == owner && chunk == self.geometry.last() => {
                self.blame_claimant(claimant);
            }
            // Its disk may have lost a chunk though its claim is right: the last one will tell.
            Some(claimant) if claimant == owner => self.blame_sender(owner, chunk),
            // The sender may be honest and the length wrong, so no piece counts against it yet.
            // Two who fail on the last chunk settle it, unless the claimant can still show it: two
            // liars must not be able to have an honest one left.
            Some(claimant) if chunk == self.geometry.last() => {
                if !self.doubts.is_empty() && !self.may_show_last(claimant) {
                    self.blame_claimant(claimant);
                }
                self.doubts.push(owner);
            }
            Some(_) => {}
        }
        true
    }

    /// Takes note that a request is over, all that came of it having been settled.
    pub fn handle_end(&mut self, id: RequestId, end: End, now: Instant) {
        let Some(request) = self.close(id) else { return };
        let Some(source) = self.sources.get_mut(&request.source) else { return };
        match end {
            End::Finished if request.next < request.chunks.end() => {
                self.fault(request.source, Reason::Lost("sent too few bytes".to_owned()));
            }
            End::Finished => source.measure_end(now),
            End::Refused(Refusal::Busy { retry_ms }) => {
                source.paused_until = Some(now + Duration::from_millis(retry_ms.into()));
            }
            // It has put the chunk down and fetches it again, or says soon that it lacks it.
            End::Refused(Refusal::Damaged) => {
                source.paused_until = Some(now + DAMAGED_PAUSE);
                source.outlook = Outlook::Open;
            }
            End::Refused(Refusal::NotHeld) => {
                source.outlook = Outlook::Open;
                for chunk in request.chunks.iter() {
                    source.held.remove(chunk);
                }
            }
            End::Refused(refusal) => self.leave(request.source, Reason::Refused(refusal)),
            End::Later(until) => source.paused_until = Some(until),
            End::Failed(how) => self.fault(request.source, Reason::Lost(how)),
        }
    }

    /// Takes note that a request is being answered with the part that was asked for: from now on
    /// its source may be asked for several at a time.
    pub fn handle_part(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id) else { return };
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.parts = Parts::Given;
        }
    }

    /// Takes note that a request is being answered with the whole content, from its first byte.
    ///
    /// The request is for all of it from now on, and whatever else its source owes is cancelled.
    /// So is the request itself where another vendor brings what is missing.
    pub fn handle_whole(&mut self, id: RequestId, now: Instant) {
        let Some(owner) = self.requests.get(&id).map(|request| request.source) else { return };
        if let Some(source) = self.sources.get_mut(&owner) {
            source.parts = Parts::Never;
        }
        let is_wanted = !self.another_vendor_brings(owner, now);
        let superfluous: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(other, request)| request.source == owner && (**other != id || !is_wanted))
            .map(|(other, _)| *other)
            .collect();
        for other in superfluous {
            self.close(other);
            self.events.push_back(Event::Cancel(other));
        }
        if is_wanted {
            if let Some(request) = self.close(id) {
                self.credit(&request.skipped_from, false);
            }
            self.book(id, owner, self.geometry.all(), None, now);
        }
    }

    /// Takes note that a source is gone for good.
    pub fn handle_lost(&mut self, id: SourceId, how: String) {
        self.leave(id, Reason::Lost(how));
    }

    /// Acts on the time: stalled requests end, slow ones are taken over.
    pub fn handle_timeout(&mut self, now: Instant) {
        let stalled: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| now >= request.last_byte + STALL_MAX)
            .map(|(id, _)| *id)
            .collect();
        for id in stalled {
            if let Some(request) = self.close(id) {
                // Not idle yet: whoever stalled may be asked once more.
                self.last_progress = now;
                self.events.push_back(Event::Cancel(id));
                self.fault(request.source, Reason::Stalled);
            }
        }
        for source in self.sources.values_mut() {
            source.paused_until = source.paused_until.filter(|until| now < *until);
        }
        let due: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| now >= request.due)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let takes_over = self
                .requests
                .get(&id)
                .is_some_and(|request| self.another_would_be_faster(request, now));
            if !takes_over {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.due = now + LOOK_AGAIN;
                }
            } else if let Some(request) = self.close(id) {
                self.events.push_back(Event::Cancel(id));
                if let Some(source) = self.sources.get_mut(&request.source) {
                    source.measure_end(now);
                }
                self.fault(request.source, Reason::Slow);
            }
        }
    }

    /// Returns when [`Fetch::handle_timeout`] has something to do, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.status(self.last_progress) == Status::Done {
            return None;
        }
        let requests = self.requests.values().map(|request| {
            let stall = request.last_byte + STALL_MAX;
            if self.is_sole(request) { stall } else { request.due.min(stall) }
        });
        let pauses = self.sources.values().filter_map(|source| source.paused_until);
        let idle = self.requests.is_empty().then_some(self.last_progress + IDLE_MAX);
        requests.chain(pauses).chain(idle).min()
    }

    /// Returns the next thing to act on.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the next request to send.
    pub fn poll_ask(&mut self, now: Instant) -> Option<Ask> {
        if self.void {
            return None;
        }
        // In turn, the least busy first, so that a short content is shared too.
        let mut ids: Vec<SourceId> = self.sources.keys().copied().collect();
        ids.sort_by_key(|id| self.sources.get(id).map(|source| source.requests));
        for id in ids {
            if let Some(chunks) = self.choose(id, now) {
                return Some(self.open(id, chunks, now));
            }
        }
        None
    }

    /// Returns where the fetch stands at `now`.
    pub fn status(&self, now: Instant) -> Status {
        if self.missing.is_empty() {
            return Status::Done;
        }
        let idle =
            self.requests.is_empty() && (now >= self.last_progress + IDLE_MAX || !self.may_go_on());
        let hope = self.sources.values().any(Source::is_live);
        if self.void || !hope || idle { Status::Stuck } else { Status::Running }
    }

    /// Returns whether a source has something that is missing, or may come to have it.
    fn may_go_on(&self) -> bool {
        self.sources.values().filter(|source| source.is_live()).any(|source| {
            source.outlook == Outlook::Open
                || source.paused_until.is_some()
                || self.missing.iter().any(|chunk| source.held.contains(chunk))
        })
    }

    /// Returns the chunks that were not yet stored.
    pub const fn missing(&self) -> &ChunkRanges {
        &self.missing
    }

    /// Returns whether the last chunk has vouched for the length.
    pub const fn is_length_proven(&self) -> bool {
        self.claimant.is_none()
    }

    /// Returns what each source gave, and why those that were left were left.
    pub fn reports(&self) -> impl Iterator<Item = (SourceId, SourceReport)> + '_ {
        self.sources.iter().map(|(id, source)| (*id, source.report()))
    }

    fn blame_sender(&mut self, id: SourceId, chunk: ChunkIndex) {
        let piece = self.geometry.piece_of(chunk);
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.bad_pieces.insert(piece);
        let is_again = !source.bad_chunks.insert(chunk);
        let is_banned = is_again || source.bad_pieces.len() >= BAD_PIECES_MAX;
        self.drop_partials_of(id);
        if is_banned {
            self.leave(id, Reason::BadBytes);
        }
    }

    /// Returns whether the claimant may yet send the last chunk itself.
    fn may_show_last(&self, claimant: SourceId) -> bool {
        let last = self.geometry.last();
        self.sources
            .get(&claimant)
            .is_some_and(|source| source.is_live() && source.held.contains(last))
    }

    fn blame_claimant(&mut self, id: SourceId) {
        self.leave(id, Reason::WrongLength);
        self.events.push_back(Event::WrongLength(id));
        self.void = true;
    }

    fn fault(&mut self, id: SourceId, reason: Reason) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.faults += 1;
        if source.faults >= FAULTS_MAX {
            self.leave(id, reason);
        }
    }

    fn leave(&mut self, id: SourceId, reason: Reason) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        if !source.is_live() {
            return;
        }
        source.left = Some(reason.clone());
        let open: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| request.source == id)
            .map(|(request, _)| *request)
            .collect();
        for request in open {
            self.close(request);
            self.events.push_back(Event::Cancel(request));
        }
        self.events.push_back(Event::Left(id, reason));
    }
}
