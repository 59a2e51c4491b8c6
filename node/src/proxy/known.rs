//! What lies at the URLs whose files change: which content, in which version, and when the origin
//! last said so. Also what an origin refused a moment ago.
//!
//! A plain file in the data folder, replaced by rename and synced. It can be lost: what is not known
//! is asked for again, and the answer is mostly that nothing changed. Unreadable means empty.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sutler_protocol::ContentId;
use sutler_swarm::origin::Validators;

use super::durable;
use super::freshness::{self, Failed, Held};

/// URLs that are known, at most; the one that was asked for longest ago goes.
const KNOWN_MAX: usize = 8_192;

/// Failures that are remembered, at most.
const FAILED_MAX: usize = 4_096;

/// The format of the file.
const FORMAT: u32 = 1;

/// What lies at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The content.
    pub(super) content: ContentId,
    /// The version that the origin calls it.
    pub(super) validators: Validators,
    /// When the origin last said so, in seconds since 1970.
    pub(super) checked_at: u64,
}

impl Entry {
    /// Returns what freshness is decided by.
    pub(super) const fn held(&self) -> Held {
        Held { checked_at: self.checked_at }
    }
}

/// The table. All methods are quick but [`Known::save`].
#[derive(Debug)]
pub(super) struct Known {
    path: PathBuf,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<String, Row>,
    failed: BTreeMap<String, Failed>,
    is_changed: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    content: String,
    etag: Option<String>,
    last_modified: Option<String>,
    len: Option<u64>,
    checked_at: u64,
    asked_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    files: BTreeMap<String, Row>,
}

impl Known {
    /// Reads the table that lies at `path`.
    pub(super) fn open(path: PathBuf) -> Self {
        let read = durable::read(&path);
        let saved = read.and_then(|bytes| serde_json::from_slice::<Saved>(&bytes).ok());
        let entries = match saved {
            Some(saved) if saved.format == FORMAT => saved.files,
            _ => BTreeMap::new(),
        };
        let table = Mutex::new(Table { entries, ..Table::default() });
        Self { path, table }
    }

    /// Returns what lies at a URL.
    pub(super) fn entry(&self, url: &str, now: u64) -> Option<Entry> {
        let mut table = self.table();
        let row = table.entries.get_mut(url)?;
        row.asked_at = now;
        Some(Entry {
            content: row.content.parse().ok()?,
            validators: Validators {
                etag: row.etag.clone(),
                last_modified: row.last_modified.clone(),
                len: row.len,
            },
            checked_at: row.checked_at,
        })
    }

    /// Takes note of what lies at a URL.
    pub(super) fn put(&self, url: &str, entry: Entry, now: u64) {
        let row = Row {
            content: entry.content.to_string(),
            etag: entry.validators.etag,
            last_modified: entry.validators.last_modified,
            len: entry.validators.len,
            checked_at: entry.checked_at,
            asked_at: now,
        };
        let mut table = self.table();
        table.failed.remove(url);
        table.entries.insert(url.to_owned(), row);
        table.is_changed = true;
        while table.entries.len() > KNOWN_MAX {
            let oldest = table.entries.iter().min_by_key(|(_, row)| row.asked_at);
            let Some(oldest) = oldest.map(|(url, _)| url.clone()) else { break };
            table.entries.remove(&oldest);
        }
    }

    /// Takes note that the origin says that nothing changed.
    pub(super) fn checked(&self, url: &str, now: u64) {
        let mut table = self.table();
        table.failed.remove(url);
        if let Some(row) = table.entries.get_mut(url) {
            row.checked_at = now;
            table.is_changed = true;
        }
    }

    /// Forgets what lies at a URL.
    pub(super) fn forget(&self, url: &str) {
        let mut table = self.table();
        table.is_changed |= table.entries.remove(url).is_some();
    }

    /// Returns what the origin refused a moment ago.
    pub(super) fn failed(&self, url: &str) -> Option<Failed> {
        self.table().failed.get(url).copied()
    }

    /// Takes note that the origin did not give the file.
    pub(super) fn fail(&self, url: &str, failed: Failed) {
        let mut table = self.table();
        table.failed.insert(url.to_owned(), failed);
        if table.failed.len() <= FAILED_MAX {
            return;
        }
        let stands = freshness::NEGATIVE_SECONDS.max(freshness::TROUBLE_SECONDS);
        table.failed.retain(|_, one| failed.at.saturating_sub(one.at) < stands);
        while table.failed.len() > FAILED_MAX {
            table.failed.pop_first();
        }
    }

    /// Takes note that the origin gave the file.
    pub(super) fn succeeded(&self, url: &str) {
        self.table().failed.remove(url);
    }

    /// Writes the table down, if it changed. Waits for the disk.
    ///
    /// # Errors
    ///
    /// What the disk answered; the file is then as before.
    pub(super) fn save(&self) -> io::Result<()> {
        let text = {
            let mut table = self.table();
            if !std::mem::take(&mut table.is_changed) {
                return Ok(());
            }
            let saved = Saved { format: FORMAT, files: table.entries.clone() };
            serde_json::to_vec(&saved).map_err(io::Error::other)?
        };
        durable::replace(&self.path, &text).inspect_err(|_| self.table().is_changed = true)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change leaves the table whole, so a panic elsewhere does not spoil it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &[u8], checked_at: u64) -> Entry {
        let validators = Validators { etag: Some("\"1\"".into()), ..Validators::default() };
        Entry { content: ContentId::of(text), validators, checked_at }
    }

    #[test]
    fn what_is_known_comes_back_after_a_restart_and_rubbish_is_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let known = Known::open(folder.path().join("known.json"));
        known.put("http://a/InRelease", entry(b"1", 5), 6);
        known.checked("http://a/InRelease", 7);
        known.fail("http://a/x", Failed { at: 7, status: Some(404) });
        known.save().expect("saved");
        let again = Known::open(known.path.clone());
        assert_eq!(again.entry("http://a/InRelease", 8), Some(entry(b"1", 7)));
        assert_eq!(again.failed("http://a/x"), None);
        again.forget("http://a/InRelease");
        assert_eq!(again.entry("http://a/InRelease", 8), None);

        std::fs::write(&known.path, b"{\"format\":9}").expect("written");
        assert_eq!(Known::open(known.path.clone()).entry("http://a/InRelease", 8), None);
    }

    #[test]
    fn what_was_asked_for_longest_ago_is_forgotten_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let known = Known::open(folder.path().join("known.json"));
        for number in 0..KNOWN_MAX as u64 {
            known.put(&number.to_string(), entry(b"1", 1), number);
        }
        assert!(known.entry("0", KNOWN_MAX as u64).is_some());
        known.put("new", entry(b"1", 1), KNOWN_MAX as u64);
        assert!(known.entry("0", KNOWN_MAX as u64).is_some());
        assert!(known.entry("1", KNOWN_MAX as u64).is_none());
    }
}
