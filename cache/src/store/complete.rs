//! Saying that contents are complete: everything durable and checked, many behind one barrier.

use std::collections::BTreeSet;
use std::io;

use aws_lc_rs::digest;
use sutler_protocol::{ContentId, Sha256Digest};

use super::{Inner, Store, lock};
use crate::backend::Open;
use crate::content::{Content, Memory, Shared, Standing};
use crate::layout::{self, Kind};
use crate::record::{DigestCheck, Slots};

/// New small contents from which on one barrier for the whole disk is cheaper than two syncs each.
const BARRIER_CONTENTS_MIN: usize = 8;

/// Bytes read at once where a digest is computed.
const READ_BYTES: usize = 512 * 1024;

/// Why a content is not complete.
#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    /// Chunks are lacking; one that was thought to be had may just have gone bad.
    #[error("{content} lacks {chunks} chunks")]
    Lacking {
        /// The content.
        content: ContentId,
        /// How many are lacking.
        chunks: u32,
    },
    /// The bytes are the content's, but their digest is not what the vendor published.
    #[error("{content} has the digest {found}, not {claimed}")]
    Digest {
        /// The content.
        content: ContentId,
        /// What was claimed.
        claimed: Sha256Digest,
        /// The digest of its bytes.
        found: Sha256Digest,
    },
    /// The disk refused to give the bytes for the digest.
    #[error("read {content} for its digest")]
    Read {
        /// The content.
        content: ContentId,
        /// What the disk answered.
        source: io::Error,
    },
    /// The disk refused to make the content durable. What was not durable before is in doubt, and
    /// counts as lacking.
    #[error("make {content} durable")]
    Sync {
        /// The content.
        content: ContentId,
        /// What the disk answered.
        source: io::Error,
    },
}

