//! Real QUIC connections on loopback: the verifier is asked, in both directions and every time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, ServerConfig};
use rcgen::{KeyPair, PKCS_ED25519};
use rustls::NamedGroup;
use rustls::SignatureScheme;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use sutler_swarm::identity::{
    ALPN, Expect, HandshakeRefusal, Identity, RefusalCause, Role, SERVER_NAME, client_config,
    client_config_with_clock, handshake_refusal, peer_name, server_config,
    server_config_with_clock,
};

use super::forge::{Ca, Clock, Leaf, Organisation, uri};

const HOUR: Duration = Duration::from_hours(1);

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn peers_of_acme() -> Expect {
    Expect::peers_of("acme".parse().expect("a name"))
}

fn honest_server(identity: &Identity) -> ServerConfig {
    quic_server(server_config(identity, peers_of_acme()).expect("a configuration"))
}

fn honest_client(identity: &Identity) -> ClientConfig {
    quic_client(client_config(identity, peers_of_acme()).expect("a configuration"))
}

fn quic_server(tls: QuicServerConfig) -> ServerConfig {
    ServerConfig::with_crypto(Arc::new(tls))
}

fn quic_client(tls: QuicClientConfig) -> ClientConfig {
    ClientConfig::new(Arc::new(tls))
}

fn server_at(address: IpAddr, config: ServerConfig) -> Endpoint {
    Endpoint::server(config, SocketAddr::new(address, 0)).expect("an endpoint")
}

fn client_at(address: IpAddr) -> Endpoint {
    Endpoint::client(SocketAddr::new(address, 0)).expect("an endpoint")
}

/// How a connection ended at either side: with the connection, or with why there is none.
struct Meeting {
    server: Result<Connection, ConnectionError>,
    client: Result<Connection, ConnectionError>,
}

/// Connects `client` to `server` and waits until both know how it ended.
async fn meet(server: &Endpoint, client: &Endpoint, config: ClientConfig) -> Meeting {
    let address = server.local_addr().expect("an address");
    let connecting =
        client.connect_with(config, address, SERVER_NAME).expect("a connection begins");
    let accepted = async { server.accept().await.expect("open").accept()?.await };
    let (server, mut client) = tokio::join!(accepted, connecting);
    // A client is done before its certificate was judged; the refusal follows.
    if server.is_err()
        && let Ok(connection) = &client
    {
        client = Err(connection.closed().await);
    }
    Meeting { server, client }
}

impl Meeting {
    fn established(self) -> (Connection, Connection) {
        (self.server.expect("the server accepts"), self.client.expect("the client accepts"))
    }

    /// Checks that one side turned the other down because of `cause` and that both know it, and
    /// returns the words of the one that did.
    fn refused_for(self, cause: RefusalCause) -> String {
        let (server, client) = (
            self.server.expect_err("the server has no connection"),
            self.client.expect_err("the client has no connection"),
        );
        match (handshake_refusal(&server), handshake_refusal(&client)) {
            (
                Some(HandshakeRefusal::ByUs { cause: said, words }),
                Some(HandshakeRefusal::ByPeer(heard)),
            )
            | (
                Some(HandshakeRefusal::ByPeer(heard)),
                Some(HandshakeRefusal::ByUs { cause: said, words }),
            ) => {
                assert_eq!((said, heard), (cause, cause), "{words}");
                words
            }
            other => panic!("{other:?}: {server} / {client}"),
        }
    }
}

