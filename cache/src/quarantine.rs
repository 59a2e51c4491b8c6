//! Bytes that nothing vouches for yet: of a content whose hash list cannot be had, or whose id
//! nobody knows.
//!
//! They come from one origin, in any order, and the fetch resumes after a stop. When all are there,
//! [`Quarantine::promote`] hashes the whole, once; if it agrees with the digest or id that was asked
//! for, it becomes a content by a rename. A file that a user takes in from a URL may have neither:
//! then it is what its origin sent, and only its origin can say that its parts are of one version.
//!
//! Invariants:
//! - nothing here is listed, exported or served to peers; only who fetches may have it read, by a
//!   [`PartReader`], for a client who asked for whatever lies at a URL;
//! - bytes of two versions of a file are never mixed: [`Quarantine::restart`] forgets the first;
//! - bytes that turned out wrong are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sutler_protocol::geometry::{CHUNK_BYTES_MIN, CONTENT_BYTES_MAX, TooLong};
use sutler_protocol::{ChunkIndex, ContentId, ContentName, Sha256Digest};

use crate::about::{About, Offer, Origin};
use crate::backend::{Backend, Open, StoreFile, read_file, replace};
use crate::content::{CHECKPOINT_BYTES, CHECKPOINT_INTERVAL};
use crate::eviction::Standing;
use crate::hashing::{Digests, PumpError, Want, pump};
use crate::import::{Imported, Novelty, StoredReader};
use crate::layout::QUARANTINE;
use crate::quota::Reservation;
use crate::store::{CompleteError, CreateError, Inner, Store, lock};

mod part;

use part::{PART_BYTES_MAX, Part};

/// Age after which a start removes bytes that nobody came back for.
const AGE_MAX: Duration = Duration::from_hours(7 * 24);

/// What the whole must agree with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuarantineKey {
    /// The digest that a vendor published.
    Digest(Sha256Digest),
    /// A content's id.
    Content(ContentId),
    /// Nothing: whatever this place has is wanted.
    Place(Place),
}

/// Where a file is taken from of which nobody said what it must be: the BLAKE3 of its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(ContentId);

/// Reads bytes in quarantine while more come, for a client who judges them himself. What it reads
/// stays readable when the bytes become a content, and after they were removed.
#[derive(Clone, Debug)]
pub struct PartReader(Arc<dyn StoreFile>);

/// Bytes in quarantine, for whoever fetches them. Dropping it keeps them for another attempt.
pub struct Quarantine {
    inner: Arc<Inner>,
    key: QuarantineKey,
    file: Arc<dyn StoreFile>,
    /// Written over after each write; absent where that is of no use.
    hint: Option<Box<dyn StoreFile>>,
    progress: Mutex<Progress>,
    /// Held through a checkpoint.
    checkpoint: Mutex<()>,
}

#[derive(Debug)]
struct Progress {
    part: Part,
    reservation: Option<Reservation>,
    /// Bytes of this part that the account counts as used.
    used_bytes: u64,
    unsynced_bytes: u64,
    unsynced_since: Option<Instant>,
}

/// What the store remembers of each part: the bytes that its account counts, and who has it.
pub(crate) type Parts = BTreeMap<QuarantineKey, Idle>;

/// A part's place in the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Nobody has it open: it may be removed when room is needed.
    Used(u64),
    /// Its [`Quarantine`] knows.
    Open,
}

/// Why bytes were not taken into quarantine.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// Somebody fetches the same already.
    #[error("{key} is being fetched already")]
    Busy {
        /// What the whole must agree with.
        key: QuarantineKey,
    },
    /// Everything that may be evicted has been. Retry once a lease is released.
    #[error("make room for {needed_bytes} bytes")]
    Full {
        /// Bytes that are missing.
        needed_bytes: u64,
    },
    /// The bytes reach beyond the length that was announced, or any that a content may have.
    #[error("byte {end} of {key} lies beyond its {len} bytes")]
    PastEnd {
        /// What the whole must agree with.
        key: QuarantineKey,
        /// The end of the bytes.
        end: u64,
        /// The length that was announced, or the greatest that may be.
        len: u64,
    },
    /// The disk refused.
    #[error("keep the bytes of {key}")]
    Disk {
        /// What the whole must agree with.
        key: QuarantineKey,
        /// What the disk answered.
        source: io::Error,
    },
}

