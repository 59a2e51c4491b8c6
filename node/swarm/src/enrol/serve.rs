//! The asked side of enrolment: a port of its own, for strangers.
//!
//! Whoever comes has shown nothing yet, so that everything is bounded before anything is believed:
//! each address has to show that it can receive before a handshake costs anything ([`Incoming::retry`]),
//! so many connections are open in all and from one address, so many begin in a second, each has one
//! stream, one frame and [`CONNECTION_MAX`] of time. An answer is never longer than a token pays for:
//! before the address was validated nothing but the retry leaves, and that is shorter than what came.
//!
//! What is granted a [`Registrar`] decides, where waiting for the disk is allowed.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::{Connecting, Incoming, VarInt};
use rustls::pki_types::{CertificateDer, UnixTime};
use sutler_protocol::close::CloseCode;
use sutler_protocol::frame::detail;
use sutler_protocol::join::{Join, JoinAnswer, JoinRefusal, JoinRequest, ROOT_BYTES_MAX};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::tls::{MemberVerifier, server_config};
use crate::endpoint::BindError;
use crate::gateway::causes;
use crate::identity::{Credentials, Identity, Revocations, TrustedClock, peer_credentials};
use crate::wire;

/// How long one connection may take from its first packet to its last answer: a joiner asks once.
pub const CONNECTION_MAX: Duration = Duration::from_secs(20);

/// How much the port may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrolLimits {
    /// Connections open at a time; more are refused. Each costs some 100 KiB.
    pub connections_max: usize,
    /// Connections of one address. A relay has one for all that join through it.
    pub of_one_address_max: usize,
    /// Handshakes begun in a second, over a burst of as many: what they cost in all.
    pub per_second_max: u32,
}

impl Default for EnrolLimits {
    fn default() -> Self {
        Self { connections_max: 256, of_one_address_max: 64, per_second_max: 500 }
    }
}

/// What a joiner is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Its certificate, then any intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots of the organisation, the token's first.
    pub roots: Vec<CertificateDer<'static>>,
    /// The `root.json` that the token names.
    pub root_json: Vec<u8>,
}

/// What becomes of a request to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// The machine is a member.
    Granted(Granted),
    /// Somebody has to accept it first.
    Held {
        /// What it will be called.
        id: String,
    },
}

/// Decides who becomes a member, and remembers it. Its methods may wait for the disk.
pub trait Registrar: Send + Sync + 'static {
    /// Decides about a request to join that came from `from`.
    ///
    /// What is answered has been made durable; the same request gives the same answer.
    ///
    /// # Errors
    ///
    /// The [`JoinRefusal`] to answer with; nothing is changed.
    fn join(&self, join: &Join, from: IpAddr, now: UnixTime) -> Result<JoinOutcome, JoinRefusal>;

    /// Decides about a new certificate for the member that `shown` names, whose chain was checked.
    ///
    /// # Errors
    ///
    /// As [`Registrar::join`].
    fn renew(
        &self,
        shown: &Credentials,
        csr: &[u8],
        now: UnixTime,
    ) -> Result<Vec<CertificateDer<'static>>, JoinRefusal>;
}

/// The enrolment port. It listens from when it is bound, and answers from when it runs.
pub struct Enrolment<R> {
    quinn: quinn::Endpoint,
    clock: TrustedClock,
    limits: EnrolLimits,
    registrar: Arc<R>,
}

/// How long a held joiner is told to wait before it asks again.
const HELD_RETRY_MS: u32 = 5_000;

