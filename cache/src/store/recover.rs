//! What to do with the files of a content whose record is damaged or lost.
//!
//! The data and the list are named by the content, so they vouch for themselves, and a record can
//! be made from them; only name and origins are gone. What vouches for nothing is set aside or, if
//! it is data, removed: it would be verified against nothing.

use std::io;

use sutler_protocol::geometry::CHUNK_BYTES_MIN;
use sutler_protocol::hash_list::HASH_LIST_BYTES_MAX;
use sutler_protocol::{ChunkRanges, ContentId, Geometry, HashList, HashListBuilder};

use super::{Inner, today};
use crate::about::About;
use crate::backend::{Open, read_file};
use crate::layout::{self, Kind};
use crate::record::{DigestCheck, Record, Slots};

/// Bytes read at once where a whole data file is hashed.
const READ_BYTES: usize = 512 * 1024;

impl Inner {
    /// Makes a record from a content's other files, where they allow it. Nobody leases the content.
    pub(super) fn recover(&self, id: ContentId) {
        self.index.unsettle();
        self.set_aside(id, Kind::Record);
        match self.record_of_files(id) {
            Ok(Some(record)) => {
                tracing::warn!(content.id = %id, complete = record.complete, "record rebuilt");
                self.correct(&record);
            }
            Ok(None) => {
                self.forget(id);
                self.set_aside(id, Kind::List);
                let data = layout::file(id, Kind::Data);
                if self.backend.remove(&data).is_ok() {
                    tracing::warn!(content.id = %id, "data removed that nothing vouches for");
                }
            }
            Err(error) => tracing::warn!(content.id = %id, %error, "record not rebuilt"),
        }
    }

    /// Lets index and account say what a record says.
    pub(super) fn correct(&self, record: &Record) {
        let row = record.row();
        self.quota.free(self.index.summary(record.id).map_or(0, |known| known.had_bytes));
        self.quota.found(row.summary.had_bytes);
        self.index.put(&row);
    }

    /// Moves a file out of the way, where a human can look at it.
    pub(super) fn set_aside(&self, id: ContentId, kind: Kind) {
        let moved = self.backend.rename(&layout::file(id, kind), &layout::damaged(id, kind));
        if moved.is_ok() {
            tracing::warn!(content.id = %id, file = ?kind, "damaged file set aside");
        }
    }

    /// Returns the list of a content all of whose data is there, or `None` if it is not.
    pub(super) fn list_of_data(&self, record: &Record) -> Option<HashList> {
        if !record.had.is_full() {
            return None;
        }
        let file = self.backend.open(&layout::file(record.id, Kind::Data), Open::Read).ok()?;
        let mut builder = HashListBuilder::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut offset = 0;
        while offset < record.len {
            let count = (record.len - offset).min(READ_BYTES as u64) as usize;
            file.read_exact_at(&mut buffer[..count], offset).ok()?;
            builder.update(&buffer[..count]);
            offset += count as u64;
        }
        builder.finish().ok().filter(|list| list.id() == record.id)
    }

    /// Makes and syncs the record that a content's data and list allow.
    fn record_of_files(&self, id: ContentId) -> io::Result<Option<Record>> {
        let file = match self.backend.open(&layout::file(id, Kind::Data), Open::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let len = file.len()?;
        let Ok(geometry) = Geometry::of(len) else { return Ok(None) };
        let mut record = Record {
            id,
            len,
            complete: false,
            about: About::default(),
            sha256: DigestCheck::Pending,
            last_access: today(),
            had: ChunkRanges::empty(geometry.chunks()),
        };
        if geometry.chunks() == 1 {
            let bytes = read_file(&*self.backend, &layout::file(id, Kind::Data), CHUNK_BYTES_MIN)?;
            if ContentId::of(&bytes) != id {
                return Ok(None);
            }
            record.had = ChunkRanges::full(1);
            record.complete = true;
        } else if !self.list_verifies(id, len) {
            return Ok(None);
        }
        file.sync_data()?;
        let path = layout::file(id, Kind::Record);
        Slots::create(&*self.backend, &path, &record)?;
        self.backend.open(&path, Open::Write)?.sync_data()?;
        self.backend.sync_dir(&layout::folder(id))?;
        Ok(Some(record))
    }

    fn list_verifies(&self, id: ContentId, len: u64) -> bool {
        read_file(&*self.backend, &layout::file(id, Kind::List), HASH_LIST_BYTES_MAX as u64)
            .is_ok_and(|bytes| HashList::verify(&bytes, id, len).is_ok())
    }

    /// Takes a content out of the index and the account.
    fn forget(&self, id: ContentId) {
        self.quota.free(self.index.summary(id).map_or(0, |summary| summary.had_bytes));
        self.index.remove(id);
    }
}