/// Why bytes in quarantine did not become a content.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// Some are lacking. They stay, for another attempt.
    #[error("{key} lacks {bytes} bytes")]
    Lacking {
        /// What the whole must agree with.
        key: QuarantineKey,
        /// How many are lacking.
        bytes: u64,
    },
    /// The whole is not what was asked for. The bytes have been removed; their source is to blame.
    #[error("the bytes for {expected} are those of {found}")]
    Mismatch {
        /// What was asked for.
        expected: ContentName,
        /// What came.
        found: ContentName,
    },
    /// The whole could not be hashed. The bytes stay.
    #[error("read back the bytes of {key}")]
    Read {
        /// What the whole must agree with.
        key: QuarantineKey,
        /// What the disk answered.
        source: io::Error,
    },
    /// The whole is right, but the store has no room or no disk for it as a content.
    #[error("make a content of {key}")]
    Create {
        /// What the whole must agree with.
        key: QuarantineKey,
        /// What stood in the way.
        source: Box<CreateError>,
    },
    /// The disk refused to give the bytes their place.
    #[error("put {key} in its place")]
    Place {
        /// What the whole must agree with.
        key: QuarantineKey,
        /// What the disk answered.
        source: io::Error,
    },
    /// The content could not be made durable.
    #[error("complete the content of {key}")]
    Complete {
        /// What the whole must agree with.
        key: QuarantineKey,
        /// What stood in the way.
        source: Box<CompleteError>,
    },
}

impl Store {
    /// Opens the quarantine of what must agree with `key`, with whatever an earlier attempt left.
    ///
    /// `len` is what is known of the length, in bytes; where an earlier attempt knew another, its
    /// bytes are forgotten.
    ///
    /// # Errors
    ///
    /// [`QuarantineError`]; among them [`QuarantineError::Busy`] if somebody has it open.
    pub fn quarantine(
        &self,
        key: QuarantineKey,
        len: Option<u64>,
    ) -> Result<Quarantine, QuarantineError> {
        let used_bytes = match lock(&self.inner.parts).insert(key, Idle::Open) {
            Some(Idle::Open) => return Err(QuarantineError::Busy { key }),
            Some(Idle::Used(bytes)) => bytes,
            None => 0,
        };
        let opened = Quarantine::open(&self.inner, key, used_bytes);
        let quarantine = opened.map_err(|source| {
            lock(&self.inner.parts).insert(key, Idle::Used(used_bytes));
            QuarantineError::Disk { key, source }
        })?;
        let known = lock(&quarantine.progress).part.len;
        match (known, len) {
            (Some(known), Some(len)) if known != len => quarantine.restart(Some(len), None)?,
            (known, len) => quarantine.expect_len(known.or(len))?,
        }
        Ok(quarantine)
    }
}

impl Quarantine {
    /// Returns what the whole must agree with.
    pub fn key(&self) -> QuarantineKey {
        self.key
    }

    /// Returns the length of the whole, as far as it was announced, in bytes.
    pub fn expected_len(&self) -> Option<u64> {
        lock(&self.progress).part.len
    }

    /// Returns how many bytes are had without a gap from the first on.
    pub fn len(&self) -> u64 {
        lock(&self.progress).part.had.prefix()
    }

    /// Returns whether the first byte is lacking.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes are had, wherever they lie.
    pub fn had_bytes(&self) -> u64 {
        lock(&self.progress).part.had.bytes()
    }

