//! The agent as a process has it: it waits for news, fetches, runs one command at a time, and asks its [`Core`] what is
//! next.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sutler_cache::export::{ExportHow, file_name};
use sutler_cache::{About, Origin, Store};
use sutler_orders::answer::Reason;
use sutler_orders::content::Content;
use sutler_orders::text::Utc;
use sutler_protocol::ContentId;
use sutler_protocol::frame::Class;
use sutler_swarm::fetch::Progress;
use sutler_swarm::identity::PeerName;
use sutler_swarm::orders::{Board, Latest, Manifest, Orders as _, Outbox};
use sutler_swarm::{FetchError, Fetcher, SourceAddress, Wanted};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use crate::command::{Subject, Template, Vector};
use crate::config::AgentConfig;
use crate::core::{Core, Round};
use crate::inventory::facts;
use crate::plan::{Doing, Next, Trouble};
use crate::reporting::Reporting;
use crate::run::{self, Ended, How, RunError, Started};
use crate::said;
use crate::senses::{Sensed, sense};
use crate::state::{Finding, Found, HowEnded};
use crate::versions::Versions;

/// How often it looks by itself: orders have instants of their own, and what enforces its start has 60 s (R80).
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How soon a report may follow another one, unless somebody says otherwise: an approval of a thousand contents is
/// one report or two.
pub const REPORTS_APART: Duration = Duration::from_secs(10);

/// How soon it looks again at the earliest, but for the end of a step of its own.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(100);

/// Contents that are fetched at a time: each uses all sources together.
const FETCHES_MAX: usize = 4;

/// How soon, and after how long at the latest, a fetch that went wrong is tried again.
const FETCH_AGAIN_MIN: SignedDuration = SignedDuration::from_secs(15);
const FETCH_AGAIN_MAX: SignedDuration = SignedDuration::from_hours(1);

/// How long a look may take: it reads, and changes nothing.
const LOOK_MAX: Duration = Duration::from_mins(2);

/// Exit codes of a command that looks for something, beside 0 for yes and 1 for no.
const NOT_APPLICABLE: i32 = 3;
const PENDING_REBOOT: i32 = 4;

/// What an agent is made of. Whoever composes it serves from the store and follows the orders.
pub struct Parts {
    /// What the config says.
    pub config: AgentConfig,
    /// The agent's folder, for what it remembers and shows; made if need be.
    pub folder: PathBuf,
    /// What fetches, into the store, with the device's identity.
    pub fetcher: Fetcher,
    /// Who else may have contents: nodes and neighbours.
    pub sources: Vec<SocketAddr>,
    /// What is known of the orders.
    pub board: Board,
    /// Where its reports go.
    pub outbox: Outbox,
    /// How soon one of them may follow another.
    pub reports_apart: Duration,
    /// What the device's clock says.
    pub clock: fn() -> Timestamp,
}

/// An agent that does not run yet.
pub struct Agent {
    parts: Parts,
    core: Core,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The certificate is somebody else's.
    #[error("{name} is not an agent")]
    Role {
        /// Whom the certificate names.
        name: PeerName,
    },
    /// The disk refused.
    #[error("make {}", .folder.display())]
    Folder {
        /// The agent's folder.
        folder: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
}

impl Agent {
    /// Opens an agent. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(parts: Parts) -> Result<Self, OpenError> {
        let name = parts.fetcher.endpoint().name().clone();
        let known = facts(&name, &parts.config);
        let facts = known.ok_or_else(|| OpenError::Role { name: name.clone() })?;
        let folder = parts.folder.clone();
        make_private(&folder).map_err(|source| OpenError::Folder { folder, source })?;
        let store = parts.fetcher.store().clone();
        let now = (parts.clock)();
        let core = Core::new(
            parts.folder.clone(),
            parts.config.clone(),
            facts,
            name.to_string(),
            store,
            now,
        );
        Ok(Self { parts, core })
    }

    /// Acts until `shutdown`. A command that runs then is told to end.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: a command would go on with nobody to see how it ends. The next start finds that.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { parts, core } = self;
        let heard = Heard { manifest: parts.board.manifest(), news: parts.board.news() };
        let shell = Shell {
            started: Instant::now(),
            core: Some(core),
            reporting: Some(Reporting::default()),
            heard,
            fetches: JoinSet::new(),
            fetching: BTreeMap::new(),
            sensing: JoinSet::new(),
            step: JoinSet::new(),
            busy: None,
            has_reports: false,
            parts: Arc::new(parts),
        };
        shell.run(shutdown).await;
    }
}

