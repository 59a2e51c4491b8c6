//! Honest machines: a store, an endpoint, and a server for the store.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sutler_cache::backend::Backend;
use sutler_cache::{About, Content, Store, StoreOptions};
use sutler_protocol::frame::Class;
use sutler_protocol::geometry::ChunkIndex;
use sutler_protocol::{ContentId, HashListBuilder};
use sutler_swarm::arrivals::Arrivals;
use sutler_swarm::counters::Counters;
use sutler_swarm::fetch::Progress;
use sutler_swarm::identity::{
    Authority, Identity, LEAF_LIFETIME, Member, Role, Validity, random_label,
};
use sutler_swarm::orders::Orders;
use sutler_swarm::serve::CONNECTIONS_MAX;
use sutler_swarm::{
    Endpoint, Fetcher, Server, SourceAddress, StoreGateway, TransportConfig, Wanted,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a test waits for at most. Far more than it takes: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// A machine of the test's organisation.
pub(super) struct Machine {
    pub(super) store: Store,
    pub(super) fetcher: Fetcher,
    pub(super) address: SocketAddr,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: CancellationToken,
    pub(super) server: tokio::task::JoinHandle<()>,
    /// Where the store lies, unless it lies in memory.
    pub(super) folder: PathBuf,
}

/// How a machine differs from the others.
pub(super) struct Setup {
    pub(super) role: Role,
    pub(super) listen: SocketAddr,
    pub(super) transport: TransportConfig,
    pub(super) options: StoreOptions,
    /// What the store lies on, if not in a folder.
    pub(super) backend: Option<Arc<dyn Backend>>,
    /// The folder of a machine that was there before.
    pub(super) folder: Option<PathBuf>,
    pub(super) connections_max: usize,
    /// The identity of a machine that was there before.
    pub(super) identity: Option<Identity>,
    /// What it answers about orders.
    pub(super) orders: Option<Arc<dyn Orders>>,
}

pub(super) struct Organisation {
    pub(super) authority: Authority,
    pub(super) dir: TempDir,
}

impl Setup {
    pub(super) fn of(role: Role) -> Self {
        Self {
            role,
            listen: v4(),
            transport: TransportConfig {
                handshake_timeout_ms: 20_000,
                ..TransportConfig::default()
            },
            options: StoreOptions { bytes_max: None, free_bytes_min: 0 },
            backend: None,
            folder: None,
            connections_max: CONNECTIONS_MAX,
            identity: None,
            orders: None,
        }
    }
}

impl Organisation {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority =
            Authority::create(&dir.path().join("org"), "acme".parse().unwrap()).unwrap();
        Self { authority, dir }
    }

    pub(super) fn identity(&self, role: Role) -> Identity {
        let dir = TempDir::new_in(self.dir.path()).unwrap();
        let folder = dir.path().join("identity");
        let (site, id) = ("cologne".parse().unwrap(), random_label());
        let member = match role {
            Role::Node => Member::Node { site, id },
            Role::Agent | Role::Control => Member::Agent { site, id },
        };
        self.authority.issue(member, Validity::from_now(LEAF_LIFETIME), &folder).unwrap();
        Identity::load(&folder).unwrap()
    }

    pub(super) fn node(&self) -> Machine {
        self.set_up(Setup::of(Role::Node))
    }

    pub(super) fn agent(&self) -> Machine {
        self.set_up(Setup::of(Role::Agent))
    }

    pub(super) fn machine(&self, role: Role, listen: SocketAddr) -> Machine {
        self.set_up(Setup { listen, ..Setup::of(role) })
    }

    pub(super) fn set_up(&self, setup: Setup) -> Machine {
        // It goes with the organisation, because another machine may be set up on it.
        let dir = TempDir::new_in(self.dir.path()).unwrap().keep();
        let folder = setup.folder.unwrap_or_else(|| dir.join("store"));
        let store = match setup.backend {
            Some(backend) => Store::open_on(backend, setup.options).unwrap(),
            None => open(&folder, setup.options),
        };
        let identity = setup.identity.unwrap_or_else(|| self.identity(setup.role));
        let endpoint = Endpoint::bind(setup.listen, &identity, setup.transport).unwrap();
        let address = endpoint.local_address().unwrap();
        let (arrivals, counters) = (Arrivals::default(), Arc::new(Counters::default()));
        let gateway = StoreGateway { store: store.clone(), arrivals: arrivals.clone() };
        let stop = CancellationToken::new();
        let server = Server::new(endpoint.clone(), gateway, counters.clone())
            .connections_max(setup.connections_max)
            .orders(setup.orders);
        let server = tokio::spawn(server.run(stop.clone()));
        let fetcher = Fetcher::new(endpoint, store.clone(), arrivals, None, counters.clone());
        Machine { store, fetcher, address, counters, stop, server, folder }
    }
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Store {
    Store::open(dir, options).unwrap()
}

pub(super) fn v4() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Bytes that differ everywhere, the same for the same seed.
pub(super) fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let word = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    std::iter::repeat_with(word).flat_map(u32::to_le_bytes).take(len).collect()
}

/// Puts a whole content into a store.
pub(super) fn add(store: &Store, bytes: &[u8]) -> Content {
    let content = begin(store, bytes);
    let chunks = content.geometry().chunks();
    commit(&content, bytes, 0..chunks);
    store.complete(std::slice::from_ref(&content)).unwrap();
    content
}

/// Makes a content known to a store, with nothing had of it.
pub(super) fn begin(store: &Store, bytes: &[u8]) -> Content {
    let mut builder = HashListBuilder::new();
    builder.update(bytes);
    store.create(builder.finish().unwrap(), &About::default()).unwrap()
}

/// Puts some chunks of a content into its store.
pub(super) fn commit(content: &Content, bytes: &[u8], chunks: std::ops::Range<u32>) {
    for chunk in chunks.map(ChunkIndex) {
        let place = content.geometry().chunk(chunk);
        content.commit(chunk, &bytes[place.start as usize..place.end as usize]).unwrap();
    }
}

pub(super) fn wanted(content: ContentId, sources: &[&Machine]) -> Wanted {
    wanted_of(content, sources.iter().map(|machine| machine.address))
}

pub(super) fn wanted_of(
    content: ContentId,
    sources: impl IntoIterator<Item = SocketAddr>,
) -> Wanted {
    let sources = sources.into_iter().map(SourceAddress::Peer).collect();
    Wanted { content, about: About::default(), class: Class::Normal, sources }
}

pub(super) fn read(content: &Content) -> Vec<u8> {
    let len = content.geometry().len();
    let mut into = vec![0; len as usize];
    content.read(0..len, &mut into).unwrap();
    into
}

pub(super) fn unseen() -> watch::Sender<Progress> {
    watch::Sender::new(Progress::default())
}

/// Waits until something is so that nothing else would tell.
pub(super) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let looks = async {
        let mut look = tokio::time::interval(Duration::from_millis(2));
        while !is_so() {
            look.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looks).await.is_ok(), "never: {what}");
}

/// Waits for something that must come.
pub(super) async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(PATIENCE, coming).await;
    came.unwrap_or_else(|_| panic!("never: {what}"))
}
