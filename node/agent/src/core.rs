//! The agent between two waits: it looks at the orders, the store and its memory, judges, writes down what it shows
//! and has to say, and names what is to be done.
//!
//! Blocking; [`crate::agent`] drives it where that is allowed. Time comes from outside, so that tests have their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use sutler_cache::Store;
use sutler_orders::Facts;
use sutler_orders::answer::{Answer, State as Progressed};
use sutler_orders::content::Content;
use sutler_orders::denial::BelievedDenial;
use sutler_orders::effective::effective;
use sutler_orders::evaluate::{Absence, Device, Now, evaluate};
use sutler_orders::text::Utc;
use sutler_orders::vouched::Statement;
use sutler_orders::windows::{Zones, next_windows};
use sutler_protocol::ContentId;
use sutler_swarm::orders::Manifest;
use tracing::{info, warn};

use crate::believed::{Believed, believe, statement};
use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::plan::{Doing, Plan, Said, Situation, Trouble, Wish, local, plan};
use crate::senses::{Sensed, Senses, Wants};
use crate::state::{Attempt, Finding, HowEnded, State, boot};
use crate::view::{AnswerView, GateView, PolicyView, StatementView, TimeView, View, WindowView};
use crate::{power, run};

/// The file's name, within the agent's folder, of what it remembers.
pub const STATE_FILE: &str = "state.json";

/// How often it writes down that it is there: a window that was missed by less is not missed.
const ALIVE_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// The program's name and version, as reports have it.
pub(crate) const PROGRAM: &str = concat!("sutler ", env!("CARGO_PKG_VERSION"));

/// An agent between two waits.
pub struct Core {
    folder: PathBuf,
    config: AgentConfig,
    facts: Facts,
    identity: String,
    store: Store,
    zones: TimeZoneDatabase,
    device_zone: Option<TimeZone>,
    state: State,
    /// Why it only looks and reports.
    observes: Option<String>,
    clock: Clock,
    absence: Option<Absence>,
    manifest: Option<(Statement, u64)>,
    statement_expires: Option<(u64, Option<Timestamp>, Timestamp)>,
    believed: Believed,
    troubles: BTreeMap<ContentId, Trouble>,
    pinned: Option<BTreeSet<ContentId>>,
    last_contact: Option<Utc>,
    boot: String,
    senses: Senses,
}

/// What came of one look.
pub struct Round {
    /// What to do.
    pub plan: Plan,
    /// The contents that the plan is about, by their ids.
    pub contents: BTreeMap<ContentId, Content>,
    /// What is said of each.
    pub said: Vec<(ContentId, Said)>,
    /// What the device has to find out about itself.
    pub wants: Wants,
}

impl Core {
    /// Returns an agent that keeps what it remembers in `folder`. Waits for the disk.
    pub fn new(
        folder: PathBuf,
        config: AgentConfig,
        facts: Facts,
        identity: String,
        store: Store,
        now: Timestamp,
    ) -> Self {
        let (state, observes) = match State::read(&folder.join(STATE_FILE)) {
            Ok(state) => (state, None),
            Err(error) => {
                // Whoever cannot tell what was tried already tries nothing.
                let said = crate::said(&error);
                warn!(error = said, "what was done before is not known, so nothing is done");
                (State::default(), Some(said))
            }
        };
        let observes = observes
            .or_else(|| config.observe_only.then(|| "the config says observe_only".to_owned()));
        let alive = state.alive.map(Utc::instant).filter(|alive| *alive < now);
        Self {
            clock: Clock::new(now, state.trusted.map(Utc::instant)),
            absence: alive.map(|from| Absence { from, until: now }),
            zones: jiff::tz::db().clone(),
            device_zone: TimeZone::try_system().ok(),
            manifest: None,
            statement_expires: None,
            believed: Believed::default(),
            troubles: BTreeMap::new(),
            pinned: None,
            last_contact: None,
            boot: boot(),
            senses: Senses::default(),
            folder,
            config,
            facts,
            identity,
            store,
            state,
            observes,
        }
    }

    /// Returns what is remembered.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Returns what the config says.
    pub const fn config(&self) -> &AgentConfig {
        &self.config
    }

