//! What to do next: the agent's core, without a clock, a disk or a process.
//!
//! The orders crate says what a device may do about each content. [`plan`] adds what this device has done already and
//! does just now, and says what to fetch, what to look for, which one command to run, what to answer, and when to ask
//! again. The shell does that, takes note of what came of it, and asks again.
//!
//! Always true: a command is started only for a content whose orders allow it at this very instant, whose
//! bytes are here whole, that a fresh look did not find, and that no earlier attempt of the same window was
//! about; and never two at a time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use sutler_orders::answer::{Answer, Approved, Reason, State, Step};
use sutler_orders::content::Content;
use sutler_orders::evaluate::{Local, Presence, Progress};
use sutler_orders::text::Utc;
use sutler_protocol::ContentId;

use crate::config::{AgentConfig, InstallConfig};
use crate::state::{self, Attempt, End, Found, HowEnded, Record};
use crate::versions::Versions;

/// How old a look may be for a command to be started on it: the operator may have installed something meanwhile.
pub const FRESH: SignedDuration = SignedDuration::from_mins(10);

/// Attempts in all, each in a window of its own. What fails as often wants a person.
pub const ATTEMPTS_MAX: u64 = 3;

/// How long after an attempt outside of every window the next one is made; twice as long each time.
pub const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// A content, and what the orders say about it.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Which content.
    pub content: &'a Content,
    /// What the orders say.
    pub answer: &'a Answer,
}

/// What a device has and does, as the shell knows it.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What the config says.
    pub config: &'a AgentConfig,
    /// What is remembered.
    pub state: &'a state::State,
    /// Whether the agent only looks and reports.
    pub observes: bool,
    /// Contents whose bytes are here whole.
    pub stored: &'a BTreeSet<ContentId>,
    /// Fetches that went wrong.
    pub troubles: &'a BTreeMap<ContentId, Trouble>,
    /// Which versions are installed.
    pub versions: &'a Versions,
    /// What the shell does just now, with which content.
    pub busy: Option<(ContentId, Doing)>,
    /// The instant, as the device's own clock has it.
    pub now: Timestamp,
}

/// Why a fetch went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// For the answer.
    pub reason: Reason,
    /// What a person would want to know.
    pub detail: String,
    /// When it is tried again.
    pub again: Timestamp,
    /// How often it went wrong.
    pub count: u32,
}

/// What can be done with a content that takes a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It is looked for.
    Looking,
    /// Its command runs.
    Installing,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Contents to fetch, the urgent ones first; whether one is urgent.
    pub fetch: Vec<(ContentId, bool)>,
    /// Contents that the store must not give up.
    pub keep: BTreeSet<ContentId>,
    /// The next command, unless one runs.
    pub next: Option<Next>,
    /// What is said of each wish, in their order.
    pub said: Vec<Said>,
    /// When to ask again, if nothing happens before. The orders have instants of their own.
    pub wake: Option<Timestamp>,
}

/// The next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look whether this content is installed.
    Look(ContentId),
    /// Install this content.
    Install {
        /// Which.
        content: ContentId,
        /// When its window is closed; absent outside of every window.
        until: Option<Timestamp>,
        /// How long the command may take.
        run_max: SignedDuration,
    },
}

/// What is said of one content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// How far it is.
    pub state: State,
    /// Why it is no further.
    pub reason: Option<Reason>,
    /// What a person would want to know.
    pub detail: Option<String>,
    /// How often its command was tried.
    pub attempts: u64,
}

/// Returns what this device knows of a content, for the orders to be asked about it.
pub fn local(content: &Content, situation: &Situation<'_>) -> Local {
    let id = content.bytes.blake3;
    let record = situation.state.record(id);
    let last = record.and_then(|record| record.attempts.last());
    let found = found(record);
    let is_stored = situation.stored.contains(&id);
    let progress = match (found, last.map(|last| last.ended.as_ref())) {
        _ if situation.busy == Some((id, Doing::Installing)) => Progress::Installing,
        (Some(Found::PendingReboot), _) => Progress::PendingReboot,
        // Begun, and nobody knows yet what came of it.
        (_, Some(None)) => Progress::Installing,
        (None, Some(Some(end))) if !is_failure(end.how) => Progress::Installing,
        // Bytes that are gone meanwhile have to be fetched again before another attempt.
        (_, Some(Some(_))) if is_stored => Progress::Failed,
        _ if is_stored => Progress::Staged,
        _ => Progress::Absent,
    };
    let presence = match found {
        Some(Found::Installed | Found::PendingReboot) => Presence::Installed,
        Some(Found::Needed) => Presence::Missing,
        Some(Found::NotApplicable) => Presence::NotApplicable,
        Some(Found::Unclear) | None => Presence::Unknown,
    };
    let has_no_command = situation.config.install(&content.about.kind).is_none();
    let is_given_up = last.is_some_and(|last| last.number >= ATTEMPTS_MAX && last.ended.is_some());
    Local {
        progress,
        presence,
        direction: situation.versions.direction(&content.about),
        first_seen: record.and_then(|record| record.first_seen).map(Utc::instant),
        against: (has_no_command || is_given_up).then_some(Reason::Held),
        ..Local::default()
    }
}

