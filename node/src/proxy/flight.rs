//! Files on their way from an origin: one flight for each, however many wait for it.
//!
//! A flight is a task of its own. It survives who asked for it and waits for no slow client; clients
//! read what is there, each at its own pace and offset, while the rest still comes. What a verified
//! index vouches for is withheld near its end until the whole agrees, so that nobody is given a
//! wrong file to its last byte.
//!
//! Invariants:
//! - at most one flight of a file runs at a time, and at most [`FLIGHTS_MAX`] of all;
//! - a file with a digest flies with the fills that peers ask for: one copy comes over the line;
//! - bytes of two versions are never mixed: a reader sees [`State::epoch`] change, and breaks off.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sutler_cache::{About, Content, Offer, Origin, PartReader, Place, QuarantineKey};
use sutler_protocol::frame::{Class, Refusal};
use sutler_protocol::{ContentId, Sha256Digest};
use sutler_swarm::fetch::{Answered, Fetcher, Onlooker, Progress, SourceKind};
use sutler_swarm::gateway::{Filled, Gateway, causes};
use sutler_swarm::origin::{OriginBody, OriginFile};
use sutler_swarm::{FetchError, Fetched, SourceAddress, Wanted};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use url::Url;

use super::failed::Failed;
use super::kind;
use crate::fill::{FileTask, Filler};

/// Flights at a time; each costs the line, a file and some memory.
pub(super) const FLIGHTS_MAX: usize = 256;

/// How long nodes upstream are left alone after none of them answered: each client would wait for
/// them in turn.
const UPSTREAM_PAUSE: Duration = Duration::from_secs(30);

/// Bytes near the end that are withheld until the whole is verified.
pub(super) const WITHHELD_BYTES: u64 = 64 * 1024;

/// What is to be fetched.
#[derive(Debug)]
pub(super) struct Wish {
    /// Where it lies.
    pub(super) url: Url,
    /// What a verified index says of it.
    pub(super) sha256: Option<Sha256Digest>,
    /// Whether peers may have it.
    pub(super) offer: Offer,
    /// What the origin has answered already, from the file's start.
    pub(super) first: Option<OriginBody>,
}

/// What an origin says of a file, as far as clients are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Label {
    /// Its `ETag`.
    pub(super) etag: Option<String>,
    /// Its `Last-Modified`.
    pub(super) last_modified: Option<String>,
    /// Its length in bytes.
    pub(super) len: Option<u64>,
}

/// Where bytes lie while more come.
#[derive(Clone, Debug)]
pub(super) enum Grows {
    /// In quarantine: they come from the origin.
    Part(PartReader),
    /// In a content: they come from nodes, chunk by chunk, each verified.
    Content(Content),
}

/// How a flight stands.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Rises when what came is void.
    pub(super) epoch: u32,
    /// Where the bytes lie meanwhile.
    pub(super) grows: Option<Grows>,
    /// What the origin says, once it has answered.
    pub(super) label: Option<Label>,
    /// Bytes had from the first on.
    pub(super) have: u64,
    /// What became of it.
    pub(super) end: Option<Result<Content, Failed>>,
}

/// A flight, for who waits for it. Dropping it stops nothing.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// Where the file lies.
    pub(super) url: Url,
    /// How it stands.
    pub(super) state: watch::Receiver<State>,
    /// Whether its end is withheld until it is verified.
    pub(super) is_vouched: bool,
}

/// The flights that are on their way. Cheap to clone.
#[derive(Clone)]
pub(super) struct Flights(Arc<Shared>);

struct Shared {
    fetcher: Fetcher,
    filler: Filler,
    /// Nodes that are asked for what a verified index names, before its origin is.
    upstream: Vec<SourceAddress>,
    /// When they are worth asking again, after none of them answered.
    upstream_again: Mutex<Option<Instant>>,
    running: Mutex<BTreeMap<QuarantineKey, Flight>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Bytes that came over the line, and from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// From the origin.
    Vendor(u64),
    /// From other nodes.
    Nodes(u64),
}

/// Is told what a flight came to.
pub(super) type Landed = Box<dyn FnOnce(Result<(&Content, Brought), &Failed>) + Send>;