    /// Returns the byte ranges that are lacking, in order. While the length is unknown, the last
    /// reaches to the greatest length that may be.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let progress = lock(&self.progress);
        progress.part.had.gaps(progress.part.len.unwrap_or(CONTENT_BYTES_MAX))
    }

    /// Returns what reads the bytes while they come. The caller knows how many there are, and that
    /// they are void after [`Quarantine::restart`].
    pub fn reader(&self) -> PartReader {
        PartReader(Arc::clone(&self.file))
    }

    /// Returns where the bytes came from, with the validators to resume by.
    pub fn origin(&self) -> Option<Origin> {
        lock(&self.progress).part.origin.clone()
    }

    /// Forgets all bytes and begins anew: with another origin, or another version from the same.
    /// Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`QuarantineError`].
    pub fn restart(
        &self,
        len: Option<u64>,
        origin: Option<&Origin>,
    ) -> Result<(), QuarantineError> {
        let _checkpoint = lock(&self.checkpoint);
        let part = {
            let mut progress = lock(&self.progress);
            self.inner.quota.free(std::mem::take(&mut progress.used_bytes));
            progress.reservation = None;
            progress.unsynced_bytes = 0;
            let epoch = progress.part.epoch + 1;
            progress.part =
                Part { epoch, len, origin: origin.cloned(), had: part::Spans::default() };
            progress.part.clone()
        };
        // The state first: with the old one, the new bytes would be taken for some of the old.
        self.write_state(&part)
            .and_then(|()| self.file.set_len(0))
            .map_err(|source| QuarantineError::Disk { key: self.key, source })?;
        self.expect_len(len)
    }

    /// Says where the bytes come from from now on, for a later attempt to resume by.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::Disk`] if that could not be written down.
    pub fn set_origin(&self, origin: &Origin) -> Result<(), QuarantineError> {
        let changed = {
            let mut progress = lock(&self.progress);
            let changed = progress.part.origin.as_ref() != Some(origin);
            progress.part.origin = Some(origin.clone());
            changed
        };
        if changed { self.checkpoint() } else { Ok(()) }
    }

    /// Says how long the whole is, once that is known, and sets room aside.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::PastEnd`] if more bytes are had or no content is that long;
    /// [`QuarantineError::Full`].
    pub fn expect_len(&self, len: Option<u64>) -> Result<(), QuarantineError> {
        let Some(len) = len else { return Ok(()) };
        let lacking = {
            let mut progress = lock(&self.progress);
            let end = progress.part.had.end();
            if end > len || len > CONTENT_BYTES_MAX {
                let (end, len) = (end.max(len), len.min(CONTENT_BYTES_MAX));
                return Err(QuarantineError::PastEnd { key: self.key, end, len });
            }
            progress.part.len = Some(len);
            let reserved = progress.reservation.as_ref().map_or(0, Reservation::bytes);
            (len - progress.part.had.bytes()).saturating_sub(reserved)
        };
        self.reserve(lacking)
    }

    /// Keeps bytes. Several threads may do so at the same time.
    ///
    /// # Errors
    ///
    /// [`QuarantineError`]. What was kept before stays.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), QuarantineError> {
        let end = offset.saturating_add(bytes.len() as u64);
        let short = {
            let progress = lock(&self.progress);
            let len = progress.part.len.unwrap_or(CONTENT_BYTES_MAX);
            if end > len {
                return Err(QuarantineError::PastEnd { key: self.key, end, len });
            }
            let reserved = progress.reservation.as_ref().map_or(0, Reservation::bytes);
            reserved < bytes.len() as u64 && progress.part.len.is_none()
        };
        if short {
            // No more than what has come: to evict for what might come would be rash.
            self.reserve(bytes.len() as u64)?;
        }
        let refused = |source| QuarantineError::Disk { key: self.key, source };
        self.file.write_all_at(bytes, offset).map_err(refused)?;
        let mut progress = lock(&self.progress);
        let before = progress.part.had.bytes();
        progress.part.had.insert(offset..end);
        let gained = progress.part.had.bytes() - before;
        match &mut progress.reservation {
            Some(reservation) => reservation.spend(gained),
            None => self.inner.quota.found(gained),
        }
        progress.used_bytes += gained;
        progress.unsynced_bytes += bytes.len() as u64;
        if let (Some(file), Some(hint)) = (&self.hint, progress.part.hint())
            && let Err(error) = file.write_all_at(&hint, 0)
        {
            tracing::debug!(%error, "hint not written");
        }
        Ok(())
    }

    /// Returns whether [`Quarantine::checkpoint`] is due, as for a content.
    pub fn checkpoint_due(&self, now: Instant) -> bool {
        let mut progress = lock(&self.progress);
        if progress.unsynced_bytes == 0 {
            return false;
        }
        let since = *progress.unsynced_since.get_or_insert(now);
        progress.unsynced_bytes >= CHECKPOINT_BYTES || now >= since + CHECKPOINT_INTERVAL
    }

    /// Makes what is had durable. Writes go on meanwhile, for the next checkpoint.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::Disk`]. If the bytes could not be synced, what is had is in doubt and is
    /// forgotten.
    pub fn checkpoint(&self) -> Result<(), QuarantineError> {
        let refused = |source| QuarantineError::Disk { key: self.key, source };
        let checkpoint = lock(&self.checkpoint);
        let part = {
            let mut progress = lock(&self.progress);
            progress.unsynced_bytes = 0;
            progress.unsynced_since = None;
            progress.part.clone()
        };
        if let Err(source) = self.file.sync_data() {
            drop(checkpoint);
            // Whatever this says, the first answer is the one to give.
            drop(self.restart(part.len, part.origin.as_ref()));
            return Err(refused(source));
        }
        self.write_state(&part).map_err(refused)
    }

    /// Hashes the whole, once, and makes it a complete content if it agrees with the key, and with
    /// the digest in `about` if that claims one.
    ///
    /// # Errors
    ///
    /// [`PromoteError`]. On [`PromoteError::Mismatch`] the bytes are gone; otherwise they stay.
    pub fn promote(self, about: &About) -> Result<Imported, PromoteError> {
        let key = self.key;
        let len = self.whole_len()?;
        let mut about = about.clone();
        let want = match key {
            QuarantineKey::Digest(_) => Want::HashesAndDigest,
            QuarantineKey::Content(_) | QuarantineKey::Place(_) if about.sha256.is_some() => {
                Want::HashesAndDigest
            }
            // By its digest it is found once something vouches for it.
            QuarantineKey::Place(_) if about.offer == Offer::Nobody => Want::HashesAndDigest,
            QuarantineKey::Content(_) | QuarantineKey::Place(_) => Want::Hashes,
        };
        let digests = self.hash(len, want).map_err(|source| PromoteError::Read { key, source })?;
        if let Some((expected, found)) = mismatch(key, &about, &digests) {
            self.discard();
            return Err(PromoteError::Mismatch { expected, found });
        }
        about.sha256 = digests.sha256;
        self.settle(digests, &about)
    }

    /// Removes all bytes.
    pub fn discard(self) {
        let mut progress = lock(&self.progress);
        self.inner.quota.free(std::mem::take(&mut progress.used_bytes));
        progress.reservation = None;
        drop(progress);
        remove(&*self.inner.backend, self.key);
    }

    fn open(inner: &Arc<Inner>, key: QuarantineKey, used_bytes: u64) -> io::Result<Self> {
        let backend = &*inner.backend;
        let file: Arc<dyn StoreFile> =
            Arc::from(backend.open(&path(key, Kind::Part), Open::Create)?);
        // A disk that is not real cannot say whether the machine restarted.
        let hint = match backend.disk_path() {
            Some(_) => Some(backend.open(&path(key, Kind::Hint), Open::Create)?),
            None => None,
        };
        let mut part = read_file(backend, &path(key, Kind::State), PART_BYTES_MAX)
            .ok()
            .and_then(|bytes| Part::from_state(&bytes))
            .unwrap_or_default();
        if backend.disk_path().is_some()
            && let Ok(bytes) = read_file(backend, &path(key, Kind::Hint), PART_BYTES_MAX)
        {
            part.heed(&bytes);
        }
        let there = file.len()?;
        if part.had.end() > there {
            // State and bytes do not belong together.
            part = Part { epoch: part.epoch + 1, ..Part::default() };
        }
        let counted = part.had.bytes();
        if counted > used_bytes {
            inner.quota.found(counted - used_bytes);
        } else {
            inner.quota.free(used_bytes - counted);
        }
        let progress = Progress {
            part,
            reservation: None,
            used_bytes: counted,
            unsynced_bytes: 0,
            unsynced_since: None,
        };
        let (progress, checkpoint) = (Mutex::new(progress), Mutex::default());
        Ok(Self { inner: Arc::clone(inner), key, file, hint, progress, checkpoint })
    }

    fn reserve(&self, bytes: u64) -> Result<(), QuarantineError> {
        if bytes == 0 {
            return Ok(());
        }
        let reserved = self.inner.reserve(bytes, Standing::Unreferenced);
        let more = reserved.map_err(|needed_bytes| QuarantineError::Full { needed_bytes })?;
        let mut progress = lock(&self.progress);
        match &mut progress.reservation {
            Some(reservation) => reservation.absorb(more),
            None => progress.reservation = Some(more),
        }
        Ok(())
    }

    fn write_state(&self, part: &Part) -> io::Result<()> {
        replace(&*self.inner.backend, &path(self.key, Kind::State), &part.state())
    }

    /// Returns the length of the whole if all of it is there.
    fn whole_len(&self) -> Result<u64, PromoteError> {
        let progress = lock(&self.progress);
        let had = &progress.part.had;
        let len = progress.part.len.unwrap_or(had.end());
        let bytes = len - had.bytes();
        if bytes > 0 {
            return Err(PromoteError::Lacking { key: self.key, bytes });
        }
        Ok(len)
    }

    fn hash(&self, len: u64, want: Want) -> io::Result<Digests> {
        // What an earlier attempt left beyond the end.
        self.file.set_len(len)?;
        let mut source = StoredReader { file: &*self.file, offset: 0 };
        let digests = pump(&mut source, want, |_, _| Ok::<(), TooLong>(()));
        digests.map_err(|error| match error {
            PumpError::Read(source) => source,
            PumpError::TooLong(source) | PumpError::Sink(source) => io::Error::other(source),
        })
    }

    /// Makes a content of what was hashed.
    fn settle(self, digests: Digests, about: &About) -> Result<Imported, PromoteError> {
        let key = self.key;
        let placed = |source| PromoteError::Place { key, source };
        let store = Store { inner: Arc::clone(&self.inner) };
        let len = digests.hashes.geometry().len();
        self.file.sync_data().map_err(placed)?;
        // The content sets its own room aside: for the time being its bytes count once only.
        {
            let mut progress = lock(&self.progress);
            self.inner.quota.free(std::mem::take(&mut progress.used_bytes));
            progress.reservation = None;
        }
        let content = store.create(digests.hashes, about).map_err(|source| {
            self.recount();
            PromoteError::Create { key, source: Box::new(source) }
        })?;
        let whole = content.0.state().had.is_full();
        let novelty = if whole { Novelty::Known } else { Novelty::New };
        if novelty == Novelty::New {
            let stored = if len <= CHUNK_BYTES_MIN {
                let mut bytes = vec![0; len as usize];
                self.file.read_exact_at(&mut bytes, 0).map_err(placed)?;
                content.commit(ChunkIndex(0), &bytes).map_err(io::Error::other)
            } else {
                content.0.place(&path(key, Kind::Part))
            };
            stored.map_err(|source| {
                self.recount();
                PromoteError::Place { key, source }
            })?;
        }
        if let Some(found) = digests.sha256 {
            content.0.digest_agrees(found);
        }
        remove(&*self.inner.backend, key);
        lock(&self.progress).part.had = part::Spans::default();
        store
            .complete(std::slice::from_ref(&content))
            .map_err(|source| PromoteError::Complete { key, source: Box::new(source) })?;
        Ok(Imported { content, novelty })
    }

    /// Counts the bytes as used again: they stay here for now.
    fn recount(&self) {
        let mut progress = lock(&self.progress);
        let bytes = progress.part.had.bytes();
        progress.used_bytes = bytes;
        self.inner.quota.found(bytes);
    }
}