/// What tells of new orders.
#[derive(Clone)]
struct Heard {
    manifest: watch::Receiver<Option<Arc<Manifest>>>,
    news: watch::Receiver<Arc<Latest>>,
}

/// What became of the fetch of one content.
type OneFetched = (ContentId, Result<(), FetchError>);

struct Shell {
    parts: Arc<Parts>,
    started: Instant,
    /// Away while a round is at work.
    core: Option<Core>,
    reporting: Option<Reporting>,
    heard: Heard,
    /// Owns every fetch.
    fetches: JoinSet<OneFetched>,
    fetching: BTreeMap<tokio::task::Id, ContentId>,
    /// Owns what finds out about the device itself.
    sensing: JoinSet<Sensed>,
    /// Owns the one command that runs.
    step: JoinSet<Event>,
    /// What is being done with one content.
    busy: Option<(ContentId, Doing)>,
    has_reports: bool,
}

/// What became of a step.
enum Event {
    /// It was not begun: the orders changed, or it could not be.
    NotBegun(ContentId, Option<Timestamp>, Option<String>),
    /// An attempt may be begun with this command.
    Ready { content: ContentId, until: Option<Timestamp>, run_max: SignedDuration, vector: Vector },
    /// A look ended.
    Found(ContentId, Found, Option<String>),
    /// An attempt ended.
    Ended(ContentId, HowEnded, Option<String>),
}

