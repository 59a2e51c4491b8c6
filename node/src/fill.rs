//! Gets from its origin what a peer asks for and the store lacks: once, however many ask.
//!
//! A fill is a task of its own. It survives who asked for it, waits for no slow reader, and what it
//! has verified is served while the rest is still coming. A file that is known only by its vendor's
//! digest stays in quarantine until the whole agrees; then it is a content like any other.
//!
//! Invariants:
//! - at most one fill of a content and one of a digest run at a time;
//! - only origins on the allow-list are asked, whatever a peer or a record says;
//! - what failed a moment ago is not tried again for the next who asks;
//! - where nothing is kept, a content that an origin has goes a while after the last who was
//!   interested, the fill itself among them; what no origin can bring back stays.

mod failures;
mod interest;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sutler_cache::eviction::Standing;
use sutler_cache::{About, Content, Origin, PromoteError, QuarantineError};
use sutler_protocol::frame::{Class, Refusal, detail};
use sutler_protocol::{ChunkIndex, ContentId, Sha256Digest};
use sutler_swarm::arrivals::Arrival;
use sutler_swarm::fetch::{FetchError, Fetcher, Progress, QuarantineKey, SourceAddress, Wanted};
use sutler_swarm::gateway::{Filled, Served, causes, look_up};
use sutler_swarm::origin::Origins;
use sutler_swarm::{Gateway, StoreGateway};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use url::Url;

use crate::catalogue::Catalogue;
use failures::Failures;
use interest::Interests;

/// How long a content that is not kept stays after the last request for it: a client's requests
/// follow each other with gaps, and the next client is often close behind.
pub const LINGER: Duration = Duration::from_secs(10);

/// Fills that run at a time; more are refused as busy, because each costs the line and memory.
pub const FILLS_MAX: usize = 64;

/// When one who was refused should ask again.
const RETRY_MS: u32 = 2_000;

/// When one should ask again whose content is only just being asked for: a round trip to where it comes from.
const BEGUN_RETRY_MS: u32 = 100;

/// Fills by digest, from other places than its own, that one asker waits for.
const JOINS_MAX: usize = 4;

/// Whether what was filled stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It stays until it is evicted.
    Yes,
    /// It goes this long after the last who was interested; [`LINGER`] is a good while.
    For(Duration),
}

/// Finds contents in a store, and fills those that are missing. Cheap to clone.
#[derive(Clone)]
pub struct Filler(Arc<Shared>);

struct Shared {
    plain: StoreGateway,
    fetcher: Fetcher,
    origins: Origins,
    /// What the orders say of contents that were never seen here.
    catalogue: OnceLock<Catalogue>,
    /// Absent where everything is kept.
    interests: Option<Interests>,
    fills: Mutex<Fills>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Fills {
    /// Contents being filled.
    contents: BTreeSet<ContentId>,
    /// Vendors' files being filled.
    files: BTreeMap<Sha256Digest, FileFill>,
    failed_contents: Failures<ContentId>,
    /// By place, too: another may do better.
    failed_files: Failures<(Sha256Digest, Url)>,
}

/// A vendor's file that is being filled, how far it is, and what became of it.
#[derive(Clone)]
struct FileFill {
    url: Url,
    state: watch::Receiver<Resolving>,
}

/// How a fill by digest stands.
#[derive(Clone, Debug, Default)]
struct Resolving {
    filled: Filled,
    result: Option<Result<(ContentId, u64), Refusal>>,
}

/// Whether what is missing of a content is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coming {
    /// A fill brings it, and whatever is asked for may be waited for.
    Filled,
    /// Somebody on this machine fetches it for himself.
    Fetched,
    /// Nobody brings it, and no origin may be asked for it.
    No,
}

