//! One content from many sources: drives the scheduler with what sockets, disk and clock do.
//!
//! Everything that is begun here is a task of a set that ends with the [`Drive`]: introductions,
//! requests, refreshed holdings, mismatch reports. The driver itself never waits for any one of
//! them, so a silent source delays nothing.

mod ending;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sutler_cache::{About, CheckpointError, CompleteError, Content, CreateError};
use sutler_protocol::fetch::{Ask, End, Event, Fetch, Outlook, RequestId, SourceId};
use sutler_protocol::frame::{Body, ChunksRequest, Holding, Refusal};
use sutler_protocol::geometry::ChunkIndex;
use sutler_protocol::{ContentId, Sha256Digest};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::{debug, info};

use super::introduce::{Introduced, Link, Useless};
use super::receive::{Ended, Happening, Receiving};
use super::report::{FetchReport, Progress};
use super::{FetchError, Fetcher, SourceAddress, Wanted, blocking};
use crate::arrivals::Arrival;
use crate::origin::Validators;
use crate::peer::RequestError;
use sources::Source;

/// How often the driver looks after checkpoints, progress and holdings.
const TICK: Duration = Duration::from_millis(250);

/// Ticks between two looks at what a partial source has by now.
const REFRESH_TICKS: u32 = 2;

/// How long a peer that owes something may be silent before it is asked whether it is still there.
/// One that waits for its own source answers; one that was killed is found out by its machine, which
/// refuses in its name, by its silence, or by its next life, long before the connection's idle
/// time-out.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// Longer than any fetch waits for a source: its return ends the pause.
const UNTIL_IT_RETURNS: Duration = Duration::from_hours(1);

/// The least time between two looks at what is due.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What requests may have told and the driver has not yet heard; a full queue holds them back.
const HAPPENINGS_MAX: usize = 256;

/// What a drive came to.
pub(super) enum Outcome {
    /// The content is complete and durable.
    Complete(Content),
    /// The length that was believed is wrong; this source had claimed it, if one is known.
    WrongLength(Option<SourceAddress>),
}

impl Fetcher {
    /// Fetches what is missing, and adds what the sources gave to `report`.
    ///
    /// Cancel-safe, as [`Fetcher::fetch`].
    pub(super) async fn drive(
        &self,
        wanted: &Wanted,
        sources: &[SourceAddress],
        report: &mut FetchReport,
        progress: &watch::Sender<Progress>,
    ) -> Result<Outcome, FetchError> {
        let known = self.known(wanted).await?;
        if let Some(content) = known.as_ref().filter(|content| content.is_complete()) {
            self.check_claim(content, wanted).await?;
            return Ok(Outcome::Complete(content.clone()));
        }
        let mut drive = Drive::new(self, wanted, sources, known, progress);
        let outcome = drive.run().await;
        drive.report(report);
        drive.see_reports_off().await;
        outcome
    }

    /// Returns the content if the store knows it, with what is newly said of it: a digest that is
    /// claimed now binds what was had before, too.
    async fn known(&self, wanted: &Wanted) -> Result<Option<Content>, FetchError> {
        let (store, id, about) = (self.store.clone(), wanted.content, wanted.about.clone());
        blocking(move || {
            let Some(content) = store.content(id).map_err(FetchError::Read)? else {
                return Ok(None);
            };
            if about == About::default() {
                return Ok(Some(content));
            }
            let joined = store.create(content.hashes().clone(), &about);
            joined.map(Some).map_err(|error| match error {
                CreateError::Digest { claimed: expected, .. } => {
                    FetchError::Digest { content: id.to_string(), expected }
                }
                error => FetchError::Create(error),
            })
        })
        .await?
    }

    /// Checks the digest that is claimed of a content that is complete.
    async fn check_claim(&self, content: &Content, wanted: &Wanted) -> Result<(), FetchError> {
        let Some(claimed) = wanted.about.sha256 else { return Ok(()) };
        let (store, content) = (self.store.clone(), content.clone());
        let checked = blocking(move || store.complete(&[content])).await?;
        checked.map_err(|source| FetchError::of_completing(wanted.content, Some(claimed), source))
    }
}

