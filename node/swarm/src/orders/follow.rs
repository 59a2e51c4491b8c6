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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::UnixTime;
use sutler_cache::trust::{CreateError, OpenError, TrustStore};
use sutler_orders::admission::{Revocation, Revocations};
use sutler_orders::text::Utc;
use sutler_orders::{Kind, Order, OrderError};
use sutler_protocol::frame::News;
use sutler_protocol::manifest::{LoadError, TargetPath, Trusted};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::board::Board;
use super::manifest::{From, Manifest, UpdateError, update};
use super::{Latest, Orders as _};
use crate::endpoint::Endpoint;
use crate::gateway::causes;
use crate::identity::{Revoked, TrustedClock};
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
    endpoint: Endpoint,
    sources: Vec<SocketAddr>,
    folder: PathBuf,
    board: Board,
    believed: Option<Believed>,
    clock: TrustedClock,
    poll_every: Duration,
}

/// What is believed, in memory and on the disk.
struct Believed {
    trusted: Trusted,
    store: TrustStore,
}

/// Why a machine cannot follow.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// What was believed cannot be read.
    #[error("open what {} believes", .folder.display())]
    Open {
        /// The folder of the orders.
        folder: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The root that was handed over is no root.
    #[error("begin to believe in {}", .folder.display())]
    Create {
        /// The folder of the orders.
        folder: PathBuf,
        /// Why.
        source: CreateError,
    },
    /// What was believed does not hold by itself.
    #[error("load what {} believes", .folder.display())]
    Load {
        /// The folder of the orders.
        folder: PathBuf,
        /// Why.
        source: LoadError,
    },
}

/// Something that a source told.
enum Heard {
    News { from: Peer, news: News },
    Lost { source: SocketAddr },
}

impl Follower {
    /// Opens what `folder` believes; `root` is what an admin handed over, for a folder that believes
    /// nothing yet. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`FollowError`]; [`OpenError::NotMade`] where there is neither.
    pub fn open(
        folder: &Path,
        root: Option<&Bytes>,
        board: Board,
        endpoint: Endpoint,
        sources: Vec<SocketAddr>,
    ) -> Result<Self, FollowError> {
        let believed = Believed::open(folder, root)?;
        let clock = endpoint.clock().clone();
        let (folder, poll_every) = (folder.to_owned(), POLL_EVERY);
        let mut follower =
            Self { endpoint, sources, folder, board, believed: Some(believed), clock, poll_every };
        follower.sources.truncate(SOURCES_MAX);
        follower.recall();
        Ok(follower)
    }

    /// Asks by itself after so long a silence instead of [`POLL_EVERY`].
    #[must_use]
    pub const fn poll_every(mut self, poll_every: Duration) -> Self {
        self.poll_every = poll_every;
        self
    }

    /// Brings to mind what was believed last, from the disk alone.
    fn recall(&mut self) {
        let Some(Believed { trusted, store }) = &mut self.believed else { return };
        if let Some(issued) = trusted.timestamp().and_then(|timestamp| timestamp.issued()) {
            raise(&self.clock, issued);
        }
        let now = now(&self.clock);
        match update(trusted, store, self.board.mirror(), From::Mirror, now) {
            Ok(manifest) => tell(&self.board, &self.endpoint, manifest),
            Err(UpdateError::Nothing) => {}
            Err(error) => info!(error = error.said(), "the last manifest has to be fetched again"),
        }
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
            listening.spawn(listen(endpoint, source, heard, self.board.clone()));
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
                let believed = self.believed.as_ref();
                let known = believed.and_then(|believed| believed.trusted.timestamp());
                let is_told = self.board.news().borrow().timestamp.is_some();
                if is_told && known.is_some_and(|known| known.bytes()[..] == timestamp[..]) {
                    return false;
                }
                self.refresh(from).await
            }
        }
    }

    /// Refreshes from a peer, and says whether that went well.
    async fn refresh(&mut self, from: Peer) -> bool {
        let believed = self.believed.take();
        let (folder, board, clock) = (self.folder.clone(), self.board.clone(), self.clock.clone());
        let endpoint = self.endpoint.clone();
        let (name, runtime) = (from.name().clone(), Handle::current());
        let refreshed = tokio::task::spawn_blocking(move || {
            let mut believed = match believed {
                Some(believed) => believed,
                // Given up before, because it could not be kept.
                None => Believed::open(&folder, None).map_err(|error| causes(&error))?,
            };
            let Believed { trusted, store } = &mut believed;
            let from = From::Peer(from, runtime);
            let updated = update(trusted, store, board.mirror(), from, now(&clock));
            // The statement holds even where the orders are not whole.
            if let Some(issued) = trusted.timestamp().and_then(|known| known.issued()) {
                raise(&clock, issued);
            }
            match updated {
                Ok(manifest) => {
                    tell(&board, &endpoint, manifest);
                    Ok((Some(believed), None))
                }
                Err(error) if error.is_own() => Ok((None, Some(error.said()))),
                Err(error) => Ok((Some(believed), Some(error.said()))),
            }
        });
        let (believed, trouble) = match refreshed.await {
            Ok(Ok(refreshed)) => refreshed,
            Ok(Err(error)) => (None, Some(error)),
            Err(error) => (None, Some(error.to_string())),
        };
        self.believed = believed;
        if let Some(error) = &trouble {
            warn!(peer.id = %name, error, "the manifest was not brought up to date");
        }
        trouble.is_none()
    }
}

