//! Opening a content that the store knows, and not believing too much of its files.

use std::io;
use std::sync::Arc;

use sutler_protocol::hash_list::HASH_LIST_BYTES_MAX;
use sutler_protocol::{ChunkRanges, ContentId, Geometry, HashList};

use super::{Inner, today};
use crate::backend::{Open, StoreFile, read_file, replace};
use crate::content::{Content, ReadError, Shared, State, is_linked};
use crate::layout::{self, Kind};
use crate::record::{Record, RecordError, Slots};

impl Inner {
    /// Returns the content, opening it if nobody has it open. The caller holds `opening`, and may
    /// have a hash list to stand in for one that is damaged.
    pub(super) fn find(
        self: &Arc<Self>,
        id: ContentId,
        given: Option<&HashList>,
    ) -> Result<Option<Content>, ReadError> {
        // Somebody may have been faster to the lock.
        if let Some(content) = self.live(id) {
            return Ok(Some(content));
        }
        let refused = |source| ReadError::Read { content: id, source };
        let (slots, record) = match self.read_record(id) {
            Ok(found) => found,
            // A start that believed the index has not looked for records that are gone.
            Err(error) if is_absent(&error) && self.index.summary(id).is_none() => {
                return Ok(None);
            }
            Err(error) if is_absent(&error) || matches!(error, RecordError::Damaged) => {
                self.recover(id);
                match self.read_record(id) {
                    Ok(found) => found,
                    Err(_) => return Ok(None),
                }
            }
            Err(source) => return Err(ReadError::Record { content: id, source }),
        };
        if !record.complete && self.index.summary(id).is_some_and(|known| known.complete) {
            // Its newest slot is gone, and the one before is believed.
            tracing::warn!(content.id = %id, "record has lost its newest slot");
            self.correct(&record);
        }
        let Some(hashes) = self.read_list(&record, given).map_err(refused)? else {
            return Ok(None);
        };
        let (record_day, recorded) = (record.last_access, record.had.count());
        let state = self.state_of(record, &hashes).map_err(refused)?;
        let today = state.last_access;
        let used_before = record_day != today;
        let lost = state.had.count() < recorded;
        let content = self.enlist(Shared::new(Arc::clone(self), hashes, state, Some(slots)));
        // Written down at once, so that it is not found, and accounted for, a second time.
        if lost && let Err(error) = content.checkpoint() {
            tracing::warn!(content.id = %id, %error, "record not written");
        }
        if used_before && let Some(mut summary) = self.index.summary(id) {
            summary.last_access = today;
            self.index.summarise(id, &summary);
        }
        Ok(Some(content))
    }

    /// Reads a content's record.
    pub(super) fn read_record(&self, id: ContentId) -> Result<(Slots, Record), RecordError> {
        let file = self.backend.open(&layout::file(id, Kind::Record), Open::Read);
        Slots::read(&*file.map_err(RecordError::Read)?, id)
    }

    /// Returns the content's hash list. Where the file is damaged, it is replaced by the one that
    /// was given, or by one made from the data if all of that is there; otherwise `None`, until
    /// somebody brings one.
    fn read_list(&self, record: &Record, given: Option<&HashList>) -> io::Result<Option<HashList>> {
        let id = record.id;
        if let Some(list) = HashList::of_one_chunk(id, record.len) {
            return Ok(Some(list));
        }
        let path = layout::file(id, Kind::List);
        match read_file(&*self.backend, &path, HASH_LIST_BYTES_MAX as u64) {
            Ok(bytes) => match HashList::verify(&bytes, id, record.len) {
                Ok(list) => return Ok(Some(list)),
                Err(error) => tracing::warn!(content.id = %id, %error, "hash list damaged"),
            },
            Err(error) => tracing::warn!(content.id = %id, %error, "hash list unreadable"),
        }
        let given = given.filter(|given| given.geometry().len() == record.len).cloned();
        let Some(list) = given.or_else(|| self.list_of_data(record)) else { return Ok(None) };
        self.set_aside(id, Kind::List);
        replace(&*self.backend, &path, list.as_bytes())?;
        Ok(Some(list))
    }

