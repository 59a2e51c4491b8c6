//! Nodes with a proxy, each in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sutler_node::config::Config;
use sutler_node::data::DataFolder;
use sutler_node::node::{Node, Surroundings};
use sutler_node::owner::OpenStore;
use sutler_swarm::fetch::Fetcher;
use sutler_swarm::identity::{Authority, LEAF_LIFETIME, Member, Validity, random_label};
use sutler_swarm::origin::AllowEntry;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::origin::Origin;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// An organisation and its folders.
pub(crate) struct House {
    authority: Authority,
    dir: TempDir,
}

/// A node that runs, with its proxy.
pub(crate) struct Running {
    pub(crate) proxy: SocketAddr,
    pub(crate) address: SocketAddr,
    /// Where `/metrics` is.
    pub(crate) http: Option<SocketAddr>,
    pub(crate) owner: Arc<OpenStore>,
    pub(crate) fetcher: Fetcher,
    pub(crate) dir: PathBuf,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl House {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority =
            Authority::create(&dir.path().join("org"), "acme".parse().unwrap()).unwrap();
        Self { authority, dir }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        TempDir::new_in(self.dir.path()).unwrap().keep()
    }

    /// Starts a node whose proxy may ask these origins.
    pub(crate) fn node(&self, origins: &[&Origin]) -> Running {
        self.node_with(&self.folder(), &config(origins))
    }

    /// Starts a node on a folder, which may be that of one that was stopped.
    pub(crate) fn node_with(&self, dir: &Path, config: &Config) -> Running {
        self.node_in(&Surroundings::default(), dir, config)
    }

    /// As [`House::node_with`], in surroundings of the test's own.
    pub(crate) fn node_in(&self, around: &Surroundings, dir: &Path, config: &Config) -> Running {
        let data = DataFolder::new(dir);
        if !data.identity().exists() {
            let member = Member::Node { site: "cologne".parse().unwrap(), id: random_label() };
            let validity = Validity::from_now(LEAF_LIFETIME);
            self.authority.issue(member, validity, &data.identity()).unwrap();
        }
        let listen = "127.0.0.1:0".parse().unwrap();
        let node = Node::open_in(around, &data, listen, config).unwrap();
        let (proxy, address) = (node.proxy_address().unwrap(), node.address());
        let http = node.http_address();
        let (owner, fetcher) = (node.owner().clone(), node.fetcher().clone());
        let stop = CancellationToken::new();
        let token = stop.clone();
        let ended = tokio::spawn(async move { node.run(token).await.unwrap() });
        Running { proxy, address, http, owner, fetcher, dir: dir.to_owned(), stop, ended }
    }
}

impl Running {
    /// Stops in order, and gives the folder free for another start.
    pub(crate) async fn stop(self) -> PathBuf {
        self.stop.cancel();
        drop((self.owner, self.fetcher));
        tokio::time::timeout(PATIENCE, self.ended).await.expect("it stops").unwrap();
        self.dir
    }

    /// Bytes and contents that the store holds.
    pub(crate) fn held(&self) -> (u64, usize) {
        let store = self.owner.store();
        let complete = store.list().into_iter().filter(|entry| entry.complete).count();
        (store.usage().used_bytes, complete)
    }
}

/// Returns the config of a proxy on loopback that may ask these origins, without any proxy of its
/// own.
pub(crate) fn config(origins: &[&Origin]) -> Config {
    let mut config = Config::default();
    config.store.free_bytes_min.0 = 0;
    config.store.scrub_bytes_per_second.0 = 0;
    config.origin.proxy = Some("none".to_owned());
    config.http_proxy.listen = Some("127.0.0.1:0".parse().unwrap());
    config.http_proxy.apt_sources = false;
    config.http_proxy.allow =
        origins.iter().map(|origin| AllowEntry::private(origin.url("/"))).collect();
    config
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
