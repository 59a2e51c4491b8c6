//! One content from many sources: drives the scheduler with what sockets, disk and clock do.
//!
//! Everything that is begun here is a task of a set that ends with the [`Drive`]: introductions,
//! requests, refreshed holdings, mismatch reports. The driver itself never waits for any one of
//! them, so a silent source delays nothing.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use sutler_cache::{CheckpointError, CompleteError, Content};
use sutler_protocol::fetch::{
    Ask, End, Event, Fetch, Reason, RequestId, SourceId, SourceReport, Status,
};
use sutler_protocol::frame::{Body, ChunksRequest, Holding};
use sutler_protocol::geometry::ChunkIndex;
use sutler_protocol::{ChunkRanges, Geometry};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::{debug, info};

use super::introduce::{Introduced, Link, Useless, introduce, no_source};
use super::receive::{Ended, Happening, Receiving};
use super::report::{FetchReport, Progress, SourceKind};
use super::{FetchError, Fetcher, SourceAddress, Wanted, blocking};
use crate::arrivals::Arrival;
use crate::origin::Validators;

/// How often the driver looks after checkpoints, progress and holdings.
const TICK: Duration = Duration::from_millis(250);

/// Ticks between two looks at what a partial source has by now.
const REFRESH_TICKS: u32 = 2;

/// How often a lost connection is made again before its source is given up. The waits between
/// double from [`RETURN_AFTER`], so that an address change or a reboot of a switch is survived.
const RETURNS_MAX: u32 = 6;

/// The wait before a lost connection is made again for the first time.
const RETURN_AFTER: Duration = Duration::from_millis(200);

/// Longer than any fetch waits for a source: its return ends the pause.
const UNTIL_IT_RETURNS: Duration = Duration::from_hours(1);

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
        let (store, id) = (self.store.clone(), wanted.content);
        let known = blocking(move || store.content(id)).await?.map_err(FetchError::Read)?;
        if let Some(content) = known.as_ref().filter(|content| content.is_complete()) {
            return Ok(Outcome::Complete(content.clone()));
        }
        let mut drive = Drive::new(self, wanted, sources, known, progress);
        let outcome = drive.run().await;
        drive.report(report);
        outcome
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
    introductions: JoinSet<(usize, Result<Introduced, Useless>)>,
    refreshes: JoinSet<(usize, Option<Holding>)>,
    reports: JoinSet<()>,
    tasks: JoinSet<()>,
    open: BTreeMap<RequestId, (SourceId, AbortHandle)>,
    to: mpsc::Sender<Happening>,
    from: mpsc::Receiver<Happening>,
    checkpoint: Option<JoinHandle<Result<(), CheckpointError>>>,
    ticks: u32,
}