impl Drop for Quarantine {
    /// Lets another attempt have it. No disk work here; after a stop without a checkpoint the hint
    /// tells what is there.
    fn drop(&mut self) {
        let used_bytes = lock(&self.progress).used_bytes;
        let mut parts = lock(&self.inner.parts);
        if used_bytes == 0 {
            parts.remove(&self.key);
        } else {
            parts.insert(self.key, Idle::Used(used_bytes));
        }
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarantine").field("key", &self.key).finish_non_exhaustive()
    }
}

impl fmt::Display for QuarantineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Content(id) => id.fmt(f),
            Self::Place(place) => place.fmt(f),
        }
    }
}

impl PartReader {
    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// What the disk answered; an unexpected end where so many are not there.
    pub fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
}

impl Place {
    /// Returns the place that a URL names.
    pub fn of(url: &str) -> Self {
        Self(ContentId::of(url.as_bytes()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "url-{}", self.0)
    }
}

impl Inner {
    /// Finds the parts that earlier processes left: counts them, or removes the old ones.
    pub(crate) fn find_parts(&self) {
        let names = self.backend.read_dir(Path::new(QUARANTINE)).unwrap_or_default();
        let mut parts = Parts::new();
        let keys: BTreeSet<QuarantineKey> = names.iter().filter_map(|name| key_of(name)).collect();
        for key in keys {
            match age_and_bytes(&*self.backend, key) {
                Ok((age, bytes)) if age < AGE_MAX && bytes > 0 => {
                    self.quota.found(bytes);
                    parts.insert(key, Idle::Used(bytes));
                }
                // Its part went to its place, or nobody came back for it.
                _ => remove(&*self.backend, key),
            }
        }
        *lock(&self.parts) = parts;
    }