impl Shell {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut is_news = false;
        loop {
            if !self.take_orders(is_news).await {
                return;
            }
            is_news = true;
            let Some(round) = self.round().await else { return };
            let wake = self.act(&round, &shutdown);
            let mut is_own = false;
            tokio::select! {
                () = shutdown.cancelled() => break,
                // Cancel-safe: whether something changed is there to be asked again.
                _ = self.heard.manifest.changed() => {}
                _ = self.heard.news.changed() => {}
                // Cancel-safe: a task is taken out only when it is returned.
                Some(done) = self.fetches.join_next_with_id() => self.fetched(done),
                Some(sensed) = self.sensing.join_next() => {
                    is_own = true;
                    self.sensed(sensed).await;
                }
                Some(done) = self.step.join_next() => match done {
                    Ok(event) => {
                        is_own = true;
                        self.handle(event, &shutdown).await;
                    }
                    Err(error) => {
                        warn!(%error, "a step ended by a defect");
                        self.busy = None;
                    }
                },
                () = sleep(wake) => {}
            }
            if shutdown.is_cancelled() {
                break;
            }
            if !is_own {
                // Many things that happen at a time are looked at once.
                sleep(LOOK_AGAIN_MIN).await;
            }
        }
        self.fetches.shutdown().await;
        // Told to end as well, and waited for.
        while self.sensing.join_next().await.is_some() {}
        // A command that runs was told to end, and is waited for.
        while let Some(done) = self.step.join_next().await {
            if let Ok(event) = done {
                self.handle(event, &shutdown).await;
            }
        }
    }

    fn now(&self) -> Timestamp {
        (self.parts.clock)()
    }

    /// Runs `work` on the core where it may wait for the disk; `None` if it ended by a defect.
    async fn with_core<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Option<T> {
        let mut core = self.core.take()?;
        let done = spawn_blocking(move || {
            let out = work(&mut core);
            (core, out)
        });
        match done.await {
            Ok((core, out)) => {
                self.core = Some(core);
                Some(out)
            }
            Err(error) => {
                warn!(%error, "the agent ended by a defect");
                None
            }
        }
    }

    /// Takes in the orders of now; says whether the agent goes on.
    async fn take_orders(&mut self, is_news: bool) -> bool {
        let manifest = self.heard.manifest.borrow_and_update().clone();
        self.heard.news.mark_unchanged();
        let Some(manifest) = manifest else { return self.core.is_some() };
        let (denials, now) = (self.parts.board.denials(), self.now());
        self.with_core(move |core| core.handle_orders(&manifest, denials, is_news, now))
            .await
            .is_some()
    }

    /// Looks at everything, and reports if it is time to.
    async fn round(&mut self) -> Option<Round> {
        let mut reporting = self.reporting.take().unwrap_or_default();
        let (parts, busy) = (Arc::clone(&self.parts), self.busy);
        let (now, elapsed) = (self.now(), self.started.elapsed());
        let had_reports = self.has_reports;
        let done = self.with_core(move |core| {
            let waiting = parts.outbox.waiting();
            if had_reports && waiting == 0 {
                core.handle_contact(now);
            }
            let round = core.round(busy, waiting, now, elapsed);
            let identity = parts.fetcher.endpoint().identity();
            let apart = parts.reports_apart;
            let reported =
                reporting.report(core, &round.said, identity, &parts.outbox, (now, elapsed), apart);
            if let Err(error) = reported {
                warn!(error = said(&error), "no report was made");
            }
            (round, reporting, parts.outbox.waiting() > 0)
        });
        let (round, reporting, has_reports) = done.await?;
        self.reporting = Some(reporting);
        self.has_reports = has_reports;
        Some(round)
    }

    /// Begins what the plan says, and returns how long nothing more is to be done.
    fn act(&mut self, round: &Round, shutdown: &CancellationToken) -> Duration {
        let plan = &round.plan;
        for (id, is_urgent) in &plan.fetch {
            let is_known = self.fetching.values().any(|fetching| fetching == id);
            let Some(content) = round.contents.get(id).filter(|_| !is_known) else { continue };
            if self.fetching.len() >= FETCHES_MAX && !is_urgent {
                continue;
            }
            let fetch = fetch(Arc::clone(&self.parts), content.clone(), *is_urgent);
            let handle = self.fetches.spawn(fetch);
            self.fetching.insert(handle.id(), *id);
        }
        if round.wants.any() && self.sensing.is_empty() {
            let lists = self.parts.config.versions.clone().into_iter().collect();
            self.sensing.spawn(sense(round.wants, lists, shutdown.clone()));
        }
        if let Some(next) = plan.next.filter(|_| self.step.is_empty()) {
            self.begin(next, round, shutdown);
        }
        let until = plan.wake.map(|wake| wake.duration_since(self.now()));
        let until = until.and_then(|until| Duration::try_from(until).ok());
        // A change is told no later than the bound on reports allows.
        let is_untold = self.reporting.as_ref().is_some_and(Reporting::is_untold);
        let look_every = if is_untold { self.parts.reports_apart } else { LOOK_EVERY };
        until.unwrap_or(LOOK_EVERY).min(look_every)
    }

    fn begin(&mut self, next: Next, round: &Round, shutdown: &CancellationToken) {
        let (id, doing) = match next {
            Next::Look(content) => (content, Doing::Looking),
            Next::Install { content, .. } => (content, Doing::Installing),
        };
        let Some(content) = round.contents.get(&id).cloned() else { return };
        let (parts, heard, stop) = (Arc::clone(&self.parts), self.heard.clone(), shutdown.clone());
        match next {
            Next::Look(_) => {
                self.busy = Some((id, doing));
                self.step.spawn(look(parts, content, stop));
            }
            // Busy only once the attempt is begun: until then it is staged, and may still be stopped.
            Next::Install { until, run_max, .. } => {
                self.step.spawn(prepare(parts, content, heard, until, run_max));
            }
        }
    }

    async fn sensed(&mut self, sensed: Result<Sensed, tokio::task::JoinError>) {
        let elapsed = self.started.elapsed();
        // One that ended by a defect has found out nothing, and is not asked again at once.
        let sensed = sensed.unwrap_or_else(|error| {
            warn!(%error, "the device cannot find out about itself");
            Sensed { versions: Some(Versions::default()), is_metered: Some(false) }
        });
        self.with_core(move |core| core.handle_sensed(sensed, elapsed)).await;
    }

    async fn handle(&mut self, event: Event, shutdown: &CancellationToken) {
        let now = self.now();
        match event {
            Event::NotBegun(content, until, why) => {
                if let Some(detail) = why {
                    warn!(content.id = %content, detail, "an installation cannot be begun");
                    self.with_core(move |core| {
                        // It is an attempt all the same, so that it is not tried for ever.
                        if core.begin(content, until, now).is_ok() {
                            core.handle_ended(content, HowEnded::Failed, Some(detail), now);
                        }
                    })
                    .await;
                }
            }
            Event::Ready { content, until, run_max, vector } => {
                if shutdown.is_cancelled() || self.heard.has_changed() {
                    // The orders are looked at again before anything starts.
                    return;
                }
                let begun = self.with_core(move |core| core.begin(content, until, now)).await;
                if let Some(Err(error)) = &begun {
                    warn!(%error, "an attempt cannot be written down, so it is not made");
                }
                if !matches!(begun, Some(Ok(()))) {
                    return;
                }
                info!(content.id = %content, command = %vector, "installing");
                self.busy = Some((content, Doing::Installing));
                match run::start(&vector) {
                    Ok(started) => {
                        let group = started.group();
                        self.with_core(move |core| core.handle_started(content, group)).await;
                        let limit = Duration::try_from(run_max).unwrap_or(Duration::MAX);
                        self.step.spawn(wait(content, started, limit, shutdown.clone()));
                    }
                    Err(error) => self.ended(content, HowEnded::Failed, Some(said(&error))).await,
                }
            }
            Event::Found(content, found, detail) => {
                info!(content.id = %content, ?found, "looked for");
                let finding = Finding { at: Utc::of(now), found, detail };
                self.busy = None;
                self.with_core(move |core| core.handle_finding(content, finding)).await;
                self.clear_work().await;
            }
            Event::Ended(content, how, detail) => self.ended(content, how, detail).await,
        }
    }

    async fn ended(&mut self, content: ContentId, how: HowEnded, detail: Option<String>) {
        info!(content.id = %content, ?how, detail, "the command ended");
        let now = self.now();
        self.with_core(move |core| core.handle_ended(content, how, detail, now)).await;
        self.busy = None;
        self.clear_work().await;
    }

    /// Removes what a command was given. Whatever stays is removed before the next one.
    async fn clear_work(&self) {
        let work = work_folder(&self.parts);
        drop(spawn_blocking(move || fs::remove_dir_all(work)).await);
    }

    fn fetched(&mut self, done: Result<(tokio::task::Id, OneFetched), tokio::task::JoinError>) {
        let (task, content, fetched) = match done {
            Ok((task, (content, fetched))) => {
                (task, content, fetched.map_err(|error| trouble(&error)))
            }
            Err(error) => {
                let Some(content) = self.fetching.get(&error.id()).copied() else { return };
                (error.id(), content, Err((Reason::NoSource, error.to_string())))
            }
        };
        self.fetching.remove(&task);
        let now = self.now();
        let Some(core) = &mut self.core else { return };
        match fetched {
            Ok(()) => core.handle_fetched(content),
            Err((reason, detail)) => {
                warn!(content.id = %content, detail, "a content was not fetched");
                let count = core.troubles(content) + 1;
                let wait = FETCH_AGAIN_MIN * 2_i32.pow(count.min(10) - 1);
                let again = now.checked_add(wait.min(FETCH_AGAIN_MAX)).unwrap_or(Timestamp::MAX);
                core.handle_trouble(content, Trouble { reason, detail, again, count });
            }
        }
    }
}

