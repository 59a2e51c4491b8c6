//! Making room: what [`crate::eviction`] plans is carried out here.
//!
//! An evicted content stays known, with its record and hash list and nothing had, so that it can be
//! filled again from where it came.
//!
//! Nothing here is called with a lock held: giving up a content takes its `opening`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};

use sutler_protocol::ContentId;

use super::standings::{self, Standings};
use super::{Inner, Store, StoreOptions, lock, today};
use crate::content::{Content, ReadError};
use crate::eviction::{Candidate, Lease, Need, Plan, Standing, order, plan};
use crate::quota::{Limits, Reservation};

/// Rounds of eviction for one reservation. More than one, because others take room meanwhile; not
/// many, because a disk whose blocks are shared with others' files gives nothing back.
const ROUNDS_MAX: usize = 3;

/// Why a content was not given up.
#[derive(Debug, thiserror::Error)]
pub enum EvictError {
    /// The store does not know it.
    #[error("{content} is unknown")]
    Unknown {
        /// The content.
        content: ContentId,
    },
    /// Somebody reads or writes it.
    #[error("{content} is in use")]
    Leased {
        /// The content.
        content: ContentId,
    },
    /// It could not be opened.
    #[error("find what is to be given up")]
    Find(#[source] ReadError),
    /// The disk refused. Part of it may be gone; what is left is consistent.
    #[error("give up {content}")]
    Disk {
        /// The content.
        content: ContentId,
        /// What the disk answered.
        source: io::Error,
    },
}

/// What a collection gave up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The contents, in the order in which they went.
    pub evicted: Vec<ContentId>,
    /// The bytes that they took.
    pub freed_bytes: u64,
    /// Bytes by which the store still exceeds its limits, because the rest is pinned or in use.
    pub excess_bytes: u64,
}

impl Store {
    /// Says what the orders think of the contents, in place of what was said before; one that is
    /// not named is unreferenced. Durable when it returns. Contents need not be here yet.
    ///
    /// # Errors
    ///
    /// What the disk answered; what was said before then holds.
    pub fn set_standings(&self, standings: BTreeMap<ContentId, Standing>) -> io::Result<()> {
        standings::write(&*self.inner.backend, &standings)?;
        *lock(&self.inner.standings) = Standings::Told(standings);
        Ok(())
    }

    /// Returns what the orders think of a content, as last said.
    pub fn standing(&self, id: ContentId) -> Standing {
        self.inner.standing(id)
    }

    /// Puts other limits in force. [`Store::gc`] brings the store within them.
    pub fn set_limits(&self, options: StoreOptions) {
        let StoreOptions { bytes_max, free_bytes_min } = options;
        self.inner.quota.set_limits(Limits { bytes_max, free_bytes_min });
    }

    /// Returns the bytes of the disk that stay free for others.
    pub fn free_bytes_min(&self) -> u64 {
        self.inner.quota.limits().free_bytes_min
    }

    /// Returns the contents in the order in which they would go if ever more room were needed,
    /// pinned ones last.
    pub fn eviction_order(&self) -> Vec<ContentId> {
        order(&self.inner.candidates(), today())
    }

    /// Evicts what the limits ask for, and never what is pinned or in use.
    pub fn gc(&self) -> Collected {
        self.inner.discard_idle_parts_beyond_limits();
        let mut collected = Collected::default();
        let need = Standing::Unreferenced;
        for _ in 0..ROUNDS_MAX {
            let candidates = self.inner.candidates();
            let may_go = |one: &&Candidate| {
                one.lease == Lease::Free && !matches!(one.standing, Standing::Pinned(_))
            };
            let at_most = candidates.iter().filter(may_go).map(|one| one.had_bytes).sum();
            let bytes = self.inner.excess().min(at_most);
            let Plan::Evict(ids) = plan(&candidates, Need { bytes, standing: need }, today())
            else {
                break;
            };
            if ids.is_empty() {
                break;
            }
            self.inner.evict_all(&ids, &mut collected);
        }
        collected.excess_bytes = self.inner.excess();
        collected
    }

    /// Gives up the bytes of one content, whatever its standing, and returns how many there were.
    /// It stays known.
    ///
    /// # Errors
    ///
    /// [`EvictError`].
    pub fn evict(&self, id: ContentId) -> Result<u64, EvictError> {
        self.inner.evict(id)
    }

    /// Forgets one content, whatever its standing, with all that is known of it.
    ///
    /// # Errors
    ///
    /// [`EvictError`].
    pub fn remove(&self, id: ContentId) -> Result<(), EvictError> {
        let refused = |source| EvictError::Disk { content: id, source };
        let _opening = self.inner.opening(id);
        let content = self.inner.take(id)?;
        content.0.lose_all();
        drop(content);
        self.inner.discard(id).map_err(refused)
    }
}

