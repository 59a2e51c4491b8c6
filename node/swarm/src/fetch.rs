//! The asking side: gathers contents from all their sources at once, into the store.
//!
//! The rules are [`sutler_protocol::fetch`]'s; here they meet sockets, disks and the clock. What is
//! fetched can be served from the first chunk on.
//!
//! | Question | Room |
//! |---|---|
//! | Who is there, and what do they have? | `introduce` |
//! | One content from many sources | `drive` |
//! | The bytes of one request, gathered into chunks | `receive` |
//! | A content of which no hash list can be had | `whole` |
//! | Many contents over one connection | `many` |
//! | What happened, for people and auditors | `report` |

mod drive;
mod introduce;
mod links;
mod many;
mod receive;
mod report;
mod whole;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sutler_cache::{
    About, CheckpointError, CommitError, CompleteError, Content, CreateError, EvictError,
    PromoteError, QuarantineError, ReadError, Store,
};
use sutler_protocol::fetch::Reason;
use sutler_protocol::frame::Class;
use sutler_protocol::{ContentId, Sha256Digest};
use tokio::sync::watch;
use tracing::info;
use url::Url;

use crate::arrivals::Arrivals;
use crate::buffers::Buffers;
use crate::counters::Counters;
use crate::disk::Disk;
use crate::endpoint::Endpoint;
use crate::gateway::Filled;
use crate::origin::{OriginError, Origins};
use crate::peer::{ConnectError, RequestError};
use drive::Outcome;
use introduce::{Useless, no_source};
use links::Links;
pub use many::Each;
pub use report::{FetchReport, Progress, SourceKind, SourceShare};
pub use sutler_cache::QuarantineKey;
pub use whole::{Answered, FileFetcher, Onlooker};

/// How often a peer that is busy is asked again: a node that fills as much as it may says so every
/// 2 s, and in two minutes it has some room.
const BUSY_ATTEMPTS: u32 = 60;

/// How often, and after what wait, a content that is still being written is tried to be forgotten.
const FORGET_ATTEMPTS: u32 = 50;
const FORGET_AGAIN: Duration = Duration::from_millis(20);

/// Where bytes may be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAddress {
    /// An agent or a node, over QUIC.
    Peer(SocketAddr),
    /// A vendor's server, over HTTP.
    Origin(Url),
}

/// What is to be fetched.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which content.
    pub content: ContentId,
    /// What is known of it; kept with it. A digest in it must agree before it is complete.
    pub about: About,
    /// How soon it is needed.
    pub class: Class,
    /// Whom to ask; all are used together.
    pub sources: Vec<SourceAddress>,
}

/// A content that is complete in the store.
pub struct Fetched {
    /// The content; holding it keeps it from being evicted.
    pub content: Content,
    /// Where its bytes came from.
    pub report: FetchReport,
}

/// Fetches contents into one store. Cheap to clone; all clones share connections.
#[derive(Clone)]
pub struct Fetcher {
    endpoint: Endpoint,
    store: Store,
    arrivals: Arrivals,
    origins: Option<Origins>,
    counters: Arc<Counters>,
    links: Links,
    disk: Arc<Disk>,
    buffers: Buffers,
}