impl<R: Registrar> Enrolment<R> {
    /// Binds the UDP port `address`, at which `identity`, which is control's, answers joiners.
    /// Must be called within a tokio runtime.
    ///
    /// Whoever is in `revocations` at the time of asking renews nothing.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        revocations: Revocations,
        clock: TrustedClock,
        limits: EnrolLimits,
        registrar: Arc<R>,
    ) -> Result<Self, BindError> {
        clock.begin(identity.begins());
        let verifier =
            Arc::new(MemberVerifier::new(identity, revocations).map_err(BindError::Tls)?);
        let tls = server_config(identity, verifier, Arc::new(clock.clone()));
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls.map_err(BindError::Tls)?));
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
            .receive_window(VarInt::from_u32(WINDOW_BYTES))
            .send_window(2 * ROOT_BYTES_MAX as u64)
            .max_idle_timeout(Some(VarInt::from_u32(10_000).into()));
        config
            .transport_config(Arc::new(transport))
            .max_incoming(limits.connections_max)
            .incoming_buffer_size(INCOMING_BYTES_EACH)
            .incoming_buffer_size_total(INCOMING_BYTES_MAX);
        let quinn = quinn::Endpoint::server(config, address)
            .map_err(|source| BindError::Socket { address, source })?;
        Ok(Self { quinn, clock, limits, registrar })
    }

    /// Returns the address that the socket is bound to.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// Answers joiners until `shutdown`; those that are being answered then are cut off, and ask
    /// again.
    ///
    /// Cancel-safe: what was granted is durable before it is answered.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut open = JoinSet::new(); // Owns every connection: none outlives this function.
        let crowd = Arc::<Crowd>::default();
        let mut pace = Pace::new(self.limits.per_second_max, Instant::now());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                // Cancel-safe: a finished task is taken out only when it is returned.
                Some(_) = open.join_next() => {}
                // Cancel-safe: an attempt leaves the queue only when it is returned.
                incoming = self.quinn.accept() => {
                    let Some(incoming) = incoming else { break };
                    if let Some((connecting, place)) =
                        self.admit(incoming, open.len(), &crowd, &mut pace)
                    {
                        let (registrar, clock) = (Arc::clone(&self.registrar), self.clock.clone());
                        open.spawn(async move {
                            let _place = place;
                            let answered = answer(connecting, registrar, &clock);
                            if tokio::time::timeout(CONNECTION_MAX, answered).await.is_err() {
                                debug!("a joiner took too long");
                            }
                        });
                    }
                }
            }
        }
        self.quinn.close(wire::code(CloseCode::Draining), b"");
    }

    /// Decides whether an attempt to connect goes on to its handshake.
    fn admit(
        &self,
        incoming: Incoming,
        open: usize,
        crowd: &Arc<Crowd>,
        pace: &mut Pace,
    ) -> Option<(Connecting, Place)> {
        let address = incoming.remote_address();
        // A stranger's address is nothing but its word: it is sent away once, for less than it sent.
        if !incoming.remote_address_validated() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                debug!(%address, %error, "no retry could be sent");
            }
            return None;
        }
        let has_room = open < self.limits.connections_max;
        let place = crowd.enter(address.ip().to_canonical(), self.limits.of_one_address_max);
        let Some(place) = place.filter(|_| has_room && pace.take(Instant::now())) else {
            debug!(%address, "refused: enough joiners");
            incoming.refuse();
            return None;
        };
        match incoming.accept() {
            Ok(connecting) => Some((connecting, place)),
            Err(error) => {
                debug!(%address, %error, "no handshake could be begun");
                None
            }
        }
    }
}

/// Bytes of a request that may be on their way unread: the largest, with its length field.
const WINDOW_BYTES: u32 = 32 * 1024;

/// Bytes of early packets buffered for one handshake, and for all together.
const INCOMING_BYTES_EACH: u64 = 16 << 10;
const INCOMING_BYTES_MAX: u64 = 1 << 20;

/// Answers one connection's one request.
async fn answer<R: Registrar>(connecting: Connecting, registrar: Arc<R>, clock: &TrustedClock) {
    let address = connecting.remote_address();
    let connection = match connecting.await {
        Ok(connection) => connection,
        Err(error) => {
            let error = crate::peer::ConnectError::of(address, error);
            info!(%address, error = causes(&error), "a joiner was not let in");
            return;
        }
    };
    if let Err(why) = converse(&connection, registrar, clock.now()).await {
        debug!(%address, "a joiner broke the protocol");
        connection.close(wire::code(why), b"");
        return;
    }
    // The joiner closes once it has read the answer; silence ends it otherwise.
    connection.closed().await;
}

