//! The port itself: what it answers to whom, and how much of it anybody gets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use sutler_protocol::frame;
use sutler_protocol::join::{self, CSR_BYTES_MAX, JoinAnswer, JoinRefusal, JoinRequest};
use sutler_swarm::enrol::EnrolLimits;
use sutler_swarm::identity::{ALPN, RefusalCause, Role, Validity, handshake_refusal};
use sutler_swarm::{Endpoint, TransportConfig};

use super::raw::{connect, connect_on, join_frame, new_key, request, say};
use super::world::{DAY, World, local};

// T23: without a certificate there is one request that is answered, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_renews_without_a_certificate() {
    let acme = World::new("acme");
    let port = acme.port();
    let (_endpoint, stranger) = connect(local(), port.address, join::ALPN).await.unwrap();
    let answer = request(&stranger, &JoinRequest::Renew { csr: new_key().1 }).await;
    assert_eq!(answer, Some(JoinAnswer::Refused(JoinRefusal::NoCertificate)));
}

// T23: the two doors are two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_enrolment_port_speaks_nothing_else_and_no_other_port_speaks_it() {
    let acme = World::new("acme");
    let port = acme.port();
    let refused = |error: &quinn::ConnectionError| {
        let text = handshake_refusal(error).unwrap().to_string();
        assert!(text.contains(&RefusalCause::Protocol.to_string()), "{text}");
    };
    refused(&connect(local(), port.address, ALPN).await.map(|_| ()).unwrap_err());

    let dir = acme.path("node");
    let site = "leeds".parse().unwrap();
    let node = sutler_swarm::identity::Member::Node { site, id: "n1".parse().unwrap() };
    acme.authority.issue(node, Validity::from_now(DAY), &dir).unwrap();
    let node = sutler_swarm::identity::Identity::load(&dir).unwrap();
    assert_eq!(node.name().role(), Role::Node);
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let endpoint = Endpoint::bind(any, &node, TransportConfig::default()).unwrap();
    let gateway = NothingHere;
    let server = sutler_swarm::Server::new(endpoint.clone(), gateway, Arc::default());
    let address = endpoint.local_address().unwrap();
    let serving = tokio::spawn(server.run(port.stop.clone()));
    refused(&connect(local(), address, join::ALPN).await.map(|_| ()).unwrap_err());
    serving.abort();
}

// T5, T9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_ends_the_connection() {
    let acme = World::new("acme");
    let port = acme.port();
    let token = acme.token(|_| {});
    let mut long = join_frame(&token, &new_key().1);
    long.csr = vec![0; CSR_BYTES_MAX + 1];
    let garbage: [Vec<u8>; 5] = [
        vec![0xff; 4],
        vec![0; 4],
        vec![0, 0, 0, 2, 9, 0],
        vec![0, 0, 0, 2, 1, 0xee],
        frame::encode(&JoinRequest::Join(long)),
    ];
    for bytes in garbage {
        let (_endpoint, stranger) = connect(local(), port.address, join::ALPN).await.unwrap();
        assert_eq!(say(&stranger, &bytes).await, None, "{bytes:?}");
        let closed = tokio::time::timeout(Duration::from_mins(1), stranger.closed()).await;
        assert!(matches!(closed, Ok(quinn::ConnectionError::ApplicationClosed(_))), "{closed:?}");
    }
    assert!(acme.records().is_empty());
}

// T17: a crowd that connects and says nothing has its own share of the port and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_the_enrolment_port_is_bounded_and_a_machine_still_joins() {
    let acme = World::new("acme");
    let limits =
        EnrolLimits { connections_max: 24, of_one_address_max: 16, per_second_max: 10_000 };
    let port = acme.port_with(limits);
    let flooder = IpAddr::from([127, 0, 0, 2]);
    let mut open = Vec::new();
    let endpoint = quinn::Endpoint::client((flooder, 0).into()).unwrap();
    for _ in 0..3 * limits.of_one_address_max {
        if let Ok(connection) = connect_on(&endpoint, port.address, join::ALPN).await {
            open.push(connection);
        }
    }
    assert_eq!(open.len(), limits.of_one_address_max);
    acme.join(&port, &acme.token(|_| {}), "agent").await.unwrap();
}

// T17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_strangers_are_heard_than_there_are_places() {
    let acme = World::new("acme");
    let limits = EnrolLimits { connections_max: 4, of_one_address_max: 3, per_second_max: 10_000 };
    let port = acme.port_with(limits);
    let mut open = Vec::new();
    for last in 2..8 {
        let endpoint = quinn::Endpoint::client(([127, 0, 0, last], 0).into()).unwrap();
        if let Ok(connection) = connect_on(&endpoint, port.address, join::ALPN).await {
            open.push((endpoint, connection));
        }
    }
    assert_eq!(open.len(), limits.connections_max);
    // Whoever leaves makes room.
    let (endpoint, connection) = open.pop().unwrap();
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    let again = async { while connect(local(), port.address, join::ALPN).await.is_err() {} };
    tokio::time::timeout(Duration::from_mins(1), again).await.expect("room");
}

/// A gateway that has nothing: nobody gets so far as to ask.
struct NothingHere;

impl sutler_swarm::Gateway for NothingHere {
    async fn open(
        &self,
        _id: sutler_protocol::ContentId,
        _class: frame::Class,
    ) -> Result<sutler_swarm::gateway::Served, frame::Refusal> {
        Err(frame::Refusal::Unknown)
    }

    async fn held(
        &self,
        _id: sutler_protocol::ContentId,
    ) -> Result<sutler_swarm::gateway::Served, frame::Refusal> {
        Err(frame::Refusal::Unknown)
    }

    async fn resolve(
        &self,
        _sha256: sutler_protocol::Sha256Digest,
        _url: url::Url,
        _class: frame::Class,
        _filled: tokio::sync::watch::Sender<sutler_swarm::gateway::Filled>,
    ) -> Result<(sutler_protocol::ContentId, u64), frame::Refusal> {
        Err(frame::Refusal::Unknown)
    }

    fn damaged(&self, _id: sutler_protocol::ContentId, _chunk: sutler_protocol::ChunkIndex) {}
}
