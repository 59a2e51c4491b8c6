//! Members that are revoked while they are connected: they lose their connections at once, in either
//! direction, and get no new one.

use std::collections::{BTreeMap, BTreeSet};

use sutler_protocol::close::CloseCode;
use sutler_protocol::frame::{Body, Class};
use sutler_swarm::ended::Ended;
use sutler_swarm::identity::{
    Authority, HandshakeRefusal, Identity, LEAF_LIFETIME, Member, RefusalCause, Revoked, Role,
    Validity, key_hash, random_label,
};
use sutler_swarm::peer::{ConnectError, Peer, RequestError};

use super::machines::{Machine, Organisation, Setup, eventually, soon};
use super::raw::Sample;

fn member(machine: &Machine) -> Revoked {
    let member = machine.fetcher.endpoint().name().member().clone();
    Revoked { members: BTreeMap::from([(member, None)]), ..Revoked::default() }
}

/// Connects, and asks once so that the other side has judged our certificate too.
async fn connected(from: &Machine, to: &Machine, sample: &Sample) -> Peer {
    let peer = from.fetcher.endpoint().connect(to.address).await.unwrap();
    peer.open(sample.id(), Body::Nothing, Class::Normal).await.unwrap();
    peer
}

fn node_with_sample(organisation: &Organisation) -> (Machine, Sample) {
    let node = organisation.node();
    let sample = Sample::new(super::machines::bytes(70_000, 1));
    super::machines::add(&node.store, &sample.bytes);
    (node, sample)
}

// T19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_client_loses_its_connections_at_once_and_gets_no_new_one() {
    let organisation = Organisation::new();
    let (node, sample) = node_with_sample(&organisation);
    let (revoked, bystander) = (organisation.agent(), organisation.agent());
    let (peer, other) =
        (connected(&revoked, &node, &sample).await, connected(&bystander, &node, &sample).await);

    assert_eq!(node.fetcher.endpoint().set_revoked(member(&revoked)), 1);
    let closed = Ended::ByPeer { code: CloseCode::Revoked.code().into() };
    eventually("the connection ends", || peer.ended() == Some(closed.clone())).await;
    assert!(other.open(sample.id(), Body::Nothing, Class::Normal).await.is_ok());

    // A client is done before its certificate was judged; the refusal follows.
    let error = match revoked.fetcher.endpoint().connect(node.address).await {
        Err(ConnectError::Identity { source, .. }) => source,
        Ok(peer) => {
            let asked = peer.open(sample.id(), Body::Nothing, Class::Normal);
            match soon("an answer", asked).await.unwrap_err() {
                RequestError::Connection(Ended::Identity(refusal)) => refusal,
                other => panic!("{other:?}"),
            }
        }
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(error, HandshakeRefusal::ByPeer(RefusalCause::Revoked));

    // Whoever is taken off the list is let in again.
    node.fetcher.endpoint().set_revoked(Revoked::default());
    connected(&revoked, &node, &sample).await;
}

// T19, the other way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_server_is_left_at_once_and_not_connected_to_again() {
    let organisation = Organisation::new();
    let (node, sample) = node_with_sample(&organisation);
    let agent = organisation.agent();
    let peer = connected(&agent, &node, &sample).await;

    assert_eq!(agent.fetcher.endpoint().set_revoked(member(&node)), 1);
    assert_eq!(peer.ended(), Some(Ended::ByUs));
    let error = agent.fetcher.endpoint().connect(node.address).await.unwrap_err();
    let ConnectError::Identity { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(source, HandshakeRefusal::ByUs { cause: RefusalCause::Revoked, .. }));
}

// T19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_intermediate_takes_all_that_it_named_with_it() {
    let organisation = Organisation::new();
    let (node, sample) = node_with_sample(&organisation);
    let below = organisation.dir.path().join("below");
    let validity = Validity::from_now(LEAF_LIFETIME);
    organisation.authority.intermediate(&"c1".parse().unwrap(), validity, &below).unwrap();
    let identity = organisation.dir.path().join("by-intermediate");
    let named = Member::Agent { site: "cologne".parse().unwrap(), id: random_label() };
    Authority::open(&below)
        .unwrap()
        .issue(named, Validity::from_now(LEAF_LIFETIME / 2), &identity)
        .unwrap();
    let identity = Identity::load(&identity).unwrap();
    let keys = BTreeSet::from([key_hash(&identity.chain()[1]).unwrap()]);

    let agent = organisation.set_up(Setup { identity: Some(identity), ..Setup::of(Role::Agent) });
    let peer = connected(&agent, &node, &sample).await;
    assert_eq!(node.fetcher.endpoint().set_revoked(Revoked { keys, ..Revoked::default() }), 1);
    eventually("the connection ends", || peer.ended().is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_its_owner_drops_is_remembered_by_nobody() {
    let organisation = Organisation::new();
    let (node, sample) = node_with_sample(&organisation);
    let agent = organisation.agent();
    drop(connected(&agent, &node, &sample).await);
    assert_eq!(agent.fetcher.endpoint().set_revoked(member(&node)), 0);
    eventually("the node sees it end", || node.fetcher.endpoint().set_revoked(member(&agent)) == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_without_a_new_socket() {
    let organisation = Organisation::new();
    let (node, sample) = node_with_sample(&organisation);
    let agent = organisation.agent();
    connected(&agent, &node, &sample).await;

    let renewed = organisation.dir.path().join("renewed");
    let name = agent.fetcher.endpoint().name().member().clone();
    organisation.authority.issue(name, Validity::from_now(LEAF_LIFETIME), &renewed).unwrap();
    let renewed = Identity::load(&renewed).unwrap();
    agent.fetcher.endpoint().renew(&renewed).unwrap();
    // The node tells the old key from the new one: the new one is what it sees from now on.
    let keys = BTreeSet::from([key_hash(&renewed.chain()[0]).unwrap()]);
    let peer = connected(&agent, &node, &sample).await;
    assert_eq!(node.fetcher.endpoint().set_revoked(Revoked { keys, ..Revoked::default() }), 1);
    eventually("the connection ends", || peer.ended().is_some()).await;

    assert!(agent.fetcher.endpoint().renew(&organisation.identity(Role::Agent)).is_err());
}

// T32
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloned_disk_is_reported_as_a_duplicate_identity() {
    let organisation = Organisation::new();
    let (node, sample) = node_with_sample(&organisation);
    let identity = organisation.identity(Role::Agent);
    let machine = || {
        organisation.set_up(Setup { identity: Some(identity.clone()), ..Setup::of(Role::Agent) })
    };
    let (original, clone) = (machine(), machine());
    let (first, second) =
        (connected(&original, &node, &sample).await, connected(&clone, &node, &sample).await);

    assert!(first.hello([1; 16]).await.unwrap());
    // A machine that was booted anew, for all that is known.
    assert!(second.hello([2; 16]).await.unwrap());
    assert_eq!(node.fetcher.endpoint().duplicate_identities(), []);
    assert!(!first.hello([1; 16]).await.unwrap());
    assert_eq!(node.fetcher.endpoint().duplicate_identities(), [identity.name().clone()]);
    assert_eq!(node.counters.duplicate_identities.value(), 1);
}