struct Source {
    address: SourceAddress,
    kind: SourceKind,
    link: Option<Link>,
    /// Introduced before there was a hash list to begin with.
    waiting: Option<Introduced>,
    useless: Option<Useless>,
    is_partial: bool,
    is_refreshing: bool,
    returns: u32,
    /// Bytes that came with its introduction.
    inline_bytes: u64,
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
            let timeout = timeout.unwrap_or_else(|| Instant::now() + TICK);
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
                Some(_) = self.reports.join_next() => {}
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
        let (Some(content), Some(link)) =
            (&self.content, &self.sources[ask.source.0 as usize].link)
        else {
            return;
        };
        debug!(request = ask.request.0, source = ask.source.0, chunks = %ask.chunks, "asking");
        let geometry = content.geometry();
        let asked = ChunksRequest {
            content: self.wanted.content,
            len: geometry.len(),
            start: ask.chunks.start().0,
            end: ask.chunks.end().0,
            skip_bytes: 0,
            class: self.wanted.class,
            deadline_ms: 0,
        };
        let receiving = Receiving {
            request: ask.request,
            chunks: ask.chunks,
            content: content.clone(),
            to: self.to.clone(),
        };
        let validators = self.validators(link, geometry);
        let origins = self.fetcher.origins.clone();
        let task = self.tasks.spawn(receiving.run(link.clone(), asked, origins, validators));
        self.open.insert(ask.request, (ask.source, task));
    }

    /// Returns what is known of an origin's file, so that a changed one is noticed early.
    fn validators(&self, link: &Link, geometry: Geometry) -> Validators {
        let Link::Origin(url) = link else { return Validators::default() };
        let about = self.wanted.about.origins.iter().find(|origin| origin.url == url.as_str());
        Validators {
            etag: about.and_then(|origin| origin.etag.clone()),
            last_modified: about.and_then(|origin| origin.last_modified.clone()),
            len: Some(geometry.len()),
        }
    }

    fn happened(&mut self, happening: Happening) -> Result<(), FetchError> {
        let now = Instant::now();
        let Some(machine) = &mut self.machine else { return Ok(()) };
        match happening {
            Happening::Bytes(request, bytes) => machine.handle_bytes(request, bytes, now),
            Happening::Stored(request, chunks) => {
                machine.handle_stored(request, chunks);
                self.arrival.stored();
            }
            Happening::Corrupt(request, chunk) => {
                machine.handle_corrupt(request, chunk);
                self.report_mismatch(request, chunk);
            }
            Happening::Ended(request, ended) => {
                let source = self.open.remove(&request).map(|(source, _)| source);
                match ended {
                    Ended::Told(end) => machine.handle_end(request, end, now),
                    Ended::Store(error) => return Err(FetchError::Commit(error)),
                    Ended::CutOff => return Err(FetchError::CutOff),
                    Ended::Useless(how) => {
                        machine.handle_end(request, End::Finished, now);
                        if let Some(source) = source {
                            machine.handle_lost(source, how);
                        }
                    }
                    Ended::WholeOnly => {
                        machine.handle_end(request, End::Later(now), now);
                        if let Some(source) = source {
                            machine.handle_whole_only(source);
                        }
                    }
                    Ended::LinkLost(how) => {
                        machine.handle_end(request, End::Later(now + UNTIL_IT_RETURNS), now);
                        if let Some(source) = source {
                            self.link_lost(source, how);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells a peer that a chunk of it did not verify, so that it can look after its disk.
    fn report_mismatch(&mut self, request: RequestId, chunk: ChunkIndex) {
        let Some((source, _)) = self.open.get(&request) else { return };
        let source = &self.sources[source.0 as usize];
        info!(source = %source.address, chunk = chunk.0, "a chunk does not verify");
        if let Some(Link::Peer(peer)) = source.link.clone() {
            let content = self.wanted.content;
            self.reports.spawn(async move {
                match peer.mismatch(content, chunk).await {
                    Ok(good) => debug!(good, "the peer has looked at the chunk"),
                    Err(error) => debug!(%error, "the mismatch could not be reported"),
                }
            });
        }
    }

    fn link_lost(&mut self, id: SourceId, how: String) {
        let index = id.0 as usize;
        if self.sources[index].link.take().is_some() {
            self.comes_back_later(index, how);
        }
    }

    /// Tries a source again after a while, or gives it up.
    fn comes_back_later(&mut self, index: usize, how: String) {
        let source = &mut self.sources[index];
        if source.returns >= RETURNS_MAX {
            source.useless = Some(Useless::bad(&how));
            if let Some(machine) = &mut self.machine {
                machine.handle_lost(SourceId(index as u32), how);
            }
            return;
        }
        debug!(source = %source.address, how, "a source is tried again");
        let after = RETURN_AFTER * 2_u32.pow(source.returns);
        source.returns += 1;
        self.introduce(index, after);
    }

    fn introduce(&mut self, index: usize, after: Duration) {
        let body = if self.content.is_some() { Body::Nothing } else { Body::List };
        let introduction = introduce(
            self.fetcher.links.clone(),
            self.sources[index].address.clone(),
            self.wanted.content,
            self.wanted.class,
            body,
        );
        self.introductions.spawn(async move {
            tokio::time::sleep(after).await;
            (index, introduction.await)
        });
    }

    async fn introduced(
        &mut self,
        index: usize,
        introduced: Result<Introduced, Useless>,
    ) -> Result<(), FetchError> {
        let introduced = match introduced {
            Ok(introduced) => introduced,
            Err(useless) if self.sources[index].returns > 0 && useless.may_return => {
                self.comes_back_later(index, useless.reason);
                return Ok(());
            }
            Err(useless) => {
                debug!(source = %self.sources[index].address, useless.reason, "no use");
                if let Some(machine) = &mut self.machine {
                    machine.handle_lost(SourceId(index as u32), useless.reason.clone());
                }
                self.sources[index].useless = Some(useless);
                return Ok(());
            }
        };
        self.sources[index].kind = introduced.kind;
        if self.machine.is_none() && !self.begin(index, &introduced).await? {
            self.sources[index].waiting = Some(introduced);
            return Ok(());
        }
        self.enter(index, introduced);
        // Those that came before the hash list did.
        for other in 0..self.sources.len() {
            if let Some(waiting) = self.sources[other].waiting.take() {
                self.enter(other, waiting);
            }
        }
        Ok(())
    }

    /// Begins the scheduler, if there is a hash list by now.
    async fn begin(&mut self, index: usize, by: &Introduced) -> Result<bool, FetchError> {
        let content = match (&self.content, &by.hashes) {
            (Some(content), _) => content.clone(),
            (None, None) => return Ok(false),
            (None, Some(hashes)) => {
                let (store, hashes) = (self.fetcher.store.clone(), hashes.clone());
                let about = self.wanted.about.clone();
                blocking(move || store.create(hashes, &about)).await?.map_err(FetchError::Create)?
            }
        };
        let whole = by.whole.clone();
        let (adopter, inline) = (content.clone(), whole.is_some());
        // What lies beyond the record is looked at before anything is asked for again.
        let missing = blocking(move || -> Result<ChunkRanges, FetchError> {
            if !adopter.had().is_full() {
                adopter.adopt().map_err(FetchError::Read)?;
            }
            if let Some(bytes) = whole.filter(|_| adopter.had().is_empty()) {
                adopter.commit(ChunkIndex(0), &bytes).map_err(FetchError::Commit)?;
            }
            Ok(adopter.had().complement())
        })
        .await??;
        if inline {
            self.sources[index].inline_bytes = content.geometry().len();
            self.arrival.stored();
        }
        let claimant = by.len.map(|_| SourceId(index as u32));
        let seed = RandomState::new().hash_one(self.wanted.content.as_bytes());
        self.machine =
            Some(Fetch::new(content.geometry(), missing, claimant, seed, Instant::now()));
        self.content = Some(content);
        Ok(true)
    }

    /// Lets the scheduler have a source, or have it back.
    fn enter(&mut self, index: usize, introduced: Introduced) {
        let (Some(machine), Some(content)) = (&mut self.machine, &self.content) else { return };
        let source = &mut self.sources[index];
        let geometry = content.geometry();
        if introduced.len.is_some_and(|len| len != geometry.len()) {
            source.useless = Some(Useless::bad("claims another length"));
            return;
        }
        let Ok(held) = introduced.holding.promised(geometry) else {
            source.useless = Some(Useless::bad("sent a bitmap of another size"));
            return;
        };
        source.is_partial = introduced.holding != Holding::Whole;
        let id = SourceId(index as u32);
        machine.add_source(id, introduced.scheduled_as(), held.clone(), introduced.rtt);
        machine.handle_back(id, held, Instant::now());
        source.link = Some(introduced.link);
    }

    fn refreshed(&mut self, index: usize, holding: Option<Holding>) {
        self.sources[index].is_refreshing = false;
        let (Some(machine), Some(content), Some(holding)) =
            (&mut self.machine, &self.content, holding)
        else {
            return;
        };
        if let Ok(held) = holding.promised(content.geometry()) {
            self.sources[index].is_partial = holding != Holding::Whole;
            machine.handle_holding(SourceId(index as u32), held, Instant::now());
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
        for (index, source) in self.sources.iter_mut().enumerate() {
            let Some(Link::Peer(peer)) = &source.link else { continue };
            if !source.is_partial || source.is_refreshing || source.useless.is_some() {
                continue;
            }
            source.is_refreshing = true;
            let (peer, id, class) = (peer.clone(), self.wanted.content, self.wanted.class);
            self.refreshes.spawn(async move {
                let opened = peer.open(id, Body::Nothing, class).await;
                (index, opened.ok().map(|(opened, _)| opened.holding))
            });
        }
    }

    /// Returns what the drive came to, if it is over.
    async fn outcome(&mut self) -> Result<Option<Outcome>, FetchError> {
        if let Some(claimant) = self.wrong_length {
            let address = self.sources[claimant.0 as usize].address.clone();
            return Ok(Some(Outcome::WrongLength(Some(address))));
        }
        let now = Instant::now();
        let status = match &self.machine {
            Some(machine) => machine.status(now),
            None if self.introductions.is_empty() => Status::Stuck,
            None => Status::Running,
        };
        match status {
            Status::Done => self.complete().await.map(Some),
            Status::Stuck if self.introductions.is_empty() => self.stuck().await.map(Some),
            _ => Ok(None),
        }
    }

    async fn complete(&mut self) -> Result<Outcome, FetchError> {
        checkpointed(&mut self.checkpoint).await?;
        self.checkpoint = None;
        let Some(content) = self.content.clone() else { return Err(FetchError::CutOff) };
        let (store, finished) = (self.fetcher.store.clone(), content.clone());
        let completed = blocking(move || store.complete(&[finished])).await?;
        self.publish();
        match completed {
            Ok(()) => Ok(Outcome::Complete(content)),
            Err(source) => Err(self.not_completed(source)),
        }
    }

    fn not_completed(&self, source: CompleteError) -> FetchError {
        let content = self.wanted.content;
        match (&source, self.wanted.about.sha256) {
            (CompleteError::Digest { .. }, Some(expected)) => {
                FetchError::Digest { content: content.to_string(), expected }
            }
            _ => FetchError::Complete { content, source: Box::new(source) },
        }
    }

    async fn stuck(&mut self) -> Result<Outcome, FetchError> {
        let Some(machine) = &self.machine else {
            return self.without_list().await;
        };
        // A length that was believed before this process began, and that everybody contradicts.
        let is_length_open = self
            .content
            .as_ref()
            .is_some_and(|content| !content.had().contains(content.geometry().last()));
        let is_disputed = machine
            .reports()
            .any(|(_, report)| report.left.as_ref().is_some_and(Reason::disputes_length));
        let is_contradicted = is_disputed
            || self.sources.iter().any(|source| {
                source.useless.as_ref().is_some_and(|why| why.reason == "claims another length")
            });
        if self.was_known && is_length_open && is_contradicted {
            return Ok(Outcome::WrongLength(None));
        }
        if let Some(content) = self.content.clone() {
            blocking(move || content.checkpoint()).await?.map_err(FetchError::Checkpoint)?;
        }
        Err(no_source(self.wanted.content.to_string(), self.reasons()))
    }

    /// No source had a hash list: what an origin sends is believed when the whole agrees.
    async fn without_list(&mut self) -> Result<Outcome, FetchError> {
        let mut reasons = self.reasons();
        for index in 0..self.sources.len() {
            let SourceAddress::Origin(url) = self.sources[index].address.clone() else { continue };
            let key = super::QuarantineKey::Content(self.wanted.content);
            let progress = self.progress;
            let filled = |filled: crate::gateway::Filled| {
                progress.send_modify(|progress| {
                    progress.have_bytes = filled.have;
                    progress.len = filled.len;
                });
            };
            match self.fetcher.fetch_whole(key, &url, self.wanted.about.clone(), filled).await {
                Ok((content, bytes)) => {
                    self.sources[index].inline_bytes = bytes;
                    return Ok(Outcome::Complete(content));
                }
                Err(error) if error.is_of_origin() => {
                    let reason = crate::gateway::causes(&error);
                    reasons.push((url.to_string(), Useless::bad(&reason)));
                }
                Err(error) => return Err(error),
            }
        }
        Err(no_source(self.wanted.content.to_string(), reasons))
    }

    fn reasons(&self) -> Vec<(String, Useless)> {
        self.sources
            .iter()
            .filter_map(|source| {
                let why = source.useless.clone()?;
                Some((source.address.to_string(), why))
            })
            .collect()
    }

    fn publish(&self) {
        let (Some(machine), Some(content)) = (&self.machine, &self.content) else { return };
        let geometry = content.geometry();
        let missing: u64 = machine
            .missing()
            .runs()
            .map(|run| {
                let bytes = geometry.bytes(run);
                bytes.end - bytes.start
            })
            .sum();
        let sources = machine
            .reports()
            .map(|(id, report)| {
                let source = &self.sources[id.0 as usize];
                (source.address.to_string(), report.good_bytes + source.inline_bytes)
            })
            .collect();
        self.progress.send_replace(Progress {
            have_bytes: geometry.len() - missing,
            len: Some(geometry.len()),
            is_upstream: false,
            sources,
        });
    }

    /// Adds what each source gave to the report.
    fn report(&self, report: &mut FetchReport) {
        let mut gave: BTreeMap<SourceId, SourceReport> =
            self.machine.iter().flat_map(Fetch::reports).collect();
        for (source, id) in self.sources.iter().zip(0..) {
            let mut gave = gave.remove(&SourceId(id)).unwrap_or_default();
            gave.good_bytes += source.inline_bytes;
            report.add(source.kind, source.address.to_string(), gave);
        }
    }
}

impl Source {
    fn new(address: SourceAddress) -> Self {
        let kind = match address {
            SourceAddress::Peer(_) => SourceKind::Peer,
            SourceAddress::Origin(_) => SourceKind::Vendor,
        };
        Self {
            address,
            kind,
            link: None,
            waiting: None,
            useless: None,
            is_partial: false,
            is_refreshing: false,
            returns: 0,
            inline_bytes: 0,
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