    /// Removes the parts that nobody has open, and returns the bytes that this freed. They go
    /// before any content: nothing vouches for them.
    pub(crate) fn discard_idle_parts(&self) -> u64 {
        let mut freed = 0;
        lock(&self.parts).retain(|key, idle| match idle {
            Idle::Open => true,
            Idle::Used(bytes) => {
                remove(&*self.backend, *key);
                self.quota.free(*bytes);
                freed += *bytes;
                false
            }
        });
        freed
    }
}

/// The files of one part.
#[derive(Clone, Copy)]
enum Kind {
    Part,
    State,
    Hint,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Part, Self::State, Self::Hint];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Part => "part",
            Self::State => "state",
            Self::Hint => "hint",
        }
    }
}

fn path(key: QuarantineKey, kind: Kind) -> PathBuf {
    let name = match key {
        // A colon in a file's name is asking for trouble.
        QuarantineKey::Digest(digest) => digest.to_string().replace(':', "-"),
        QuarantineKey::Content(id) => id.to_string(),
        QuarantineKey::Place(place) => place.to_string(),
    };
    Path::new(QUARANTINE).join(format!("{name}.{}", kind.suffix()))
}

/// Returns what a file of a part belongs to.
fn key_of(name: &str) -> Option<QuarantineKey> {
    let (stem, suffix) = name.split_once('.')?;
    Kind::ALL.iter().find(|kind| kind.suffix() == suffix)?;
    if let Some(hex) = stem.strip_prefix("sha256-") {
        return Sha256Digest::from_hex(hex).ok().map(QuarantineKey::Digest);
    }
    if let Some(hex) = stem.strip_prefix("url-") {
        return hex.parse().ok().map(|hash| QuarantineKey::Place(Place(hash)));
    }
    stem.parse().ok().map(QuarantineKey::Content)
}

