//! What a device answers about each content: one function of what it believes, of what it is, and of the time.
//!
//! Gates are asked in order, and the first that does not let a content through is the reason. What stops comes
//! first: a halt, then a denial, then the lack of an approval. Several approvals may be about one content; the one
//! that gets furthest speaks.
//!
//! Time: the device's clock may be wrong, and the newest statement may be old. To start anything, both have to have
//! passed whatever has to be over (an order's `issued`, a `not_before`, the time to deny); for something to have ended, one
//! of them is enough. So time alone starts only what an order says starts then: a window, `not_before`, the end of
//! a veto, the lapse of a halt or of a resume; and waiting never brings back what has ended.
//!
//! Always true:
//! - adding a denial, a pause or a halt never starts anything;
//! - taking a document away starts nothing but what that document itself had stopped or superseded;
//! - a rule or ring that cannot be told keeps what starts from starting, and what stops in force.

mod candidate;
mod stops;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use sutler_protocol::ContentId;

use crate::answer::{Answer, Gate, GateName, GateVerdict, Reason, State, Step};
use crate::approvals::{Action, Item};
use crate::content::Content;
use crate::facts::Facts;
use crate::rings::Rings;
use crate::vouched::{Orders, Scope, Statement, Vouched};
use crate::windows::Zones;

/// What a device knows of itself beside its facts.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// What it knows of each content.
    pub contents: BTreeMap<ContentId, Local>,
    /// Whether it only watches: it fetches nothing and installs nothing (R159).
    pub observe_only: bool,
    /// Whether its line costs money.
    pub is_metered: bool,
    /// Whether it runs on its battery.
    pub on_battery: bool,
    /// Minutes that installations have taken in the window that is open.
    pub used_minutes: u32,
    /// When it was not there last.
    pub absence: Option<Absence>,
}

/// What a device knows of one content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// How far it is.
    pub progress: Progress,
    /// What the newest inventory says.
    pub presence: Presence,
    /// Whether it would bring a higher version than is installed.
    pub direction: Direction,
    /// `issued` of the first statement in which this device saw the content.
    pub first_seen: Option<Timestamp>,
    /// What the device itself has against it just now.
    pub against: Option<Reason>,
    /// Minutes that its installation is expected to take; 0 if nobody knows.
    pub expected_minutes: u32,
}

/// How far a content is on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Its bytes are not here, or not all of them.
    #[default]
    Absent,
    /// Its bytes are here, verified.
    Staged,
    /// It is being installed.
    Installing,
    /// The machine has to be started again.
    PendingReboot,
    /// Its installation failed. It may be tried again.
    Failed,
    /// It was taken back. It is not tried again.
    RolledBack,
}

/// What an inventory says of a content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// There was none yet.
    #[default]
    Unknown,
    /// It is not installed.
    Missing,
    /// It is installed.
    Installed,
    /// The device has no use for it.
    NotApplicable,
}

/// Whether a content would bring a higher version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Nobody knows. Silence does not approve it.
    #[default]
    Unknown,
    /// It would.
    Upwards,
    /// It would not.
    NotUpwards,
}

/// A time in which a device was switched off, or not on any line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    /// When it was there last.
    pub from: Timestamp,
    /// When it was back.
    pub until: Timestamp,
}

/// What time it is for a device.
#[derive(Clone, Debug)]
pub struct Now<'a> {
    /// What its clock says.
    pub clock: Timestamp,
    /// Whether its node has confirmed the clock.
    pub is_confirmed: bool,
    /// The zones that windows are in.
    pub zones: Zones<'a>,
}

/// Returns what a device answers about every content that the orders or the device itself know.
pub fn evaluate(
    orders: &Orders,
    facts: &Facts,
    device: &Device,
    statement: Option<Statement>,
    now: &Now<'_>,
) -> BTreeMap<ContentId, Answer> {
    let asked = Asked::new(orders, facts, device, statement, now);
    let ids: BTreeSet<ContentId> = asked
        .listed
        .keys()
        .chain(asked.items.keys())
        .chain(device.contents.keys())
        .copied()
        .collect();
    ids.into_iter().map(|id| (id, asked.answer(id))).collect()
}

/// Returns what a device answers about these contents, as by [`evaluate`], and about no others.
pub fn evaluate_only(
    ids: &BTreeSet<ContentId>,
    orders: &Orders,
    facts: &Facts,
    device: &Device,
    statement: Option<Statement>,
    now: &Now<'_>,
) -> BTreeMap<ContentId, Answer> {
    let asked = Asked::new(orders, facts, device, statement, now);
    ids.iter().map(|id| (*id, asked.answer(*id))).collect()
}

