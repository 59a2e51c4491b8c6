//! What the store knows without opening a record: the list, and the ways to a content.
//!
//! All of it is in the records too; a scan of them fills an empty catalog.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sutler_protocol::{ContentId, Sha256Digest};

use super::lock;
use crate::about::Entry;
use crate::eviction::Day;

/// The contents of a store by id, digest and URL.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    maps: Mutex<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    entries: BTreeMap<ContentId, Entry>,
    digests: BTreeMap<Sha256Digest, ContentId>,
    urls: BTreeMap<String, ContentId>,
}

impl Catalog {
    /// Puts a content in, in place of what was known of it.
    pub(crate) fn put(&self, entry: Entry) {
        let mut maps = lock(&self.maps);
        maps.forget(entry.id);
        if let Some(digest) = entry.sha256 {
            maps.digests.insert(digest, entry.id);
        }
        for url in &entry.urls {
            maps.urls.insert(url.clone(), entry.id);
        }
        maps.entries.insert(entry.id, entry);
    }

    /// Forgets a content.
    pub(crate) fn remove(&self, id: ContentId) {
        lock(&self.maps).forget(id);
    }

    /// Notes the day on which a content was opened.
    pub(crate) fn touch(&self, id: ContentId, day: Day) {
        if let Some(entry) = lock(&self.maps).entries.get_mut(&id) {
            entry.last_access = day;
        }
    }

    pub(crate) fn list(&self) -> Vec<Entry> {
        lock(&self.maps).entries.values().cloned().collect()
    }

    pub(crate) fn by_digest(&self, digest: Sha256Digest) -> Option<ContentId> {
        lock(&self.maps).digests.get(&digest).copied()
    }

    pub(crate) fn by_url(&self, url: &str) -> Option<ContentId> {
        lock(&self.maps).urls.get(url).copied()
    }
}

impl Maps {
    fn forget(&mut self, id: ContentId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        if let Some(digest) = entry.sha256 {
            self.digests.retain_if_other(&digest, id);
        }
        for url in &entry.urls {
            self.urls.retain_if_other(url, id);
        }
    }
}

/// Removes a way to a content unless it has come to lead to another.
trait Ways<K> {
    fn retain_if_other(&mut self, key: &K, id: ContentId);
}

impl<K: Ord> Ways<K> for BTreeMap<K, ContentId> {
    fn retain_if_other(&mut self, key: &K, id: ContentId) {
        if self.get(key) == Some(&id) {
            self.remove(key);
        }
    }
}