/// Removes a part's files; what cannot be removed is found again at the next start.
fn remove(backend: &dyn Backend, key: QuarantineKey) {
    for kind in Kind::ALL {
        let removed = backend.remove(&path(key, kind));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%key, %error, "left in quarantine");
        }
    }
}

fn age_and_bytes(backend: &dyn Backend, key: QuarantineKey) -> io::Result<(Duration, u64)> {
    let file = backend.open(&path(key, Kind::Part), Open::Read)?;
    let changed = file.disk_file().and_then(|file| file.metadata().ok()?.modified().ok());
    let age = changed.and_then(|changed| changed.elapsed().ok()).unwrap_or_default();
    Ok((age, file.len()?))
}

/// Returns what was asked for and what came, where these differ.
fn mismatch(
    key: QuarantineKey,
    about: &About,
    digests: &Digests,
) -> Option<(ContentName, ContentName)> {
    let found_id = digests.hashes.id();
    if let QuarantineKey::Content(id) = key
        && id != found_id
    {
        return Some((ContentName::Id(id), ContentName::Id(found_id)));
    }
    let claimed = match key {
        QuarantineKey::Digest(digest) => Some(digest),
        QuarantineKey::Content(_) | QuarantineKey::Place(_) => None,
    };
    let mut claims = claimed.into_iter().chain(about.sha256);
    let found = digests.sha256?;
    let wrong = claims.find(|claimed| *claimed != found)?;
    Some((ContentName::Vendor(wrong), ContentName::Vendor(found)))
}
