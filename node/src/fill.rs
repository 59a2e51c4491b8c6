//! Gets from its origin what a peer asks for and the store lacks: once, however many ask.
//!
//! A fill is a task of its own. It survives who asked for it, waits for no slow reader, and what it
//! has verified is served while the rest is still coming. A file that is known only by its vendor's
//! digest stays in quarantine until the whole agrees; then it is a content like any other.
//!
//! Invariants:
//! - at most one fill of a content and one of a digest run at a time;
//! - only origins on the allow-list are asked, whatever a peer or a record says;
//! - where nothing is kept, a content goes [`LINGER`] after the last who was interested.

mod interest;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sutler_cache::{About, Content, Origin, PromoteError};
use sutler_protocol::frame::{Class, Refusal, detail};
use sutler_protocol::{ChunkIndex, ContentId, Sha256Digest};
use sutler_swarm::fetch::{FetchError, Fetcher, Progress, QuarantineKey, SourceAddress, Wanted};
use sutler_swarm::gateway::{Filled, Served, causes, store_failed};
use sutler_swarm::origin::Origins;
use sutler_swarm::{Gateway, StoreGateway};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use url::Url;

use interest::Interests;

/// How long a content that is not kept stays after the last request for it: a client's requests
/// follow each other with gaps, and the next client is often close behind.
pub const LINGER: Duration = Duration::from_secs(10);

/// Fills that run at a time; more are refused as busy, because each costs the line and memory.
pub const FILLS_MAX: usize = 64;

/// When one who was refused should ask again.
const RETRY_MS: u32 = 2_000;

/// Whether what was filled stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It stays until it is evicted.
    Yes,
    /// It goes with the last who was interested.
    No,
}

/// Finds contents in a store, and fills those that are missing. Cheap to clone.
#[derive(Clone)]
pub struct Filler(Arc<Shared>);