impl Heard {
    /// Returns whether the orders are others than those that were judged.
    fn has_changed(&self) -> bool {
        self.manifest.has_changed().unwrap_or(true) || self.news.has_changed().unwrap_or(true)
    }
}

/// Fetches a content from everybody who may have it.
async fn fetch(parts: Arc<Parts>, content: Content, is_urgent: bool) -> OneFetched {
    let id = content.bytes.blake3;
    let origins: Vec<Url> =
        content.about.origins.iter().filter_map(|origin| origin.as_str().parse().ok()).collect();
    let peers = parts.sources.iter().copied().map(SourceAddress::Peer);
    let about = About {
        name: Some(content.about.name.to_string()),
        origins: origins.iter().map(|url| Origin::at(url.as_str())).collect(),
        sha256: Some(content.bytes.sha256),
        ..About::default()
    };
    let class = if is_urgent { Class::Urgent } else { Class::Background };
    let sources = peers.chain(origins.iter().cloned().map(SourceAddress::Origin)).collect();
    let wanted = Wanted { content: id, about, class, sources };
    let (progress, _) = watch::channel(Progress::default());
    let mut fetched = parts.fetcher.fetch(&wanted, &progress).await;
    let peers: Vec<SocketAddr> = parts.sources.clone();
    if let (Err(error), Some(url)) = (&fetched, origins.first())
        && !peers.is_empty()
        && trouble(error).0 == Reason::NoSource
    {
        // A node that may ask the vendor does not know of it yet.
        let sources = peers.into_iter().map(SourceAddress::Peer).collect();
        let wanted = Wanted { sources, ..wanted };
        let sha256 = content.bytes.sha256;
        fetched = parts.fetcher.fetch_vendor(sha256, url, wanted, &progress).await;
    }
    (id, fetched.map(drop))
}

fn trouble(error: &FetchError) -> (Reason, String) {
    let reason = match error {
        FetchError::Create(_)
        | FetchError::Read(_)
        | FetchError::Commit(_)
        | FetchError::Checkpoint(_)
        | FetchError::Quarantine(_)
        | FetchError::Promote(_)
        | FetchError::Forget(_) => Reason::Disk,
        _ => Reason::NoSource,
    };
    (reason, said(error))
}