/// A client that believes every server and shows what it likes.
fn hostile_client(shown: Option<Arc<SingleCertAndKey>>) -> rustls::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(shown),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// A server that asks for nothing and shows what it likes.
fn hostile_server(shown: Arc<SingleCertAndKey>) -> rustls::ServerConfig {
    let mut config =
        rustls::ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(shown);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

fn attack_as_client(config: rustls::ClientConfig) -> ClientConfig {
    quic_client(config.try_into().expect("a cipher for QUIC"))
}

fn attack_as_server(config: rustls::ServerConfig) -> ServerConfig {
    quic_server(config.try_into().expect("a cipher for QUIC"))
}

#[tokio::test]
async fn members_meet_over_both_families_and_learn_each_others_names() {
    let acme = Organisation::new("acme");
    let (node, agent) = (acme.member(Role::Node, "n1"), acme.member(Role::Agent, "a1"));
    for address in [V4, V6] {
        let server = server_at(address, honest_server(&node));
        let meeting = meet(&server, &client_at(address), honest_client(&agent)).await;
        let (at_server, at_client) = meeting.established();
        assert_eq!(peer_name(&at_server).as_ref(), Ok(agent.name()));
        assert_eq!(peer_name(&at_client).as_ref(), Ok(node.name()));
    }
}

/// Certificates that must open no door, each with what its holder is told.
fn forgeries(acme: &Organisation) -> Vec<(&'static str, Leaf, RefusalCause)> {
    let ca = acme.stolen();
    let foreign = Ca::posing_as("other", &PKCS_ED25519);
    let namesake = Ca::posing_as("acme", &PKCS_ED25519);
    let named = |names: &[&str]| {
        let names = names.iter().map(|name| uri(name)).collect();
        ca.leaf(|params| params.subject_alt_names = names)
    };
    let node = "spiffe://acme/site/leeds/node/n1";
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_after = params.not_before + HOUR;
    };
    vec![
        ("foreign authority", foreign.leaf(|_| {}), RefusalCause::ForeignAuthority),
        ("namesake authority", namesake.leaf(|_| {}), RefusalCause::BadSignature),
        ("self-signed", Leaf::self_signed(|_| {}), RefusalCause::ForeignAuthority),
        ("no URI", named(&[]), RefusalCause::NotLetIn),
        ("two URIs", named(&[node, node]), RefusalCause::NotLetIn),
        ("no peer's URI", named(&["spiffe://acme/x"]), RefusalCause::NotLetIn),
        ("wrong role", named(&["spiffe://acme/control/c1"]), RefusalCause::NotLetIn),
        (
            "wrong organisation",
            named(&["spiffe://other/site/leeds/node/n1"]),
            RefusalCause::NotLetIn,
        ),
        ("expired", ca.leaf(expired), RefusalCause::Expired),
        (
            "no key usage",
            ca.leaf(|params| params.extended_key_usages.clear()),
            RefusalCause::NotLetIn,
        ),
    ]
}

#[tokio::test]
async fn a_server_refuses_every_forged_client() {
    let acme = Organisation::new("acme");
    let server = server_at(V4, honest_server(&acme.member(Role::Node, "n1")));
    let client = client_at(V4);
    for (forgery, leaf, cause) in forgeries(&acme) {
        println!("{forgery}");
        let config = attack_as_client(hostile_client(Some(leaf.shown())));
        meet(&server, &client, config).await.refused_for(cause);
    }
}

#[tokio::test]
async fn a_client_refuses_every_forged_server() {
    let acme = Organisation::new("acme");
    let agent = acme.member(Role::Agent, "a1");
    let client = client_at(V4);
    for (forgery, leaf, cause) in forgeries(&acme) {
        println!("{forgery}");
        let server = server_at(V4, attack_as_server(hostile_server(leaf.shown())));
        meet(&server, &client, honest_client(&agent)).await.refused_for(cause);
    }
}

// T23
#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let acme = Organisation::new("acme");
    let server = server_at(V4, honest_server(&acme.member(Role::Node, "n1")));
    let config = attack_as_client(hostile_client(None));
    meet(&server, &client_at(V4), config).await.refused_for(RefusalCause::NoCertificate);
}

#[tokio::test]
async fn a_certificate_without_its_key_opens_no_door_in_either_direction() {
    let acme = Organisation::new("acme");
    let (node, agent) = (acme.member(Role::Node, "n1"), acme.member(Role::Agent, "a1"));
    // Certificates travel in the clear to whoever connects, so an attacker has them.
    let seen = acme.stolen().leaf(|_| {});
    let shown = seen.shown_with(&KeyPair::generate_for(&PKCS_ED25519).expect("a key"));

    let server = server_at(V4, honest_server(&node));
    let config = attack_as_client(hostile_client(Some(Arc::clone(&shown))));
    meet(&server, &client_at(V4), config).await.refused_for(RefusalCause::BadSignature);

    let server = server_at(V4, attack_as_server(hostile_server(shown)));
    let meeting = meet(&server, &client_at(V4), honest_client(&agent)).await;
    meeting.refused_for(RefusalCause::BadSignature);
}

#[tokio::test]
async fn a_peer_of_another_protocol_is_refused() {
    let acme = Organisation::new("acme");
    let server = server_at(V4, honest_server(&acme.member(Role::Node, "n1")));
    let leaf = acme.stolen().leaf(|_| {});
    for protocols in [vec![], vec![b"h3".to_vec()], vec![b"sutler/2".to_vec()]] {
        let mut config = hostile_client(Some(leaf.shown()));
        config.alpn_protocols = protocols;
        let meeting = meet(&server, &client_at(V4), attack_as_client(config)).await;
        meeting.refused_for(RefusalCause::Protocol);
    }
}

