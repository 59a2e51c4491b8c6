//! A site of the test's organisation: nodes that fill, and agents that ask them.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use sutler_cache::{About, Content, ImportFrom, OpenError, Store, StoreOptions};
use sutler_node::fill::{Filler, Keep};
use sutler_protocol::frame::Class;
use sutler_protocol::{ContentId, Sha256Digest};
use sutler_swarm::arrivals::Arrivals;
use sutler_swarm::counters::Counters;
use sutler_swarm::fetch::{FetchReport, Progress};
use sutler_swarm::identity::{
    Authority, Identity, LEAF_LIFETIME, Member, Role, Validity, random_label,
};
use sutler_swarm::origin::{AllowEntry, OriginConfig, Origins};
use sutler_swarm::{
    Endpoint, FetchError, Fetched, Fetcher, Gateway, Server, SourceAddress, StoreGateway,
    TransportConfig, Wanted,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::origin::Origin;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// An organisation with one site.
pub(crate) struct Site {
    authority: Authority,
    dir: TempDir,
}

/// A machine: its store, and what fetches into it and serves from it.
pub(crate) struct Machine {
    pub(crate) store: Store,
    pub(crate) fetcher: Fetcher,
    pub(crate) counters: Arc<Counters>,
    pub(crate) address: SocketAddr,
    pub(crate) dir: PathBuf,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// A node, which fills.
pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) filler: Filler,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority =
            Authority::create(&dir.path().join("org"), "acme".parse().unwrap()).unwrap();
        Self { authority, dir }
    }

    /// Starts a node that keeps what it fills and may ask `origin`.
    pub(crate) fn node(&self, origin: &Origin) -> Node {
        self.node_in(&self.folder(), origin, Keep::Yes, None)
    }

    /// Starts a node on a folder, which may be that of one that was stopped.
    pub(crate) fn node_in(
        &self,
        dir: &Path,
        origin: &Origin,
        keep: Keep,
        bytes_max: Option<u64>,
    ) -> Node {
        let origins = origins(&[origin]);
        let parts = self.parts(dir, Role::Node, Some(origins.clone()), bytes_max);
        let filler = Filler::new(parts.0.clone(), origins, keep);
        Node { machine: Machine::serving(dir, parts, filler.clone()), filler }
    }

    /// Starts an agent, which serves its peers.
    pub(crate) fn agent(&self) -> Machine {
        self.agent_with(None)
    }

    /// Starts an agent that may ask origins itself.
    pub(crate) fn agent_with(&self, origins: Option<Origins>) -> Machine {
        let dir = self.folder();
        let parts = self.parts(&dir, Role::Agent, origins, None);
        let gateway = plain(&parts.0);
        Machine::serving(&dir, parts, gateway)
    }

    /// Starts control, which has lost what it had.
    pub(crate) fn control(&self) -> Machine {
        let dir = self.folder();
        let parts = self.parts(&dir, Role::Control, None, None);
        let gateway = plain(&parts.0);
        Machine::serving(&dir, parts, gateway)
    }

    /// Starts a node that answers as `gateway` does.
    pub(crate) fn node_of<G: Gateway>(&self, gateway: impl FnOnce(StoreGateway) -> G) -> Machine {
        let dir = self.folder();
        let parts = self.parts(&dir, Role::Node, None, None);
        let gateway = gateway(plain(&parts.0));
        Machine::serving(&dir, parts, gateway)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        TempDir::new_in(self.dir.path()).unwrap().keep()
    }

    fn parts(
        &self,
        dir: &Path,
        role: Role,
        origins: Option<Origins>,
        bytes_max: Option<u64>,
    ) -> (Fetcher, Arc<Counters>) {
        let identity = dir.join("identity");
        if !identity.exists() {
            let (site, id) = ("cologne".parse().unwrap(), random_label());
            let member = match role {
                Role::Node => Member::Node { site, id },
                Role::Agent => Member::Agent { site, id },
                Role::Control => Member::Control { id },
            };
            self.authority.issue(member, Validity::from_now(LEAF_LIFETIME), &identity).unwrap();
        }
        let identity = Identity::load(&identity).unwrap();
        let bytes_max = bytes_max.and_then(NonZeroU64::new);
        let options = StoreOptions { bytes_max, free_bytes_min: 0 };
        let store = open(&dir.join("store"), options);
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::bind(listen, &identity, TransportConfig::default()).unwrap();
        let (arrivals, counters) = (Arrivals::default(), Arc::new(Counters::default()));
        (Fetcher::new(endpoint, store, arrivals, origins, counters.clone()), counters)
    }
}

impl Machine {
    fn serving<G: Gateway>(
        dir: &Path,
        (fetcher, counters): (Fetcher, Arc<Counters>),
        gateway: G,
    ) -> Self {
        let endpoint = fetcher.endpoint().clone();
        let address = endpoint.local_address().unwrap();
        let stop = CancellationToken::new();
        let server = Server::new(endpoint, gateway, counters.clone()).run(stop.clone());
        let server = tokio::spawn(server);
        let store = fetcher.store().clone();
        Self { store, fetcher, counters, address, dir: dir.to_owned(), stop, server }
    }

    /// Fetches a content from these machines.
    pub(crate) async fn fetch(
        &self,
        id: ContentId,
        from: &[&Machine],
    ) -> Result<Fetched, FetchError> {
        self.fetch_seen(id, from, &watch::Sender::default()).await
    }