/// The question, with what all contents share worked out.
struct Asked<'a> {
    orders: &'a Orders,
    facts: &'a Facts,
    device: &'a Device,
    statement: Option<Statement>,
    now: &'a Now<'a>,
    rings: Option<&'a Rings>,
    /// The earlier one of clock and newest statement: what has to have passed has passed by it.
    earliest: Timestamp,
    /// The later one: what has ended has ended by it.
    latest: Timestamp,
    listed: BTreeMap<ContentId, Vec<&'a Vouched<Content>>>,
    /// Every item of every scope that may reach this device.
    items: BTreeMap<ContentId, Vec<(&'a Scope, &'a Item)>>,
    /// Which contents name a content as the one whose place they take.
    successors: BTreeMap<ContentId, Vec<ContentId>>,
    nothing_local: Local,
}

/// The gates as they are asked.
#[derive(Clone, Default)]
struct Gates {
    gates: Vec<Gate>,
}

/// A gate that does not let a content through, or that leaves nothing to do.
struct Stopped;

impl<'a> Asked<'a> {
    fn new(
        orders: &'a Orders,
        facts: &'a Facts,
        device: &'a Device,
        statement: Option<Statement>,
        now: &'a Now<'a>,
    ) -> Self {
        let issued = statement.map_or(Timestamp::MIN, |statement| statement.issued);
        let mut listed: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut successors: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for content in &orders.contents {
            let id = content.document().bytes.blake3;
            listed.entry(id).or_default().push(content);
            for superseded in &content.document().about.supersedes {
                successors.entry(*superseded).or_default().push(id);
            }
        }
        let rings = orders.rings.as_ref().map(|rings| &rings.document().body);
        let mut items: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for scope in &orders.scopes {
            let Some(approvals) = &scope.approvals else { continue };
            if !scope.reach.member(facts, rings).stops() {
                continue;
            }
            for item in &approvals.document().body.items {
                items.entry(item.blake3).or_default().push((scope, item));
            }
        }
        Self {
            orders,
            facts,
            device,
            statement,
            now,
            rings,
            earliest: now.clock.min(issued),
            latest: now.clock.max(issued),
            listed,
            items,
            successors,
            nothing_local: Local::default(),
        }
    }

    fn local(&self, id: ContentId) -> &Local {
        self.device.contents.get(&id).unwrap_or(&self.nothing_local)
    }

    fn answer(&self, id: ContentId) -> Answer {
        let local = self.local(id);
        let mut gates = Gates::default();
        let answer = |state, gates: Gates| Answer {
            state,
            reason: gates.reason(),
            step: Step::Nothing,
            approved: None,
            gates: gates.gates,
        };
        if let Some(state) = self.settled(id, &mut gates) {
            return answer(state, gates);
        }
        let state = match local.progress {
            Progress::Absent => State::Needed,
            Progress::Staged => State::Staged,
            Progress::Installing => State::Installing,
            Progress::PendingReboot => State::PendingReboot,
            Progress::Failed => State::Failed,
            Progress::RolledBack => State::RolledBack,
        };
        if matches!(local.progress, Progress::Installing | Progress::PendingReboot) {
            let input = "it was let through before".to_owned();
            gates.push(GateName::Device, input, GateVerdict::Done);
            return answer(state, gates);
        }
        if self.stops(id, &mut gates).is_err() {
            return answer(state, gates);
        }
        let Ok(content) = self.content(id, &mut gates) else { return answer(state, gates) };
        let (candidates, rejected) = self.candidates(id, content);
        let best = candidates
            .iter()
            .map(|candidate| self.ask(candidate, content, local, gates.clone()))
            // Of two that get equally far the first speaks, which `max_by_key` would not give.
            .reduce(|best, other| if other.reach() > best.reach() { other } else { best });
        let Some(asked) = best else {
            gates.push(GateName::Approval, rejected, GateVerdict::Blocked(Reason::NotApproved));
            return answer(state, gates);
        };
        Answer {
            state,
            reason: asked.gates.reason(),
            step: asked.step,
            approved: Some(asked.approved),
            gates: asked.gates.gates,
        }
    }

    /// Asks whether the device has use for a content, and returns the state where that ends it.
    fn settled(&self, id: ContentId, gates: &mut Gates) -> Option<State> {
        let local = self.local(id);
        let (state, input) = match local.presence {
            Presence::Installed if local.progress != Progress::PendingReboot => {
                (State::Installed, "the inventory has it".to_owned())
            }
            Presence::NotApplicable => {
                (State::NotApplicable, "the inventory has no use for it".to_owned())
            }
            _ => {
                let mut rules = self.listed.get(&id).into_iter().flatten();
                let bars = rules.find_map(|content| {
                    let rule = content.document().about.applies.as_ref()?;
                    (rule.holds(self.facts) != Ok(true)).then_some(rule)
                });
                let Some(rule) = bars else {
                    gates.pass(GateName::Applies, "nothing says that it is of no use");
                    return self.superseded(id, gates);
                };
                (State::NotApplicable, format!("its rule does not hold: {rule}"))
            }
        };
        gates.push(GateName::Applies, input, GateVerdict::Done);
        Some(state)
    }

