//! Uploads: the bytes and hash lists that published contents lack here, from whoever has them: admins bring them, and a
//! control that lost them has them back from nodes.
//!
//! Nobody has to say who they are: what may come in is what a signed order names and is not here yet, byte for byte.
//! So a stranger can bring what an admin has published, and nothing else.
//!
//! Always true: nothing appears under a published name that is not what was named; at most [`UPLOADS_MAX`] come in at a
//! time, each once, and only while the disk keeps free what the store keeps free.
//!
//! Everything here blocks.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sutler_cache::backend::{Backend, Disk};
use sutler_cache::{Content as Stored, ExportError};
use sutler_orders::Content;
use sutler_protocol::hash_list::HashListError;
use sutler_protocol::manifest::{TargetFile, TargetPath};
use sutler_protocol::{ContentId, HashList, Sha256Digest};

use crate::repository::{Incoming, PutError, has, has_list, link, put_list};
use crate::state::State;

/// Uploads at a time: more would only share the line of control, and each holds a block of memory.
pub const UPLOADS_MAX: usize = 4;

/// What the file of an upload is called until it is whole: withheld from whoever asks, and apart from that of an admin's
/// command.
const ENDING: &str = "upload.new";

/// What the second name of a file of the store is called until it is in its place. No upload has that name: one would
/// write into the store's file where a kill has left it.
const LINK_ENDING: &str = "link.new";

/// The uploads of one control. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Arc<dyn Backend>,
    free_bytes_min: u64,
    book: Mutex<Book>,
    has_arrived: AtomicBool,
}

#[derive(Default)]
struct Book {
    /// Contents without origins, by the places of their bytes.
    published: BTreeMap<String, Published>,
    /// The lengths of all contents.
    lengths: BTreeMap<ContentId, u64>,
    /// The places of what is coming in, and its lengths.
    under_way: BTreeMap<String, u64>,
}

#[derive(Clone)]
struct Published {
    path: TargetPath,
    file: TargetFile,
    content: ContentId,
    name: String,
    sha256: Sha256Digest,
}

/// Something of a published content that is not here. The order is one to fetch them in: lists first, which are small and
/// with which a vendor's bytes can be checked as they come, then what is short.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// The hash list of one that its origins have.
    List {
        /// How many bytes the content has.
        length: u64,
        /// Which.
        content: ContentId,
    },
    /// The bytes of one without origins, and their list.
    Bytes {
        /// How many there are.
        length: u64,
        /// Which content.
        content: ContentId,
        /// Their SHA-256, as the orders say it.
        sha256: Sha256Digest,
        /// What the content is called.
        name: String,
        /// Where they belong, below the repository's targets.
        place: String,
    },
}

/// A content that is coming in. Dropped before it is settled, it leaves nothing behind.
pub struct Upload {
    incoming: Option<Incoming>,
    place: String,
    length: u64,
    shared: Arc<Shared>,
}

/// Why nothing is taken in. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// No published content has such bytes or such a list here.
    #[error("take {place} in: nothing that is published lies there")]
    Unknown {
        /// What was named.
        place: String,
    },
    /// It is here.
    #[error("take {place} in: it is here already")]
    Here {
        /// What was named.
        place: String,
    },
    /// Somebody brings it, or as many bring something as may.
    #[error("take {place} in: it, or {UPLOADS_MAX} others, are being brought")]
    Busy {
        /// What was named.
        place: String,
    },
    /// It has another length.
    #[error("take {place} in: it has {expected} bytes, and {found} are announced")]
    Length {
        /// What was named.
        place: String,
        /// How many bytes it has.
        expected: u64,
        /// How many were announced.
        found: u64,
    },
    /// The disk would be too full.
    #[error("take {place} in: the disk lacks {missing_bytes} bytes for it")]
    Full {
        /// What was named.
        place: String,
        /// Bytes that are missing.
        missing_bytes: u64,
    },
    /// It is no list of the content.
    #[error("take the hash list of {content} in")]
    List {
        /// Which.
        content: ContentId,
        /// What is wrong with it.
        source: HashListError,
    },
    /// It is another content, or the disk refused.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The store cannot read what it has.
    #[error("read {content} from the store")]
    Store {
        /// Which.
        content: ContentId,
        /// Why not.
        source: ExportError,
    },
    /// The disk refused.
    #[error("look for {place}")]
    Disk {
        /// What was looked for.
        place: String,
        /// What it answered.
        source: io::Error,
    },
}