impl FetchError {
    fn of_completing(
        content: ContentId,
        claimed: Option<Sha256Digest>,
        source: CompleteError,
    ) -> Self {
        match (&source, claimed) {
            (CompleteError::Digest { .. }, Some(expected)) => {
                Self::Digest { content: content.to_string(), expected }
            }
            _ => Self::Complete { content, source: Box::new(source) },
        }
    }
}

struct Drive<'a> {
    fetcher: &'a Fetcher,
    wanted: &'a Wanted,
    progress: &'a watch::Sender<Progress>,
    arrival: Arrival,
    content: Option<Content>,
    was_known: bool,
    machine: Option<Fetch>,
    /// By [`SourceId`].
    sources: Vec<Source>,
    wrong_length: Option<SourceId>,
    /// Whose word the length is, if it was not known before.
    claimant: Option<SourceId>,
    introductions: JoinSet<(usize, Result<Introduced, Useless>)>,
    refreshes: JoinSet<(usize, Result<Holding, RequestError>)>,
    /// Each with whether the source says that its chunk is good.
    reports: JoinSet<(usize, bool)>,
    tasks: JoinSet<()>,
    open: BTreeMap<RequestId, (SourceId, AbortHandle)>,
    to: mpsc::Sender<Happening>,
    from: mpsc::Receiver<Happening>,
    checkpoint: Option<JoinHandle<Result<(), CheckpointError>>>,
    ticks: u32,
}

impl<'a> Drive<'a> {
    fn new(
        fetcher: &'a Fetcher,
        wanted: &'a Wanted,
        sources: &[SourceAddress],
        known: Option<Content>,
        progress: &'a watch::Sender<Progress>,
    ) -> Self {
        let (to, from) = mpsc::channel(HAPPENINGS_MAX);
        Self {
            fetcher,
            wanted,
            progress,
            arrival: fetcher.arrivals.begin(wanted.content),
            was_known: known.is_some(),
            content: known,
            machine: None,
            sources: sources.iter().cloned().map(Source::new).collect(),
            wrong_length: None,
            claimant: None,
            introductions: JoinSet::new(),
            refreshes: JoinSet::new(),
            reports: JoinSet::new(),
            tasks: JoinSet::new(),
            open: BTreeMap::new(),
            to,
            from,
            checkpoint: None,
            ticks: 0,
        }
    }

    async fn run(&mut self) -> Result<Outcome, FetchError> {
        for source in 0..self.sources.len() {
            self.introduce(source, Duration::ZERO);
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            self.act();
            if let Some(outcome) = self.outcome().await? {
                return Ok(outcome);
            }
            let timeout = self.machine.as_ref().and_then(Fetch::poll_timeout);
            let now = Instant::now();
            // What is overdue, and waits for something else, is not looked at in a busy loop.
            let timeout = timeout.map_or(now + TICK, |at| at.max(now + LOOK_AGAIN));
            // Every branch is cancel-safe: sets, queues and handles give up a result only when
            // they return it, and timers only wait.
            tokio::select! {
                Some(happening) = self.from.recv() => {
                    self.happened(happening)?;
                    while let Ok(happening) = self.from.try_recv() {
                        self.happened(happening)?;
                    }
                }
                Some(Ok((source, introduced))) = self.introductions.join_next() => {
                    self.introduced(source, introduced).await?;
                }
                Some(Ok((source, holding))) = self.refreshes.join_next() => {
                    self.refreshed(source, holding);
                }
                done = checkpointed(&mut self.checkpoint), if self.checkpoint.is_some() => {
                    self.checkpoint = None;
                    done?;
                }
                Some(_) = self.tasks.join_next() => {}
                Some(Ok((source, is_good))) = self.reports.join_next() => {
                    self.rechecked(source, is_good);
                }
                _ = tick.tick() => self.tick(),
                () = tokio::time::sleep_until(timeout.into()) => {
                    if let Some(machine) = &mut self.machine {
                        machine.handle_timeout(Instant::now());
                    }
                }
            }
        }
    }