    /// As [`Self::fetch`], telling how far it is.
    pub(crate) async fn fetch_seen(
        &self,
        id: ContentId,
        from: &[&Machine],
        progress: &watch::Sender<Progress>,
    ) -> Result<Fetched, FetchError> {
        let wanted = wanted(id, from);
        let fetching = self.fetcher.fetch(&wanted, progress);
        tokio::time::timeout(PATIENCE, fetching).await.expect("a fetch ends")
    }

    /// Fetches a vendor's file by way of these nodes.
    pub(crate) async fn fetch_vendor(
        &self,
        sha256: Sha256Digest,
        url: &Url,
        from: &[&Machine],
    ) -> Result<Fetched, FetchError> {
        let wanted = wanted(ContentId::of(b""), from);
        let unseen = watch::Sender::default();
        let fetching = self.fetcher.fetch_vendor(sha256, url, wanted, &unseen);
        tokio::time::timeout(PATIENCE, fetching).await.expect("a fetch ends")
    }

    /// Returns how many bytes of a content are here.
    pub(crate) fn had_bytes(&self, id: ContentId) -> u64 {
        let Some(content) = self.store.content(id).unwrap() else { return 0 };
        let geometry = content.geometry();
        let had = content.had();
        had.runs().map(|run| geometry.bytes(run)).map(|bytes| bytes.end - bytes.start).sum()
    }

    /// Takes a file in that is said to come from `origin`.
    pub(crate) fn import(&self, bytes: &[u8], origin: Option<&Url>) -> ContentId {
        self.import_of(bytes, origin.map(|url| sutler_cache::Origin::at(url.as_str())))
    }

    fn import_of(&self, bytes: &[u8], origin: Option<sutler_cache::Origin>) -> ContentId {
        let about = About { origins: origin.into_iter().collect(), ..About::default() };
        self.store.import(ImportFrom::Stream(&mut &bytes[..]), &about).unwrap().content.id()
    }

    /// Knows a file that comes from `origin`, and has nothing of it.
    pub(crate) fn import_and_evict(&self, bytes: &[u8], origin: &Url) -> ContentId {
        self.import_and_evict_of(bytes, sutler_cache::Origin::at(origin.as_str()))
    }

    /// Knows a file of which an origin has said something, and has nothing of it.
    pub(crate) fn import_and_evict_of(
        &self,
        bytes: &[u8],
        origin: sutler_cache::Origin,
    ) -> ContentId {
        let id = self.import_of(bytes, Some(origin));
        assert_eq!(self.store.evict(id).unwrap(), bytes.len() as u64);
        id
    }

    /// Flips a bit of a content's file on the disk.
    pub(crate) fn damage(&self, id: ContentId, offset: usize) {
        let name = id.to_string();
        let path = self.dir.join("store/contents").join(&name[..2]).join(format!("{name}.data"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[offset] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    /// Stops, and gives the folder free for another start.
    pub(crate) async fn stop(self) -> PathBuf {
        self.stop.cancel();
        self.server.await.unwrap();
        self.fetcher.endpoint().close().await;
        self.dir
    }
}

impl Node {
    /// Stops, and gives the folder free for another start.
    pub(crate) async fn stop(self) -> PathBuf {
        self.filler.stop().await;
        drop(self.filler);
        self.machine.stop().await
    }
}

/// Opens a store; one that was just closed may still be held by a thread that ends.
fn open(dir: &Path, options: StoreOptions) -> Store {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match Store::open(dir, options) {
            Err(OpenError::Owned) if Instant::now() < give_up => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn plain(fetcher: &Fetcher) -> StoreGateway {
    StoreGateway { store: fetcher.store().clone(), arrivals: fetcher.arrivals().clone() }
}

/// Returns the client of these origins, asked without any proxy.
pub(crate) fn origins(allowed: &[&Origin]) -> Origins {
    let allow = allowed.iter().map(|origin| AllowEntry::private(origin.url("/").as_str()));
    let config = OriginConfig {
        allow: allow.collect(),
        proxy: Some("none".to_owned()),
        ..OriginConfig::default()
    };
    Origins::new(&config).unwrap()
}

/// Returns the wish for a content from these machines.
pub(crate) fn wanted(content: ContentId, from: &[&Machine]) -> Wanted {
    let sources = from.iter().map(|machine| SourceAddress::Peer(machine.address)).collect();
    Wanted { content, about: About::default(), class: Class::Normal, sources }
}

/// Bytes that differ everywhere, the same for the same seed.
pub(crate) fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let word = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    std::iter::repeat_with(word).flat_map(u32::to_le_bytes).take(len).collect()
}

/// Reads all of a content.
pub(crate) fn read(content: &Content) -> Vec<u8> {
    let len = content.geometry().len();
    let mut into = vec![0; len as usize];
    content.read(0..len, &mut into).unwrap();
    into
}

pub(crate) fn sha256(bytes: &[u8]) -> Sha256Digest {
    let digest = digest::digest(&digest::SHA256, bytes);
    Sha256Digest::from_bytes(digest.as_ref().try_into().unwrap())
}

/// Checks that a fetch brought these bytes, and returns where they came from.
pub(crate) fn brought(fetched: Result<Fetched, FetchError>, expected: &[u8]) -> FetchReport {
    let fetched = fetched.unwrap();
    assert!(fetched.content.is_complete());
    assert!(read(&fetched.content) == expected, "other bytes than were asked for");
    fetched.report
}

/// Returns why a fetch failed, with all its causes in one line.
pub(crate) fn failed(fetched: Result<Fetched, FetchError>) -> String {
    sutler_swarm::gateway::causes(&fetched.err().expect("it fails"))
}

/// Waits until something is so, which nothing tells of.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !is_so() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