impl Filler {
    /// Returns a filler of the fetcher's store, which asks only `origins`.
    pub fn new(fetcher: Fetcher, origins: Origins, keep: Keep) -> Self {
        let (store, arrivals) = (fetcher.store().clone(), fetcher.arrivals().clone());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let interests = match keep {
            Keep::Yes => None,
            Keep::For(linger) => {
                Some(Interests::new(store.clone(), linger, tasks.clone(), stop.clone()))
            }
        };
        let plain = StoreGateway { store, arrivals };
        let fills = Mutex::default();
        let catalogue = OnceLock::new();
        Self(Arc::new(Shared { plain, fetcher, origins, catalogue, interests, fills, tasks, stop }))
    }

    /// Fills what the orders name as well, also where it was never seen here. The first catalogue counts.
    pub(crate) fn consult(&self, catalogue: Catalogue) {
        // There is one set of orders on a machine.
        drop(self.0.catalogue.set(catalogue));
    }

    /// Gives up what an earlier process filled and had no time to give up. Waits for the disk.
    pub fn vacate(&self) {
        if self.0.interests.is_none() {
            return;
        }
        let store = self.0.fetcher.store();
        for entry in store.list().into_iter().filter(|entry| entry.had_bytes > 0) {
            let content = store.content(entry.id).ok().flatten();
            let passes = content.is_some_and(|content| self.passes(&content));
            if passes && let Err(error) = store.evict(entry.id) {
                warn!(content.id = %entry.id, error = causes(&error), "not removed");
            }
        }
    }

    /// Ends every fill; what they have verified stays, and the next start goes on from there.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Returns the number of fills that are running.
    pub fn running(&self) -> usize {
        self.fills().running()
    }

    /// Begins to fill a content from its origins, and from `also`, unless that is done already.
    ///
    /// # Errors
    ///
    /// Why it is not filled now, though there is an origin.
    fn fill(&self, content: &Content, class: Class, also: Option<&Url>) -> Result<Coming, Refusal> {
        let id = content.id();
        let sources = self.sources(content, also);
        let mut fills = self.fills();
        if fills.contents.contains(&id) {
            return Ok(Coming::Filled);
        }
        if self.0.fetcher.arrivals().watch(id).is_some() {
            return Ok(Coming::Fetched);
        }
        if sources.is_empty() {
            return Ok(Coming::No);
        }
        if let Some(refusal) = fills.failed_contents.standing(&id, Instant::now()) {
            return Err(refusal);
        }
        self.has_room(&fills)?;
        fills.contents.insert(id);
        let filling = Filling {
            filler: self.clone(),
            id,
            // Announced before the next who asks can find that it is being filled.
            arrival: Some(self.0.fetcher.arrivals().begin(id)),
            _interest: self.interest(content),
        };
        drop(fills);
        let wanted = Wanted { content: id, about: content.about(), class, sources };
        self.0.tasks.spawn(filling.run(wanted));
        Ok(Coming::Filled)
    }

    /// Begins to fill a content of which nothing is here, if the orders name it. Who asks has to ask again:
    /// not even its length is known yet.
    fn fill_unseen(&self, id: ContentId, class: Class) -> Refusal {
        let found = self.0.catalogue.get().and_then(|catalogue| catalogue.find(id));
        let Some((about, mut sources)) = found else { return Refusal::Unknown };
        sources.retain(|source| match source {
            SourceAddress::Origin(url) => self.0.origins.permits(url).is_ok(),
            SourceAddress::Peer(_) => true,
        });
        let mut fills = self.fills();
        if !fills.contents.contains(&id) && self.0.fetcher.arrivals().watch(id).is_none() {
            if let Some(refusal) = fills.failed_contents.standing(&id, Instant::now()) {
                return refusal;
            }
            if let Err(refusal) = self.has_room(&fills) {
                return refusal;
            }
            fills.contents.insert(id);
            let arrival = Some(self.0.fetcher.arrivals().begin(id));
            let filling = Filling { filler: self.clone(), id, arrival, _interest: None };
            let wanted = Wanted { content: id, about, class, sources };
            self.0.tasks.spawn(filling.run(wanted));
        }
        Refusal::Busy { retry_ms: BEGUN_RETRY_MS }
    }