impl Store {
    /// Makes contents complete, all of whose chunks are had: checks the digests that are claimed,
    /// then makes all of them durable, the small ones behind one barrier.
    ///
    /// When this returns without an error, no power cut takes any of them away.
    ///
    /// # Errors
    ///
    /// The first [`CompleteError`]. Each content that could be completed is, whatever became of the
    /// others; [`Content::is_complete`] tells.
    pub fn complete(&self, contents: &[Content]) -> Result<(), CompleteError> {
        let mut first_error = None;
        let mut small = Vec::new();
        for content in contents {
            let shared = &*content.0;
            if let Err(error) = shared.check_whole() {
                first_error.get_or_insert(error);
            } else if shared.is_small() && shared.slots().is_none() {
                small.push(shared);
            } else if let Err(source) = shared.complete_alone() {
                let content = shared.id();
                first_error.get_or_insert(CompleteError::Sync { content, source });
            }
        }
        if let Err(error) = self.inner.complete_small(&small) {
            first_error.get_or_insert(error);
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Makes everything durable that is had of any content, and the index too, so that the next
    /// start need not scan. Call it last, when nothing uses the store any more.
    ///
    /// # Errors
    ///
    /// What the disk answered. The next start is then as after a kill.
    pub fn close(&self) -> io::Result<()> {
        let owed: Vec<ContentId> = {
            let memory = lock(&self.inner.memory);
            let owes = |memory: &Memory| memory.changed || !memory.unsynced.is_empty();
            memory.iter().filter(|(_, memory)| owes(memory)).map(|(id, _)| *id).collect()
        };
        let live: Vec<ContentId> = lock(&self.inner.live).keys().copied().collect();
        for id in owed.into_iter().chain(live) {
            let content = self.content(id).map_err(io::Error::other)?;
            if let Some(content) = content {
                content.checkpoint().map_err(io::Error::other)?;
            }
        }
        self.inner.index.close();
        Ok(())
    }
}

impl Shared {
    /// Checks that every chunk is had and that the digest agrees, if one is claimed.
    fn check_whole(&self) -> Result<(), CompleteError> {
        let content = self.id();
        let claimed = {
            let state = self.state();
            if !state.had.is_full() {
                let chunks = state.had.chunks() - state.had.count();
                return Err(CompleteError::Lacking { content, chunks });
            }
            match state.sha256 {
                DigestCheck::Agrees => None,
                DigestCheck::Pending => state.about.sha256,
            }
        };
        let Some(claimed) = claimed else { return Ok(()) };
        let found = self.sha256().map_err(|source| CompleteError::Read { content, source })?;
        let mut state = self.state();
        if found == claimed {
            state.sha256 = DigestCheck::Agrees;
            state.changed = true;
            return Ok(());
        }
        if state.complete {
            // Somebody was wrong about a content that is right: the claim goes.
            state.about.sha256 = None;
            state.changed = true;
        }
        Err(CompleteError::Digest { content, claimed, found })
    }

    /// Computes the digest of the whole data file.
    fn sha256(&self) -> io::Result<Sha256Digest> {
        let data = self.data()?;
        let len = self.geometry().len();
        let mut context = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; READ_BYTES.min(len as usize)];
        let mut offset = 0;
        while offset < len {
            let count = (len - offset).min(READ_BYTES as u64) as usize;
            data.read_exact_at(&mut buffer[..count], offset)?;
            context.update(&buffer[..count]);
            offset += count as u64;
        }
        let digest = context.finish();
        let bytes = digest.as_ref().try_into().expect("a SHA-256 has 32 bytes");
        Ok(Sha256Digest::from_bytes(bytes))
    }

    /// Makes one content complete that has a record: sync the data, then flip the slot.
    fn complete_alone(&self) -> io::Result<()> {
        let mut slots = self.slots();
        let Some(slots) = &mut *slots else { return Ok(()) };
        self.sync_data()?;
        {
            let mut state = self.state();
            // Its room is used now, all of it.
            state.reservation = None;
            if state.complete && !state.changed {
                return Ok(());
            }
        }
        self.write_slot(slots, Standing::Complete)
    }

    /// Writes the first record of a small content, which says that it is complete. The caller makes
    /// it durable before anybody is told.
    fn write_first(&self) -> io::Result<Slots> {
        let mut record = self.record(&self.state());
        record.had = self.state().had.clone();
        record.complete = true;
        Slots::create(&*self.store.backend, &layout::file(self.id(), Kind::Record), &record)
    }
}

impl Inner {
    /// Makes new small contents complete behind one barrier.
    ///
    /// Records are written before the barrier, so a power cut may leave one whose data never came.
    /// Nobody was told, and the first opening of a small content hashes it.
    fn complete_small(&self, contents: &[&Shared]) -> Result<(), CompleteError> {
        let mut first_error = None;
        let mut written = Vec::with_capacity(contents.len());
        if !contents.is_empty() {
            self.index.unsettle();
        }
        for shared in contents {
            match shared.write_first() {
                Ok(slots) => written.push((*shared, slots)),
                Err(source) => {
                    let content = shared.id();
                    first_error.get_or_insert(CompleteError::Sync { content, source });
                }
            }
        }
        let synced = if written.len() >= BARRIER_CONTENTS_MIN {
            self.barrier()
        } else {
            self.sync_each(&written)
        };
        if let (Err(source), Some((shared, _))) = (synced, written.first()) {
            let error = CompleteError::Sync { content: shared.id(), source };
            for (shared, _) in &written {
                self.doubt_small(shared);
            }
            return Err(first_error.unwrap_or(error));
        }
        let failed = self.barriers_failed();
        let mut rows = Vec::with_capacity(written.len());
        for (shared, slots) in written {
            let written_after = shared.state().barriers_failed;
            if written_after != failed {
                self.doubt_small(shared);
                let content = shared.id();
                let source = io::Error::other("a barrier for others failed after it was written");
                first_error.get_or_insert(CompleteError::Sync { content, source });
                continue;
            }
            *shared.slots() = Some(slots);
            let mut state = shared.state();
            let chunks = state.had.chunks();
            state.unsynced = sutler_protocol::ChunkRanges::empty(chunks);
            state.unsynced_bytes = 0;
            state.changed = false;
            state.complete = state.had.is_full();
            state.reservation = None;
            rows.push(shared.record(&state).row());
        }
        self.index.put_all(&rows);
        first_error.map_or(Ok(()), Err)
    }

    /// Syncs the files of a few small contents, then each of their folders once.
    fn sync_each(&self, contents: &[(&Shared, Slots)]) -> io::Result<()> {
        for (shared, _) in contents {
            for kind in [Kind::Data, Kind::Record] {
                self.backend.open(&layout::file(shared.id(), kind), Open::Write)?.sync_data()?;
            }
        }
        if !contents.is_empty() {
            self.sync_folders()?;
        }
        let folders: BTreeSet<_> =
            contents.iter().map(|(shared, _)| layout::folder(shared.id())).collect();
        folders.iter().try_for_each(|folder| self.backend.sync_dir(folder))
    }

    /// Takes back what the barrier did not cover: whether the bytes are there is not known, and a
    /// later sync would not tell.
    fn doubt_small(&self, shared: &Shared) {
        let last = shared.geometry().last();
        shared.state().lose(last, shared.geometry().len(), self);
        // The disk has refused already; a record that stays is checked when it is opened.
        drop(self.backend.remove(&layout::file(shared.id(), Kind::Record)));
    }
}
