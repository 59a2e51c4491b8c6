//! The runtime of commands that use the network, and what they may ask for.
//!
//! Where a command owns the store itself, the origins that the user typed are allowed besides
//! those of the config, whatever they resolve to: they are asked for with the user's own rights.
//! Where another process owns the store, its config alone decides.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sutler_node::config::Config;
use sutler_node::failure::{Failure, Kind};
use sutler_node::node::{asking_endpoint, origins};
use sutler_node::owner::Bringer;
use sutler_swarm::arrivals::Arrivals;
use sutler_swarm::counters::Counters;
use sutler_swarm::origin::AllowEntry;
use sutler_swarm::{Endpoint, Fetcher};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::{Position, Url};

use super::add::is_url;
use crate::access::{Access, DataArgs};
use crate::exit::code_of;

/// How long a command says goodbye: the packet goes out at once, and only a peer that missed it asks.
const GOODBYE_MAX: Duration = Duration::from_millis(20);

/// What must live as long as a command that fetches.
pub(crate) struct Network {
    runtime: OneThread,
    endpoint: Option<Endpoint>,
}

impl Network {
    /// Begins to say goodbye to every peer, while the command goes on.
    pub(crate) fn part(self) -> Parting {
        let goodbye = self.endpoint.map(|endpoint| {
            self.runtime.handle.spawn(async move {
                // Whoever does not hear it finds out by himself.
                drop(timeout(GOODBYE_MAX, endpoint.close()).await);
            })
        });
        Parting { runtime: self.runtime, goodbye }
    }
}

/// Goodbyes that are being said.
pub(crate) struct Parting {
    runtime: OneThread,
    goodbye: Option<tokio::task::JoinHandle<()>>,
}

impl Parting {
    /// Waits until they were heard, or a moment.
    pub(crate) fn wait(self) {
        // It fails only where it was cut off.
        drop(self.goodbye.map(|goodbye| self.runtime.handle.block_on(goodbye)));
    }
}

/// A runtime on one thread of its own, while the command's thread waits and shows how far it is.
///
/// One transfer is one socket: handing its packets from thread to thread costs processor time, and
/// on two cores gains none.
struct OneThread {
    handle: Handle,
    /// Dropped, it ends the thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OneThread {
    fn start() -> Result<Self, Failure> {
        let failed = |error| Failure::because(Kind::Internal, "start a thread", &error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let run = move || drop(runtime.block_on(ended));
        let thread =
            thread::Builder::new().name("network".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { handle, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        drop(self.end.take());
        // It ends its tasks, and waits for disk work that was begun.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Makes the runtime of a node.
pub(crate) fn start() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("sutler")
        .build()
        .map_err(|error| Failure::because(Kind::Internal, "start threads", &error))
}

/// Returns a token that is cancelled by SIGINT and SIGTERM. A second one ends the process at once.
/// Must be called within a runtime.
pub(crate) fn stopped_by_signals() -> Result<CancellationToken, Failure> {
    let failed = |error| Failure::because(Kind::Internal, "wait for signals", &error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let token = CancellationToken::new();
    let stop = token.clone();
    // Ends with the runtime.
    drop(tokio::spawn(async move {
        for signals in 0.. {
            tokio::select! {
                // Cancel-safe: no signal is lost that was not returned.
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if signals > 0 {
                // Whoever asks twice does not want to wait for anything: as a kill, which every
                // store survives.
                std::process::exit(code_of(Kind::Interrupted).0.into());
            }
            stop.cancel();
        }
    }));
    Ok(token)
}

/// Lets a store of this process download the URLs among `what`.
pub(crate) fn for_urls(
    access: Access,
    data: &DataArgs,
    what: &[String],
) -> Result<(Access, Option<Network>), Failure> {
    let urls: Vec<&String> = what.iter().filter(|what| is_url(what)).collect();
    if urls.is_empty() {
        return Ok((access, None));
    }
    with_network(access, data, &urls, Peers::None).map(|(access, network)| (access, Some(network)))
}

/// Whether a command talks to peers, which takes an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers {
    /// It does not.
    None,
    /// It does.
    Some,
}

/// Lets a store of this process fetch, with `urls` allowed. A store of another process is returned
/// as it is: it fetches by itself.
pub(crate) fn with_network(
    access: Access,
    data: &DataArgs,
    urls: &[&String],
    peers: Peers,
) -> Result<(Access, Network), Failure> {
    let runtime = OneThread::start()?;
    let store = match access {
        Access::Own(store) => store,
        owner @ Access::Owner(_) => return Ok((owner, Network { runtime, endpoint: None })),
    };
    let mut config = data.config()?;
    allow(&mut config, urls)?;
    let entered = runtime.handle.enter();
    let stop = stopped_by_signals()?;
    let origins = origins(&config.origin)?;
    let mut endpoint = None;
    let mut fetcher = None;
    if peers == Peers::Some {
        let asking = asking_endpoint(store.data(), &config.transport)?;
        fetcher = Some(Fetcher::new(
            asking.clone(),
            store.store().clone(),
            Arrivals::default(),
            Some(origins.clone()),
            Arc::new(Counters::default()),
        ));
        endpoint = Some(asking);
    }
    let bringer =
        Bringer { runtime: runtime.handle.clone(), fetcher, origins: Some(origins), stop };
    drop(entered);
    Ok((Access::Own(Box::new(store.with_bringer(bringer))), Network { runtime, endpoint }))
}

/// Adds the origins of URLs that the user typed to what a config allows.
fn allow(config: &mut Config, urls: &[&String]) -> Result<(), Failure> {
    for text in urls {
        let url = Url::parse(text).map_err(|error| {
            Failure::because(Kind::Usage, format!("read the URL {text}"), &error)
        })?;
        config.origin.allow.push(AllowEntry::private(&url[..Position::BeforePath]));
    }
    Ok(())
}