    /// Takes in the orders. `is_news` unless they were known before this process began.
    pub fn handle_orders(
        &mut self,
        manifest: &Manifest,
        denials: Vec<BelievedDenial>,
        is_news: bool,
        now: Timestamp,
    ) {
        let organisation = &self.facts.organisation;
        let before = &self.believed.orders;
        self.believed = believe(manifest, denials, organisation, &self.state, before);
        for refused in &self.believed.refused {
            warn!(refused, "an order is not believed");
        }
        let version = manifest.statement.version.number();
        let expires = manifest.statement.expires.instant();
        let is_new = self.statement_expires.is_none_or(|(known, ..)| known != version);
        self.statement_expires = Some((version, manifest.statement.issued, expires));
        let stated = statement(manifest);
        if let Some(stated) = stated.filter(|_| is_new && is_news) {
            self.clock.handle_statement(stated.issued, now);
        }
        self.manifest = stated.map(|stated| (stated, version));
        if is_news {
            self.last_contact = Some(Utc::of(now));
        }
        self.remember_orders();
    }

    /// Takes note of which orders were seen.
    fn remember_orders(&mut self) {
        let mut has_changed = false;
        for (path, seq) in &self.believed.seqs {
            has_changed |= self.state.raise_seq(path, *seq).unwrap_or_default();
        }
        if let Some((statement, _)) = self.manifest {
            let contents = &self.believed.orders.contents;
            let ids = contents.iter().map(|content| content.document().bytes.blake3);
            has_changed |= self.state.see(ids, Utc::of(statement.issued));
        }
        if has_changed {
            self.write_down("the orders that were seen");
        }
    }

    /// Takes note that another machine was heard.
    pub fn handle_contact(&mut self, now: Timestamp) {
        self.last_contact = Some(Utc::of(now));
    }

    /// Takes note that a fetch went wrong.
    pub fn handle_trouble(&mut self, content: ContentId, trouble: Trouble) {
        self.troubles.insert(content, trouble);
    }

    /// Returns how often a fetch went wrong already.
    pub fn troubles(&self, content: ContentId) -> u32 {
        self.troubles.get(&content).map_or(0, |trouble| trouble.count)
    }

    /// Takes note that a content has come.
    pub fn handle_fetched(&mut self, content: ContentId) {
        self.troubles.remove(&content);
    }

