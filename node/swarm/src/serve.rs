//! The asked side: accepts connections and answers their requests.
//!
//! Invariants:
//! - what leaves was verified: the store hashes a chunk before its first reading;
//! - every connection and request is a task of a set that ends with the server;
//! - a connection has at most [`STREAMS_MAX`](crate::transport::STREAMS_MAX) requests, of which
//!   [`SENDING_MAX`] read and send at a time, so a slow reader costs a bounded sum and nobody else
//!   waits for it;
//! - unvalidated addresses are sent away for a token once [`RETRY_FROM`] connections are open.

mod class_gate;
mod orders;
mod request;
mod sessions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use quinn::{Connecting, Incoming};
use sutler_protocol::close::CloseCode;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, info};

use crate::buffers::Buffers;
use crate::counters::Counters;
use crate::disk::Disk;
use crate::endpoint::Endpoint;
use crate::gateway::{Gateway, causes};
use crate::identity::{PeerName, peer_credentials};
use crate::orders::Orders;
use crate::peer::ConnectError;
use crate::wire;
use class_gate::ClassGate;
use request::Answering;
use sessions::Sessions;

/// Connections that a server keeps, unless its configuration says otherwise.
pub const CONNECTIONS_MAX: usize = 1_024;

/// Open connections from which on an unknown address must show that it can receive.
pub const RETRY_FROM: usize = 32;

/// Requests of one connection that read and send at a time: one is on the line while the next is
/// read.
pub const SENDING_MAX: usize = 2;

/// How long a connection may ask nothing before it is closed, so that peers that came once do not
/// fill the table. Whoever comes again connects again.
pub const QUIET_MAX: Duration = Duration::from_mins(1);

/// How long a drain waits for requests that are being answered.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Answers peers until it is told to stop.
pub struct Server<G> {
    endpoint: Endpoint,
    shared: Arc<Shared<G>>,
    connections_max: usize,
}

/// What all connections of a server share.
struct Shared<G> {
    gateway: G,
    /// What is answered about orders; nothing if absent.
    orders: Option<Arc<dyn Orders>>,
    gate: ClassGate,
    sessions: Sessions,
    endpoint: Endpoint,
    buffers: Buffers,
    disk: Disk,
    counters: Arc<Counters>,
    handshake_timeout: Duration,
    draining: CancellationToken,
}

impl<G: Gateway> Server<G> {
    /// Returns a server for the contents that `gateway` finds.
    pub fn new(endpoint: Endpoint, gateway: G, counters: Arc<Counters>) -> Self {
        let shared = Shared {
            gateway,
            orders: None,
            gate: ClassGate::default(),
            sessions: Sessions::new(endpoint.transport().clone(), CONNECTIONS_MAX),
            endpoint: endpoint.clone(),
            buffers: Buffers::default(),
            disk: Disk::default(),
            counters,
            handshake_timeout: endpoint.transport().handshake_timeout(),
            draining: CancellationToken::new(),
        };
        Self { endpoint, shared: Arc::new(shared), connections_max: CONNECTIONS_MAX }
    }

