//! The connections that are open, made or accepted, so that revoked peers lose theirs at once.
//!
//! Invariant: a connection that was entered and not left is closed by [`Live::close_revoked`], or
//! was turned away by [`Live::enter`], whichever of the two came second: both hold the one lock, and
//! the set of the revoked is replaced before the first of them looks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::Connection;
use sutler_protocol::close::CloseCode;
use tracing::info;

use crate::identity::{Credentials, Revocations, Revoked};
use crate::wire;

/// The open connections of one endpoint. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    revocations: Revocations,
    open: Arc<Mutex<BTreeMap<usize, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    shown: Credentials,
}

/// Keeps a connection known for as long as it lives.
#[derive(Debug)]
pub(crate) struct Entered {
    live: Live,
    id: usize,
}

impl Live {
    pub(crate) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Takes note of a connection; `None`, and it is closed, if its peer was revoked meanwhile.
    pub(crate) fn enter(&self, connection: &Connection, shown: Credentials) -> Option<Entered> {
        let id = connection.stable_id();
        let mut open = self.lock();
        if self.revocations.now().covers(&shown) {
            close(connection, &shown);
            return None;
        }
        open.insert(id, Entry { connection: connection.clone(), shown });
        Some(Entered { live: self.clone(), id })
    }

    /// Replaces the set of the revoked and closes the connections of those it covers; returns how
    /// many there were.
    pub(crate) fn close_revoked(&self, revoked: Revoked) -> usize {
        self.revocations.set(revoked);
        let revoked = self.revocations.now();
        let open = self.lock();
        let covered = open.values().filter(|entry| revoked.covers(&entry.shown));
        covered.map(|entry| close(&entry.connection, &entry.shown)).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Entry>> {
        // The table is whole between statements, so a panic elsewhere does not spoil it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close(connection: &Connection, shown: &Credentials) {
    connection.close(wire::code(CloseCode::Revoked), b"");
    info!(peer.id = %shown.name, "a revoked peer's connection is closed");
}

impl Drop for Entered {
    fn drop(&mut self) {
        let left = self.live.lock().remove(&self.id);
        // Dropped after the lock: the last handle of a connection closes it.
        drop(left);
    }
}