#[tokio::test]
async fn a_refusal_says_why_in_words() {
    let acme = Organisation::new("acme");
    let server = server_at(V4, honest_server(&acme.member(Role::Node, "n1")));
    let control = acme.member(Role::Control, "c1");
    let meeting = meet(&server, &client_at(V4), honest_client(&control)).await;
    let words = meeting.refused_for(RefusalCause::NotLetIn);
    assert!(words.contains("role control"), "{words}");
}

/// A member's certificate that ends within the hour, long before any ticket would.
fn short_lived(acme: &Organisation) -> Leaf {
    acme.stolen().leaf(|params| params.not_after = (SystemTime::now() + HOUR).into())
}

// T19: a client that keeps whatever would let it resume is given nothing to keep, so that the
// verifier judges its second connection as it judged the first.
#[tokio::test]
async fn a_peer_that_is_no_longer_trusted_is_refused_when_it_connects_again() {
    let acme = Organisation::new("acme");
    let clock = Arc::new(Clock::default());
    let node = acme.member(Role::Node, "n1");
    let tls = server_config_with_clock(&node, peers_of_acme(), clock.clone());
    let server = server_at(V4, quic_server(tls.expect("a configuration")));

    let kept = Arc::new(Kept::default());
    let mut config = hostile_client(Some(short_lived(&acme).shown()));
    config.resumption = Resumption::store(Arc::clone(&kept) as Arc<dyn ClientSessionStore>);
    config.enable_early_data = true;
    let config = attack_as_client(config);
    let client = client_at(V4);

    let (at_server, at_client) = meet(&server, &client, config.clone()).await.established();
    // A stream to and fro: whatever follows a handshake has arrived before it.
    let (mut ask, mut answer) = at_client.open_bi().await.expect("a stream");
    ask.write_all(b"?").await.expect("sent");
    let (mut reply, _) = at_server.accept_bi().await.expect("a stream");
    reply.write_all(b"!").await.expect("sent");
    answer.read_exact(&mut [0]).await.expect("received");
    assert_eq!(kept.tickets.load(Ordering::SeqCst), 0);

    clock.forward(HOUR * 2);
    let connecting = client
        .connect_with(config.clone(), server.local_addr().expect("an address"), SERVER_NAME)
        .expect("a connection begins");
    assert!(connecting.into_0rtt().is_err(), "nothing to send before the handshake with");
    server.accept().await.expect("open").refuse();
    meet(&server, &client, config).await.refused_for(RefusalCause::Expired);
}

// T19, the other way: a server that hands out tickets cannot make our client skip its verifier.
#[tokio::test]
async fn a_server_that_is_no_longer_trusted_is_refused_though_it_gave_tickets() {
    let acme = Organisation::new("acme");
    let clock = Arc::new(Clock::default());
    let mut hostile = hostile_server(short_lived(&acme).shown());
    hostile.send_tls13_tickets = 4;
    hostile.max_early_data_size = u32::MAX;
    let server = server_at(V4, attack_as_server(hostile));

    let agent = acme.member(Role::Agent, "a1");
    let tls = client_config_with_clock(&agent, peers_of_acme(), clock.clone());
    let config = quic_client(tls.expect("a configuration"));
    let client = client_at(V4);

    let (at_server, at_client) = meet(&server, &client, config.clone()).await.established();
    at_server.open_uni().await.expect("a stream").write_all(b"!").await.expect("sent");
    let mut stream = at_client.accept_uni().await.expect("a stream");
    stream.read_exact(&mut [0]).await.expect("received");

    clock.forward(HOUR * 2);
    meet(&server, &client, config).await.refused_for(RefusalCause::Expired);
}

/// A client's memory that counts the tickets it was given.
#[derive(Debug)]
struct Kept {
    cache: ClientSessionMemoryCache,
    tickets: AtomicUsize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { cache: ClientSessionMemoryCache::new(8), tickets: AtomicUsize::new(0) }
    }
}

impl ClientSessionStore for Kept {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.cache.set_tls12_session(server, value);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.cache.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.cache.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tickets.fetch_add(1, Ordering::SeqCst);
        self.cache.insert_tls13_ticket(server, value);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.cache.take_tls13_ticket(server)
    }
}

/// An attacker's verifier, which is happy with anything.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