    /// Does what the scheduler asks for.
    fn act(&mut self) {
        let now = Instant::now();
        let mut asks = Vec::new();
        let Some(machine) = &mut self.machine else { return };
        while let Some(event) = machine.poll_event() {
            match event {
                Event::Cancel(request) => {
                    if let Some((_, task)) = self.open.remove(&request) {
                        task.abort();
                    }
                }
                Event::Left(source, reason) => {
                    let source = &mut self.sources[source.0 as usize];
                    info!(source = %source.address, %reason, "a source is left");
                    source.useless.get_or_insert_with(|| Useless::bad(&reason.to_string()));
                }
                Event::WrongLength(source) => self.wrong_length = Some(source),
            }
        }
        while let Some(ask) = machine.poll_ask(now) {
            asks.push(ask);
        }
        for ask in asks {
            self.send(ask);
        }
    }

    fn send(&mut self, ask: Ask) {
        let Some(machine) = &mut self.machine else { return };
        let (Some(content), Some(link)) =
            (&self.content, &self.sources[ask.source.0 as usize].link)
        else {
            // Its connection has just ended.
            let now = Instant::now();
            machine.handle_end(ask.request, End::Later(now + UNTIL_IT_RETURNS), now);
            return;
        };
        debug!(request = ask.request.0, source = ask.source.0, chunks = %ask.chunks, "asking");
        let geometry = content.geometry();
        let asked = ChunksRequest {
            content: self.wanted.content,
            len: geometry.len(),
            start: ask.chunks.start().0,
            end: ask.chunks.end().0,
            skip_bytes: ask.skip_bytes,
            class: self.wanted.class,
            deadline_ms: 0,
        };
        let receiving = Receiving {
            request: ask.request,
            chunks: ask.chunks,
            goes_on_from: machine.take_partial(ask.request),
            content: content.clone(),
            disk: self.fetcher.disk.clone(),
            buffers: self.fetcher.buffers.clone(),
            to: self.to.clone(),
        };
        // The hash list tells whether the bytes are right. What else the origin says of its file, and
        // whether that has changed, would only cost a source that may still have them.
        let validators = Validators { len: Some(geometry.len()), ..Validators::default() };
        let origins = self.fetcher.origins.clone();
        let task = self.tasks.spawn(receiving.run(link.clone(), asked, origins, validators));
        self.sources[ask.source.0 as usize].heard = Instant::now();
        self.open.insert(ask.request, (ask.source, task));
    }

    fn happened(&mut self, happening: Happening) -> Result<(), FetchError> {
        let now = Instant::now();
        let Some(machine) = &mut self.machine else { return Ok(()) };
        match happening {
            Happening::Part(request) => machine.handle_part(request),
            Happening::Whole(request) => machine.handle_whole(request, now),
            Happening::Bytes(request, bytes) => {
                machine.handle_bytes(request, bytes, now);
                if let Some((source, _)) = self.open.get(&request) {
                    let source = &mut self.sources[source.0 as usize];
                    (source.heard, source.said) = (now, now);
                }
            }
            Happening::Stored(request, chunks) => {
                machine.handle_stored(request, chunks);
                self.arrival.stored();
                if let Some((source, _)) = self.open.get(&request) {
                    // It delivers again, so what befell it before is over.
                    self.sources[source.0 as usize].returns = 0;
                }
            }
            Happening::Corrupt(request, chunk) => {
                if machine.handle_corrupt(request, chunk) {
                    self.report_mismatch(request, chunk);
                }
            }
            Happening::Ended(request, ended, partial) => {
                // One that was cancelled is off the books.
                let Some((source, _)) = self.open.remove(&request) else { return Ok(()) };
                if let Some(partial) = partial {
                    machine.handle_partial(source, partial);
                }
                return self.ended(request, source, ended);
            }
        }
        Ok(())
    }