impl Inner {
    /// Sets `bytes` aside in the account, evicting where that is needed, for a content that stands
    /// as `standing`.
    ///
    /// # Errors
    ///
    /// The bytes that are missing when everything that may go has gone.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        bytes: u64,
        standing: Standing,
    ) -> Result<Reservation, u64> {
        let mut missing_bytes = match self.try_reserve(bytes) {
            Ok(reservation) => return Ok(reservation),
            Err(missing_bytes) => missing_bytes,
        };
        if self.discard_idle_parts() > 0 {
            match self.try_reserve(bytes) {
                Ok(reservation) => return Ok(reservation),
                Err(still_missing) => missing_bytes = still_missing,
            }
        }
        for _ in 0..ROUNDS_MAX {
            let need = Need { bytes: missing_bytes, standing };
            let ids = match plan(&self.candidates(), need, today()) {
                Plan::Evict(ids) => ids,
                Plan::Shed { evict, shed } => {
                    tracing::warn!(pins = shed.len(), "pins are shed for a higher one");
                    evict.into_iter().chain(shed).collect()
                }
                Plan::PassThrough => return Err(missing_bytes),
            };
            self.evict_all(&ids, &mut Collected::default());
            match self.try_reserve(bytes) {
                Ok(reservation) => return Ok(reservation),
                Err(still_missing) => missing_bytes = still_missing,
            }
        }
        Err(missing_bytes)
    }

    /// Sets room aside for what is lacking of a content, as far as the index knows that.
    ///
    /// # Errors
    ///
    /// As [`Inner::reserve`].
    pub(crate) fn reserve_for(
        self: &Arc<Self>,
        id: ContentId,
        len: u64,
    ) -> Result<Reservation, u64> {
        let had_bytes = self.index.summary(id).map_or(0, |summary| summary.had_bytes);
        self.reserve(len.saturating_sub(had_bytes), self.standing(id))
    }

    pub(crate) fn standing(&self, id: ContentId) -> Standing {
        lock(&self.standings).of(id)
    }

    fn try_reserve(&self, bytes: u64) -> Result<Reservation, u64> {
        self.quota.reserve(bytes, self.free_bytes()).map_err(|short| short.missing_bytes)
    }

    fn excess(&self) -> u64 {
        self.quota.excess(self.free_bytes())
    }

    /// A disk that does not tell is taken for full of room: writing will find out.
    fn free_bytes(&self) -> u64 {
        self.backend.free_bytes().unwrap_or(u64::MAX)
    }

    fn discard_idle_parts_beyond_limits(&self) {
        if self.excess() > 0 {
            self.discard_idle_parts();
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let summaries = self.index.summaries();
        let standings = lock(&self.standings);
        let live = lock(&self.live);
        let candidate = |(id, summary): (ContentId, crate::index::Summary)| {
            let held = live.get(&id).map_or(0, Weak::strong_count) > 0;
            Candidate {
                id,
                had_bytes: summary.had_bytes,
                standing: standings.of(id),
                lease: if held { Lease::Held } else { Lease::Free },
                last_access: summary.last_access,
                wan_cost: 1,
            }
        };
        summaries.into_iter().map(candidate).collect()
    }

    fn evict_all(self: &Arc<Self>, ids: &[ContentId], collected: &mut Collected) {
        for id in ids {
            match self.evict(*id) {
                Ok(bytes) => {
                    tracing::debug!(content.id = %id, bytes, "evicted");
                    collected.evicted.push(*id);
                    collected.freed_bytes += bytes;
                }
                Err(error) => tracing::debug!(content.id = %id, %error, "not evicted"),
            }
        }
    }

    fn evict(self: &Arc<Self>, id: ContentId) -> Result<u64, EvictError> {
        let _opening = self.opening(id);
        let content = self.take(id)?;
        content.0.vacate().map_err(|source| EvictError::Disk { content: id, source })
    }

    /// Takes a content out of everybody's reach: who asks for it meanwhile waits for `opening`,
    /// which the caller holds.
    fn take(self: &Arc<Self>, id: ContentId) -> Result<Content, EvictError> {
        let found = self.find(id, None).map_err(EvictError::Find)?;
        let content = found.ok_or(EvictError::Unknown { content: id })?;
        let mut live = lock(&self.live);
        if Arc::strong_count(&content.0) > 1 {
            // Before the handle is dropped, which may lock the same.
            drop(live);
            return Err(EvictError::Leased { content: id });
        }
        live.remove(&id);
        drop(live);
        Ok(content)
    }
}