    /// Returns what to think of a content at its first opening: what its record says, less what its
    /// data file cannot hold, plus what this start remembers.
    fn state_of(&self, record: Record, hashes: &HashList) -> io::Result<State> {
        let geometry = hashes.geometry();
        let today = today();
        let mut state = State::new(geometry.chunks(), record.about, today);
        state.sha256 = record.sha256;
        state.complete = record.complete;
        state.had = record.had;
        // Written with the next slot; not worth one of its own.
        state.changed = record.last_access != today;
        let found = match self.backend.open(&layout::file(record.id, Kind::Data), Open::Write) {
            Ok(file) => Some(cut(&*file, geometry.len())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        state.data_made = found == Some(geometry.len());
        if !state.data_made && !state.had.is_empty() {
            tracing::warn!(content.id = %record.id, "data file is gone or of another length");
            if let Some(len) = found {
                let keep = whole_chunks(geometry, len);
                for chunk in state.had.clone().iter().filter(|chunk| chunk.0 >= keep) {
                    let place = geometry.chunk(chunk);
                    state.lose(chunk, place.end - place.start, self);
                }
            } else {
                // A scan may have seen that, and then it has not counted them.
                let counted = self.index.summary(record.id);
                self.quota.free(counted.map_or(0, |summary| summary.had_bytes));
                state.had = ChunkRanges::empty(geometry.chunks());
                state.complete = false;
                state.changed = true;
            }
        }
        if let Some(memory) = self.recall(record.id) {
            // What was quarantined meanwhile is in no set of `memory` either.
            state.unsynced = memory.unsynced;
            for chunk in state.unsynced.clone().iter() {
                state.had.insert(chunk);
            }
            state.unsynced_bytes = crate::content::bytes_of(geometry, &state.unsynced);
            state.trusted = both(&memory.trusted, &state.had);
            state.changed |= memory.changed || memory.last_access != today;
        }
        if geometry.chunks() == 1 && !state.had.is_empty() && state.trusted.is_empty() {
            self.check_small(hashes, &mut state);
        }
        Ok(state)
    }

    /// Hashes a small content now: its record may have reached the disk before its data did.
    fn check_small(&self, hashes: &HashList, state: &mut State) {
        let last = hashes.geometry().last();
        let path = layout::file(hashes.id(), Kind::Data);
        let read = read_file(&*self.backend, &path, hashes.geometry().len());
        if read.is_ok_and(|bytes| hashes.vouches_for(last, &bytes)) {
            state.trusted.insert(last);
        } else {
            tracing::warn!(content.id = %hashes.id(), "data is not the content's");
            state.lose(last, hashes.geometry().len(), self);
        }
    }
}

/// Cuts what lies in a data file beyond its content, and returns its length.
fn cut(file: &dyn StoreFile, len_max: u64) -> io::Result<u64> {
    let len = file.len()?;
    // Whoever shares the file may have lengthened it, and wants it so.
    if len > len_max && !is_linked(file) {
        file.set_len(len_max)?;
    }
    Ok(len.min(len_max))
}

/// Returns how many chunks from the start lie wholly in a file of `len` bytes.
fn whole_chunks(geometry: Geometry, len: u64) -> u32 {
    if len >= geometry.len() {
        return geometry.chunks();
    }
    (len / geometry.chunk_bytes()) as u32
}

fn both(one: &ChunkRanges, other: &ChunkRanges) -> ChunkRanges {
    let mut both = one.clone();
    for chunk in one.iter().filter(|chunk| !other.contains(*chunk)) {
        both.remove(chunk);
    }
    both
}

fn is_absent(error: &RecordError) -> bool {
    matches!(error, RecordError::Read(error) if error.kind() == io::ErrorKind::NotFound)
}