    /// Takes on the fill of a vendor's file, which the caller then does; `None` where one runs. The
    /// caller remembers for himself what failed a moment ago.
    ///
    /// # Errors
    ///
    /// Why it is not to be filled now.
    pub(crate) fn take_file(
        &self,
        sha256: Sha256Digest,
        url: &Url,
    ) -> Result<Option<FileTask>, Refusal> {
        let mut fills = self.fills();
        if fills.files.contains_key(&sha256) {
            return Ok(None);
        }
        self.has_room(&fills)?;
        let (sender, state) = watch::channel(Resolving::default());
        fills.files.insert(sha256, FileFill { url: url.clone(), state });
        drop(fills);
        Ok(Some(FileTask(FillingFile {
            filler: self.clone(),
            sha256,
            url: url.clone(),
            state: sender,
        })))
    }

    /// Takes note that somebody who is no peer is interested in a content, if it goes when nobody
    /// is.
    pub(crate) fn interested(&self, content: &Content) -> Option<Arc<dyn Send + Sync>> {
        self.interest(content)
    }

    /// Begins to fill a vendor's file, or joins the fill that is running.
    fn fill_file(&self, sha256: Sha256Digest, url: &Url) -> Result<FileFill, Refusal> {
        let mut fills = self.fills();
        if let Some(running) = fills.files.get(&sha256) {
            return Ok(running.clone());
        }
        let place = (sha256, url.clone());
        if let Some(refusal) = fills.failed_files.standing(&place, Instant::now()) {
            return Err(refusal);
        }
        self.has_room(&fills)?;
        let (sender, state) = watch::channel(Resolving::default());
        let fill = FileFill { url: url.clone(), state };
        fills.files.insert(sha256, fill.clone());
        drop(fills);
        let filling = FillingFile { filler: self.clone(), sha256, url: url.clone(), state: sender };
        self.0.tasks.spawn(filling.run());
        Ok(fill)
    }

    fn has_room(&self, fills: &Fills) -> Result<(), Refusal> {
        if self.0.stop.is_cancelled() {
            return Err(Refusal::Draining);
        }
        if fills.running() >= FILLS_MAX {
            return Err(Refusal::Busy { retry_ms: RETRY_MS });
        }
        Ok(())
    }

    /// Returns where a content may be filled from.
    fn sources(&self, content: &Content, also: Option<&Url>) -> Vec<SourceAddress> {
        let recorded = content.about().origins;
        let mut urls: Vec<Url> =
            recorded.iter().filter_map(|origin| Url::parse(&origin.url).ok()).collect();
        if let Some(also) = also.filter(|also| !urls.contains(also)) {
            urls.push(also.clone());
        }
        urls.retain(|url| self.0.origins.permits(url).is_ok());
        urls.into_iter().map(SourceAddress::Origin).collect()
    }

    /// Takes note that somebody is interested in a content, if it goes when nobody is.
    fn interest(&self, content: &Content) -> Option<Arc<dyn Send + Sync>> {
        let interests = self.0.interests.as_ref()?;
        self.passes(content).then(|| interests.begin(content.id()))
    }

    /// Returns whether a content may go when nobody is interested: one that can be had again and
    /// that no order names.
    fn passes(&self, content: &Content) -> bool {
        self.0.fetcher.store().standing(content.id()) <= Standing::Unreferenced
            && !self.sources(content, None).is_empty()
    }

    /// Looks a content up, even one of which nothing but its record is left.
    async fn look_up(&self, id: ContentId) -> Result<Option<Content>, Refusal> {
        look_up(self.0.fetcher.store(), id).await
    }

