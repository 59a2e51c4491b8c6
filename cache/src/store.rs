//! The store: one folder of contents, owned by one process.
//!
//! [`Store`] finds, makes and completes contents; what is done with one is in [`crate::content`].
//!
//! Lock order, where more than one is held: `opening`, then a content's slots, then its state; the
//! maps of the store are locked last and briefly. Of these only `opening`, the slots and
//! `folders` are held while the disk works.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use sutler_protocol::{ContentId, Sha256Digest};

use crate::about::Entry;
use crate::backend::{Backend, Disk, Lock};
use crate::content::{Content, Memory, ReadError, Shared};
use crate::eviction::Day;
use crate::index::{Index, Summary};
use crate::layout;
use crate::quarantine::Parts;
use crate::quota::{Limits, Quota, Usage};
use crate::relocate::place_of;

mod complete;
mod create;
mod find;
mod open;
mod recover;
mod room;
mod scan;
mod standings;

use standings::Standings;

pub use complete::CompleteError;
pub use create::CreateError;
pub use open::{FORMAT_VERSION, OpenError};
pub(crate) use open::{check_format, format_text};
pub use room::{Collected, EvictError};

/// What a store may fill.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreOptions {
    /// Bytes of contents, at most. Absent: the disk is the limit.
    pub bytes_max: Option<NonZeroU64>,
    /// Bytes of the disk that stay free for others.
    pub free_bytes_min: u64,
}

/// A folder of contents that this process owns. Cheap to clone; all clones are the same store.
///
/// Every method may wait for the disk, unless it says otherwise.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What the clones of a store and its contents share.
pub(crate) struct Inner {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) quota: Quota,
    pub(crate) index: Index,
    /// The contents with a lease.
    live: Mutex<BTreeMap<ContentId, Weak<Shared>>>,
    /// What this start has learnt of contents without a lease.
    memory: Mutex<BTreeMap<ContentId, Memory>>,
    /// Held, by first byte of the id, while a content is opened, made or given up, so that each is
    /// opened once.
    opening: [Mutex<()>; OPENING_LOCKS],
    folders: Mutex<Folders>,
    standings: Mutex<Standings>,
    /// What is in quarantine.
    pub(crate) parts: Mutex<Parts>,
    /// Held through a barrier, so that one that fails is known to everybody whom it concerns.
    barrier: Mutex<()>,
    /// Barriers that failed. What was written before one of them returned is in doubt, whatever a
    /// later one says.
    barriers_failed: AtomicU64,
    _lock: Box<dyn Lock>,
}

/// The folders below `contents/`.
#[derive(Debug)]
struct Folders {
    /// Those that exist, by first byte of the id.
    made: BTreeSet<u8>,
    /// Whether a name may not be durable.
    unsynced: bool,
}

/// Enough that opening contents seldom waits for another content's disk.
const OPENING_LOCKS: usize = 16;

/// Contents without a lease of which a start remembers that they are trusted and were used today;
/// others are hashed again, and their records keep an older day.
const MEMORY_MAX: usize = 64 * 1024;

impl Store {
    /// Opens the store in the folder `dir`, or where it was moved to from there, making it if there
    /// is none, and takes it for this process.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; among them [`OpenError::Owned`] if another process has it.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let disk = Disk::open(&place_of(dir)?).map_err(OpenError::Folder)?;
        Self::open_on(Arc::new(disk), options)
    }

    /// Opens the store that lies on `backend`.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_on(backend: Arc<dyn Backend>, options: StoreOptions) -> Result<Self, OpenError> {
        let limits =
            Limits { bytes_max: options.bytes_max, free_bytes_min: options.free_bytes_min };
        Inner::open(backend, limits).map(|inner| Self { inner: Arc::new(inner) })
    }

    /// Returns the content `id` with whatever is had of it, or `None` if the store does not know
    /// it. It cannot be evicted while the handle lives.
    ///
    /// # Errors
    ///
    /// [`ReadError::Read`] if the disk refused, [`ReadError::Record`] if a newer program wrote its
    /// record. A content whose record or list is damaged is rebuilt from what is left, or set aside
    /// and unknown.
    pub fn content(&self, id: ContentId) -> Result<Option<Content>, ReadError> {
        if let Some(content) = self.inner.live(id) {
            return Ok(Some(content));
        }
        let _opening = self.inner.opening(id);
        self.inner.find(id, None)
    }

    /// Returns whether the content `id` is known, as of its last checkpoint, without opening it:
    /// [`Store::content`] may still find that nothing is left of it.
    pub fn knows(&self, id: ContentId) -> bool {
        self.inner.live(id).is_some() || self.inner.index.summary(id).is_some()
    }

    /// Returns the content `id` if somebody has it open. Never waits for the disk.
    pub fn open_content(&self, id: ContentId) -> Option<Content> {
        self.inner.live(id)
    }

    /// Returns every content known, in the order of their ids, as of its last checkpoint.
    pub fn list(&self) -> Vec<Entry> {
        let entry = |(id, summary): (ContentId, Summary)| Entry {
            id,
            len: summary.len,
            had_bytes: summary.had_bytes,
            complete: summary.complete,
            name: summary.name,
            last_access: summary.last_access,
        };
        self.inner.index.summaries().into_iter().map(entry).collect()
    }

    /// Returns the content whose bytes were found to have this digest.
    pub fn by_digest(&self, digest: Sha256Digest) -> Option<ContentId> {
        self.inner.index.by_digest(digest).into_iter().next()
    }

    /// Returns the content that is said to come from this URL; of several a complete one, then the
    /// one used last. What is at the URL now may be another.
    pub fn by_url(&self, url: &str) -> Option<ContentId> {
        self.inner.index.by_url(url).into_iter().next()
    }

    /// Throws the index away and makes it anew from the records.
    pub fn rebuild_index(&self) {
        self.inner.index.rebuild();
    }

    /// Returns the bytes that are free on the store's disk, wherever the store was moved to.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.inner.backend.free_bytes()
    }

    /// Returns what the contents take and what is promised to downloads. Never waits for the disk.
    pub fn usage(&self) -> Usage {
        self.inner.quota.usage()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.inner.backend).finish()
    }
}

