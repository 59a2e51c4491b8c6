//! Fetching back what control has lost of published contents: their bytes and hash lists, from nodes that have them.
//!
//! A backup has what was published when it was made; what came later came back as orders alone
//! ([`super::catch_up`]). Nodes have the bytes, and give them to control as to any device. The orders say what is
//! fetched, and what comes is checked as everywhere: the hash list against the content's name, each chunk against the list,
//! the whole against the orders' digest.
//!
//! A task of its own beside the desk, which waits for nothing of it: no lock of the repository is taken. One content is
//! fetched at a time, as background traffic. What has come stays, so that a start after a kill goes on from there, with
//! the nodes that [`Named`] remembers. It ends when nothing is lacking.
//!
//! | Question | Room |
//! |---|---|
//! | What is next, and whom to ask? | `plan` |
//! | Whom did the restoration name? | `named` |

mod named;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sutler_cache::About;
use sutler_protocol::ContentId;
use sutler_protocol::frame::{Body, Class, Refusal};
use sutler_swarm::counters::Counters;
use sutler_swarm::fetch::{FetchError, Fetcher, Progress, SourceAddress, Wanted};
use sutler_swarm::gateway::causes;
use sutler_swarm::orders::SOURCES_MAX;
use sutler_swarm::peer::{Peer, RequestError};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(super) use self::named::Named;
use self::plan::{Outcome, Plan, Step};
use crate::uploads::{Lack, UploadError, Uploads};

/// How long a content may take, beside what its bytes take at [`RATE_MIN`]: what has come stays, and others are waiting.
const FETCH_MIN: Duration = Duration::from_mins(10);

/// Bytes that come a second, on the whole.
const RATE_MIN: u64 = 16 * 1024;

/// Fetches back what is lacking, and then ends.
pub(super) struct FetchBack {
    data: PathBuf,
    fetcher: Fetcher,
    uploads: Uploads,
    plan: Plan,
    /// Those that were reached.
    peers: BTreeMap<SocketAddr, Peer>,
}

impl FetchBack {
    /// Returns what asks the nodes of a config, `sources`, and those that a restoration of the folder `data` named.
    /// Waits for the disk.
    pub(super) fn new(
        data: &Path,
        sources: &[SocketAddr],
        fetcher: Fetcher,
        uploads: Uploads,
    ) -> Self {
        let named = Named::read(data).unwrap_or_else(|error| {
            warn!(error = causes(&error), "which nodes the restoration named is not known");
            Named::default()
        });
        let sources: BTreeSet<SocketAddr> = sources.iter().copied().chain(named.sources).collect();
        let plan = Plan::new(sources.into_iter().take(SOURCES_MAX).collect());
        Self { data: data.to_owned(), fetcher, uploads, plan, peers: BTreeMap::new() }
    }

