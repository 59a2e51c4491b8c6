//! The open connections of a server, which share its windows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::{Connection, VarInt};

use crate::counters::Counters;
use crate::transport::{TransportConfig, Windows};

/// The connections of one server.
pub(super) struct Sessions {
    transport: TransportConfig,
    open: Arc<Mutex<Open>>,
}

struct Open {
    connections: BTreeMap<usize, Connection>,
    windows: Windows,
}

/// Keeps a connection among the sharers for as long as it lives.
pub(super) struct Session {
    transport: TransportConfig,
    open: Arc<Mutex<Open>>,
    counters: Arc<Counters>,
    id: usize,
}

impl Sessions {
    pub(super) fn new(transport: TransportConfig) -> Self {
        let windows = transport.windows(1);
        let open = Open { connections: BTreeMap::new(), windows };
        Self { transport, open: Arc::new(Mutex::new(open)) }
    }

    /// Takes a connection in and gives every one its share anew.
    pub(super) fn enter(&self, connection: &Connection, counters: &Arc<Counters>) -> Session {
        let id = connection.stable_id();
        let mut open = lock(&self.open);
        open.connections.insert(id, connection.clone());
        set(connection, open.windows);
        share(&mut open, &self.transport);
        counters.connections_opened.add(1);
        Session {
            transport: self.transport.clone(),
            open: self.open.clone(),
            counters: counters.clone(),
            id,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.connections.remove(&self.id);
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
        open.connections.values().for_each(|connection| set(connection, windows));
    }
}

fn set(connection: &Connection, windows: Windows) {
    connection.set_send_window(windows.send_bytes);
    connection.set_receive_window(VarInt::from_u32(windows.receive_bytes));
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    // The table is whole between statements, so a panic elsewhere does not spoil it.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