    fn fills(&self) -> MutexGuard<'_, Fills> {
        // Each change leaves the tables whole, so a panic elsewhere does not spoil them.
        self.0.fills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fills {
    fn running(&self) -> usize {
        self.contents.len() + self.files.len()
    }
}

/// A content that is being filled. However it ends, the next who asks can begin another fill.
struct Filling {
    filler: Filler,
    id: ContentId,
    arrival: Option<Arrival>,
    _interest: Option<Arc<dyn Send + Sync>>,
}

impl Filling {
    async fn run(self, wanted: Wanted) {
        let (shared, id) = (&self.filler.0, self.id);
        let unseen = watch::Sender::new(Progress::default());
        let filled = tokio::select! {
            // Cancel-safe: a token stays cancelled.
            () = shared.stop.cancelled() => return,
            // Cancel-safe: what was stored stays stored.
            filled = shared.fetcher.fetch(&wanted, &unseen) => filled,
        };
        match filled {
            Ok(filled) => {
                let elapsed_ms = filled.report.elapsed.as_millis() as u64;
                let bytes = filled.report.len;
                info!(content.id = %id, bytes, elapsed_ms, "filled from its origin");
                self.filler.fills().failed_contents.succeeded(&id);
            }
            Err(error) => {
                warn!(content.id = %id, error = causes(&error), "not filled");
                let refusal = refusal(&error);
                self.filler.fills().failed_contents.failed(id, refusal, Instant::now());
            }
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let mut fills = self.filler.fills();
        fills.contents.remove(&self.id);
        // Within the lock: nobody finds it arriving and not being filled.
        self.arrival = None;
    }
}

/// A vendor's file that is being filled. However it ends, the next who asks can begin another fill.
struct FillingFile {
    filler: Filler,
    sha256: Sha256Digest,
    url: Url,
    state: watch::Sender<Resolving>,
}

impl FillingFile {
    async fn run(self) {
        let stop = self.filler.0.stop.clone();
        let result = tokio::select! {
            // Cancel-safe: a token stays cancelled.
            () = stop.cancelled() => Err(Refusal::Draining),
            // Cancel-safe: what came stays in quarantine and is gone on with.
            result = self.whole() => result,
        };
        self.end(result);
    }

    /// Takes it off the table, and tells those who wait what became of it.
    fn end(self, result: Result<(ContentId, u64), Refusal>) {
        {
            let mut fills = self.filler.fills();
            // Before the result is told: who asks again then must not join what is over.
            fills.files.remove(&self.sha256);
            let place = (self.sha256, self.url.clone());
            match &result {
                Ok(_) => fills.failed_files.succeeded(&place),
                Err(Refusal::Draining | Refusal::Busy { .. }) => {}
                Err(refusal) => fills.failed_files.failed(place, refusal.clone(), Instant::now()),
            }
        }
        self.state.send_modify(|state| state.result = Some(result));
    }

    async fn whole(&self) -> Result<(ContentId, u64), Refusal> {
        let name = self.url.path_segments().and_then(|mut path| path.next_back());
        let about = About {
            name: name.filter(|name| !name.is_empty()).map(str::to_owned),
            origins: vec![Origin::at(self.url.as_str())],
            sha256: Some(self.sha256),
            ..About::default()
        };
        let filled = |filled| self.state.send_modify(|state| state.filled = filled);
        let key = QuarantineKey::Digest(self.sha256);
        let fetched = self.filler.0.fetcher.fetch_whole(key, &self.url, about, filled).await;
        let (content, bytes) = fetched.map_err(|error| {
            warn!(sha256 = %self.sha256, error = causes(&error), "not filled");
            refusal(&error)
        })?;
        info!(content.id = %content.id(), sha256 = %self.sha256, bytes, "filled from its origin");
        // Where nothing is kept, it stays as long as for a request.
        drop(self.filler.interest(&content));
        Ok((content.id(), content.geometry().len()))
    }
}

/// A vendor's file that somebody fills for a reason of his own, so that who asks for it by its digest
/// waits for that. Dropping it lets the next who asks begin anew.
pub(crate) struct FileTask(FillingFile);

impl FileTask {
    /// Tells how far it is.
    pub(crate) fn filled(&self, filled: Filled) {
        self.0.state.send_modify(|state| state.filled = filled);
    }

