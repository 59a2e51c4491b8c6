//! The one UDP socket: it accepts peers, and connects to them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::TokioRuntime;
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::UnixTime;

use crate::ended::Ended;
use crate::identity::{
    Expect, Holders, Identity, Instance, Instances, PeerName, RenewError, Revocations, Revoked,
    Role, Terms, TlsError, TrustedClock, client_config_on, peer_credentials, server_config_on,
};
use crate::knock;
use crate::live::Live;
use crate::peer::{ConnectError, Peer};
use crate::transport::TransportConfig;

/// Handshakes that may wait for their certificates to be checked; more are refused.
const INCOMING_MAX: usize = 256;

/// Bytes of early packets buffered for all handshakes together.
const INCOMING_BYTES_MAX: u64 = 4 << 20;

/// Bytes of early packets buffered for one handshake: a certificate chain and little more.
const INCOMING_BYTES_EACH: u64 = 32 << 10;

/// How long a port must have refused what was sent to it until nobody is believed to listen there: a
/// node that is started anew is away for less.
const AWAY_MIN: Duration = Duration::from_millis(800);

/// How long an identity that two machines spoke under is called a duplicate: they speak once an hour at
/// least.
const DUPLICATE_FOR: Duration = Duration::from_hours(1);

/// How long a goodbye may take: it is one packet, and nobody has to answer it.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// A QUIC endpoint with this machine's identity. Cheap to clone; all clones share one socket.
#[derive(Clone, Debug)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    transport: Arc<TransportConfig>,
    identity: Identity,
    clock: TrustedClock,
    live: Live,
    instances: Arc<Mutex<Instances>>,
}

/// Why no endpoint could be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is in use, not of this machine, or not permitted.
    #[error("listen on UDP {address}")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The identity cannot be used for TLS.
    #[error("use the identity for TLS")]
    Tls(#[source] TlsError),
}