async fn converse<R: Registrar>(
    connection: &quinn::Connection,
    registrar: Arc<R>,
    now: UnixTime,
) -> Result<(), CloseCode> {
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|_| CloseCode::Done)?;
    let request: JoinRequest =
        wire::receive(&mut receive).await.map_err(|_| CloseCode::BadFrame)?;
    if matches!(&request, JoinRequest::Join(join) if !join.is_bounded()) {
        return Err(CloseCode::BadFrame);
    }
    let from = connection.remote_address();
    let shown = peer_credentials(connection).ok();
    // Where waiting is allowed: a registrar reads and syncs files.
    let decided = tokio::task::spawn_blocking(move || {
        decide(&*registrar, &request, shown.as_ref(), from.ip(), now)
    });
    let (answer, root_json) = decided.await.unwrap_or_else(|error| {
        (JoinAnswer::Refused(JoinRefusal::Failed { detail: detail(&error.to_string()) }), vec![])
    });
    match &answer {
        JoinAnswer::Refused(refusal) => info!(address = %from, %refusal, "a joiner was refused"),
        JoinAnswer::Held { id, .. } => info!(address = %from, id, "a joiner waits to be accepted"),
        JoinAnswer::Joined { .. } => info!(address = %from, "a machine joined"),
        JoinAnswer::Renewed { .. } => debug!(address = %from, "a certificate was renewed"),
    }
    wire::send(&mut send, &answer).await.map_err(|_| CloseCode::Done)?;
    send.write_all(&root_json).await.map_err(|_| CloseCode::Done)?;
    // The joiner may be gone already, and asks again then.
    drop(send.finish());
    Ok(())
}

fn decide(
    registrar: &impl Registrar,
    request: &JoinRequest,
    shown: Option<&Credentials>,
    from: IpAddr,
    now: UnixTime,
) -> (JoinAnswer, Vec<u8>) {
    let der = |chain: Vec<CertificateDer<'static>>| {
        chain.iter().map(|certificate| certificate.to_vec()).collect()
    };
    let decided = match request {
        JoinRequest::Join(join) => registrar.join(join, from, now).map(|outcome| match outcome {
            JoinOutcome::Granted(granted) => {
                let root_bytes = granted.root_json.len() as u32;
                let (chain, roots) = (der(granted.chain), der(granted.roots));
                (JoinAnswer::Joined { chain, roots, root_bytes }, granted.root_json)
            }
            JoinOutcome::Held { id } => {
                (JoinAnswer::Held { id, retry_ms: HELD_RETRY_MS }, Vec::new())
            }
        }),
        JoinRequest::Renew { csr } => match shown {
            None => Err(JoinRefusal::NoCertificate),
            Some(shown) => registrar
                .renew(shown, csr, now)
                .map(|chain| (JoinAnswer::Renewed { chain: der(chain) }, Vec::new())),
        },
    };
    decided.unwrap_or_else(|refusal| (JoinAnswer::Refused(refusal), Vec::new()))
}

/// How many connections each address has. No larger than the number of connections.
#[derive(Default)]
struct Crowd(Mutex<BTreeMap<IpAddr, usize>>);

/// One connection's place in the crowd.
struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Crowd {
    fn enter(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Place> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = crowd.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Place { crowd: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = crowd.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                crowd.remove(&self.address);
            }
        }
    }
}

/// A bucket of handshakes that fills by so many a second.
struct Pace {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Pace {
    fn new(per_second_max: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second_max);
        Self { per_second, left: per_second, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + since * self.per_second).min(self.per_second);
        let has = self.left >= 1.0;
        if has {
            self.left -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // T17
    #[test]
    fn no_more_handshakes_begin_than_the_pace_allows() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        let taken = |pace: &mut Pace, now| (0..100).filter(|_| pace.take(now)).count();
        assert_eq!(taken(&mut pace, start), 10);
        assert_eq!(taken(&mut pace, start + Duration::from_millis(500)), 5);
        assert_eq!(taken(&mut pace, start + Duration::from_hours(1)), 10);
    }

    #[test]
    fn an_address_that_leaves_is_forgotten() {
        let crowd = Arc::<Crowd>::default();
        let address = IpAddr::from([192, 0, 2, 1]);
        let first = crowd.enter(address, 1).expect("room");
        assert!(crowd.enter(address, 1).is_none());
        assert!(crowd.enter(IpAddr::from([192, 0, 2, 2]), 1).is_some());
        drop(first);
        assert!(crowd.0.lock().expect("whole").is_empty());
    }
}
