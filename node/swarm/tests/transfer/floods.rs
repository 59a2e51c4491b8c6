//! Too many who knock, and those who have no key: the door stays narrow, and honest peers get in.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError};
use rustls::crypto::aws_lc_rs;
use rustls::version::TLS13;
use sutler_protocol::close::CloseCode;
use sutler_swarm::identity::{ALPN, Expect, PeerVerifier, Role, SERVER_NAME, client_config};

use super::machines::{
    Organisation, Setup, add, bytes, eventually, read, soon, unseen, v4, wanted,
};
use super::raw::RawClient;
use super::relay::{Line, Relay};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T17
async fn more_connections_than_a_server_keeps_are_refused_until_one_ends() {
    let organisation = Organisation::new();
    let setup = Setup { connections_max: 4, ..Setup::of(Role::Node) };
    let node = organisation.set_up(setup);
    let transport = quinn::TransportConfig::default;
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(RawClient::connect(&organisation, node.address).await);
    }
    let fifth = RawClient::connect_with(&organisation, node.address, transport()).await;
    assert!(matches!(fifth.err(), Some(ConnectionError::ConnectionClosed(_))));
    assert_eq!(node.counters.connections_refused.value(), 1);
    kept.pop().unwrap().connection.close(0_u32.into(), b"");
    soon("one of them gets in", async {
        while RawClient::connect_with(&organisation, node.address, transport()).await.is_err() {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T9
async fn one_member_alone_does_not_fill_a_server() {
    let organisation = Organisation::new();
    let setup = Setup { connections_max: 8, ..Setup::of(Role::Node) };
    let node = organisation.set_up(setup);
    let content = add(&node.store, &bytes(100, 1));
    let identity = organisation.identity(Role::Agent);
    let tls = client_config(&identity, Expect::peers_of("acme".parse().unwrap())).unwrap();
    let config = ClientConfig::new(Arc::new(tls));
    let endpoint = quinn::Endpoint::client(v4()).unwrap();
    let mut kept = Vec::new();
    for _ in 0..6 {
        let connecting = endpoint.connect_with(config.clone(), node.address, SERVER_NAME);
        kept.push(connecting.unwrap().await.unwrap());
    }
    eventually("six are in", || node.counters.connections_opened.value() == 6).await;
    let connecting = endpoint.connect_with(config.clone(), node.address, SERVER_NAME);
    let seventh = connecting.unwrap().await.unwrap();
    let ConnectionError::ApplicationClosed(close) = soon("it ends", seventh.closed()).await else {
        panic!("it is sent away with a code");
    };
    assert_eq!(close.error_code, CloseCode::TooMany.code().into());
    let agent = organisation.agent();
    let wanted = wanted(content.id(), &[&node]);
    soon("another gets in", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T23
async fn without_a_certificate_no_request_is_heard() {
    let organisation = Organisation::new();
    let node = organisation.node();
    let identity = organisation.identity(Role::Agent);
    let expect = Expect::peers_of("acme".parse().unwrap());
    let verifier = PeerVerifier::new(identity.roots(), expect).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client(v4()).unwrap();
    let connecting = endpoint.connect_with(config, node.address, SERVER_NAME).unwrap();
    // A client is done before the server has judged it, and asks at once.
    if let Ok(connection) = connecting.await {
        if let Ok((mut send, _)) = connection.open_bi().await {
            let _ = send.write_all(&[0; 100]).await;
        }
        let closed = soon("it is turned down", connection.closed()).await;
        assert!(matches!(closed, ConnectionError::ConnectionClosed(_)), "{closed}");
    }
    eventually("it is counted", || node.counters.connections_refused.value() == 1).await;
    assert_eq!(node.counters.connections_opened.value(), 0);
    assert_eq!(node.counters.requests.value(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)] // T17
async fn a_flood_of_first_packets_keeps_no_honest_peer_out() {
    let organisation = Organisation::new();
    let setup = Setup { connections_max: 64, ..Setup::of(Role::Node) };
    let node = organisation.set_up(setup);
    let sent = bytes(500_000, 2);
    let id = add(&node.store, &sent).id();
    // They never hear the server, as senders with forged addresses do not.
    let relay = Relay::start(node.address, Line::OneWay).await;
    let identity = organisation.identity(Role::Agent);
    let tls = client_config(&identity, Expect::peers_of("acme".parse().unwrap())).unwrap();
    let config = ClientConfig::new(Arc::new(tls));
    let endpoint = quinn::Endpoint::client(v4()).unwrap();
    let flood: Vec<_> = (0..1_000)
        .map(|_| endpoint.connect_with(config.clone(), relay.address, SERVER_NAME).unwrap())
        .collect();
    let agent = organisation.agent();
    let wanted = wanted(id, &[&node]);
    let fetched = soon("it gets in", agent.fetcher.fetch(&wanted, &unseen())).await.unwrap();
    assert_eq!(read(&fetched.content), sent);
    assert_eq!(node.counters.connections_opened.value(), 1);
    drop(flood);
}
