//! A content of the store: handed out as [`Content`], which is also the lease on it.
//!
//! Reads and commits of one content run side by side from several threads. They meet only at
//! the sets of chunks, under a lock that is never held while the disk works.
//!
//! Invariants:
//! - a chunk is *had* only after its bytes were verified and written;
//! - a chunk is *trusted* only after its bytes, as the disk gives them back or as they were
//!   written, were hashed since this process started; only trusted bytes leave [`Content::read`];
//! - trusted is a subset of had, and so is *unsynced*, what no barrier has covered yet;
//! - a slot says *had* only of what a barrier has covered.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sutler_protocol::{ChunkIndex, ChunkRanges, ContentId, Geometry, HashList};

use crate::about::{About, Offer};
use crate::backend::{Open, StoreFile};
use crate::eviction::Day;
use crate::layout::{self, Kind};
use crate::quota::Reservation;
use crate::record::{DigestCheck, Record, Slots};
use crate::store::Inner;

mod adopt;
mod checkpoint;
mod commit;
mod place;
mod read;

pub(crate) use checkpoint::Standing;
pub use checkpoint::{CHECKPOINT_BYTES, CHECKPOINT_INTERVAL, CheckpointError};
pub use commit::{CommitError, Single};
pub(crate) use place::is_linked;
pub use read::ReadError;

/// A content that the store knows, with whatever part of it is had.
///
/// Cheap to clone; every handle of one content shares its state. While one lives, the content is
/// leased: it is not evicted.
#[derive(Clone)]
pub struct Content(pub(crate) Arc<Shared>);

/// What the handles of one content share.
pub(crate) struct Shared {
    pub(crate) store: Arc<Inner>,
    hashes: HashList,
    /// Of a content of several chunks, once opened. Small ones are opened for each use, so that
    /// thousands of leases do not need as many descriptors.
    data: Mutex<Option<Arc<dyn StoreFile>>>,
    state: Mutex<State>,
    /// Held through the writing of a slot, which is what it puts in order; `None` until there is a
    /// record on the disk.
    slots: Mutex<Option<Slots>>,
}

/// What is known of a content's chunks now.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) about: About,
    pub(crate) sha256: DigestCheck,
    pub(crate) last_access: Day,
    pub(crate) complete: bool,
    pub(crate) had: ChunkRanges,
    pub(crate) trusted: ChunkRanges,
    pub(crate) unsynced: ChunkRanges,
    pub(crate) unsynced_bytes: u64,
    /// Barriers that had failed when a small content was last begun to be written.
    pub(crate) barriers_failed: u64,
    /// When [`Content::checkpoint_due`] first saw what is unsynced now.
    pub(crate) unsynced_since: Option<Instant>,
    /// Whether the newest slot says something else than this, chunks aside.
    pub(crate) changed: bool,
    /// Whether there is a data file of the right length.
    pub(crate) data_made: bool,
    /// Room for what is not had. Absent while nothing is being fetched.
    pub(crate) reservation: Option<Reservation>,
}

/// What a start has learnt of a content, kept when its last handle goes.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) trusted: ChunkRanges,
    pub(crate) unsynced: ChunkRanges,
    pub(crate) barriers_failed: u64,
    pub(crate) last_access: Day,
    pub(crate) changed: bool,
}

impl Content {
    /// Returns which content it is.
    pub fn id(&self) -> ContentId {
        self.0.hashes.id()
    }

    /// Returns its division into chunks. The length is a claim until the last chunk is had.
    pub fn geometry(&self) -> Geometry {
        self.0.hashes.geometry()
    }

    /// Returns its hash list.
    pub fn hashes(&self) -> &HashList {
        &self.0.hashes
    }

    /// Returns what is known of it beside its bytes.
    pub fn about(&self) -> About {
        self.0.state().about.clone()
    }

    /// Returns the chunks that were verified and written.
    pub fn had(&self) -> ChunkRanges {
        self.0.state().had.clone()
    }

    /// Returns whether a chunk is had.
    pub fn has(&self, chunk: ChunkIndex) -> bool {
        self.0.state().had.contains(chunk)
    }

    /// Returns whether all of it is had, durable, and agrees with the vendor's digest, if one is
    /// claimed.
    pub fn is_complete(&self) -> bool {
        self.0.state().complete
    }

    /// Returns whether peers may have it.
    pub fn is_offered(&self) -> bool {
        self.0.state().about.offer == Offer::Peers
    }

    /// Returns whether a vendor's digest is claimed of it that nobody has checked yet. Until then
    /// nothing of it is for others.
    pub fn awaits_digest(&self) -> bool {
        let state = self.0.state();
        !state.complete && state.about.sha256.is_some() && state.sha256 == DigestCheck::Pending
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Content").field(&self.id()).finish()
    }
}