struct Shared {
    plain: StoreGateway,
    fetcher: Fetcher,
    origins: Origins,
    keep: Keep,
    interests: Interests,
    fills: Mutex<Fills>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Fills {
    /// Contents being filled.
    contents: BTreeSet<ContentId>,
    /// Vendors' files being filled, each with how far it is and what became of it.
    digests: BTreeMap<Sha256Digest, watch::Receiver<Resolving>>,
}

/// How a fill by digest stands.
#[derive(Clone, Debug, Default)]
struct Resolving {
    filled: Filled,
    result: Option<Result<(ContentId, u64), Refusal>>,
}

impl Filler {
    /// Returns a filler of the fetcher's store, which asks only `origins`.
    pub fn new(fetcher: Fetcher, origins: Origins, keep: Keep) -> Self {
        let plain =
            StoreGateway { store: fetcher.store().clone(), arrivals: fetcher.arrivals().clone() };
        Self(Arc::new(Shared {
            interests: Interests::new(fetcher.store().clone()),
            plain,
            fetcher,
            origins,
            keep,
            fills: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Ends every fill; what they have verified stays, and the next start goes on from there.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Returns the number of fills that are running.
    pub fn running(&self) -> usize {
        let fills = self.fills();
        fills.contents.len() + fills.digests.len()
    }

    /// Begins to fill a content from its origins, if it has any that may be asked and is not being
    /// filled already. Returns whether it is being filled now.
    fn fill(&self, content: &Content, class: Class) -> Result<bool, Refusal> {
        let id = content.id();
        let sources: Vec<SourceAddress> = content
            .about()
            .origins
            .iter()
            .filter_map(|origin| Url::parse(&origin.url).ok())
            .filter(|url| self.0.origins.permits(url).is_ok())
            .map(SourceAddress::Origin)
            .collect();
        let mut fills = self.fills();
        if fills.contents.contains(&id) {
            return Ok(true);
        }
        if sources.is_empty() {
            return Ok(false);
        }
        if fills.contents.len() + fills.digests.len() >= FILLS_MAX {
            return Err(Refusal::Busy { retry_ms: RETRY_MS });
        }
        fills.contents.insert(id);
        drop(fills);
        // Announced before the task runs, so that who asks next waits for it.
        let arrival = self.0.fetcher.arrivals().begin(id);
        let wanted = Wanted { content: id, about: content.about(), class, sources };
        let filler = self.clone();
        self.0.tasks.spawn(async move {
            let unseen = watch::Sender::new(Progress::default());
            tokio::select! {
                () = filler.0.stop.cancelled() => {}
                // Cancel-safe: what was stored stays stored.
                filled = filler.0.fetcher.fetch(&wanted, &unseen) => match filled {
                    Ok(filled) => {
                        let elapsed_ms = filled.report.elapsed.as_millis() as u64;
                        let bytes = filled.report.len;
                        info!(content.id = %id, bytes, elapsed_ms, "filled from its origin");
                    }
                    Err(error) => warn!(content.id = %id, error = causes(&error), "not filled"),
                },
            }
            filler.fills().contents.remove(&id);
            drop(arrival);
        });
        Ok(true)
    }

    /// Begins to fill a vendor's file, or joins the fill that is running.
    fn fill_digest(
        &self,
        sha256: Sha256Digest,
        url: Url,
    ) -> Result<watch::Receiver<Resolving>, Refusal> {
        let mut fills = self.fills();
        if let Some(running) = fills.digests.get(&sha256) {
            return Ok(running.clone());
        }
        if fills.contents.len() + fills.digests.len() >= FILLS_MAX {
            return Err(Refusal::Busy { retry_ms: RETRY_MS });
        }
        let (state, watch) = watch::channel(Resolving::default());
        fills.digests.insert(sha256, watch.clone());
        drop(fills);
        let filler = self.clone();
        self.0.tasks.spawn(async move {
            let result = tokio::select! {
                () = filler.0.stop.cancelled() => Err(Refusal::Draining),
                // Cancel-safe: what came stays in quarantine and is gone on with.
                result = filler.whole(sha256, &url, &state) => result,
            };
            if let Err(refusal) = &result {
                warn!(%sha256, %refusal, "not filled");
            }
            filler.fills().digests.remove(&sha256);
            state.send_modify(|state| state.result = Some(result));
        });
        Ok(watch)
    }

    async fn whole(
        &self,
        sha256: Sha256Digest,
        url: &Url,
        state: &watch::Sender<Resolving>,
    ) -> Result<(ContentId, u64), Refusal> {
        let name = url.path_segments().and_then(|mut path| path.next_back().map(str::to_owned));
        let about = About {
            name: name.filter(|name| !name.is_empty()),
            origins: vec![Origin::at(url.as_str())],
            sha256: Some(sha256),
        };
        let filled = |filled| state.send_modify(|state| state.filled = filled);
        let key = QuarantineKey::Digest(sha256);
        let (content, bytes) = self
            .0
            .fetcher
            .fetch_whole(key, url, about, filled)
            .await
            .map_err(|error| refusal(&error))?;
        info!(content.id = %content.id(), %sha256, bytes, "filled from its origin");
        // Where nothing is kept, it stays as long as for a request.
        drop(self.interest(content.id()));
        Ok((content.id(), content.geometry().len()))
    }

    fn interest(&self, id: ContentId) -> Option<Arc<dyn Send + Sync>> {
        match self.0.keep {
            Keep::Yes => None,
            Keep::No => Some(self.0.interests.begin(id, &self.0.tasks, &self.0.stop)),
        }
    }

    /// Looks a content up, even one of which nothing but its record is left.
    async fn look_up(&self, id: ContentId) -> Result<Option<Content>, Refusal> {
        let store = self.0.fetcher.store().clone();
        tokio::task::spawn_blocking(move || store.content(id))
            .await
            .map_err(|error| store_failed(&error))?
            .map_err(|error| store_failed(&error))
    }

    fn fills(&self) -> MutexGuard<'_, Fills> {
        // Each change leaves the table whole, so a panic elsewhere does not spoil it.
        self.0.fills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway for Filler {
    async fn open(&self, id: ContentId, class: Class) -> Result<Served, Refusal> {
        let content = self.look_up(id).await?.ok_or(Refusal::Unknown)?;
        let interest = self.interest(id);
        if content.is_complete() && content.had().is_full() {
            return Ok(Served { content, stored: None, is_filling: false, interest });
        }
        if !self.fill(&content, class)? {
            let mut served = self.0.plain.find(id).await?.ok_or(Refusal::Unknown)?;
            served.interest = interest;
            return Ok(served);
        }
        let stored = self.0.fetcher.arrivals().watch(id);
        Ok(Served { content, is_filling: stored.is_some(), stored, interest })
    }

    async fn resolve(
        &self,
        sha256: Sha256Digest,
        url: Url,
        class: Class,
        filled: watch::Sender<Filled>,
    ) -> Result<(ContentId, u64), Refusal> {
        if let Some(id) = self.0.fetcher.store().by_digest(sha256)
            && let Some(content) = self.look_up(id).await?
            && (content.had().is_full() || self.fill(&content, class)?)
        {
            return Ok((id, content.geometry().len()));
        }
        self.0.origins.permits(&url).map_err(|_| Refusal::OriginNotAllowed)?;
        let mut state = self.fill_digest(sha256, url)?;
        loop {
            {
                let state = state.borrow_and_update();
                filled.send_replace(state.filled);
                if let Some(result) = &state.result {
                    return result.clone();
                }
            }
            // The task says its result before it goes, unless it was cut off.
            state.changed().await.map_err(|_| Refusal::Draining)?;
        }
    }

    fn damaged(&self, id: ContentId, chunk: ChunkIndex) {
        warn!(content.id = %id, chunk = chunk.0, "a chunk is damaged on disk and fetched again");
        let filler = self.clone();
        self.0.tasks.spawn(async move {
            let Ok(Some(content)) = filler.look_up(id).await else { return };
            match filler.fill(&content, Class::Normal) {
                Ok(true) => {}
                Ok(false) => warn!(content.id = %id, "it has no origin to be fetched from again"),
                Err(refusal) => warn!(content.id = %id, %refusal, "it is not fetched again yet"),
            }
        });
    }
}

/// Returns the answer to a peer that says why a fill failed.
fn refusal(error: &FetchError) -> Refusal {
    let detail = detail(&causes(error));
    match error {
        FetchError::Digest { .. } => Refusal::DigestDiffers,
        FetchError::Promote(error) if matches!(**error, PromoteError::Mismatch { .. }) => {
            Refusal::DigestDiffers
        }
        FetchError::Origin(_) | FetchError::NoSource { .. } | FetchError::Unknown { .. } => {
            Refusal::OriginFailed { detail }
        }
        _ => Refusal::StoreFailed { detail },
    }
}