impl State {
    /// Returns how many bytes from the first on may be given out.
    pub(super) fn readable(&self, is_vouched: bool) -> u64 {
        if !is_vouched {
            return self.have;
        }
        let len = self.label.as_ref().and_then(|label| label.len).unwrap_or(self.have);
        self.have.min(len.saturating_sub(WITHHELD_BYTES))
    }
}

impl Flights {
    pub(super) fn new(fetcher: Fetcher, filler: Filler, upstream: &[SocketAddr]) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let upstream = upstream.iter().copied().map(SourceAddress::Peer).collect();
        let running = Mutex::default();
        let upstream_again = Mutex::default();
        let shared = Shared { fetcher, filler, upstream, upstream_again, running, tasks, stop };
        Self(Arc::new(shared))
    }

    /// Returns the flight of a file, if it is on its way.
    pub(super) fn running(&self, url: &Url, sha256: Option<Sha256Digest>) -> Option<Flight> {
        self.table().get(&key(url, sha256)).cloned()
    }

    /// Begins a flight, or joins the one that is on its way. `landed` is called if it was begun.
    ///
    /// # Errors
    ///
    /// [`Failed::TooMany`] or [`Failed::Stopping`].
    pub(super) fn begin(&self, wish: Wish, landed: Landed) -> Result<Flight, Failed> {
        let key = key(&wish.url, wish.sha256);
        let mut table = self.table();
        if let Some(flight) = table.get(&key) {
            return Ok(flight.clone());
        }
        if self.0.stop.is_cancelled() {
            return Err(Failed::Stopping);
        }
        if table.len() >= FLIGHTS_MAX {
            return Err(Failed::TooMany);
        }
        let (sender, state) = watch::channel(State::default());
        let flight = Flight { url: wish.url.clone(), state, is_vouched: wish.sha256.is_some() };
        table.insert(key, flight.clone());
        drop(table);
        let flying = Flying { flights: self.clone(), key, state: sender };
        self.0.tasks.spawn(flying.run(wish, landed));
        Ok(flight)
    }

    /// Ends every flight; what came stays in quarantine, and the next start goes on from there.
    pub(super) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<QuarantineKey, Flight>> {
        // Each change leaves the table whole, so a panic elsewhere does not spoil it.
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn may_ask_nodes(&self, now: Instant) -> bool {
        let again = self.upstream_again.lock().unwrap_or_else(PoisonError::into_inner);
        !self.upstream.is_empty() && again.is_none_or(|again| again <= now)
    }

    fn no_node_answers(&self, now: Instant) {
        let mut again = self.upstream_again.lock().unwrap_or_else(PoisonError::into_inner);
        *again = Some(now + UPSTREAM_PAUSE);
    }
}

fn key(url: &Url, sha256: Option<Sha256Digest>) -> QuarantineKey {
    sha256.map_or_else(|| QuarantineKey::Place(Place::of(url.as_str())), QuarantineKey::Digest)
}

/// A flight's task. However it ends, the next who asks can begin another.
struct Flying {
    flights: Flights,
    key: QuarantineKey,
    state: watch::Sender<State>,
}

impl Flying {
    async fn run(self, wish: Wish, landed: Landed) {
        let url = wish.url.clone();
        let stop = self.flights.0.stop.clone();
        let result = tokio::select! {
            // Cancel-safe: a token stays cancelled.
            () = stop.cancelled() => Err(Failed::Stopping),
            // Cancel-safe: what came stays in quarantine and is gone on with.
            result = self.fetch(wish) => result,
        };
        match &result {
            Ok((content, brought)) => {
                info!(url = url.path(), host = url.host_str(), content.id = %content.id(), ?brought, "cached");
            }
            Err(Failed::Stopping) => {}
            Err(failed) => {
                warn!(url = url.path(), host = url.host_str(), why = failed.text(), "not cached");
            }
        }
        landed(result.as_ref().map(|(content, brought)| (content, *brought)));
        // Off the table before the end is told: who asks again must not join what is over.
        self.flights.table().remove(&self.key);
        self.state.send_modify(|state| {
            if let Ok((content, _)) = &result {
                let label = state.label.get_or_insert_with(Label::default);
                label.len = Some(content.geometry().len());
            }
            state.end = Some(result.map(|(content, _)| content));
        });
    }

