//! Contents from one store to another, over real sockets on loopback.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use sutler_cache::{About, Content, Store, StoreOptions};
use sutler_protocol::frame::Class;
use sutler_protocol::geometry::ChunkIndex;
use sutler_protocol::{ContentId, HashListBuilder};
use sutler_swarm::arrivals::Arrivals;
use sutler_swarm::counters::Counters;
use sutler_swarm::fetch::{Each, Progress, SourceKind};
use sutler_swarm::identity::{Authority, Identity, LEAF_LIFETIME, Label, Member, Role, Validity};
use sutler_swarm::{
    Endpoint, FetchError, Fetcher, Server, SourceAddress, StoreGateway, TransportConfig, Wanted,
};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A machine of the test's organisation: a store, an endpoint, and a server for the store.
struct Machine {
    store: Store,
    fetcher: Fetcher,
    address: SocketAddr,
    counters: Arc<Counters>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    _dir: TempDir,
}

struct Organisation {
    authority: Authority,
    dir: TempDir,
}

impl Organisation {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority =
            Authority::create(&dir.path().join("org"), "acme".parse().unwrap()).unwrap();
        Self { authority, dir }
    }

    fn machine(&self, role: Role, listen: SocketAddr) -> Machine {
        let dir = TempDir::new_in(self.dir.path()).unwrap();
        let identity = dir.path().join("identity");
        let (site, id) = ("cologne".parse().unwrap(), Label::random());
        let member = match role {
            Role::Node => Member::Node { site, id },
            Role::Agent | Role::Control => Member::Agent { site, id },
        };
        let validity = Validity::from_now(LEAF_LIFETIME);
        self.authority.issue(member, validity, &identity).unwrap();
        let identity = Identity::load(&identity).unwrap();
        let store = open(&dir.path().join("store"));
        let endpoint = Endpoint::bind(listen, &identity, TransportConfig::default()).unwrap();
        let address = endpoint.local_address().unwrap();
        let (arrivals, counters) = (Arrivals::default(), Arc::new(Counters::default()));
        let gateway = StoreGateway { store: store.clone(), arrivals: arrivals.clone() };
        let stop = CancellationToken::new();
        let server = Server::new(endpoint.clone(), gateway, counters.clone()).run(stop.clone());
        let server = tokio::spawn(server);
        let fetcher = Fetcher::new(endpoint, store.clone(), arrivals, None, counters.clone());
        Machine { store, fetcher, address, counters, stop, server, _dir: dir }
    }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, StoreOptions { bytes_max: None, free_bytes_min: 0 }).unwrap()
}

fn v4() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Bytes that differ everywhere, the same for the same seed.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let word = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    std::iter::repeat_with(word).flat_map(u32::to_le_bytes).take(len).collect()
}

fn add(store: &Store, bytes: &[u8]) -> Content {
    let mut builder = HashListBuilder::new();
    builder.update(bytes);
    let content = store.create(builder.finish().unwrap(), &About::default()).unwrap();
    let chunk = content.geometry().chunk_bytes() as usize;
    for (index, bytes) in (0..).zip(bytes.chunks(chunk)) {
        content.commit(ChunkIndex(index), bytes).unwrap();
    }
    if bytes.is_empty() {
        content.commit(ChunkIndex(0), bytes).unwrap();
    }
    store.complete(std::slice::from_ref(&content)).unwrap();
    content
}

fn wanted(content: ContentId, sources: &[&Machine]) -> Wanted {
    let sources = sources.iter().map(|machine| SourceAddress::Peer(machine.address)).collect();
    Wanted { content, about: About::default(), class: Class::Normal, sources }
}

fn read(content: &Content) -> Vec<u8> {
    let len = content.geometry().len();
    let mut into = vec![0; len as usize];
    content.read(0..len, &mut into).unwrap();
    into
}

fn unseen() -> watch::Sender<Progress> {
    watch::Sender::new(Progress::default())
}

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
    let agent = organisation.machine(Role::Agent, v4());
    let nothing = ContentId::of(b"nobody has this");
    let unknown = agent.fetcher.fetch(&wanted(nothing, &[&node]), &unseen()).await.err().unwrap();
    assert!(matches!(unknown, FetchError::Unknown { .. }), "{unknown}");
    let address = node.address;
    node.stop.cancel();
    node.server.await.unwrap();
    node.fetcher.endpoint().close().await;
    drop(node.fetcher);
    let mut wanted = wanted(nothing, &[]);
    wanted.sources = vec![SourceAddress::Peer(address)];
    let gone = agent.fetcher.fetch(&wanted, &unseen()).await.err().unwrap();
    assert!(gone.to_string().contains(&format!("port {}", address.port())), "{gone}");
}