    /// Begins an attempt; when this returns, it is durable.
    ///
    /// # Errors
    ///
    /// What the disk answered: nothing may be started then.
    pub fn begin(
        &mut self,
        content: ContentId,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> io::Result<()> {
        let before = self.state.clone();
        self.state.record_mut(content).begin(until.map(Utc::of), Utc::of(now));
        let written = self.state.write(&self.folder.join(STATE_FILE));
        if written.is_err() {
            self.state = before;
        }
        written
    }

    /// Takes note of the process group of the attempt that was begun last.
    pub fn handle_started(&mut self, content: ContentId, group: i32) {
        let boot = self.boot.clone();
        if let Some(attempt) = self.state.record_mut(content).attempts.last_mut() {
            attempt.group = Some((group, boot));
        }
        self.write_down("that a command runs");
    }

    /// Takes note of how an attempt ended.
    pub fn handle_ended(
        &mut self,
        content: ContentId,
        how: HowEnded,
        detail: Option<String>,
        now: Timestamp,
    ) {
        self.state.record_mut(content).end(how, detail, Utc::of(now));
        // Whatever it did, what was listed before is not what is installed.
        self.senses.forget_versions();
        self.write_down("how a command ended");
    }

    /// Takes note of what a look found.
    pub fn handle_finding(&mut self, content: ContentId, finding: Finding) {
        self.state.record_mut(content).finding = Some(finding);
        self.write_down("what a look found");
    }

    /// Takes note of what the device found out about itself, after `elapsed` since the start.
    pub fn handle_sensed(&mut self, sensed: Sensed, elapsed: Duration) {
        self.senses.take(sensed, elapsed);
    }

    /// Ends an attempt of before this process, once nothing of it runs any more.
    fn bury(&mut self, busy: Option<(ContentId, Doing)>, now: Timestamp) {
        let Some((content, attempt)) = self.state.open_attempt() else { return };
        if busy == Some((content, Doing::Installing)) || self.may_run(attempt) {
            return;
        }
        info!(content.id = %content, "an attempt was cut off");
        let detail = Some("the agent ended meanwhile".to_owned());
        self.handle_ended(content, HowEnded::CutOff, detail, now);
    }

    fn may_run(&self, attempt: &Attempt) -> bool {
        let group = attempt.group.as_ref();
        group.is_some_and(|(group, boot)| *boot == self.boot && run::is_alive(*group))
    }

    fn write_down(&mut self, what: &str) {
        // What an operator has to look at first is not overwritten.
        let is_known = self.observes.is_none() || self.config.observe_only;
        if is_known && let Err(error) = self.state.write(&self.folder.join(STATE_FILE)) {
            let said = format!("write down {what}: {error}");
            warn!(error = said, "what is done cannot be written down, so nothing more is done");
            self.observes = Some(said);
        }
    }

    /// Looks at everything, and says what is to be done. `elapsed` is the time since the start, which no
    /// clock's setting changes.
    pub fn round(
        &mut self,
        busy: Option<(ContentId, Doing)>,
        reports_waiting: usize,
        now: Timestamp,
        elapsed: Duration,
    ) -> Round {
        self.clock.look(now, elapsed);
        self.bury(busy, now);
        self.remember_time(now);
        let stored: BTreeSet<ContentId> =
            self.store.list().into_iter().filter(|entry| entry.complete).map(|e| e.id).collect();
        let contents: BTreeMap<ContentId, Content> = {
            let listed = self.believed.orders.contents.iter();
            listed.map(|one| (one.document().bytes.blake3, one.document().clone())).collect()
        };
        let situation = Situation {
            config: &self.config,
            state: &self.state,
            observes: self.observes.is_some(),
            stored: &stored,
            troubles: &self.troubles,
            versions: self.senses.versions(elapsed),
            busy,
            now,
        };
        let answers = self.ask(&contents, &situation);
        let wishes: Vec<Wish<'_>> = contents
            .iter()
            .filter_map(|(id, content)| Some(Wish { content, answer: answers.get(id)? }))
            .collect();
        let mut plan = plan(&wishes, &situation);
        let wants = self.wants(&wishes, elapsed);
        if wants.line && !self.senses.knows_line() {
            // Bytes that cost money are not fetched before somebody has asked.
            plan.fetch.clear();
        }
        let ids = wishes.iter().map(|wish| wish.content.bytes.blake3);
        let said: Vec<(ContentId, Said)> = ids.zip(plan.said.iter().cloned()).collect();
        let view = self.view(&wishes, &plan, reports_waiting, now);
        drop(wishes);
        if let Err(error) = view.write(&self.folder) {
            warn!(%error, "what the agent shows cannot be written down");
        }
        self.pin(&plan.keep);
        Round { plan, contents, said, wants }
    }

    /// Asks the orders.
    fn ask(
        &self,
        contents: &BTreeMap<ContentId, Content>,
        situation: &Situation<'_>,
    ) -> BTreeMap<ContentId, Answer> {
        let now = situation.now;
        let minutes = self.state.minutes_in_windows_after(now);
        let device = Device {
            contents: contents.iter().map(|(id, one)| (*id, local(one, situation))).collect(),
            observe_only: situation.observes,
            is_metered: self.config.metered.unwrap_or(self.senses.is_metered()),
            on_battery: power::is_on_battery(),
            used_minutes: minutes,
            absence: self.absence,
        };
        let time = Now { clock: now, is_confirmed: self.clock.is_confirmed(), zones: self.zones() };
        let statement = self.manifest.map(|(statement, _)| statement);
        evaluate(&self.believed.orders, &self.facts, &device, statement, &time)
    }

    /// Says what the device has to find out: the versions where silence might approve something, and the line where
    /// something is to be fetched.
    fn wants(&self, wishes: &[Wish<'_>], elapsed: Duration) -> Wants {
        let orders = &self.believed.orders;
        let has_standing = orders.scopes.iter().any(|scope| {
            let standing = scope.standing.as_ref().map(|standing| &standing.document().body);
            standing.is_some_and(|standing| !standing.policies.is_empty())
                && scope.reach.member(&self.facts, orders.rings()).starts()
        });
        let is_open = |wish: &Wish<'_>| {
            wish.answer.approved.is_some() && wish.answer.state == Progressed::Needed
        };
        let asks_line = self.config.metered.is_none() && wishes.iter().any(is_open);
        Wants {
            versions: has_standing && self.senses.is_due_for_versions(elapsed),
            line: asks_line && self.senses.is_due_for_line(elapsed),
        }
    }

    fn zones(&self) -> Zones<'_> {
        let sites = self.believed.orders.sites();
        Zones::of(sites, &self.facts.device.site, self.device_zone.clone(), &self.zones)
    }

    /// Writes down now and then that it is there, and that its clock was right.
    fn remember_time(&mut self, now: Timestamp) {
        let is_due = self
            .state
            .alive
            .is_none_or(|alive| now.duration_since(alive.instant()).abs() >= ALIVE_EVERY);
        if !is_due {
            return;
        }
        self.state.alive = Some(Utc::of(now));
        if self.clock.is_confirmed() {
            self.state.trusted = Some(Utc::of(now));
        }
        self.write_down("that the agent runs");
    }