    async fn fetch(&self, wish: Wish) -> Result<(Content, Brought), Failed> {
        let shared = &self.flights.0;
        let name = wish.url.path_segments().and_then(|mut path| path.next_back());
        let about = About {
            name: name.filter(|name| !name.is_empty()).map(str::to_owned),
            origins: vec![Origin::at(wish.url.as_str())],
            sha256: wish.sha256,
            offer: wish.offer,
        };
        let task = match wish.sha256 {
            None => None,
            Some(sha256) => match shared.filler.take_file(sha256, &wish.url) {
                Ok(Some(task)) => Some(task),
                // A peer was faster to ask for it.
                Ok(None) => {
                    let content = self.join(sha256, &wish.url).await?;
                    return Ok((content, Brought::Vendor(0)));
                }
                Err(refusal) => return Err(Failed::from(&refusal)),
            },
        };
        if let (Some(sha256), Offer::Peers) = (wish.sha256, wish.offer)
            && shared.may_ask_nodes(Instant::now())
            && let Some((content, bytes)) = self.by_nodes(sha256, &wish.url, &about).await
        {
            if let Some(task) = task {
                task.finish(&Ok((content.clone(), bytes)));
            }
            return Ok((content, Brought::Nodes(bytes)));
        }
        let mut watcher =
            Watcher { state: &self.state, task: task.as_ref(), path: wish.url.path() };
        let files = shared.fetcher.files().map_err(|error| Failed::from(&error))?;
        let fetched = files.fetch_seen(self.key, &wish.url, about, wish.first, &mut watcher).await;
        let fetched = fetched.map(|(imported, bytes)| (imported.content, bytes));
        if let Some(task) = task {
            task.finish(&fetched);
        }
        let fetched = fetched.map_err(|error| {
            debug!(error = causes(&error), "the flight failed");
            Failed::from(&error)
        })?;
        Ok((fetched.0, Brought::Vendor(fetched.1)))
    }

    /// Asks the nodes upstream; `None` if none of them brings it, and the origin is to be asked.
    async fn by_nodes(
        &self,
        sha256: Sha256Digest,
        url: &Url,
        about: &About,
    ) -> Option<(Content, u64)> {
        let shared = &self.flights.0;
        let mut wanted = Wanted {
            // Found out by asking.
            content: ContentId::from_bytes([0; 32]),
            about: about.clone(),
            class: Class::Normal,
            sources: shared.upstream.clone(),
        };
        let (progress, told) = watch::channel(Progress::default());
        let fetched = match shared.fetcher.resolve(sha256, url, &wanted, &progress).await {
            Ok((content, _)) => {
                wanted.content = content;
                self.follow(&wanted, &progress, told).await
            }
            Err(error) => Err(error),
        };
        match fetched {
            Ok(fetched) => {
                let report = &fetched.report;
                let from = |kind| report.bytes_from(kind);
                let bytes = from(SourceKind::Node) + from(SourceKind::Peer);
                Some((fetched.content, bytes))
            }
            Err(error) => {
                info!(%sha256, error = causes(&error), "the nodes upstream do not bring it");
                if matches!(error, FetchError::NoSource { .. } | FetchError::Identity { .. }) {
                    shared.no_node_answers(Instant::now());
                }
                self.state.send_modify(|state| {
                    state.epoch += 1;
                    state.have = 0;
                    (state.label, state.grows) = (None, None);
                });
                None
            }
        }
    }