    /// Tells what became of it.
    pub(crate) fn finish(self, fetched: &Result<(Content, u64), FetchError>) {
        let result = match fetched {
            Ok((content, _)) => {
                // Where nothing is kept, it stays as long as for a request.
                drop(self.0.filler.interest(content));
                Ok((content.id(), content.geometry().len()))
            }
            Err(error) => Err(refusal(error)),
        };
        self.0.end(result);
    }
}

impl Drop for FillingFile {
    fn drop(&mut self) {
        let (mut fills, own) = (self.filler.fills(), self.state.subscribe());
        // It is there only if this fill was cut off; another may have begun since.
        if fills.files.get(&self.sha256).is_some_and(|fill| fill.state.same_channel(&own)) {
            fills.files.remove(&self.sha256);
        }
    }
}

impl Gateway for Filler {
    async fn open(&self, id: ContentId, class: Class) -> Result<Served, Refusal> {
        let Some(content) = self.look_up(id).await? else {
            return Err(self.fill_unseen(id, class));
        };
        if !content.is_offered() || content.awaits_digest() {
            return Err(Refusal::Unknown);
        }
        let interest = self.interest(&content);
        if content.is_complete() && content.had().is_full() {
            return Ok(Served { content, stored: None, is_filling: false, interest });
        }
        match self.fill(&content, class, None) {
            Ok(Coming::Filled) => {
                // Subscribed before what is had is looked at, so that nothing stored is missed.
                let stored = self.0.fetcher.arrivals().watch(id);
                return Ok(Served { content, is_filling: stored.is_some(), stored, interest });
            }
            Err(refusal) if content.had().is_empty() => return Err(refusal),
            // What is here is served, though the rest does not come.
            Ok(Coming::Fetched | Coming::No) | Err(_) => {}
        }
        let mut served = self.0.plain.find(id).await?.ok_or(Refusal::Unknown)?;
        served.interest = interest;
        Ok(served)
    }

    async fn held(&self, id: ContentId) -> Result<Served, Refusal> {
        let mut served = self.0.plain.held(id).await?;
        served.interest = self.interest(&served.content);
        Ok(served)
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
            // Who vouches for it now gets it from its vendor, and makes it one for all.
            && content.is_offered()
            && (content.had().is_full() || self.fill(&content, class, Some(&url))? != Coming::No)
        {
            return Ok((id, content.geometry().len()));
        }
        self.0.origins.permits(&url).map_err(|_| Refusal::OriginNotAllowed)?;
        for _ in 0..JOINS_MAX {
            let fill = self.fill_file(sha256, &url)?;
            let (its_own, result) = (fill.url == url, fill.follow(&filled).await);
            // Another asker named another place for it, which says nothing of this one.
            if its_own || result.is_ok() {
                return result;
            }
        }
        Err(Refusal::Busy { retry_ms: RETRY_MS })
    }

    fn damaged(&self, id: ContentId, chunk: ChunkIndex) {
        warn!(content.id = %id, chunk = chunk.0, "a chunk is damaged on disk and fetched again");
        let filler = self.clone();
        self.0.tasks.spawn(async move {
            let Ok(Some(content)) = filler.look_up(id).await else { return };
            match filler.fill(&content, Class::Normal, None) {
                Ok(Coming::Filled | Coming::Fetched) => {}
                Ok(Coming::No) => warn!(content.id = %id, "it has no origin to be fetched from"),
                Err(refusal) => warn!(content.id = %id, %refusal, "it is not fetched again yet"),
            }
        });
    }
}

impl FileFill {
    /// Tells how far the fill is, and returns what became of it.
    async fn follow(mut self, filled: &watch::Sender<Filled>) -> Result<(ContentId, u64), Refusal> {
        loop {
            {
                let state = self.state.borrow_and_update();
                filled.send_replace(state.filled);
                if let Some(result) = &state.result {
                    return result.clone();
                }
            }
            // The task says its result before it goes, unless it was cut off.
            self.state.changed().await.map_err(|_| Refusal::Draining)?;
        }
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
        FetchError::Quarantine(QuarantineError::Busy { .. }) => {
            Refusal::Busy { retry_ms: RETRY_MS }
        }
        FetchError::Origin(_) | FetchError::NoSource { .. } | FetchError::Unknown { .. } => {
            Refusal::OriginFailed { detail }
        }
        _ => Refusal::StoreFailed { detail },
    }
}
