//! Contents from one store to another, over real sockets on loopback.

use std::net::Ipv6Addr;
use std::time::Instant;

use sutler_protocol::ContentId;
use sutler_protocol::fetch::IDLE_MAX;
use sutler_swarm::fetch::{Each, SourceKind};
use sutler_swarm::identity::Role;
use sutler_swarm::{FetchError, SourceAddress, TransportConfig};
use tokio::sync::mpsc;

use super::machines::{
    Machine, Organisation, Setup, add, begin, bytes, commit, eventually, read, soon, unseen, v4,
    wanted,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_content_arrives_whole_and_says_where_it_came_from() {
    let organisation = Organisation::new();
    for listen in [v4(), (Ipv6Addr::LOCALHOST, 0).into()] {
        let node = organisation.machine(Role::Node, listen);
        for len in [0, 1, 65_536, 65_537, 5_000_000] {
            let agent = organisation.machine(Role::Agent, listen);
            let sent = bytes(len, 1);
            let id = add(&node.store, &sent).id();
            let fetched = agent.fetcher.fetch(&wanted(id, &[&node]), &unseen()).await.unwrap();
            assert!(fetched.content.is_complete());
            assert_eq!(read(&fetched.content), sent);
            assert_eq!(fetched.report.bytes_from(SourceKind::Node), len as u64);
            assert_eq!((fetched.report.disk_bytes, fetched.report.wasted_bytes()), (0, 0));
            let again = agent.fetcher.fetch(&wanted(id, &[&node]), &unseen()).await.unwrap();
            assert_eq!(again.report.disk_bytes, len as u64); // D6
        }
        node.stop.cancel();
        node.server.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_sources_are_used_together() {
    let organisation = Organisation::new();
    let sent = bytes(40_000_000, 2);
    let sources: Vec<Machine> = (0..3).map(|_| organisation.machine(Role::Agent, v4())).collect();
    for source in &sources {
        add(&source.store, &sent);
    }
    let id = ContentId::of(&sent);
    let agent = organisation.machine(Role::Agent, v4());
    let sources: Vec<&Machine> = sources.iter().collect();
    let fetched = agent.fetcher.fetch(&wanted(id, &sources), &unseen()).await.unwrap();
    assert_eq!(ContentId::of(&read(&fetched.content)), id);
    for share in &fetched.report.sources {
        assert!(share.bytes > 0, "{share:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_only_source_lacks_and_nobody_brings_it_is_said_at_once() {
    let organisation = Organisation::new();
    let (lacking, agent) = (organisation.agent(), organisation.agent());
    let sent = bytes(10 * 65_536, 3);
    let content = begin(&lacking.store, &sent);
    commit(&content, &sent, 0..4);
    commit(&content, &sent, 9..10);
    let (fetch, progress, begun) = (wanted(content.id(), &[&lacking]), unseen(), Instant::now());
    let fetched = soon("it gives up", agent.fetcher.fetch(&fetch, &progress)).await;
    let error = fetched.err().unwrap();
    assert!(matches!(error, FetchError::NoSource { .. }), "{error:?}");
    assert!(error.to_string().contains("nothing of what is missing"), "{error}");
    assert!(begun.elapsed() < IDLE_MAX / 2, "{:?}", begun.elapsed());
    let had = agent.store.content(content.id()).unwrap().unwrap().had().count();
    assert_eq!(had, 5, "what it has is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_contents_come_over_one_connection() {
    let organisation = Organisation::new();
    let node = organisation.machine(Role::Node, v4());
    let agent = organisation.machine(Role::Agent, v4());
    let lens = (0..300).map(|number| if number % 50 == 0 { 300_000 } else { number * 200 });
    let ids: Vec<ContentId> =
        lens.zip(0..).map(|(len, seed)| add(&node.store, &bytes(len, seed)).id()).collect();
    let list = ids.iter().map(|id| wanted(*id, &[&node])).collect();
    let (each, mut done) = mpsc::channel::<Each>(16);
    let fetcher = agent.fetcher.clone();
    let fetching = tokio::spawn(async move { fetcher.fetch_many(list, each).await });
    let mut seen = vec![false; ids.len()];
    while let Some(Each { index, result }) = done.recv().await {
        let fetched = result.unwrap();
        assert_eq!(fetched.content.id(), ids[index]);
        assert!(fetched.content.is_complete() && !std::mem::replace(&mut seen[index], true));
    }
    fetching.await.unwrap();
    assert!(seen.into_iter().all(|seen| seen));
    assert_eq!(node.counters.connections_opened.value(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_content_that_nobody_has_and_a_source_that_is_not_there_are_told_apart() {
    let organisation = Organisation::new();
    let node = organisation.machine(Role::Node, v4());
    // The one whose patience is as short as it is by default.
    let transport = TransportConfig::default();
    let agent = organisation.set_up(Setup { transport, ..Setup::of(Role::Agent) });
    let nothing = ContentId::of(b"nobody has this");
    let unknown = agent.fetcher.fetch(&wanted(nothing, &[&node]), &unseen()).await.err().unwrap();
    assert!(matches!(unknown, FetchError::Unknown { .. }), "{unknown}");
    let address = node.address;
    node.stop.cancel();
    node.server.await.unwrap();
    node.fetcher.endpoint().close().await;
    drop(node.fetcher);
    // Held, so that no other test's machine answers there.
    let mut silent = None;
    eventually("its port is free", || {
        silent = std::net::UdpSocket::bind(address).ok();
        silent.is_some()
    })
    .await;
    let mut wanted = wanted(nothing, &[]);
    wanted.sources = vec![SourceAddress::Peer(address)];
    let gone = agent.fetcher.fetch(&wanted, &unseen()).await.err().unwrap();
    assert!(gone.to_string().contains(&format!("port {}", address.port())), "{gone}");
}
