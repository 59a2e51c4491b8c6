//! Making what is had durable: sync the data, then flip the record's slot.

use std::io;
use std::time::{Duration, Instant};

use sutler_protocol::{ChunkRanges, ContentId};

use super::{Content, Shared};
use crate::backend::Open;
use crate::layout::{self, Kind};
use crate::record::Slots;

/// Bytes committed since the last checkpoint that make another one due: the most that a power cut
/// costs, and enough that syncing stays a small part of writing.
pub const CHECKPOINT_BYTES: u64 = 32 * 1024 * 1024;

/// Age of what no checkpoint has covered that makes one due.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// Why what is had was not made durable.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The data could not be synced. What was committed since the last checkpoint is in doubt, and
    /// counts as lacking.
    #[error("sync the data of {content}")]
    Sync {
        /// The content.
        content: ContentId,
        /// What the disk answered.
        source: io::Error,
    },
    /// The data is durable, but the record could not be written. The next checkpoint tries again.
    #[error("write the record of {content}")]
    Record {
        /// The content.
        content: ContentId,
        /// What the disk answered.
        source: io::Error,
    },
}

impl Content {
    /// Returns whether [`Content::checkpoint`] is due: [`CHECKPOINT_BYTES`] are not durable, or
    /// some have not been for [`CHECKPOINT_INTERVAL`], counted from when this was first asked.
    ///
    /// Small contents are never due: they become durable in groups, by [`crate::Store::complete`].
    pub fn checkpoint_due(&self, now: Instant) -> bool {
        let mut state = self.0.state();
        if self.0.is_small() || state.unsynced_bytes == 0 {
            return false;
        }
        let since = *state.unsynced_since.get_or_insert(now);
        state.unsynced_bytes >= CHECKPOINT_BYTES || now >= since + CHECKPOINT_INTERVAL
    }

    /// Makes what is had now durable. Commits go on meanwhile, for the next checkpoint.
    ///
    /// Of a small content that has no record yet, nothing happens.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]. What earlier checkpoints covered stays valid and resumable.
    pub fn checkpoint(&self) -> Result<(), CheckpointError> {
        let shared = &*self.0;
        let content = shared.id();
        let mut slots = shared.slots();
        let Some(slots) = &mut *slots else { return Ok(()) };
        shared.sync_data().map_err(|source| CheckpointError::Sync { content, source })?;
        if !shared.state().changed {
            return Ok(());
        }
        shared
            .write_slot(slots, Standing::Partial)
            .map_err(|source| CheckpointError::Record { content, source })
    }
}

/// What a slot is to say of the whole content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As before.
    Partial,
    /// It is complete: all of it is durable and its digest was checked.
    Complete,
}

impl Shared {
    /// Makes the data durable that was committed before the call. The caller holds the slots, so
    /// that nothing is written of chunks whose sync has not returned.
    ///
    /// # Errors
    ///
    /// What the disk answered. Whether the bytes are there is then unknown, and a later sync would
    /// not tell: they count as lacking.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        let covered = {
            let mut state = self.state();
            if state.unsynced.is_empty() {
                return Ok(());
            }
            state.unsynced_bytes = 0;
            state.unsynced_since = None;
            state.changed = true;
            let chunks = self.geometry().chunks();
            std::mem::replace(&mut state.unsynced, ChunkRanges::empty(chunks))
        };
        let synced = self.data().and_then(|data| data.sync_data());
        if synced.is_err() {
            let mut state = self.state();
            for chunk in covered.iter() {
                let place = self.geometry().chunk(chunk);
                state.lose(chunk, place.end - place.start, &self.store);
            }
        }
        synced
    }

    /// Writes the older slot and makes it durable; the store's list then says the same.
    ///
    /// # Errors
    ///
    /// What the disk answered. The newest slot on the disk is then as before.
    pub(crate) fn write_slot(&self, slots: &mut Slots, standing: Standing) -> io::Result<()> {
        let record = {
            let mut state = self.state();
            state.changed = false;
            let mut record = self.record(&state);
            record.complete |= standing == Standing::Complete && record.had.is_full();
            record
        };
        self.store.index.unsettle();
        let path = layout::file(self.id(), Kind::Record);
        let written = self.store.backend.open(&path, Open::Write).and_then(|file| {
            slots.write(&*file, &record)?;
            file.sync_data()
        });
        let mut state = self.state();
        if let Err(error) = written {
            state.changed = true;
            return Err(error);
        }
        slots.confirm();
        state.complete = record.complete && state.had.is_full();
        drop(state);
        self.store.index.put(&record.row());
        Ok(())
    }
}