    fn ended(&mut self, request: RequestId, id: SourceId, ended: Ended) -> Result<(), FetchError> {
        let now = Instant::now();
        let Some(machine) = &mut self.machine else { return Ok(()) };
        let source = &mut self.sources[id.0 as usize];
        match ended {
            Ended::Told(end) => {
                // It has less than it said; what it has is asked anew.
                source.is_partial |=
                    matches!(end, End::Refused(Refusal::NotHeld | Refusal::Damaged));
                machine.handle_end(request, end, now);
            }
            Ended::Store(error) => return Err(FetchError::Commit(error)),
            Ended::CutOff => return Err(FetchError::CutOff),
            Ended::Useless(how) => machine.handle_lost(id, how),
            Ended::LinkLost(how) => {
                // Word of an earlier connection must not end the one made since.
                let pause = if source.is_linked() { Duration::ZERO } else { UNTIL_IT_RETURNS };
                machine.handle_end(request, End::Later(now + pause), now);
                self.link_lost(id, how);
            }
        }
        Ok(())
    }

    /// Tells a peer that a chunk of it did not verify, so that it can look after its disk.
    fn report_mismatch(&mut self, request: RequestId, chunk: ChunkIndex) {
        let Some((source, _)) = self.open.get(&request) else { return };
        let index = source.0 as usize;
        let source = &self.sources[index];
        info!(source = %source.address, chunk = chunk.0, "a chunk does not verify");
        if let Some(Link::Peer(peer)) = source.link.clone() {
            let content = self.wanted.content;
            self.reports.spawn(async move {
                let is_good = match peer.mismatch(content, chunk).await {
                    Ok(is_good) => {
                        debug!(is_good, "the peer has looked at the chunk");
                        is_good
                    }
                    Err(error) => {
                        debug!(%error, "the mismatch could not be reported");
                        true
                    }
                };
                (index, is_good)
            });
        }
    }

    /// Takes note of what a peer says of a chunk that did not verify here.
    fn rechecked(&mut self, index: usize, is_good: bool) {
        // It fetches a bad one again, so what it has is looked at again.
        self.sources[index].is_partial |= !is_good;
        if let Some(machine) = self.machine.as_mut().filter(|_| is_good) {
            machine.handle_outlook(SourceId(index as u32), Outlook::Settled);
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.publish();
        let Some(content) = &self.content else { return };
        if self.checkpoint.is_none() && content.checkpoint_due(Instant::now()) {
            let content = content.clone();
            self.checkpoint = Some(tokio::task::spawn_blocking(move || content.checkpoint()));
        }
        if !self.ticks.is_multiple_of(REFRESH_TICKS) {
            return;
        }
        let now = Instant::now();
        let owing: BTreeSet<SourceId> = self.open.values().map(|(source, _)| *source).collect();
        for (index, source) in self.sources.iter_mut().enumerate() {
            let Some(Link::Peer(peer)) = &source.link else { continue };
            let is_silent =
                owing.contains(&SourceId(index as u32)) && now >= source.heard + PROBE_AFTER;
            let is_asked = source.is_partial || is_silent;
            if !is_asked || source.is_refreshing || source.useless.is_some() {
                continue;
            }
            source.is_refreshing = true;
            source.heard = now;
            let (peer, id, class) = (peer.clone(), self.wanted.content, self.wanted.class);
            self.refreshes.spawn(async move {
                let opened = peer.open(id, Body::Nothing, class).await;
                (index, opened.map(|(opened, _)| opened.holding))
            });
        }
    }
}

/// Waits for a checkpoint that is under way, if one is.
async fn checkpointed(
    checkpoint: &mut Option<JoinHandle<Result<(), CheckpointError>>>,
) -> Result<(), FetchError> {
    match checkpoint {
        Some(handle) => {
            handle.await.map_err(|_| FetchError::CutOff)?.map_err(FetchError::Checkpoint)
        }
        None => Ok(()),
    }
}
