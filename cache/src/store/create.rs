//! Making a content known, with room for it, before its first byte comes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sutler_protocol::{ContentId, HashList, Sha256Digest};

use super::{Inner, Store, today};
use crate::about::About;
use crate::backend::Open;
use crate::content::{Content, ReadError, Shared, State};
use crate::layout::{self, Kind};
use crate::quota::Reservation;
use crate::record::{DigestCheck, Slots};

/// Why a content was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Everything that may be evicted has been. Retry once a lease is released.
    #[error("make room for {needed_bytes} bytes")]
    Full {
        /// Bytes that are missing.
        needed_bytes: u64,
    },
    /// The content has another length, which its last chunk or an open handle vouches for.
    #[error("{content} has {known} bytes, not {claimed}")]
    Length {
        /// The content.
        content: ContentId,
        /// Its length in bytes.
        known: u64,
        /// The length that was claimed, in bytes.
        claimed: u64,
    },
    /// The content's bytes have another digest than is claimed of them.
    #[error("{content} has the digest {known}, not {claimed}")]
    Digest {
        /// The content.
        content: ContentId,
        /// The digest of its bytes.
        known: Sha256Digest,
        /// The digest that was claimed.
        claimed: Sha256Digest,
    },
    /// The store knows the content, but cannot open it.
    #[error("find what is there already")]
    Find(#[source] ReadError),
    /// The disk refused to make the content's files.
    #[error("make the files of {content}")]
    Make {
        /// The content.
        content: ContentId,
        /// What the disk answered.
        source: io::Error,
    },
}

impl CreateError {
    fn making(content: ContentId, len: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { needed_bytes: len }
            }
            _ => Self::Make { content, source },
        }
    }
}

impl Store {
    /// Returns the content of this hash list, making it if the store does not know it, with room
    /// set aside for all that is lacking. What `about` adds to what is known of it is kept.
    ///
    /// A content of several chunks is known durably when this returns. One of a single chunk is so
    /// after [`Store::complete`], with all of its bytes.
    ///
    /// # Errors
    ///
    /// [`CreateError`]. Nothing is left behind then.
    pub fn create(&self, hashes: HashList, about: &About) -> Result<Content, CreateError> {
        let id = hashes.id();
        if let Some(content) = self.inner.live(id) {
            return self.inner.join(content, &hashes, about, None);
        }
        // Before the lock: what is evicted for it needs locks of its own.
        let room = self.inner.room(id, hashes.geometry().len())?;
        let _opening = self.inner.opening(id);
        let Some(content) = self.inner.find(id, Some(&hashes)).map_err(CreateError::Find)? else {
            return self.inner.make(hashes, about, room);
        };
        let claimed = hashes.geometry().len();
        let nothing_had = content.0.state().had.is_empty();
        if content.geometry().len() != claimed && nothing_had && Arc::strong_count(&content.0) == 1
        {
            // The length was a claim, nothing came of it, and now there is another.
            drop(content);
            self.inner.discard(id).map_err(|source| CreateError::making(id, claimed, source))?;
            return self.inner.make(hashes, about, room);
        }
        self.inner.join(content, &hashes, about, Some(room))
    }
}

impl Inner {
    /// Adds to a content that is there what is newly said of it, and sets room aside, unless that
    /// was done. A caller who holds `opening` has done it.
    fn join(
        self: &Arc<Self>,
        content: Content,
        hashes: &HashList,
        about: &About,
        room: Option<Reservation>,
    ) -> Result<Content, CreateError> {
        let id = content.id();
        let (known, claimed) = (content.geometry().len(), hashes.geometry().len());
        if known != claimed {
            return Err(CreateError::Length { content: id, known, claimed });
        }
        let shared = &*content.0;
        let lacking = {
            let mut state = shared.state();
            let mut merged = state.about.clone();
            merged.merge(about);
            if let (Some(known), Some(claimed)) = (state.about.sha256, merged.sha256)
                && known != claimed
            {
                if state.sha256 == DigestCheck::Agrees {
                    return Err(CreateError::Digest { content: id, known, claimed });
                }
                state.sha256 = DigestCheck::Pending;
            }
            if merged != state.about {
                state.about = merged;
                state.changed = true;
            }
            !state.had.is_full() && state.reservation.is_none()
        };
        if lacking {
            let reservation = room.map_or_else(|| self.room(id, known), Ok)?;
            shared.state().reservation.get_or_insert(reservation);
        }
        let make = !shared.is_small() && !shared.state().data_made;
        if make {
            shared.make_data().map_err(|source| CreateError::making(id, known, source))?;
        }
        Ok(content)
    }

    /// Makes a content that is not known. The caller holds `opening`.
    fn make(
        self: &Arc<Self>,
        hashes: HashList,
        about: &About,
        reservation: Reservation,
    ) -> Result<Content, CreateError> {
        // A small one has no file yet; its first will be data, which only a scan can find.
        self.index.unsettle();
        let id = hashes.id();
        let geometry = hashes.geometry();
        let mut state = State::new(geometry.chunks(), about.clone().bounded(), today());
        state.reservation = Some(reservation);
        let small = geometry.chunks() == 1;
        if small && let Some(memory) = self.recall(id) {
            // Committed before, and let go of before it was complete. Its room is accounted for.
            state.data_made = !memory.unsynced.is_empty();
            state.had = memory.unsynced.clone();
            state.unsynced = memory.unsynced;
            state.barriers_failed = memory.barriers_failed;
            state.trusted = memory.trusted;
            state.reservation = None;
        }
        let shared = Shared::new(Arc::clone(self), hashes, state, None);
        if !small && let Err(source) = self.make_files(&shared) {
            // The disk has refused already; what it does with these no longer matters.
            drop(self.discard(id));
            return Err(CreateError::making(id, geometry.len(), source));
        }
        Ok(self.enlist(shared))
    }

    /// Makes list, data and record, each durable before a name of theirs is relied on.
    fn make_files(&self, shared: &Shared) -> io::Result<()> {
        let id = shared.id();
        self.make_folder(id)?;
        let list = self.backend.open(&layout::file(id, Kind::List), Open::Create)?;
        list.set_len(0)?;
        list.write_all_at(shared.hashes().as_bytes(), 0)?;
        list.sync_data()?;
        let record = shared.record(&shared.state());
        let path = layout::file(id, Kind::Record);
        let slots = Slots::create(&*self.backend, &path, &record)?;
        self.backend.open(&path, Open::Write)?.sync_data()?;
        // Syncs the folder, and with it all three names.
        shared.make_data()?;
        *shared.slots() = Some(slots);
        self.index.put(&record.row());
        Ok(())
    }

    /// Removes all files of a content that is leased by nobody, and forgets it.
    pub(crate) fn discard(&self, id: ContentId) -> io::Result<()> {
        self.recall(id);
        self.index.remove(id);
        // The record first: without it, what remains is found to be rubbish at the next scan.
        for kind in [Kind::Record, Kind::Data, Kind::List] {
            match self.backend.remove(&layout::file(id, kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match self.backend.sync_dir(&layout::folder(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.backend.sync_dir(Path::new(layout::CONTENTS))
            }
            other => other,
        }
    }

    fn room(self: &Arc<Self>, id: ContentId, len: u64) -> Result<Reservation, CreateError> {
        self.reserve_for(id, len).map_err(|needed_bytes| CreateError::Full { needed_bytes })
    }
}