fn found(record: Option<&Record>) -> Option<Found> {
    record.and_then(|record| record.finding.as_ref()).map(|finding| finding.found)
}

/// Returns what to do. Each content is there once.
pub fn plan(wishes: &[Wish<'_>], situation: &Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    let (mut installs, mut looks) = (Vec::new(), Vec::new());
    for wish in wishes {
        let judge = Judge::of(*wish, situation);
        let content = wish.content.bytes.blake3;
        if judge.may_act() || wish.answer.state == State::Installing {
            plan.keep.insert(content);
        }
        if judge.is_to_be_fetched() {
            plan.fetch.push((content, judge.is_urgent()));
        }
        let (said, install) = judge.said();
        let look = judge.look(install.is_some());
        match look {
            Some(due) if due <= situation.now => looks.push((install.is_none(), content)),
            Some(due) => plan.wake = Some(earlier(plan.wake, due)),
            None => {}
        }
        if let Some(again) = judge.again() {
            plan.wake = Some(earlier(plan.wake, again));
        }
        if let Some(next) = install.filter(|_| judge.is_fresh()) {
            let about = &wish.content.about;
            let order = (!judge.is_urgent(), Reverse(about.severity), about.name.clone(), content);
            installs.push((order, next));
        }
        plan.said.push(said);
    }
    plan.fetch.sort_by_key(|(_, is_urgent)| !is_urgent);
    if situation.busy.is_none() {
        // What an installation waits for comes before it, and what only brings an answer up to date after.
        looks.sort_by_key(|(is_idle, _)| *is_idle);
        installs.sort_by(|a, b| a.0.cmp(&b.0));
        let look = |idle: bool| {
            looks
                .iter()
                .find(|(is_idle, _)| *is_idle == idle)
                .map(|(_, content)| Next::Look(*content))
        };
        let install = installs.into_iter().next().map(|(_, next)| next);
        plan.next = look(false).or(install).or_else(|| look(true));
    }
    plan
}

/// Looks at one wish.
struct Judge<'a> {
    wish: Wish<'a>,
    situation: &'a Situation<'a>,
    record: Option<&'a Record>,
    install: Option<&'a InstallConfig>,
}

impl<'a> Judge<'a> {
    fn of(wish: Wish<'a>, situation: &'a Situation<'a>) -> Self {
        let record = situation.state.record(wish.content.bytes.blake3);
        let install = situation.config.install(&wish.content.about.kind);
        Self { wish, situation, record, install }
    }

    fn is_stored(&self) -> bool {
        self.situation.stored.contains(&self.wish.content.bytes.blake3)
    }

    /// Returns whether anything may be done: it is approved, and this device acts and knows how.
    fn may_act(&self) -> bool {
        self.wish.answer.approved.is_some() && !self.situation.observes && self.install.is_some()
    }

    fn is_urgent(&self) -> bool {
        matches!(self.wish.answer.approved, Some(Approved::Explicitly { patch_now: true, .. }))
            || matches!(self.wish.answer.step, Step::Stage { is_urgent: true })
    }

    fn is_to_be_fetched(&self) -> bool {
        matches!(self.wish.answer.step, Step::Stage { .. })
            && self.may_act()
            && !self.is_stored()
            && self.trouble().is_none_or(|trouble| trouble.again <= self.situation.now)
    }

    /// Returns what is said, and the installation that nothing but a look may stand in the way of.
    fn said(&self) -> (Said, Option<Next>) {
        let attempts = self.last().map_or(0, |last| last.number);
        let answer = self.wish.answer;
        let has_timed_out = answer.state == State::Failed
            && self.end().is_some_and(|end| end.how == HowEnded::Timeout);
        let mut said = Said {
            state: answer.state,
            reason: has_timed_out.then_some(Reason::Timeout).or(answer.reason),
            detail: self.detail(),
            attempts,
        };
        if let Some(trouble) = self.trouble().filter(|_| matches!(answer.step, Step::Stage { .. }))
        {
            said.reason = said.reason.or(Some(trouble.reason));
            said.detail = Some(trouble.detail.clone());
        }
        let (Step::Install { until, max_run_minutes }, Some(install)) = (answer.step, self.install)
        else {
            return (said, None);
        };
        if !self.may_act() || !self.is_stored() {
            return (said, None);
        }
        let own = SignedDuration::try_from(install.run_max()).unwrap_or(SignedDuration::MAX);
        let run_max = own.min(SignedDuration::from_mins(max_run_minutes.into()));
        if let Some(why) = self.was_tried(until) {
            said.detail = Some(match said.detail {
                Some(detail) => format!("{why}: {detail}"),
                None => why,
            });
            return (said, None);
        }
        if until.is_some_and(|until| plus(self.situation.now, run_max) > until) {
            said.reason = said.reason.or(Some(Reason::WindowTooShort));
            let minutes = run_max.as_mins();
            said.detail = Some(format!("it may take {minutes} minutes, which are not left"));
            return (said, None);
        }
        (said, Some(Next::Install { content: self.wish.content.bytes.blake3, until, run_max }))
    }