    /// Has the store keep what the orders ask for.
    fn pin(&mut self, keep: &BTreeSet<ContentId>) {
        use sutler_cache::eviction::{Pin, Risk, Standing};
        if self.pinned.as_ref() == Some(keep) {
            return;
        }
        let pinned = |id: &ContentId| (*id, Standing::Pinned(Pin::Order(Risk(0))));
        match self.store.set_standings(keep.iter().map(pinned).collect()) {
            Ok(()) => self.pinned = Some(keep.clone()),
            Err(error) => warn!(%error, "the store cannot be told what to keep"),
        }
    }

    fn view(
        &self,
        wishes: &[Wish<'_>],
        plan: &Plan,
        reports_waiting: usize,
        now: Timestamp,
    ) -> View {
        let clock = Utc::of(now);
        let issued = self.manifest.map(|(statement, _)| Utc::of(statement.issued));
        let time = TimeView {
            clock,
            trusted: issued.map_or(clock, |issued| issued.max(clock)),
            confirmed: self.clock.is_confirmed(),
        };
        let answers = wishes.iter().zip(&plan.said).map(|(wish, said)| answer_view(wish, said));
        let (policies, windows) = self.policies(now);
        View {
            written: clock,
            identity: self.identity.clone(),
            program: PROGRAM.to_owned(),
            observes: self.observes.clone(),
            last_contact: self.last_contact,
            statement: self.statement_view(time.trusted),
            seqs: self.believed.seqs.clone(),
            refused: self.believed.refused.clone(),
            policies,
            windows,
            reports_waiting,
            answers: answers.collect(),
            time,
        }
    }

    /// Returns the newest statement, as of the time that is trusted.
    pub fn statement_view(&self, trusted: Utc) -> Option<StatementView> {
        let (version, issued, expires) = self.statement_expires?;
        let stale = expires <= trusted.instant();
        Some(StatementView {
            version,
            issued: issued.map(Utc::of),
            expires: Utc::of(expires),
            stale,
        })
    }

    fn policies(&self, now: Timestamp) -> (Vec<PolicyView>, Vec<WindowView>) {
        let (mut policies, mut windows) = (Vec::new(), Vec::new());
        let orders = &self.believed.orders;
        let zones = self.zones();
        for scope in &orders.scopes {
            if !scope.reach.member(&self.facts, orders.rings()).starts() {
                continue;
            }
            let known = scope.policies.as_ref().map(|policies| &policies.document().body);
            let known = known
                .filter(|_| scope.schedules_reach.member(&self.facts, orders.rings()).starts());
            let policy = effective(known, &self.facts, orders.rings());
            policies.push(PolicyView::of(scope.name.as_str(), &policy));
            let schedules = scope.schedules.as_ref().map(|schedules| &schedules.document().body);
            let schedule = policy.schedule.value.as_ref();
            let schedule = schedules.zip(schedule).and_then(|(all, name)| all.schedule(name));
            let next = schedule.and_then(|schedule| {
                let next = next_windows(schedule, &zones, now, 1).ok()?;
                Some((schedule, next.into_iter().next()?))
            });
            windows.extend(next.map(|(schedule, next)| {
                WindowView {
                    scope: scope.name.to_string(),
                    schedule: schedule.name.to_string(),
                    local: next
                        .begin
                        .to_zoned(next.zone.clone())
                        .strftime("%a %d %b %Y %H:%M %Z")
                        .to_string(),
                    begin: Utc::of(next.begin),
                    end: Utc::of(next.end),
                }
            }));
        }
        (policies, windows)
    }

    /// Returns the `seq` of each order file that is obeyed.
    pub const fn seqs(&self) -> &BTreeMap<String, u64> {
        &self.believed.seqs
    }

    /// Returns what a report says beside the answers.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes the number of the next report; when this returns, it is durable, or the disk refuses.
    ///
    /// # Errors
    ///
    /// What the disk answered: the number must not be used.
    pub fn next_report(&mut self, now: Timestamp) -> io::Result<u64> {
        let number = self.state.next_report(Utc::of(now));
        if self.observes.is_none() || self.config.observe_only {
            self.state.write(&self.folder.join(STATE_FILE))?;
        }
        Ok(number)
    }

    /// Returns whether it only looks.
    pub fn observes(&self) -> bool {
        self.observes.is_some()
    }
}

fn answer_view(wish: &Wish<'_>, said: &Said) -> AnswerView {
    let about = &wish.content.about;
    AnswerView {
        content: wish.content.bytes.blake3.to_string(),
        name: about.name.to_string(),
        title: about.title.as_ref().map(ToString::to_string),
        cve: about.cve.iter().map(ToString::to_string).collect(),
        state: said.state.to_string(),
        reason: said.reason.map(|reason| reason.to_string()),
        detail: said.detail.clone(),
        attempts: said.attempts,
        gates: wish.answer.gates.iter().map(GateView::from).collect(),
    }
}