/// Why a content was not fetched. What was verified stays in the store, and the next fetch goes on
/// from there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No source could be used to the end. Each with its reason.
    #[error("fetch {content}: {}", NoSource(.sources))]
    NoSource {
        /// What was wanted, as its asker named it.
        content: String,
        /// Who was asked, and what became of it.
        sources: Vec<(String, String)>,
    },
    /// No source accepted this machine's certificate, or this machine none of theirs.
    #[error("fetch {content}: {}", NoSource(.sources))]
    Identity {
        /// What was wanted, as its asker named it.
        content: String,
        /// Who was asked, and who turned whom down.
        sources: Vec<(String, String)>,
    },
    /// Every source that answered has no such content.
    #[error("{content} is not known to any source")]
    Unknown {
        /// What was wanted.
        content: String,
    },
    /// The vendor's digest is not that of the bytes.
    #[error("the bytes of {content} do not have the digest {expected}")]
    Digest {
        /// What was fetched.
        content: String,
        /// The digest that was claimed.
        expected: Sha256Digest,
    },
    /// A node was asked for a vendor's file and could not give it.
    #[error("have {address} fetch {sha256}")]
    Resolve {
        /// Which file.
        sha256: Sha256Digest,
        /// Who was asked.
        address: SocketAddr,
        /// What it said.
        source: RequestError,
    },
    /// An origin failed while a whole file was read from it.
    #[error("fetch from the origin")]
    Origin(#[source] OriginError),
    /// The store could not begin.
    #[error("make room in the store")]
    Create(#[source] CreateError),
    /// The store could not read what it has.
    #[error("read from the store")]
    Read(#[source] ReadError),
    /// The store could not write.
    #[error("write to the store")]
    Commit(#[source] CommitError),
    /// The store could not make what it wrote durable.
    #[error("write to the store")]
    Checkpoint(#[source] CheckpointError),
    /// The store could not declare the content complete.
    #[error("complete {content}")]
    Complete {
        /// Which content.
        content: ContentId,
        /// Why not.
        source: Box<CompleteError>,
    },
    /// This machine has no origins that it may ask.
    #[error("no origin may be asked from here")]
    NoOrigins,
    /// Who asked for it did not want what the origin answered with.
    #[error("the origin answered with something else")]
    Unwanted,
    /// The store could not keep what came.
    #[error("keep what came until it is checked")]
    Quarantine(#[source] QuarantineError),
    /// The store could not take a whole file in.
    #[error("take the file into the store")]
    Promote(#[source] Box<PromoteError>),
    /// The store could not forget a content whose length had been claimed wrongly.
    #[error("forget what came of a wrong claim")]
    Forget(#[source] EvictError),
    /// A thread of the store ended before its work.
    #[error("the store's work was cut off")]
    CutOff,
}

/// Why one node did not resolve a vendor's digest.
enum Unresolved {
    /// It could not be asked.
    Unconnected(ConnectError),
    /// It was asked.
    Asked(RequestError),
}

impl Fetcher {
    /// Returns a fetcher that asks through `endpoint` and stores into `store`. Without `origins`,
    /// sources over HTTP are refused.
    pub fn new(
        endpoint: Endpoint,
        store: Store,
        arrivals: Arrivals,
        origins: Option<Origins>,
        counters: Arc<Counters>,
    ) -> Self {
        let links = Links::new(endpoint.clone());
        let (disk, buffers) = (Arc::default(), Buffers::default());
        Self { endpoint, store, arrivals, origins, counters, links, disk, buffers }
    }

    /// Returns the store that is fetched into.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the table of what is being fetched.
    pub const fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// Returns the endpoint that is asked through.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the counters that it adds to.
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Fetches what is missing of a content, from all its sources together.
    ///
    /// Cancel-safe: what was stored stays stored, and the next fetch begins there. Dropping this, or
    /// a kill, costs each open request one chunk at most.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    pub async fn fetch(
        &self,
        wanted: &Wanted,
        progress: &watch::Sender<Progress>,
    ) -> Result<Fetched, FetchError> {
        let started = Instant::now();
        let mut sources = wanted.sources.clone();
        let mut report = FetchReport::new(wanted.content);
        let mut liars = Vec::new();
        loop {
            let outcome = self.drive(wanted, &sources, &mut report, progress).await;
            if matches!(outcome, Err(FetchError::Digest { .. }))
                && !self.is_complete(wanted.content).await?
            {
                // Whoever named it by that digest would otherwise meet it again. One that was
                // complete before is right, and the claim was wrong.
                self.forget(wanted.content).await?;
            }
            match outcome.map_err(|error| error.with_sources(&liars))? {
                Outcome::Complete(content) => {
                    report.finish(content.geometry().len(), started.elapsed());
                    self.count(&report);
                    return Ok(Fetched { content, report });
                }
                // What one source claimed was wrong. It is left out, and the others asked anew.
                Outcome::WrongLength(claimant) => {
                    self.forget(wanted.content).await?;
                    if let Some(claimant) = claimant {
                        sources.retain(|source| *source != claimant);
                        liars.push((claimant.to_string(), Reason::WrongLength.to_string()));
                    }
                    report.begin_again();
                }
            }
        }
    }

    /// Fetches the file that a vendor named by its SHA-256, by way of a node that may fetch `url`.
    ///
    /// The node's word for the content is checked: nothing is complete before the SHA-256 of the
    /// whole agrees. A node whose word was wrong is asked no more, and the others are. Cancel-safe,
    /// as [`Self::fetch`].
    ///
    /// # Errors
    ///
    /// [`FetchError::Resolve`] if the last node that was asked has no answer, else as
    /// [`Self::fetch`].
    pub async fn fetch_vendor(
        &self,
        sha256: Sha256Digest,
        url: &Url,
        mut wanted: Wanted,
        progress: &watch::Sender<Progress>,
    ) -> Result<Fetched, FetchError> {
        wanted.about.sha256 = Some(sha256);
        if let Some(id) = self.store.by_digest(sha256) {
            wanted.content = id;
            return self.fetch(&wanted, progress).await;
        }
        loop {
            let (content, by) = self.resolve(sha256, url, &wanted, progress).await?;
            wanted.content = content;
            let fetched = self.fetch(&wanted, progress).await;
            let by = SourceAddress::Peer(by);
            let is_one_of_many = wanted.sources.iter().any(|source| *source != by);
            if !is_one_of_many || !matches!(fetched, Err(FetchError::Digest { .. })) {
                return fetched;
            }
            info!(source = %by, %sha256, content.id = %content, "named a content of another digest");
            wanted.sources.retain(|source| *source != by);
        }
    }

    /// Asks one node after the other for the content of a vendor's file, and returns it and who named
    /// it: a claim, which [`Self::fetch`] checks if the digest is in its wish. For who wants to read
    /// the content while it comes; others take [`Self::fetch_vendor`].
    ///
    /// Cancel-safe: nodes go on with what they were asked for.
    ///
    /// # Errors
    ///
    /// As [`Self::fetch_vendor`].
    pub async fn resolve(
        &self,
        sha256: Sha256Digest,
        url: &Url,
        wanted: &Wanted,
        progress: &watch::Sender<Progress>,
    ) -> Result<(ContentId, SocketAddr), FetchError> {
        let mut refused = Vec::new();
        let mut last = None;
        for source in &wanted.sources {
            let SourceAddress::Peer(address) = *source else { continue };
            let filled = |Filled { have, len }: Filled| {
                progress.send_modify(|progress| progress.upstream(have, len));
            };
            match self.resolve_by(address, sha256, url, wanted.class, filled).await {
                Ok(content) => return Ok((content, address)),
                Err(Unresolved::Asked(source)) => {
                    last = Some(FetchError::Resolve { sha256, address, source });
                }
                Err(Unresolved::Unconnected(error)) => {
                    refused.push((address.to_string(), Useless::unconnected(&error)));
                }
            }
        }
        Err(last.unwrap_or_else(|| no_source(sha256.to_string(), refused)))
    }

    /// Asks one node, again as long as it is busy, and once more where its connection ends: one that
    /// was kept from earlier may lead to a process that is no more. What it has filled by then it
    /// need not fill again.
    async fn resolve_by(
        &self,
        address: SocketAddr,
        sha256: Sha256Digest,
        url: &Url,
        class: Class,
        filled: impl Fn(Filled),
    ) -> Result<ContentId, Unresolved> {
        let connect =
            || async { self.links.peer(address, class).await.map_err(Unresolved::Unconnected) };
        let mut peer = connect().await?;
        let (mut attempts, mut may_connect) = (BUSY_ATTEMPTS, true);
        loop {
            let error = match peer.resolve(sha256, url, class, &filled).await {
                Ok((content, _claimed_len)) => return Ok(content),
                Err(error) => error,
            };
            match (&error, error.busy_for()) {
                (_, Some(wait)) if attempts > 0 => {
                    attempts -= 1;
                    tokio::time::sleep(wait).await;
                }
                (RequestError::Connection(_), _) if may_connect && !error.is_identity() => {
                    may_connect = false;
                    peer = connect().await?;
                }
                _ => return Err(Unresolved::Asked(error)),
            }
        }
    }

    async fn is_complete(&self, id: ContentId) -> Result<bool, FetchError> {
        let store = self.store.clone();
        let content = blocking(move || store.content(id)).await?.map_err(FetchError::Read)?;
        Ok(content.is_some_and(|content| content.is_complete()))
    }

    /// Forgets what came of a claim that was wrong.
    async fn forget(&self, id: ContentId) -> Result<(), FetchError> {
        let mut attempts = FORGET_ATTEMPTS;
        loop {
            let store = self.store.clone();
            match blocking(move || store.remove(id)).await? {
                Ok(()) | Err(EvictError::Unknown { .. }) => return Ok(()),
                // Requests that were just cancelled may still be writing.
                Err(EvictError::Leased { .. }) if attempts > 0 => {
                    attempts -= 1;
                    tokio::time::sleep(FORGET_AGAIN).await;
                }
                Err(error) => return Err(FetchError::Forget(error)),
            }
        }
    }

    fn count(&self, report: &FetchReport) {
        for share in &report.sources {
            let counter = match share.kind {
                SourceKind::Peer => &self.counters.fetched_peer_bytes,
                SourceKind::Node => &self.counters.fetched_node_bytes,
                SourceKind::Vendor => &self.counters.fetched_vendor_bytes,
            };
            counter.add(share.bytes);
            self.counters.wasted_bytes.add(share.wasted_bytes);
        }
    }
}

impl FetchError {
    /// Names also the sources that were left before the last attempt.
    fn with_sources(mut self, left: &[(String, String)]) -> Self {
        if let Self::NoSource { sources, .. } | Self::Identity { sources, .. } = &mut self {
            sources.extend_from_slice(left);
        }
        self
    }
}

impl FromStr for SourceAddress {
    type Err = SourceAddressError;

    /// Reads `ADDR:PORT` as a peer and `http://…` or `https://…` as an origin.
    fn from_str(text: &str) -> Result<Self, SourceAddressError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Peer(address));
        }
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Self::Origin(url)),
            _ => Err(SourceAddressError),
        }
    }
}

/// A text that names no source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a source is IP:PORT of a node or agent, or an http:// or https:// URL")]
pub struct SourceAddressError;

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => address.fmt(f),
            // A query may hold a signature, which belongs in no log.
            Self::Origin(url) => {
                let mut shown = url.clone();
                shown.set_query(None);
                shown.fmt(f)
            }
        }
    }
}

/// Shows who was asked and what became of it.
struct NoSource<'a>(&'a [(String, String)]);

impl fmt::Display for NoSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no source was given");
        }
        f.write_str("no source could be used")?;
        for (source, reason) in self.0 {
            write!(f, "; {source}: {reason}")?;
        }
        Ok(())
    }
}

/// Runs store work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FetchError::CutOff)
}
