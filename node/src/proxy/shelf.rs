//! Files that were asked for a moment ago, ready to be given out without a look into the store.
//!
//! What lies here cannot be evicted, so it lies here for [`IDLE_MAX`] after its last use at most, and
//! there are at most [`SHELF_MAX`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sutler_cache::Content;
use sutler_protocol::Sha256Digest;

use super::flight::Label;

/// Files on the shelf, at most.
const SHELF_MAX: usize = 1_024;

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
pub(super) struct Shelf(Mutex<HashMap<String, (Shelved, Instant)>>);

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
        let (shelved, used) = files.get_mut(url)?;
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
        if files.len() >= SHELF_MAX {
            let oldest = files.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(url, _)| url.clone()) {
                files.remove(&oldest);
            }
        }
        files.insert(url.to_owned(), (shelved, now));
    }

    /// Removes the file of a URL.
    pub(super) fn remove(&self, url: &str) {
        self.files().remove(url);
    }

    /// Removes what was not used lately.
    pub(super) fn sweep(&self, now: Instant) {
        self.files().retain(|_, (_, used)| now.saturating_duration_since(*used) < IDLE_MAX);
    }

    fn files(&self) -> MutexGuard<'_, HashMap<String, (Shelved, Instant)>> {
        // Each change leaves the map whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