    /// Works until nothing is lacking, nobody can be asked, or `shutdown`.
    ///
    /// Cancel-safe: what came stays, and what is given its place is there or not.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            // Cancel-safe: a token stays cancelled.
            () = shutdown.cancelled() => {}
            // Cancel-safe, as above.
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        loop {
            let step = self.plan.step();
            self.counters().lacking_contents.set(self.plan.lacking() as u64);
            match step {
                Step::Look => self.look().await,
                Step::Reach(sources) => self.reach(sources).await,
                Step::Fetch(lack, sources) => {
                    let outcome = self.fetch(&lack, &sources).await;
                    if outcome == Outcome::Came {
                        self.counters().returned_contents.add(1);
                    }
                    self.plan.ended(outcome);
                }
                Step::Rest(pause) => {
                    let (contents, again_s) = (self.plan.lacking(), pause.as_secs());
                    warn!(
                        contents,
                        again_s, "published contents are lacking, and looked for again"
                    );
                    self.peers.clear();
                    tokio::time::sleep(pause).await;
                }
                Step::Nobody => {
                    let contents = self.plan.lacking();
                    warn!(contents, "published contents are lacking, and no node is named to ask");
                    return;
                }
                Step::Done => return self.done().await,
            }
        }
    }

    fn counters(&self) -> &Arc<Counters> {
        self.fetcher.counters()
    }

    async fn look(&mut self) {
        let uploads = self.uploads.clone();
        match spawn_blocking(move || uploads.lacks()).await {
            Ok(Ok(lacks)) => {
                if !lacks.is_empty() {
                    info!(contents = lacks.len(), "published contents are lacking");
                }
                self.plan.looked(lacks);
            }
            Ok(Err(error)) => self.not_looked(&error),
            Err(error) => self.not_looked(&error),
        }
    }

    fn not_looked(&mut self, error: &dyn std::error::Error) {
        warn!(error = causes(error), "what is lacking of published contents cannot be told");
        self.plan.not_looked();
    }

    async fn reach(&mut self, sources: Vec<SocketAddr>) {
        let mut connecting = JoinSet::new(); // Owns a handshake with each, all bounded by the endpoint's time-out.
        for source in sources {
            let endpoint = self.fetcher.endpoint().clone();
            connecting.spawn(async move { (source, endpoint.connect(source).await) });
        }
        self.peers.clear();
        while let Some(connected) = connecting.join_next().await {
            match connected {
                Ok((source, Ok(peer))) => drop(self.peers.insert(source, peer)),
                Ok((source, Err(error))) => {
                    info!(address = %source, error = causes(&error), "a node cannot be asked");
                }
                Err(error) => warn!(%error, "a node cannot be asked"),
            }
        }
        self.plan.reached(self.peers.keys().copied().collect());
    }

    async fn fetch(&self, lack: &Lack, sources: &[SocketAddr]) -> Outcome {
        let outcome = match lack {
            Lack::List { content, length } => self.list(*content, *length).await,
            Lack::Bytes { .. } => self.bytes(lack, sources).await,
        };
        if outcome == Outcome::Came {
            match lack {
                Lack::List { content, .. } => info!(content.id = %content, "its hash list is back"),
                Lack::Bytes { content, length: bytes, .. } => {
                    info!(content.id = %content, bytes, "its bytes are back");
                }
            }
        }
        outcome
    }

    /// Asks one after the other for a hash list.
    async fn list(&self, content: ContentId, length: u64) -> Outcome {
        let mut outcome = Outcome::NotThere;
        for (address, peer) in &self.peers {
            match peer.open(content, Body::List, Class::Background).await {
                // One of another length is no list of this content, whatever it merges to.
                Ok((opened, list)) if opened.len == length => {
                    let uploads = self.uploads.clone();
                    let put = spawn_blocking(move || uploads.put_list(content, &list)).await;
                    match put.map_err(|error| causes(&error)) {
                        Ok(Err(error @ UploadError::List { .. })) => {
                            warn!(address = %address, error = causes(&error), "a node's list is wrong");
                        }
                        Ok(put) => return outcome_of(put),
                        Err(error) => return ours(&error),
                    }
                }
                Ok(_) => {
                    warn!(%address, content.id = %content, "a node's list is of another length");
                }
                Err(RequestError::Refused(Refusal::Unknown | Refusal::NotHeld)) => {}
                Err(error) => {
                    info!(%address, error = causes(&error), "a node does not give a list");
                    outcome = Outcome::Unreached;
                }
            }
        }
        outcome
    }

    /// Fetches the bytes of a content into the store, and gives them their place.
    async fn bytes(&self, lack: &Lack, sources: &[SocketAddr]) -> Outcome {
        let Lack::Bytes { length, content, sha256, name, place } = lack else {
            return Outcome::NotThere;
        };
        let about = About { name: Some(name.clone()), sha256: Some(*sha256), ..About::default() };
        let sources = sources.iter().copied().map(SourceAddress::Peer).collect();
        let wanted = Wanted { content: *content, about, class: Class::Background, sources };
        let unseen = watch::Sender::new(Progress::default());
        let within = FETCH_MIN + Duration::from_secs(length / RATE_MIN);
        let stored = match timeout(within, self.fetcher.fetch(&wanted, &unseen)).await {
            Err(_) => {
                warn!(content.id = %content, "too slow: the others come first");
                return Outcome::Unreached;
            }
            Ok(Ok(fetched)) => fetched.content,
            Ok(Err(FetchError::Unknown { .. })) => return Outcome::NotThere,
            Ok(Err(error)) => {
                let outcome = match error {
                    FetchError::NoSource { .. } | FetchError::Identity { .. } => Outcome::Unreached,
                    // The orders name bytes that do not exist.
                    FetchError::Digest { .. } => Outcome::NotThere,
                    _ => Outcome::Ours,
                };
                warn!(content.id = %content, error = causes(&error), "not fetched back yet");
                return outcome;
            }
        };
        let (uploads, place) = (self.uploads.clone(), place.clone());
        match spawn_blocking(move || uploads.give(&place, &stored)).await {
            Ok(given) => outcome_of(given),
            Err(error) => ours(&causes(&error)),
        }
    }

    async fn done(&self) {
        if self.counters().returned_contents.value() > 0 {
            info!("all that was lacking of published contents is back");
        }
        let data = self.data.clone();
        match spawn_blocking(move || Named::remove(&data)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = causes(&error), "the next start looks once more"),
            Err(error) => warn!(error = causes(&error), "the next start looks once more"),
        }
    }
}

/// Returns what putting something into the repository came to.
fn outcome_of(put: Result<(), UploadError>) -> Outcome {
    match put {
        // An admin has brought it meanwhile, or brings it now.
        Ok(()) | Err(UploadError::Here { .. }) => Outcome::Came,
        Err(UploadError::Busy { .. } | UploadError::Unknown { .. }) => Outcome::NotThere,
        Err(error) => ours(&causes(&error)),
    }
}

fn ours(error: &str) -> Outcome {
    warn!(error, "what came of a published content cannot be kept");
    Outcome::Ours
}
