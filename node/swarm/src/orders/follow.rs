//! Following the orders: a machine that keeps its manifest up to date from others, and passes denials on.
//!
//! It watches every source at a time, control or a node or a neighbour, and takes what it hears as a hint: a new
//! timestamp makes it refresh from whoever told, a denial is judged and kept. Denials that it holds go to
//! every source, so that they spread in all directions. Where nothing is heard it asks by itself once in a while.
//!
//! Always true: a source that lies or is silent costs its own connection and no other; what is believed
//! survives the process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sutler_protocol::frame::News;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::believe::{Believer, FollowError};
use super::board::Board;
use super::{Latest, Orders as _};
use crate::endpoint::Endpoint;
use crate::gateway::causes;
use crate::identity::Instance;
use crate::peer::{Peer, RequestError};

/// How often a machine asks by itself, as DESIGN's backstop says.
pub const POLL_EVERY: Duration = Duration::from_hours(1);

/// How soon, and after how long at the latest, a source that was lost is looked for again.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_mins(1);

/// Sources that are watched at a time: a few nodes, control, and neighbours.
pub const SOURCES_MAX: usize = 16;

/// Things that were heard and not looked at yet. Who tells more waits.
const HEARD_MAX: usize = 64;

/// Follows the orders of others.
pub struct Follower {
    /// Absent while it refreshes, elsewhere.
    believer: Option<Believer>,
    endpoint: Endpoint,
    board: Board,
    sources: Vec<SocketAddr>,
    /// Which machine this is, told to each source.
    instance: Option<Instance>,
    poll_every: Duration,
}

/// Something that a source told.
enum Heard {
    News { from: Peer, news: News },
    Lost { source: SocketAddr },
}

impl Follower {
    /// Opens what `folder` believes, to follow `sources`, of which at most [`SOURCES_MAX`] are heeded;
    /// `root` is what an admin handed over, for a folder that believes nothing yet. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`FollowError`], as by [`Believer::open`].
    pub fn open(
        folder: &Path,
        root: Option<&Bytes>,
        board: Board,
        endpoint: Endpoint,
        mut sources: Vec<SocketAddr>,
    ) -> Result<Self, FollowError> {
        sources.truncate(SOURCES_MAX);
        let believer = Believer::open(folder, root, board.clone(), endpoint.clone())?;
        let (believer, poll_every) = (Some(believer), POLL_EVERY);
        Ok(Self { believer, endpoint, board, sources, instance: None, poll_every })
    }

    /// Tells each source which machine this is, so that two under one name are noticed (T32).
    #[must_use]
    pub const fn as_instance(mut self, instance: Option<Instance>) -> Self {
        self.instance = instance;
        self
    }

    /// Asks by itself after so long a silence instead of [`POLL_EVERY`].
    #[must_use]
    pub const fn poll_every(mut self, poll_every: Duration) -> Self {
        self.poll_every = poll_every;
        self
    }

