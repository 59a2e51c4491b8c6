//! Files that were asked for a moment ago, ready to be given out without a look into the store.
//!
//! What lies here cannot be evicted, so it lies here for [`IDLE_MAX`] after its last use at most, and
//! there is room for [`ROOM`]. A large file holds a file handle and a hash list, and takes the room of
//! [`LARGE`] small ones.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sutler_cache::Content;
use sutler_protocol::Sha256Digest;

use super::flight::Label;

/// Small files on the shelf, at most. A crowd of machines that install the same asks for some thousands.
const ROOM: usize = 8_192;

/// How many small files a large one counts as: 256 of them hold less than 128 MiB and their handles.
const LARGE: usize = 32;

/// How long a file lies there unused.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);

/// A file that is held.
#[derive(Clone, Debug)]
pub(super) struct Shelved {
    /// Its bytes, all of them.
    pub(super) content: Content,
    /// What its origin said of it.
    pub(super) label: Label,
    /// The digest of its bytes, where it was computed.
    pub(super) sha256: Option<Sha256Digest>,
}

/// The shelf, by URL.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Files>);

#[derive(Debug, Default)]
struct Files {
    by_url: HashMap<String, (Shelved, Instant)>,
    /// What they take of [`ROOM`].
    taken: usize,
}

impl Shelved {
    /// Returns a content as a file of the origin at `url`; `None` if it is not complete.
    pub(super) fn of(content: Content, url: &str) -> Option<Self> {
        if !content.is_complete() {
            return None;
        }
        let about = content.about();
        let origin = about.origins.into_iter().find(|origin| origin.url == url);
        let (etag, last_modified) =
            origin.map_or((None, None), |origin| (origin.etag, origin.last_modified));
        let len = Some(content.geometry().len());
        let label = Label { etag, last_modified, len };
        Some(Self { content, label, sha256: about.sha256 })
    }
}

impl Shelf {
    /// Returns the file of a URL.
    pub(super) fn take(&self, url: &str, now: Instant) -> Option<Shelved> {
        let mut files = self.files();
        let (shelved, used) = files.by_url.get_mut(url)?;
        if !shelved.content.is_complete() {
            // It was damaged, or given up.
            files.remove(url);
            return None;
        }
        *used = now;
        Some(shelved.clone())
    }

    /// Puts the file of a URL there.
    pub(super) fn put(&self, url: &str, shelved: Shelved, now: Instant) {
        let mut files = self.files();
        files.remove(url);
        files.taken += shelved.room();
        files.by_url.insert(url.to_owned(), (shelved, now));
        if files.taken > ROOM {
            files.halve();
        }
    }

    /// Removes the file of a URL.
    pub(super) fn remove(&self, url: &str) {
        self.files().remove(url);
    }

    /// Removes what was not used lately.
    pub(super) fn sweep(&self, now: Instant) {
        self.files().retain(|used| now.saturating_duration_since(used) < IDLE_MAX);
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Each change leaves the map whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelved {
    fn room(&self) -> usize {
        if self.content.geometry().chunks() > 1 { LARGE } else { 1 }
    }
}

impl Files {
    fn remove(&mut self, url: &str) {
        if let Some((shelved, _)) = self.by_url.remove(url) {
            self.taken -= shelved.room();
        }
    }

    fn retain(&mut self, keep: impl Fn(Instant) -> bool) {
        let taken = &mut self.taken;
        self.by_url.retain(|_, (shelved, used)| {
            let stays = keep(*used);
            if !stays {
                *taken -= shelved.room();
            }
            stays
        });
    }

    /// Removes the half that was used longest ago: at once, because looking for it costs.
    fn halve(&mut self) {
        let mut used: Vec<Instant> = self.by_url.values().map(|(_, used)| *used).collect();
        let middle = used.len() / 2;
        let (_, middle, _) = used.select_nth_unstable(middle);
        let middle = *middle;
        self.retain(|used| used >= middle);
        // All of them were used at the same moment, or the newer half is of large ones.
        while self.taken > ROOM {
            let Some(url) = self.by_url.keys().next().cloned() else { break };
            self.remove(&url);
        }
    }
}

#[cfg(test)]
mod tests {
    use sutler_cache::{About, ImportFrom, Store, StoreOptions};

    use super::*;

    fn shelved(store: &Store, number: u32, len: usize) -> Shelved {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(len, 0);
        let from = ImportFrom::Stream(&mut &bytes[..]);
        let imported = store.import(from, &About::default()).expect("imported");
        Shelved::of(imported.content, "http://a/x").expect("complete")
    }

    #[test]
    fn what_was_used_longest_ago_makes_room_and_large_files_take_more_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), StoreOptions::default()).expect("a store");
        let (shelf, start) = (Shelf::default(), Instant::now());
        let at = |number: usize| start + Duration::from_millis(number as u64);
        let small = shelved(&store, 1, 100);
        for number in 0..ROOM {
            shelf.put(&number.to_string(), small.clone(), at(number));
        }
        assert_eq!(shelf.files().by_url.len(), ROOM);
        assert!(shelf.take("0", at(ROOM)).is_some());
        shelf.put("one more", small, at(ROOM));
        assert!(shelf.files().by_url.len() <= ROOM / 2 + 2);
        assert!(shelf.take("0", at(ROOM)).is_some() && shelf.take("1", at(ROOM)).is_none());

        let large = shelved(&store, 2, 200_000);
        for number in 0..2 * ROOM / LARGE {
            shelf.put(&format!("large {number}"), large.clone(), at(ROOM));
            assert!(shelf.files().taken <= ROOM);
        }
        shelf.sweep(at(ROOM) + IDLE_MAX);
        let files = shelf.files();
        assert_eq!((files.by_url.len(), files.taken), (0, 0));
    }
}