impl Inner {
    /// Returns the handle that others have of a content, if any.
    pub(crate) fn live(&self, id: ContentId) -> Option<Content> {
        lock(&self.live).get(&id).and_then(Weak::upgrade).map(Content)
    }

    /// Locks the opening of this content, and of some others.
    pub(crate) fn opening(&self, id: ContentId) -> MutexGuard<'_, ()> {
        lock(&self.opening[usize::from(id.as_bytes()[0]) % OPENING_LOCKS])
    }

    /// Makes a handle the one that everybody gets. The caller holds `opening`.
    pub(crate) fn enlist(&self, shared: Shared) -> Content {
        let shared = Arc::new(shared);
        lock(&self.live).insert(shared.id(), Arc::downgrade(&shared));
        Content(shared)
    }

    /// Takes what was remembered of a content.
    pub(crate) fn recall(&self, id: ContentId) -> Option<Memory> {
        lock(&self.memory).remove(&id)
    }

    /// Ends a lease: the last handle is being dropped.
    pub(crate) fn release(&self, id: ContentId, memory: Memory) {
        let mut live = lock(&self.live);
        // Somebody may have opened it again since the last handle went.
        if live.get(&id).is_some_and(|weak| weak.strong_count() > 0) {
            return;
        }
        live.remove(&id);
        drop(live);
        let worth = memory.changed || !memory.trusted.is_empty();
        let mut memories = lock(&self.memory);
        if !memory.unsynced.is_empty() || (worth && memories.len() < MEMORY_MAX) {
            memories.insert(id, memory);
        }
    }

    /// Makes the folder that a content's files lie in, if it is not there. Its own name is durable
    /// after [`Inner::sync_folders`] or a barrier.
    pub(crate) fn make_folder(&self, id: ContentId) -> io::Result<()> {
        let first = id.as_bytes()[0];
        let mut folders = lock(&self.folders);
        if !folders.made.contains(&first) {
            self.backend.create_dir(&layout::folder(id))?;
            folders.made.insert(first);
            folders.unsynced = true;
        }
        Ok(())
    }

    /// Makes the names of the contents' folders durable.
    pub(crate) fn sync_folders(&self) -> io::Result<()> {
        let mut folders = lock(&self.folders);
        if folders.unsynced {
            self.backend.sync_dir(Path::new(layout::CONTENTS))?;
            folders.unsynced = false;
        }
        Ok(())
    }

    /// Makes everything durable that was written before the call.
    pub(crate) fn barrier(&self) -> io::Result<()> {
        let _one = lock(&self.barrier);
        let synced = self.backend.sync_all();
        if synced.is_err() {
            self.barriers_failed.fetch_add(1, Ordering::SeqCst);
        }
        synced
    }

    /// Returns how many barriers have failed. Never waits for one.
    pub(crate) fn barriers_failed(&self) -> u64 {
        self.barriers_failed.load(Ordering::SeqCst)
    }
}

/// Returns the day in UTC.
pub(crate) fn today() -> Day {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Day((since.as_secs() / 86_400) as u32)
}

/// Locks one of the store's maps. A panic elsewhere leaves it whole: each change is one call.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