/// Looks whether a content is installed.
async fn look(parts: Arc<Parts>, content: Content, stop: CancellationToken) -> Event {
    let id = content.bytes.blake3;
    let unclear = |detail: String| Event::Found(id, Found::Unclear, Some(detail));
    let Some(install) = parts.config.install(&content.about.kind) else {
        return unclear("the config has no command for it".to_owned());
    };
    let hooks = content.about.hooks.detect.iter().map(ToString::to_string).collect();
    let vector = match vector(&parts, &content, install.detect.clone(), hooks).await {
        Ok(vector) => vector,
        Err(error) => return unclear(error),
    };
    let ended = match run::start(&vector) {
        Ok(started) => started.end(LOOK_MAX, &stop).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(Ended { how: How::Code(0), .. }) => Event::Found(id, Found::Installed, None),
        Ok(Ended { how: How::Code(1), .. }) => Event::Found(id, Found::Needed, None),
        Ok(Ended { how: How::Code(NOT_APPLICABLE), .. }) => {
            Event::Found(id, Found::NotApplicable, None)
        }
        Ok(Ended { how: How::Code(PENDING_REBOOT), .. }) => {
            Event::Found(id, Found::PendingReboot, None)
        }
        Ok(ended) => unclear(in_words(&ended)),
        Err(error) => unclear(said(&error)),
    }
}

/// Puts the bytes of a content where its command finds them.
async fn prepare(
    parts: Arc<Parts>,
    content: Content,
    heard: Heard,
    until: Option<Timestamp>,
    run_max: SignedDuration,
) -> Event {
    let id = content.bytes.blake3;
    let Some(install) = parts.config.install(&content.about.kind) else {
        return Event::NotBegun(id, until, None);
    };
    let hooks = content.about.hooks.install.iter().map(ToString::to_string).collect();
    match vector(&parts, &content, install.command.clone(), hooks).await {
        Ok(_) if heard.has_changed() => Event::NotBegun(id, until, None),
        Ok(vector) => Event::Ready { content: id, until, run_max, vector },
        Err(error) => Event::NotBegun(id, until, Some(error)),
    }
}

/// Waits for the end of a command.
async fn wait(
    content: ContentId,
    started: Started,
    limit: Duration,
    stop: CancellationToken,
) -> Event {
    let ended: Result<Ended, RunError> = started.end(limit, &stop).await;
    let (how, detail) = match ended {
        Ok(ended) => {
            let how = match ended.how {
                How::Code(0) => HowEnded::Well,
                How::Code(_) | How::Signal(_) => HowEnded::Failed,
                How::Timeout => HowEnded::Timeout,
                How::Stopped => HowEnded::CutOff,
            };
            (how, in_words(&ended))
        }
        Err(error) => (HowEnded::CutOff, said(&error)),
    };
    Event::Ended(content, how, Some(detail))
}

fn in_words(ended: &Ended) -> String {
    let how = match ended.how {
        How::Code(code) => format!("it ended with code {code}"),
        How::Signal(signal) => format!("it was ended by signal {signal}"),
        How::Timeout => "its time was over".to_owned(),
        How::Stopped => "the agent was stopped".to_owned(),
    };
    if ended.output.is_empty() { how } else { format!("{how}: {}", ended.output) }
}

/// Returns the command for a content, whose bytes are put where it finds them if it wants them.
async fn vector(
    parts: &Arc<Parts>,
    content: &Content,
    template: Template,
    hooks: Vec<String>,
) -> Result<Vector, String> {
    let work = work_folder(parts);
    let (store, content) = (parts.fetcher.store().clone(), content.clone());
    let made = spawn_blocking(move || {
        let name = file_name(content.about.name.as_str()).map_err(|error| said(&error))?;
        let file = work.join(name);
        if template.wants_file() {
            put(&store, &content, &work, &file)?;
        }
        let file = file.to_str().ok_or("the agent's folder is no UTF-8")?;
        let id = content.bytes.blake3.to_string();
        let subject = Subject { file, name, content: &id, hooks: &hooks };
        template.fill(&subject).map_err(|error| said(&error))
    });
    made.await.map_err(|error| error.to_string())?
}

/// Writes the bytes of a content, each verified on the way, into a folder of ours alone.
fn put(store: &Store, content: &Content, work: &Path, file: &Path) -> Result<(), String> {
    let id = content.bytes.blake3;
    match fs::remove_dir_all(work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(said(&error)),
        _ => {}
    }
    make_private(work).map_err(|error| said(&error))?;
    let held = store.content(id).map_err(|error| said(&error))?;
    let held = held.ok_or_else(|| "its bytes are gone".to_owned())?;
    held.export(file, ExportHow::Copy).map_err(|error| said(&error))
}

/// Where a command finds the bytes, an absolute path.
fn work_folder(parts: &Parts) -> PathBuf {
    parts.folder.join("work")
}

fn make_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}
