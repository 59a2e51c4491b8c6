//! The open connections of a server, which share its windows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::Connection;

use crate::counters::Counters;
use crate::identity::PeerName;
use crate::transport::{TransportConfig, Windows};

/// The connections of one server.
pub(super) struct Sessions {
    transport: TransportConfig,
    open: Arc<Mutex<Open>>,
}

struct Open {
    connections: BTreeMap<usize, Connection>,
    /// Connections of each peer.
    by_peer: BTreeMap<PeerName, usize>,
    of_one_peer_max: usize,
    windows: Windows,
}

/// Keeps a connection among the sharers for as long as it lives.
pub(super) struct Session {
    transport: TransportConfig,
    open: Arc<Mutex<Open>>,
    counters: Arc<Counters>,
    id: usize,
    name: PeerName,
}

impl Sessions {
    pub(super) fn new(transport: TransportConfig, connections_max: usize) -> Self {
        let windows = transport.windows(1);
        let open = Open {
            connections: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            of_one_peer_max: of_one_peer_max(connections_max),
            windows,
        };
        Self { transport, open: Arc::new(Mutex::new(open)) }
    }

    /// Takes note of how many connections there may be in all.
    pub(super) fn share_among(&self, connections_max: usize) {
        lock(&self.open).of_one_peer_max = of_one_peer_max(connections_max);
    }

    /// Takes a connection in and gives every one its share anew; `None` if its peer has enough.
    pub(super) fn enter(
        &self,
        connection: &Connection,
        name: &PeerName,
        counters: &Arc<Counters>,
    ) -> Option<Session> {
        let id = connection.stable_id();
        let mut open = lock(&self.open);
        if open.by_peer.get(name).is_some_and(|count| *count >= open.of_one_peer_max) {
            return None;
        }
        *open.by_peer.entry(name.clone()).or_default() += 1;
        open.connections.insert(id, connection.clone());
        connection.set_send_window(open.windows.send_bytes);
        share(&mut open, &self.transport);
        counters.connections_opened.add(1);
        Some(Session {
            transport: self.transport.clone(),
            open: self.open.clone(),
            counters: counters.clone(),
            id,
            name: name.clone(),
        })
    }
}

/// Returns how many connections one peer may have: one for each class, and as many again while old
/// ones time out; on a large server a quarter of all, so that a relay of many is served and one
/// member alone never fills it.
fn of_one_peer_max(connections_max: usize) -> usize {
    (connections_max / 4).max(6)
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.connections.remove(&self.id);
        if let Some(count) = open.by_peer.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                open.by_peer.remove(&self.name);
            }
        }
        share(&mut open, &self.transport);
        self.counters.connections_closed.add(1);
    }
}

/// Sets every connection's windows, if their number has changed enough to matter: a change for
/// each arrival would cost the square of their number.
fn share(open: &mut Open, transport: &TransportConfig) {
    let windows = transport.windows(open.connections.len().next_power_of_two());
    if windows != open.windows {
        open.windows = windows;
        for connection in open.connections.values() {
            connection.set_send_window(windows.send_bytes);
        }
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    // The table is whole between statements, so a panic elsewhere does not spoil it.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