    /// Follows until `shutdown`.
    ///
    /// # Cancel safety
    ///
    /// What was believed is durable at any moment; dropping it loses nothing.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (heard, mut hears) = mpsc::channel(HEARD_MAX);
        let mut listening = JoinSet::new(); // Owns a listener for each source.
        for source in self.sources.clone() {
            let (endpoint, heard) = (self.endpoint.clone(), heard.clone());
            listening.spawn(listen(endpoint, source, heard, self.board.clone(), self.instance));
        }
        let mut peers = BTreeMap::new();
        let mut poll_at = Instant::now() + self.poll_every;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                // Cancel-safe: something is taken out only when it is returned.
                next = hears.recv() => match next {
                    Some(Heard::News { from, news }) => {
                        peers.insert(from.address(), from.clone());
                        if self.handle(from, news).await {
                            poll_at = Instant::now() + jittered(self.poll_every);
                        }
                    }
                    Some(Heard::Lost { source }) => drop(peers.remove(&source)),
                    // Never while `heard` is here.
                    None => return,
                },
                () = tokio::time::sleep_until(poll_at) => {
                    poll_at = Instant::now() + jittered(self.poll_every);
                    for peer in peers.values().cloned().collect::<Vec<_>>() {
                        if self.refresh(peer).await {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Looks at what was heard, and says whether the manifest was refreshed.
    async fn handle(&mut self, from: Peer, news: News) -> bool {
        match news {
            News::Denial(denial) => {
                let (board, name) = (self.board.clone(), from.name().clone());
                let taken = tokio::task::spawn_blocking(move || {
                    board.take_denial(&name, Bytes::from(denial))
                });
                match taken.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => info!(
                        peer.id = %from.name(), error = causes(&error), "a denial is not believed",
                    ),
                    Err(error) => warn!(%error, "a denial was not looked at"),
                }
                false
            }
            News::Timestamp(timestamp) => {
                let believer = self.believer.as_ref();
                let is_known = believer.is_some_and(|believer| believer.knows(&timestamp));
                !is_known && self.refresh(from).await
            }
        }
    }

    /// Refreshes from a peer, and says whether that went well.
    async fn refresh(&mut self, from: Peer) -> bool {
        let (name, runtime) = (from.name().clone(), Handle::current());
        let Some(mut believer) = self.believer.take() else { return false };
        let refreshed = tokio::task::spawn_blocking(move || {
            let refreshed = believer.refresh(from, runtime);
            (believer, refreshed)
        });
        match refreshed.await {
            Ok((believer, refreshed)) => {
                self.believer = Some(believer);
                if let Err(error) = &refreshed {
                    let error = causes(error);
                    warn!(peer.id = %name, error, "the manifest was not brought up to date");
                }
                refreshed.is_ok()
            }
            Err(error) => {
                // What it believed is on the disk, and a start finds it; until then nothing new is.
                error!(%error, "the manifest is followed no longer");
                false
            }
        }
    }
}

/// Returns a time up to a tenth shorter or longer, so that a fleet that started together does not ask
/// together.
fn jittered(every: Duration) -> Duration {
    let mut chance = [0; 4];
    // Without randomness there is no jitter, and nothing else is lost.
    if aws_lc_rs::rand::fill(&mut chance).is_err() {
        return every;
    }
    every.mul_f64(0.9 + 0.2 * f64::from(u32::from_be_bytes(chance)) / f64::from(u32::MAX))
}

/// Watches one source for ever, and looks for it again where it is lost.
async fn listen(
    endpoint: Endpoint,
    source: SocketAddr,
    heard: mpsc::Sender<Heard>,
    board: Board,
    instance: Option<Instance>,
) {
    let mut again = AGAIN_MIN;
    loop {
        match endpoint.connect(source).await {
            Ok(peer) => {
                again = AGAIN_MIN;
                greet(&peer, instance).await;
                let error = attend(&peer, &heard, board.news()).await;
                debug!(address = %source, error = causes(&error), "a source of orders was lost");
            }
            Err(error) => {
                debug!(address = %source, error = causes(&error), "no source of orders there");
            }
        }
        if heard.send(Heard::Lost { source }).await.is_err() {
            return;
        }
        sleep(jittered(again)).await;
        again = (again * 2).min(AGAIN_MAX);
    }
}

/// Says which machine this is. What comes of it is for people: both go on.
async fn greet(peer: &Peer, instance: Option<Instance>) {
    let Some(instance) = instance else { return };
    match peer.hello(instance).await {
        Ok(true) => {}
        Ok(false) => {
            warn!(peer.id = %peer.name(), "duplicate-identity: another machine has our name");
        }
        Err(error) => debug!(peer.id = %peer.name(), error = causes(&error), "not greeted"),
    }
}

/// Hears what a source tells, and tells it the denials that it may lack, until one of the two fails.
async fn attend(
    peer: &Peer,
    heard: &mpsc::Sender<Heard>,
    latest: watch::Receiver<Arc<Latest>>,
) -> RequestError {
    tokio::select! {
        // Neither is gone on with once the other has ended.
        error = hear(peer, heard) => error,
        error = pass_on(peer, latest) => error,
    }
}

async fn hear(peer: &Peer, heard: &mpsc::Sender<Heard>) -> RequestError {
    let mut watch = match peer.watch().await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    loop {
        let news = match watch.next().await {
            Ok(news) => news,
            Err(error) => return error,
        };
        if heard.send(Heard::News { from: peer.clone(), news }).await.is_err() {
            // Nobody follows any more.
            std::future::pending::<()>().await;
        }
    }
}

async fn pass_on(peer: &Peer, mut latest: watch::Receiver<Arc<Latest>>) -> RequestError {
    let mut told = Arc::<Latest>::default();
    loop {
        let now = latest.borrow_and_update().clone();
        for denial in now.denials.iter().filter(|denial| !told.denials.contains(denial)) {
            match peer.deny(denial).await {
                // It judges by its own manifest, which may be older.
                Ok(()) | Err(RequestError::Refused(_)) => {}
                Err(error) => return error,
            }
        }
        told = now;
        if latest.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