impl Endpoint {
    /// Binds a UDP socket that both accepts and connects: nodes and agents are let in, a node lets in
    /// control as well, and all of them are asked. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        transport: TransportConfig,
    ) -> Result<Self, BindError> {
        let organisation = identity.name().organisation().clone();
        let expect = match identity.name().role() {
            // It gives control back what that has lost (T31): documents and contents, and nothing else.
            Role::Node => Expect::members_of(organisation),
            Role::Agent | Role::Control => Expect::peers_of(organisation),
        };
        Self::bind_for(address, identity, transport, expect)
    }

    /// As [`Endpoint::bind`], where those are let in whom `accepts` says.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind_for(
        address: SocketAddr,
        identity: &Identity,
        transport: TransportConfig,
        accepts: Expect,
    ) -> Result<Self, BindError> {
        let live = Live::default();
        let clock = TrustedClock::not_before(identity.begins());
        let terms = |expect| Terms {
            expect,
            clock: Arc::new(clock.clone()),
            revocations: live.revocations().clone(),
        };
        let server = server_config_on(identity, terms(accepts)).map_err(BindError::Tls)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server
            .transport_config(transport.quinn_accepting())
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES_EACH)
            .incoming_buffer_size_total(INCOMING_BYTES_MAX);
        let serves = Expect::members_of(identity.name().organisation().clone());
        let client = client_config_on(identity, terms(serves)).map_err(BindError::Tls)?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport.quinn());

        let failed = |source| BindError::Socket { address, source };
        let socket = UdpSocket::bind(address).map_err(failed)?;
        transport.size_buffers(&socket);
        let mut config = transport.endpoint();
        let port = socket.local_addr().map_err(failed)?.port();
        reset_what_was_before(&mut config, identity, port);
        let runtime = Arc::new(TokioRuntime);
        let mut quinn =
            quinn::Endpoint::new(config, Some(server), socket, runtime).map_err(failed)?;
        quinn.set_default_client_config(client);
        Ok(Self {
            quinn,
            transport: Arc::new(transport),
            identity: identity.clone(),
            clock,
            live,
            instances: Arc::default(),
        })
    }

    /// Returns the address that the socket is bound to.
    ///
    /// # Errors
    ///
    /// What the system says; it knows the address of a socket that is bound.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// Returns this machine's own name.
    pub fn name(&self) -> &PeerName {
        self.identity.name()
    }

    /// Returns this machine's identity.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the clock by which certificates are judged, to be raised by what was verified.
    pub const fn clock(&self) -> &TrustedClock {
        &self.clock
    }

    /// Takes note that a machine spoke under `name`, and returns whether another one did in between.
    pub fn heard(&self, name: &PeerName, instance: Instance) -> Holders {
        self.instances().heard(name, instance, self.clock.now())
    }

    /// Returns the names that two machines were heard under in the last hour: `duplicate-identity`.
    pub fn duplicate_identities(&self) -> Vec<PeerName> {
        let now = Duration::from_secs(self.clock.now().as_secs());
        let since = UnixTime::since_unix_epoch(now.saturating_sub(DUPLICATE_FOR));
        self.instances().duplicates(since)
    }

    fn instances(&self) -> MutexGuard<'_, Instances> {
        // Whole between statements, so that a panic elsewhere does not spoil it.
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets in nobody that `revoked` covers from now on, and closes their connections, whichever
    /// side made them, before it returns how many those were.
    pub fn set_revoked(&self, revoked: Revoked) -> usize {
        self.live.close_revoked(revoked)
    }

    /// Shows `renewed` in each handshake from now on; open connections stay as they are.
    ///
    /// # Errors
    ///
    /// [`RenewError`] if it names somebody else.
    pub fn renew(&self, renewed: &Identity) -> Result<(), RenewError> {
        self.identity.renew(renewed)
    }

    /// Connects to a peer and checks who it is.
    ///
    /// Cancel-safe: a handshake that is dropped is given up, and nothing else was begun.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; silence is reported after the handshake time-out with the port in it, and a
    /// port where nobody listens sooner.
    pub async fn connect(&self, address: SocketAddr) -> Result<Peer, ConnectError> {
        let connecting = self
            .quinn
            .connect(address, crate::identity::SERVER_NAME)
            .map_err(|source| ConnectError::Start { address, source })?;
        let connected = tokio::select! {
            // Whichever is dropped: a handshake is given up then, and the others only wait.
            connected = connecting => connected,
            () = nobody_listens(address) => return Err(ConnectError::Nobody { address }),
            () = tokio::time::sleep(self.transport.handshake_timeout()) => {
                return Err(ConnectError::Silent { address });
            }
        };
        let connection = connected.map_err(|source| ConnectError::of(address, source))?;
        let shown = peer_credentials(&connection)
            .map_err(|source| ConnectError::Name { address, source })?;
        let name = shown.name.clone();
        let entered = self
            .live
            .enter(&connection, shown)
            .ok_or(ConnectError::Failed { address, source: Ended::ByUs })?;
        Ok(Peer::new(connection, name, address, entered))
    }

    /// Closes every connection and waits until the other sides know, for a bounded time: one that
    /// never answered would be waited for as long again as it was silent.
    ///
    /// Cancel-safe: closing was begun.
    pub async fn close(&self) {
        self.quinn.close(crate::wire::code(sutler_protocol::close::CloseCode::Done), b"");
        // Beyond it the system tells the other side that the port is closed, if it still asks.
        drop(tokio::time::timeout(GOODBYE_MAX, self.quinn.wait_idle()).await);
    }

    /// Returns who is believed no longer, as [`Endpoint::set_revoked`] says it, for whoever else judges
    /// certificates here.
    pub fn revocations(&self) -> &Revocations {
        self.live.revocations()
    }

    pub(crate) const fn live(&self) -> &Live {
        &self.live
    }

    pub(crate) const fn quinn(&self) -> &quinn::Endpoint {
        &self.quinn
    }

    pub(crate) fn transport(&self) -> &TransportConfig {
        &self.transport
    }
}

/// Waits until nobody can be believed to listen at an address; mostly for ever.
async fn nobody_listens(address: SocketAddr) {
    tokio::time::sleep(knock::WORTH_AFTER).await;
    knock::refused(address, AWAY_MIN).await;
}

/// Lets a machine that was started anew end the connections of its last life at once: whoever still
/// sends on one is told so (a stateless reset, RFC 9000, section 10.3), and does not wait until
/// silence ends it.
///
/// The keys are the same after each start, and the port's own: were two sockets to share them, who
/// sees the packets of one could have the other end its connections (section 21.11).
fn reset_what_was_before(config: &mut quinn::EndpointConfig, identity: &Identity, port: u16) {
    let derived = |purpose: &[u8]| identity.derive(&[purpose, &port.to_be_bytes()].concat());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &derived(b"stateless reset"));
    config.reset_key(Arc::new(key));
    // Packets of the last life must be recognised as such, or they are dropped as noise.
    let mut ids = [0; size_of::<u64>()];
    ids.copy_from_slice(&derived(b"connection ids")[..size_of::<u64>()]);
    let ids = u64::from_be_bytes(ids);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
}
