//! Connections that are kept and shared: one for each peer and class.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use sutler_protocol::frame::Class;

use crate::endpoint::Endpoint;
use crate::peer::{ConnectError, Peer};

/// One slot per peer and class. Its lock is held while connecting, so that two askers share one
/// handshake and nobody waits for another peer's.
type Slots = BTreeMap<(SocketAddr, Class), Arc<tokio::sync::Mutex<Option<Peer>>>>;

/// Slots from which on those without a living connection are dropped.
const SLOTS_SWEEP: usize = 256;

/// The connections of one fetcher. Cheap to clone; all clones share them.
#[derive(Clone)]
pub(super) struct Links {
    endpoint: Endpoint,
    slots: Arc<Mutex<Slots>>,
}

impl Links {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, slots: Arc::default() }
    }

    /// Returns a living connection, a new one if need be.
    ///
    /// Cancel-safe: the next asker connects instead.
    pub(super) async fn peer(
        &self,
        address: SocketAddr,
        class: Class,
    ) -> Result<Peer, ConnectError> {
        let slot = self.slot(address, class);
        let mut kept = slot.lock().await;
        if let Some(peer) = kept.as_ref().filter(|peer| peer.ended().is_none()) {
            return Ok(peer.clone());
        }
        let peer = self.endpoint.connect(address).await?;
        *kept = Some(peer.clone());
        Ok(peer)
    }

    fn slot(&self, address: SocketAddr, class: Class) -> Arc<tokio::sync::Mutex<Option<Peer>>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_SWEEP {
            slots.retain(|_, slot| {
                // One that is locked is being connected.
                slot.try_lock()
                    .map_or(true, |kept| kept.as_ref().is_some_and(|peer| peer.ended().is_none()))
            });
        }
        slots.entry((address, class)).or_default().clone()
    }
}