impl Uploads {
    /// Takes uploads into the repository at `path`, on whose disk `free_bytes_min` bytes stay free. Nothing is published
    /// in it yet, as far as is known here.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub fn open(path: &Path, free_bytes_min: u64) -> io::Result<Self> {
        Ok(Self::on(Arc::new(Disk::open(path)?), free_bytes_min))
    }

    /// Takes uploads into the repository on another kind of disk.
    pub fn on(backend: Arc<dyn Backend>, free_bytes_min: u64) -> Self {
        let (book, has_arrived) = (Mutex::default(), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { backend, free_bytes_min, book, has_arrived }) }
    }

    /// Takes note of what is published.
    pub fn know(&self, state: &State) {
        let (mut published, mut lengths) = (BTreeMap::new(), BTreeMap::new());
        for (path, file) in state.contents() {
            let Ok(Content { bytes, about }) = Content::of(&path, file) else { continue };
            lengths.insert(bytes.blake3, bytes.length);
            if about.origins.is_empty() {
                let place = path.place(file.hashes.prefix().as_deref());
                let (file, content, sha256) = (file.clone(), bytes.blake3, bytes.sha256);
                let name = about.name.to_string();
                published.insert(place, Published { path, file, content, name, sha256 });
            }
        }
        let mut book = self.shared.book();
        (book.published, book.lengths) = (published, lengths);
    }

    /// Begins to take in the bytes that belong at `place` below the repository's targets, and that are said to be
    /// `announced` bytes.
    ///
    /// # Errors
    ///
    /// [`UploadError`].
    pub fn begin(&self, place: &str, announced: u64) -> Result<Upload, UploadError> {
        let Published { path, file, content, .. } = self.shared.missing(place)?;
        let (expected, found, place) = (file.length, announced, place.to_owned());
        if found != expected {
            return Err(UploadError::Length { place, expected, found });
        }
        // Its own place first: what ends behind it is undone by its drop.
        let mut upload = self.shared.reserve(place, expected)?;
        let backend = Arc::clone(&self.shared.backend);
        upload.incoming = Some(Incoming::begin(backend, (&path, &file), content, ENDING)?);
        Ok(upload)
    }

    /// Gives the bytes of a content that the store has the place where they are lacking: as a second name of the store's
    /// file where the disk can do that, else as a copy. It is durable then. Whoever has checked all digests that the
    /// orders say of it calls this.
    ///
    /// # Errors
    ///
    /// [`UploadError`].
    pub fn give(&self, place: &str, stored: &Stored) -> Result<(), UploadError> {
        let Published { path, file, content: expected, .. } = self.shared.missing(place)?;
        let found = stored.id();
        if found != expected {
            return Err(PutError::Other { path, expected, found }.into());
        }
        // A second name takes no room.
        let upload = self.shared.reserve(place.to_owned(), 0)?;
        let backend = &*self.shared.backend;
        put_list(backend, found, file.length, stored.hashes().as_bytes())?;
        let linked = link(backend, (&path, &file), LINK_ENDING, |beside| stored.link(beside));
        if linked.map_err(PutError::Write)? {
            return upload.settle().map_err(UploadError::Put);
        }
        drop(upload);
        let mut upload = self.begin(place, file.length)?;
        let copied = stored.write_to(&mut upload);
        copied.map_err(|source| UploadError::Store { content: found, source })?;
        upload.settle().map_err(UploadError::Put)
    }

    /// Returns what is not here of published contents, in the order of [`Lack`].
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub fn lacks(&self) -> io::Result<Vec<Lack>> {
        let (published, lengths) = {
            let book = self.shared.book();
            (book.published.clone(), book.lengths.clone())
        };
        let backend = &*self.shared.backend;
        lacks(
            published,
            lengths,
            |one| has(backend, &one.path, &one.file),
            |content, length| has_list(backend, content, length),
        )
    }

    /// Takes in the hash list of a published content.
    ///
    /// # Errors
    ///
    /// [`UploadError`].
    pub fn put_list(&self, content: ContentId, list: &[u8]) -> Result<(), UploadError> {
        let place = || format!("lists/{content}");
        let length = self.shared.book().lengths.get(&content).copied();
        let length = length.ok_or_else(|| UploadError::Unknown { place: place() })?;
        let here = has_list(&*self.shared.backend, content, length);
        if here.map_err(|source| UploadError::Disk { place: place(), source })? {
            return Err(UploadError::Here { place: place() });
        }
        let list = HashList::verify(list, content, length)
            .map_err(|source| UploadError::List { content, source })?;
        // Held while it is written: of two the second finds it here.
        let book = self.shared.book();
        put_list(&*self.shared.backend, content, length, list.as_bytes())?;
        drop(book);
        Ok(())
    }

    /// Returns whether bytes have arrived since this was asked last.
    pub fn have_arrived(&self) -> bool {
        self.shared.has_arrived.swap(false, Ordering::AcqRel)
    }
}