    /// Fetches a content from nodes, and lets those who wait read it while it comes.
    async fn follow(
        &self,
        wanted: &Wanted,
        progress: &watch::Sender<Progress>,
        mut told: watch::Receiver<Progress>,
    ) -> Result<Fetched, FetchError> {
        let shared = &self.flights.0;
        let mut fetching = std::pin::pin!(shared.fetcher.fetch(wanted, progress));
        let mut content = None;
        loop {
            tokio::select! {
                fetched = fetching.as_mut() => return fetched,
                // Cancel-safe: a watch loses nothing.
                Ok(()) = told.changed() => {
                    told.borrow_and_update();
                    if content.is_none() {
                        let (store, id) = (shared.fetcher.store().clone(), wanted.content);
                        let found = tokio::task::spawn_blocking(move || store.content(id)).await;
                        content = found.ok().and_then(Result::ok).flatten();
                    }
                    if let Some(content) = &content {
                        self.grown(content);
                    }
                }
            }
        }
    }

    /// Tells how much of a content is there from its first byte on.
    fn grown(&self, content: &Content) {
        let (geometry, had) = (content.geometry(), content.had());
        let first = had.runs().next().filter(|run| run.start().0 == 0);
        let have = first.map_or(0, |run| geometry.bytes(run).end);
        self.state.send_modify(|state| {
            state.have = have;
            state.label.get_or_insert_with(Label::default).len = Some(geometry.len());
            state.grows.get_or_insert_with(|| Grows::Content(content.clone()));
        });
    }

    /// Waits for a fill that somebody else has asked for.
    async fn join(&self, sha256: Sha256Digest, url: &Url) -> Result<Content, Failed> {
        let shared = &self.flights.0;
        let unseen = watch::Sender::new(Filled::default());
        let resolved = shared.filler.resolve(sha256, url.clone(), Class::Normal, unseen).await;
        let (id, _) = resolved.map_err(|refusal| Failed::from(&refusal))?;
        let store = shared.fetcher.store().clone();
        let found = tokio::task::spawn_blocking(move || store.content(id)).await;
        match found {
            Ok(Ok(Some(content))) if content.is_complete() => Ok(content),
            Ok(Err(error)) => Err(Failed::Store(causes(&error))),
            _ => Err(Failed::from(&Refusal::Unknown)),
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        let (mut table, own) = (self.flights.table(), self.state.subscribe());
        // It is there only if this flight was cut off; another may have begun since.
        if table.get(&self.key).is_some_and(|flight| flight.state.same_channel(&own)) {
            table.remove(&self.key);
        }
    }
}

/// Tells those who wait what becomes of the file.
struct Watcher<'a> {
    state: &'a watch::Sender<State>,
    task: Option<&'a FileTask>,
    path: &'a str,
}

impl Onlooker for Watcher<'_> {
    fn begun(&mut self, part: PartReader) {
        self.state.send_modify(|state| {
            state.epoch += 1;
            state.have = 0;
            state.grows = Some(Grows::Part(part));
            state.label = None;
        });
    }

    fn answered(&mut self, file: &OriginFile) -> Answered {
        if kind::is_page(self.path, file.content_type.as_deref()) {
            return Answered::Unwanted;
        }
        let label = Label {
            etag: file.validators.etag.clone(),
            last_modified: file.validators.last_modified.clone(),
            len: file.len(),
        };
        self.state.send_modify(|state| {
            // A later answer goes on with the same file, or `begun` was told between.
            let len = state.label.take().and_then(|label| label.len);
            state.label = Some(Label { len: label.len.or(len), ..label });
        });
        Answered::Wanted
    }

    fn filled(&mut self, filled: Filled) {
        self.state.send_modify(|state| {
            state.have = filled.have;
            let label = state.label.get_or_insert_with(Label::default);
            label.len = label.len.or(filled.len);
        });
        if let Some(task) = self.task {
            task.filled(filled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_is_vouched_for_is_withheld_until_it_is_verified() {
        let mut state = State { have: 100 << 10, ..State::default() };
        assert_eq!(state.readable(false), 100 << 10);
        assert_eq!(state.readable(true), 36 << 10);
        state.label = Some(Label { len: Some(1 << 20), ..Label::default() });
        assert_eq!(state.readable(true), 100 << 10);
        state.have = 1 << 20;
        assert_eq!(state.readable(true), (1 << 20) - WITHHELD_BYTES);
        state = State { have: 10, ..State::default() };
        assert_eq!(state.readable(true), 0);
    }
}