    /// Keeps at most this many connections.
    #[must_use]
    pub fn connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max;
        self.shared.sessions.share_among(connections_max);
        self
    }

    /// Answers about these orders as well, if there are any.
    #[must_use]
    pub fn orders(mut self, orders: Option<Arc<dyn Orders>>) -> Self {
        let shared = Arc::get_mut(&mut self.shared).expect("nothing shares it before it runs");
        shared.orders = orders;
        self
    }

    /// Serves until `shutdown`, then finishes what is being answered, for at most [`DRAIN_MAX`].
    ///
    /// Not cancel-safe: dropping it drops every connection without a word.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut open = JoinSet::new(); // Owns every connection: none outlives this function.
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                // Cancel-safe: a finished task is taken out only when it is returned.
                Some(_) = open.join_next() => {}
                // Cancel-safe: an attempt leaves the queue only when it is returned.
                incoming = self.endpoint.quinn().accept() => {
                    let Some(incoming) = incoming else { break };
                    if let Some(connecting) = self.admit(incoming, open.len()) {
                        open.spawn(serve_connection(connecting, self.shared.clone()));
                    }
                }
            }
        }
        self.shared.draining.cancel();
        if tokio::time::timeout(DRAIN_MAX, self.drain(&mut open)).await.is_err() {
            info!("some requests were still being answered and are cut off");
        }
    }

    /// Waits for what is being answered, and tells newcomers at once that they are too late.
    async fn drain(&self, open: &mut JoinSet<()>) {
        while !open.is_empty() {
            tokio::select! {
                // Cancel-safe, both, as in `run`.
                _ = open.join_next() => {}
                Some(incoming) = self.endpoint.quinn().accept() => incoming.refuse(),
            }
        }
    }

    /// Decides whether an attempt to connect goes on to its handshake.
    fn admit(&self, incoming: Incoming, open: usize) -> Option<Connecting> {
        let address = incoming.remote_address();
        if open >= self.connections_max {
            self.shared.counters.connections_refused.add(1);
            debug!(%address, "refused: enough connections");
            incoming.refuse();
            return None;
        }
        if open >= RETRY_FROM && !incoming.remote_address_validated() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                debug!(%address, %error, "no retry could be sent");
            }
            return None;
        }
        match incoming.accept() {
            Ok(connecting) => Some(connecting),
            Err(error) => {
                debug!(%address, %error, "no handshake could be begun");
                None
            }
        }
    }
}

/// Answers one connection's requests until either side ends it.
async fn serve_connection<G: Gateway>(connecting: Connecting, shared: Arc<Shared<G>>) {
    let address = connecting.remote_address();
    let connection = match tokio::time::timeout(shared.handshake_timeout, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            shared.counters.connections_refused.add(1);
            let error = ConnectError::of(address, error);
            info!(%address, error = causes(&error), "a peer was not let in");
            return;
        }
        Err(_) => {
            shared.counters.connections_refused.add(1);
            debug!(%address, "a handshake took too long");
            return;
        }
    };
    let shown = match peer_credentials(&connection) {
        Ok(shown) => shown,
        Err(error) => {
            connection.close(wire::code(CloseCode::BadFrame), b"");
            info!(%address, %error, "a peer has no name");
            return;
        }
    };
    let name = shown.name.clone();
    let span = debug_span!("peer", peer.id = %name, %address);
    let Some(_session) = shared.sessions.enter(&connection, &name, &shared.counters) else {
        connection.close(wire::code(CloseCode::TooMany), b"");
        shared.counters.connections_refused.add(1);
        info!(peer.id = %name, %address, "a peer has enough connections");
        return;
    };
    let Some(_entered) = shared.endpoint.live().enter(&connection, shown) else { return };
    serve_requests(connection, name, shared.clone()).instrument(span).await;
}

async fn serve_requests<G: Gateway>(
    connection: quinn::Connection,
    name: PeerName,
    shared: Arc<Shared<G>>,
) {
    let sending = Arc::new(Semaphore::new(SENDING_MAX));
    let false_reports = Arc::<AtomicU32>::default();
    let is_watching = Arc::<AtomicBool>::default();
    let mut open = JoinSet::new(); // Owns every request; quinn bounds their number.
    loop {
        tokio::select! {
            () = shared.draining.cancelled() => break,
            Some(_) = open.join_next() => {}
            // Begins anew with each request and each answer.
            () = tokio::time::sleep(QUIET_MAX), if open.is_empty() => {
                connection.close(wire::code(CloseCode::Done), b"");
                return;
            }
            // Cancel-safe: a stream is taken only when it is returned.
            stream = connection.accept_bi() => {
                let Ok((send, receive)) = stream else { return };
                let answering = Answering {
                    shared: shared.clone(),
                    connection: connection.clone(),
                    name: name.clone(),
                    sending: sending.clone(),
                    false_reports: false_reports.clone(),
                    is_watching: is_watching.clone(),
                };
                open.spawn(answering.run(send, receive));
            }
        }
    }
    while !open.is_empty() {
        tokio::select! {
            // Cancel-safe, both, as above.
            _ = open.join_next() => {}
            stream = connection.accept_bi() => {
                let Ok((send, _)) = stream else { return };
                open.spawn(request::refuse_draining(send));
            }
        }
    }
    connection.close(wire::code(CloseCode::Draining), b"");
}