/// Returns what is not here of what is published, where `has` says which bytes are, and `has_list` which lists.
fn lacks(
    published: BTreeMap<String, Published>,
    mut lengths: BTreeMap<ContentId, u64>,
    has: impl Fn(&Published) -> io::Result<bool>,
    has_list: impl Fn(ContentId, u64) -> io::Result<bool>,
) -> io::Result<Vec<Lack>> {
    let mut lacks = Vec::new();
    for (place, one) in published {
        if !has(&one)? {
            let Published { file, content, name, sha256, .. } = one;
            // Its list comes with it.
            lengths.remove(&content);
            lacks.push(Lack::Bytes { length: file.length, content, sha256, name, place });
        }
    }
    for (content, length) in lengths {
        if !has_list(content, length)? {
            lacks.push(Lack::List { length, content });
        }
    }
    lacks.sort_unstable();
    Ok(lacks)
}

impl Shared {
    /// Returns what is published at `place` and is not here.
    fn missing(&self, place: &str) -> Result<Published, UploadError> {
        let place = || place.to_owned();
        let published = self.book().published.get(&place()).cloned();
        let published = published.ok_or_else(|| UploadError::Unknown { place: place() })?;
        let here = has(&*self.backend, &published.path, &published.file);
        if here.map_err(|source| UploadError::Disk { place: place(), source })? {
            return Err(UploadError::Here { place: place() });
        }
        Ok(published)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a place and its bytes aside for one upload.
    fn reserve(self: &Arc<Self>, place: String, length: u64) -> Result<Upload, UploadError> {
        let mut book = self.book();
        if book.under_way.len() >= UPLOADS_MAX || book.under_way.contains_key(&place) {
            return Err(UploadError::Busy { place });
        }
        // A disk that does not tell is taken for full of room: writing will find out.
        let free_bytes = self.backend.free_bytes().unwrap_or(u64::MAX);
        let promised: u64 = book.under_way.values().sum();
        let wanted = promised.saturating_add(length).saturating_add(self.free_bytes_min);
        let missing_bytes = wanted.saturating_sub(free_bytes);
        if missing_bytes > 0 {
            return Err(UploadError::Full { place, missing_bytes });
        }
        book.under_way.insert(place.clone(), length);
        Ok(Upload { incoming: None, place, length, shared: Arc::clone(self) })
    }
}

impl Upload {
    /// Returns how many bytes it has.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// [`PutError`], as soon as it is longer than it may be; it is then to be dropped.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), PutError> {
        self.incoming.as_mut().map_or(Ok(()), |incoming| incoming.take(piece))
    }

    /// Puts it into its place, if all of it has come and is what was named. It is durable then.
    ///
    /// # Errors
    ///
    /// [`PutError`].
    pub fn settle(mut self) -> Result<(), PutError> {
        self.incoming.take().map_or(Ok(()), Incoming::settle)?;
        self.shared.has_arrived.store(true, Ordering::Release);
        Ok(())
    }
}

impl Write for Upload {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.take(piece).map_err(io::Error::other)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // What lies beside the place goes before the next may begin.
        drop(self.incoming.take());
        self.shared.book().under_way.remove(&self.place);
    }
}