impl Shared {
    pub(crate) fn new(
        store: Arc<Inner>,
        hashes: HashList,
        state: State,
        slots: Option<Slots>,
    ) -> Self {
        let (state, slots) = (Mutex::new(state), Mutex::new(slots));
        Self { store, hashes, data: Mutex::new(None), state, slots }
    }

    pub(crate) fn id(&self) -> ContentId {
        self.hashes.id()
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.hashes.geometry()
    }

    pub(crate) fn hashes(&self) -> &HashList {
        &self.hashes
    }

    /// Returns whether the content is one chunk, without a list file, and commits in groups.
    pub(crate) fn is_small(&self) -> bool {
        self.geometry().chunks() == 1
    }

    /// Locks the state. A panic elsewhere leaves it whole: no method panics between two changes.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn slots(&self) -> MutexGuard<'_, Option<Slots>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the data file, which exists.
    pub(crate) fn data(&self) -> io::Result<Arc<dyn StoreFile>> {
        let open = |open| self.store.backend.open(&layout::file(self.id(), Kind::Data), open);
        if self.is_small() {
            return Ok(Arc::from(open(Open::Read)?));
        }
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*data {
            return Ok(Arc::clone(file));
        }
        let file: Arc<dyn StoreFile> = Arc::from(open(Open::Write)?);
        *data = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Returns what a slot says of `state`, with only those chunks that a barrier has covered.
    pub(crate) fn record(&self, state: &State) -> Record {
        let mut had = state.had.clone();
        for chunk in state.unsynced.iter() {
            had.remove(chunk);
        }
        Record {
            id: self.id(),
            len: self.geometry().len(),
            complete: state.complete && had.is_full(),
            about: state.about.clone(),
            sha256: state.sha256,
            last_access: state.last_access,
            had,
        }
    }

    /// Returns the bytes in the chunks of a set.
    pub(crate) fn bytes_of(&self, chunks: &ChunkRanges) -> u64 {
        bytes_of(self.geometry(), chunks)
    }
}

/// Returns the bytes in the chunks of a set.
pub(crate) fn bytes_of(geometry: Geometry, chunks: &ChunkRanges) -> u64 {
    let last = geometry.last();
    let whole = u64::from(chunks.count()) * geometry.chunk_bytes();
    if !chunks.contains(last) {
        return whole;
    }
    let place = geometry.chunk(last);
    whole - geometry.chunk_bytes() + (place.end - place.start)
}

impl State {
    /// Returns the state of a content of which nothing is had.
    pub(crate) fn new(chunks: u32, about: About, today: Day) -> Self {
        Self {
            about,
            sha256: DigestCheck::Pending,
            last_access: today,
            complete: false,
            had: ChunkRanges::empty(chunks),
            trusted: ChunkRanges::empty(chunks),
            unsynced: ChunkRanges::empty(chunks),
            unsynced_bytes: 0,
            barriers_failed: 0,
            unsynced_since: None,
            changed: false,
            data_made: false,
            reservation: None,
        }
    }

    /// Counts a chunk as had and trusted: its bytes were verified and are in the file, though no
    /// barrier has covered them.
    pub(crate) fn gain(&mut self, chunk: ChunkIndex, bytes: u64, store: &Inner) {
        self.trusted.insert(chunk);
        if self.unsynced.insert(chunk) {
            self.unsynced_bytes += bytes;
        }
        if self.had.insert(chunk) {
            match &mut self.reservation {
                Some(reservation) => reservation.spend(bytes),
                None => store.quota.found(bytes),
            }
        }
    }

    /// Counts a chunk as lacking: its bytes are wrong, gone or in doubt.
    pub(crate) fn lose(&mut self, chunk: ChunkIndex, bytes: u64, store: &Inner) {
        self.trusted.remove(chunk);
        self.complete = false;
        if self.unsynced.remove(chunk) {
            self.unsynced_bytes = self.unsynced_bytes.saturating_sub(bytes);
        }
        if self.had.remove(chunk) {
            self.changed = true;
            match &mut self.reservation {
                Some(reservation) => reservation.unspend(bytes),
                None => store.quota.free(bytes),
            }
        }
    }
}

impl Drop for Shared {
    /// Ends the lease. No disk work here: a handle may be dropped where nothing may block. What no
    /// barrier has covered is remembered until the content is opened again.
    fn drop(&mut self) {
        let id = self.id();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let chunks = state.had.chunks();
        let take = |set: &mut ChunkRanges| std::mem::replace(set, ChunkRanges::empty(chunks));
        let recorded = self.slots.get_mut().unwrap_or_else(PoisonError::into_inner).is_some();
        let memory = Memory {
            trusted: take(&mut state.trusted),
            unsynced: take(&mut state.unsynced),
            barriers_failed: state.barriers_failed,
            last_access: state.last_access,
            changed: state.changed && recorded,
        };
        self.store.release(id, memory);
    }
}