    fn superseded(&self, id: ContentId, gates: &mut Gates) -> Option<State> {
        let mut seen = BTreeSet::from([id]);
        let mut next = vec![id];
        while let Some(id) = next.pop() {
            for successor in self.successors.get(&id).into_iter().flatten() {
                if !seen.insert(*successor) {
                    continue;
                }
                let how = if self.local(*successor).presence == Presence::Installed {
                    "is installed"
                } else if self.is_approved(*successor) {
                    "is approved"
                } else {
                    next.push(*successor);
                    continue;
                };
                let input = format!("{successor}, which takes its place, {how}");
                gates.push(GateName::Superseded, input, GateVerdict::Done);
                return Some(State::Superseded);
            }
        }
        gates.pass(GateName::Superseded, "nothing that takes its place is approved or installed");
        None
    }

    /// Returns whether an approver has approved a content for this device. Whether it is stopped, or its approval has
    /// ended, is not asked: neither a denial nor the passing of time lets what it took the place of start.
    fn is_approved(&self, id: ContentId) -> bool {
        let Ok(content) = self.content(id, &mut Gates::default()) else { return false };
        let applies = content.about.applies.as_ref();
        applies.is_none_or(|rule| rule.holds(self.facts) == Ok(true))
            && !self.explicit(id, content, &mut Vec::new()).is_empty()
    }

    /// Asks whether the content's roles say one thing.
    fn content(&self, id: ContentId, gates: &mut Gates) -> Result<&'a Content, Stopped> {
        let listed = self.listed.get(&id).map(Vec::as_slice).unwrap_or_default();
        let blocked = GateVerdict::Blocked(Reason::NotApproved);
        let Some((first, others)) = listed.split_first() else {
            gates.push(GateName::Content, "no content role names it".to_owned(), blocked);
            return Err(Stopped);
        };
        let first = first.document();
        let differs = |other: &&&Vouched<Content>| {
            let other = other.document();
            other.bytes != first.bytes
                || other.about.kind != first.about.kind
                || other.about.hooks != first.about.hooks
                || other.about.requires != first.about.requires
        };
        if others.iter().any(|other| differs(&other)) {
            let input = "two content roles say different things of it".to_owned();
            gates.push(GateName::Content, input, blocked);
            return Err(Stopped);
        }
        gates.pass(GateName::Content, first.about.name.as_str());
        Ok(first)
    }

    /// Returns whether something that has to be over is over: by the clock and by the newest statement.
    fn has_passed(&self, instant: Timestamp) -> bool {
        instant <= self.earliest
    }

    /// Returns whether the clock is at least where the newest statement is, but for what honest clocks differ by.
    fn is_clock_right(&self) -> bool {
        let behind = SignedDuration::from_secs(crate::bounds::CLOCK_BEHIND_SECONDS_MAX);
        self.statement.is_some_and(|statement| {
            self.now.is_confirmed
                && self.now.clock.checked_add(behind).is_ok_and(|clock| clock >= statement.issued)
        })
    }

    fn items(
        &self,
        id: ContentId,
        actions: &[Action],
    ) -> impl Iterator<Item = (&'a Scope, &'a Item)> {
        let items = self.items.get(&id).into_iter().flatten().copied();
        items.filter(move |(_, item)| actions.contains(&item.action))
    }
}

impl Gates {
    fn push(&mut self, name: GateName, input: String, verdict: GateVerdict) {
        self.gates.push(Gate { name, input, verdict });
    }

    fn pass(&mut self, name: GateName, input: impl Into<String>) {
        self.push(name, input.into(), GateVerdict::Passed);
    }

    /// Notes what a gate said, and stops at one that does not let the content through.
    fn ask(
        &mut self,
        name: GateName,
        said: Result<String, (Reason, String)>,
    ) -> Result<(), Stopped> {
        match said {
            Ok(input) => {
                self.pass(name, input);
                Ok(())
            }
            Err((reason, input)) => {
                self.push(name, input, GateVerdict::Blocked(reason));
                Err(Stopped)
            }
        }
    }

    fn reason(&self) -> Option<Reason> {
        self.gates.iter().find_map(|gate| match gate.verdict {
            GateVerdict::Blocked(reason) => Some(reason),
            _ => None,
        })
    }
}