    /// Returns what a person would want to know of what was done so far.
    fn detail(&self) -> Option<String> {
        let finding = self.record.and_then(|record| record.finding.as_ref());
        if let Some(finding) = finding.filter(|finding| finding.found == Found::Unclear) {
            let said = finding.detail.as_deref().unwrap_or_default();
            return Some(format!("the command that looks for it has no answer: {said}"));
        }
        let state = self.wish.answer.state;
        if let Some(end) = self.end().filter(|_| state == State::Failed) {
            return match end.how {
                HowEnded::Well => {
                    Some("the command went well, and a look does not find it".to_owned())
                }
                HowEnded::CutOff => Some("it was cut off, and a look does not find it".to_owned()),
                HowEnded::Failed | HowEnded::Timeout => end.detail.clone(),
            };
        }
        let is_open = matches!(state, State::Needed | State::Staged);
        let lacks = self.install.is_none() && is_open && self.wish.answer.approved.is_some();
        let kind = &self.wish.content.about.kind;
        lacks.then(|| format!("the config has no command for the kind {kind}"))
    }

    fn end(&self) -> Option<&'a End> {
        self.last().and_then(|last| last.ended.as_ref())
    }

    fn trouble(&self) -> Option<&'a Trouble> {
        let trouble = self.situation.troubles.get(&self.wish.content.bytes.blake3);
        trouble.filter(|_| !self.is_stored())
    }

    /// Returns why earlier attempts allow no other one now.
    fn was_tried(&self, until: Option<Timestamp>) -> Option<String> {
        let last = self.last()?;
        if last.ended.is_none() {
            return Some("an attempt is under way".to_owned());
        }
        if last.number >= ATTEMPTS_MAX {
            return Some(format!("it was tried {} times", last.number));
        }
        if until.is_some() && last.until == until.map(Utc::of) {
            return Some("it was tried in this window".to_owned());
        }
        let again = again_at(last)?;
        let is_later = until.is_none() && again > self.situation.now;
        is_later.then(|| format!("it is tried again at {again:.0}"))
    }

    /// Returns when another attempt outside of every window, or another fetch, may be made.
    fn again(&self) -> Option<Timestamp> {
        let trouble = self.trouble().map(|trouble| trouble.again);
        let is_outside = matches!(self.wish.answer.step, Step::Install { until: None, .. });
        let attempt = self.last().filter(|last| is_outside && last.number < ATTEMPTS_MAX);
        let later = [trouble, attempt.and_then(again_at)].into_iter().flatten();
        later.filter(|again| *again > self.situation.now).min()
    }

    /// Returns when it is to be looked for next, if ever.
    fn look(&self, is_pressing: bool) -> Option<Timestamp> {
        let install = self.install?;
        let last = self.last();
        let is_ours = self.wish.answer.approved.is_some() || last.is_some();
        // The import key alone starts no command, not even this one.
        if !is_ours || install.detect.wants_file() && !self.is_stored() {
            return None;
        }
        if last.is_some_and(|last| last.ended.is_none()) {
            return None;
        }
        let Some(finding) = self.record.and_then(|record| record.finding.as_ref()) else {
            return Some(self.situation.now);
        };
        let every = SignedDuration::try_from(self.situation.config.report_every());
        let every = every.unwrap_or(SignedDuration::MAX).max(FRESH);
        // One that had no answer would be asked for ever.
        let limit = if is_pressing && finding.found != Found::Unclear { FRESH } else { every };
        if self.age(finding.at) > limit {
            return Some(self.situation.now);
        }
        Some(plus(finding.at.instant(), limit + SignedDuration::from_secs(1)))
    }

    /// Returns whether a look says that it is not installed, and not too long ago.
    fn is_fresh(&self) -> bool {
        let finding = self.record.and_then(|record| record.finding.as_ref());
        finding
            .is_some_and(|finding| finding.found == Found::Needed && self.age(finding.at) <= FRESH)
    }

    fn age(&self, at: Utc) -> SignedDuration {
        // A look of the future is one that a clock made wrong, and is not fresh either.
        self.situation.now.duration_since(at.instant()).abs()
    }

    fn last(&self) -> Option<&'a Attempt> {
        self.record.and_then(|record| record.attempts.last())
    }
}

/// Returns when something is tried again outside of every window.
fn again_at(last: &Attempt) -> Option<Timestamp> {
    let ended = last.ended.as_ref()?.at.instant();
    let doublings = u32::try_from(last.number.saturating_sub(1)).unwrap_or(u32::MAX).min(8);
    Some(plus(ended, AGAIN_AFTER * 2_i32.pow(doublings)))
}

fn is_failure(how: HowEnded) -> bool {
    matches!(how, HowEnded::Failed | HowEnded::Timeout)
}

fn earlier(known: Option<Timestamp>, other: Timestamp) -> Timestamp {
    known.map_or(other, |known| known.min(other))
}

fn plus(instant: Timestamp, duration: SignedDuration) -> Timestamp {
    instant.checked_add(duration).unwrap_or(Timestamp::MAX)
}
