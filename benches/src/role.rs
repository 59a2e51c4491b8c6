//! The processes of a measurement that are ours: servers and clients, bare and of the swarm.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use sutler_cache::{About, Store, StoreOptions};
use sutler_protocol::ContentId;
use sutler_protocol::frame::Class;
use sutler_swarm::arrivals::Arrivals;
use sutler_swarm::counters::Counters;
use sutler_swarm::fetch::Progress;
use sutler_swarm::identity::Identity;
use sutler_swarm::{
    Endpoint, Fetcher, Server, SourceAddress, StoreGateway, TransportConfig, Wanted,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::index::Chain;
use crate::orders::Followers;
use crate::{bare, crowd};

/// What one process of a measurement does.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Serve a store; prints `listening ADDR`.
    Serve {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        store: PathBuf,
    },
    /// Fetch a content into a store, to its end.
    Fetch {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        store: PathBuf,
        #[arg(long)]
        from: SocketAddr,
        content: ContentId,
    },
    /// Have a crowd of clients fetch a content, verify and discard it.
    Crowd {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        from: SocketAddr,
        #[arg(long)]
        clients: usize,
        content: ContentId,
    },
    /// Serve bytes from memory over bare quinn; prints `listening ADDR`.
    BareServe {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 1)]
        clients: usize,
    },
    /// Receive bytes over bare quinn and discard them.
    BareReceive {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        from: SocketAddr,
        #[arg(long, default_value_t = 1)]
        clients: usize,
        bytes: u64,
    },
    /// Verify a vendor's Release and an index, and parse the index.
    Index(Chain),
    /// Have many agents follow the orders; prints what all of them have verified at least.
    Followers(Followers),
}

/// What every process is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// The folder of its certificate.
    #[arg(long)]
    identity: PathBuf,
    /// Settings of the transport, in JSON.
    #[arg(long)]
    transport: String,
    /// How its runtime is made.
    #[arg(long, value_enum)]
    threads: Threads,
}

/// How the runtime of a process is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Threads {
    /// Everything but disk work on one thread.
    One,
    /// A worker for each core.
    Many,
}

impl Common {
    /// Returns what a process with this identity and these settings is told.
    pub(crate) fn new(identity: &Path, transport: &TransportConfig, threads: Threads) -> Self {
        let transport = serde_json::to_string(transport).expect("numbers and booleans");
        Self { identity: identity.to_owned(), transport, threads }
    }

    /// Returns the command that starts a role, to which the role's own arguments are added.
    pub(crate) fn command(&self, role: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        let threads = self.threads.to_possible_value().context("no value is hidden")?;
        command
            .args(["role", role, "--threads", threads.get_name(), "--transport", &self.transport])
            .arg("--identity")
            .arg(&self.identity);
        Ok(command)
    }

    fn identity(&self) -> anyhow::Result<Identity> {
        Ok(Identity::load(&self.identity)?)
    }

    fn transport(&self) -> anyhow::Result<TransportConfig> {
        Ok(serde_json::from_str(&self.transport)?)
    }

    fn runtime(&self) -> anyhow::Result<Runtime> {
        let mut builder = match self.threads {
            Threads::One => Builder::new_current_thread(),
            Threads::Many => Builder::new_multi_thread(),
        };
        Ok(builder.enable_all().build()?)
    }
}

impl Role {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Index(chain) => chain.read(),
            Self::Followers(followers) => followers.run(),
            Self::Serve { common, store } => common.runtime()?.block_on(serve(&common, &store)),
            Self::Fetch { common, store, from, content } => {
                common.runtime()?.block_on(fetch(&common, &store, from, content))
            }
            Self::Crowd { common, from, clients, content } => {
                let (identity, transport) = (common.identity()?, common.transport()?);
                let crowd = crowd::fetch(&identity, &transport, from, content, clients);
                common.runtime()?.block_on(crowd)
            }
            Self::BareServe { common, clients } => {
                let (identity, transport) = (common.identity()?, common.transport()?);
                common.runtime()?.block_on(bare::serve(&identity, &transport, clients))
            }
            Self::BareReceive { common, from, clients, bytes } => {
                let (identity, transport) = (common.identity()?, common.transport()?);
                let receive = bare::receive(&identity, &transport, from, bytes, clients);
                common.runtime()?.block_on(receive)
            }
        }
    }
}

async fn serve(common: &Common, store: &Path) -> anyhow::Result<()> {
    let store = open_store(store)?;
    let endpoint = endpoint(common)?;
    println!("listening {}", endpoint.local_address()?);
    let gateway = StoreGateway { store, arrivals: Arrivals::default() };
    let server = Server::new(endpoint, gateway, Arc::new(Counters::default()));
    server.run(CancellationToken::new()).await;
    Ok(())
}

async fn fetch(
    common: &Common,
    store: &Path,
    from: SocketAddr,
    content: ContentId,
) -> anyhow::Result<()> {
    let store = open_store(store)?;
    let endpoint = endpoint(common)?;
    let counters = Arc::new(Counters::default());
    let fetcher =
        Fetcher::new(endpoint.clone(), store.clone(), Arrivals::default(), None, counters);
    let sources = vec![SourceAddress::Peer(from)];
    let wanted = Wanted { content, about: About::default(), class: Class::Normal, sources };
    let fetched = fetcher.fetch(&wanted, &watch::Sender::new(Progress::default())).await?;
    anyhow::ensure!(fetched.content.is_complete(), "{content} is not complete");
    endpoint.close().await;
    store.close()?;
    Ok(())
}

fn endpoint(common: &Common) -> anyhow::Result<Endpoint> {
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    Ok(Endpoint::bind(any, &common.identity()?, common.transport()?)?)
}

/// Opens a store without limits.
pub(crate) fn open_store(dir: &Path) -> anyhow::Result<Store> {
    Ok(Store::open(dir, StoreOptions { bytes_max: None, free_bytes_min: 0 })?)
}