impl Believed {
    fn open(folder: &Path, root: Option<&Bytes>) -> Result<Self, FollowError> {
        let path = folder.join("trust");
        let named = || folder.to_owned();
        let (store, kept) = match (TrustStore::open(&path), root) {
            (Err(OpenError::NotMade), Some(root)) => {
                let create = |source| FollowError::Create { folder: named(), source };
                std::fs::create_dir_all(folder).map_err(CreateError::Write).map_err(create)?;
                drop(TrustStore::create(&path, root).map_err(create)?);
                TrustStore::open(&path)
            }
            (opened, _) => opened,
        }
        .map_err(|source| FollowError::Open { folder: named(), source })?;
        let trusted =
            Trusted::load(&kept).map_err(|source| FollowError::Load { folder: named(), source })?;
        Ok(Self { trusted, store })
    }
}

/// Tells the board of a manifest, and shuts out whom it revokes.
fn tell(board: &Board, endpoint: &Endpoint, manifest: Manifest) {
    let version = manifest.statement.version;
    let revoked = revoked(&manifest);
    match board.set_manifest(manifest) {
        Ok(()) => info!(manifest.version = version.number(), "the manifest is up to date"),
        Err(error) => warn!(%error, "denials cannot be read, so the manifest is not heeded"),
    }
    match revoked {
        Some(Ok(revoked)) => {
            let closed = endpoint.set_revoked(revoked);
            if closed > 0 {
                info!(closed, "connections of revoked members were closed");
            }
        }
        // Who was shut out before stays so.
        Some(Err(error)) => warn!(error = causes(&error), "the revocations cannot be read"),
        None => {}
    }
}

/// Returns whom a manifest revokes, if it says anything of it.
fn revoked(manifest: &Manifest) -> Option<Result<Revoked, OrderError>> {
    let (_, path) = Kind::Revocations.target(None)?;
    let bytes = manifest.files.get(&TargetPath::from(path.as_str()))?;
    Some(Order::<Revocations>::read(bytes).map(|order| {
        let at = |until: Utc| {
            let secs = u64::try_from(until.instant().as_second()).unwrap_or_default();
            UnixTime::since_unix_epoch(Duration::from_secs(secs))
        };
        let member = |one: &Revocation| (one.member.member().clone(), one.until.map(at));
        let members = order.body.revocations.iter().map(member).collect();
        Revoked { members, ..Revoked::default() }
    }))
}

fn raise(clock: &TrustedClock, issued: jiff::Timestamp) {
    let secs = u64::try_from(issued.as_second()).unwrap_or_default();
    clock.raise(UnixTime::since_unix_epoch(Duration::from_secs(secs)));
}

fn now(clock: &TrustedClock) -> jiff::Timestamp {
    let secs = i64::try_from(clock.now().as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(secs).unwrap_or(jiff::Timestamp::MAX)
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
async fn listen(endpoint: Endpoint, source: SocketAddr, heard: mpsc::Sender<Heard>, board: Board) {
    let mut again = AGAIN_MIN;
    loop {
        match endpoint.connect(source).await {
            Ok(peer) => {
                again = AGAIN_MIN;
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
