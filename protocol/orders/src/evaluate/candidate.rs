//! One approval, explicit or by silence, and how far it gets a content.

use jiff::{SignedDuration, Timestamp};
use sutler_protocol::ContentId;
use sutler_protocol::name::Label;

use super::{Asked, Direction, Gates, Local, Presence, Progress, Stopped};
use crate::answer::{Approved, GateName, GateVerdict, Reason, Step};
use crate::approvals::{Action, Item};
use crate::bounds::ENFORCED_START_SECONDS;
use crate::content::Content;
use crate::effective::{Effective, effective};
use crate::policies::{Caution, Mode};
use crate::schedules::{Missed, Schedule};
use crate::standing::StandingPolicy;
use crate::text::Utc;
use crate::vouched::Scope;
use crate::windows::{Opening, last_over, next_windows, open_windows};

/// Rejections that an explanation names; more say nothing more.
const REJECTIONS_MAX: usize = 3;

/// Days that a window which was missed is looked for.
const MISSED_DAYS_MAX: i64 = 40;

/// An approval that is for this device and these bytes.
pub(super) struct Candidate<'a> {
    scope: &'a Scope,
    approved: Approved,
    /// When the file was written that it stands in.
    issued: Utc,
    /// When the approvals' role expires.
    expires: Timestamp,
    not_before: Option<Utc>,
    pub(super) not_after: Option<Utc>,
    schedule: Option<&'a Label>,
    /// By silence: when the earlier rings have had their time.
    soaked: Option<Timestamp>,
    /// Whether both roles say that it disturbs nobody.
    is_quiet: bool,
}

/// How far a candidate got.
pub(super) struct Asking {
    pub(super) approved: Approved,
    pub(super) gates: Gates,
    pub(super) step: Step,
}

impl Asking {
    /// Returns how far it got, for comparing two.
    pub(super) fn reach(&self) -> usize {
        self.gates.gates.len()
    }
}

impl<'a> Asked<'a> {
    /// Returns the approvals of a content that are for this device, and in words why others are not.
    pub(super) fn candidates(
        &self,
        id: ContentId,
        content: &'a Content,
    ) -> (Vec<Candidate<'a>>, String) {
        let mut rejected = Vec::new();
        let mut candidates = self.explicit(id, content, &mut rejected);
        candidates.extend(self.silent(id, content, &mut rejected));
        rejected.truncate(REJECTIONS_MAX);
        if rejected.is_empty() {
            rejected.push("no approver has decided on it".to_owned());
        }
        (candidates, rejected.join("; "))
    }

    pub(super) fn explicit(
        &self,
        id: ContentId,
        content: &Content,
        rejected: &mut Vec<String>,
    ) -> Vec<Candidate<'a>> {
        let mut candidates = Vec::new();
        for (scope, item) in self.items(id, &[Action::Install]) {
            let Some(approvals) = &scope.approvals else { continue };
            let fault = if !scope.reach.member(self.facts, self.rings).starts() {
                Some("the device is outside of the scope".to_owned())
            } else if approvals.document().head.organisation != self.facts.organisation {
                Some("it is of another organisation".to_owned())
            } else if !item.audience.member(self.facts, self.rings).starts() {
                Some("it is for other devices".to_owned())
            } else {
                disagreement(item, content)
            };
            if let Some(fault) = fault {
                rejected.push(format!("the approval in scope {}: {fault}", scope.name));
                continue;
            }
            let (by, patch_now) = (item.by.clone(), item.patch_now);
            candidates.push(Candidate {
                scope,
                approved: Approved::Explicitly { scope: scope.name.clone(), by, patch_now },
                issued: approvals.document().head.issued,
                expires: approvals.expires(),
                not_before: item.not_before,
                not_after: item.not_after,
                schedule: item.schedule.as_ref(),
                soaked: None,
                is_quiet: item.no_restart
                    && item.no_interruption
                    && content.about.no_restart
                    && content.about.no_interruption,
            });
        }
        candidates
    }

    fn silent(
        &self,
        id: ContentId,
        content: &Content,
        rejected: &mut Vec<String>,
    ) -> Vec<Candidate<'a>> {
        let mut candidates = Vec::new();
        let local = self.local(id);
        for scope in &self.orders.scopes {
            let Some(standing) = &scope.standing else { continue };
            let (head, expires) = (&standing.document().head, standing.expires());
            let is_mine = scope.reach.member(self.facts, self.rings).starts()
                && head.organisation == self.facts.organisation;
            for policy in &standing.document().body.policies {
                let is_for = is_mine && policy.audience.member(self.facts, self.rings).starts();
                if !is_for || !policy.contents.has(&content.about) {
                    continue;
                }
                let fault = match (local.direction, local.first_seen) {
                    (Direction::Upwards, Some(first_seen)) => Ok(first_seen),
                    (Direction::Upwards, None) => Err("the device has not seen it in a statement"),
                    _ => Err("it is not known to bring a higher version"),
                };
                match fault {
                    Err(fault) => {
                        rejected.push(format!("standing policy {}: {fault}", policy.name));
                    }
                    Ok(first_seen) => {
                        let deadline = deadline(policy, head.issued, content, first_seen);
                        candidates.push(by_silence(scope, policy, head.issued, expires, deadline));
                    }
                }
            }
        }
        candidates
    }

    /// Asks the gates of one approval.
    pub(super) fn ask(
        &self,
        candidate: &Candidate<'_>,
        content: &Content,
        local: &Local,
        gates: Gates,
    ) -> Asking {
        let mut asking =
            Asking { approved: candidate.approved.clone(), gates, step: Step::Nothing };
        let policies = candidate.scope.policies.as_ref();
        let reaches = candidate.scope.schedules_reach.member(self.facts, self.rings).starts();
        let policies = policies.filter(|policies| {
            reaches && policies.document().head.organisation == self.facts.organisation
        });
        let policies = policies.map(|policies| &policies.document().body);
        let policy = effective(policies, self.facts, self.rings);
        if self.ask_to_stage(candidate, content, local, &policy, &mut asking).is_ok()
            && self.ask_for_time(candidate, &mut asking.gates).is_ok()
            && let Ok(step) =
                self.ask_to_install(candidate, content, local, &policy, &mut asking.gates)
        {
            asking.step = step;
        }
        asking
    }

    fn ask_to_stage(
        &self,
        candidate: &Candidate<'_>,
        content: &Content,
        local: &Local,
        policy: &Effective,
        asking: &mut Asking,
    ) -> Result<(), Stopped> {
        let gates = &mut asking.gates;
        gates.pass(GateName::Approval, candidate.said());
        let not_after = match candidate.not_after {
            Some(end) if end.instant() <= self.latest => {
                Err((Reason::NotApproved, format!("the approval ended at {end}")))
            }
            Some(end) => Ok(format!("the approval ends at {end}")),
            None => Ok("the approval has no end".to_owned()),
        };
        gates.ask(GateName::NotAfter, not_after)?;
        gates.ask(
            GateName::ObserveOnly,
            if self.device.observe_only {
                Err((Reason::Held, "the device only watches".to_owned()))
            } else {
                Ok("the device does what it is told".to_owned())
            },
        )?;
        let is_staged = local.progress != Progress::Absent;
        gates.ask(GateName::Fresh, self.fresh(candidate, content, is_staged))?;
        if is_staged {
            gates.pass(GateName::Staged, "its bytes are here, verified");
            return Ok(());
        }
        let is_metered = self.device.is_metered && policy.on_metered.value == Caution::Wait;
        gates.ask(
            GateName::Metered,
            if is_metered {
                Err((Reason::Metered, format!("the line is metered, {}", policy.on_metered.source)))
            } else {
                Ok("the line is good enough".to_owned())
            },
        )?;
        let verdict = local.against.map_or(GateVerdict::Pending, GateVerdict::Blocked);
        gates.push(GateName::Staged, "its bytes are to be fetched".to_owned(), verdict);
        asking.step = Step::Stage { is_urgent: candidate.is_patch_now() };
        Err(Stopped)
    }

    /// Says whether the orders are fresh enough for what an approval wants.
    fn fresh(
        &self,
        candidate: &Candidate<'_>,
        content: &Content,
        is_staged: bool,
    ) -> Result<String, (Reason, String)> {
        let listed = self.listed.get(&content.bytes.blake3).into_iter().flatten();
        let mut expiries: Vec<(&str, Timestamp)> = vec![
            ("statement", self.statement.map_or(Timestamp::MIN, |statement| statement.expires)),
            ("approvals", candidate.expires),
        ];
        expiries.extend(listed.map(|content| ("content", content.expires())).max());
        let scope = candidate.scope;
        expiries.extend(scope.policies.as_ref().map(|one| ("policies", one.expires())));
        expiries.extend(scope.schedules.as_ref().map(|one| ("schedules", one.expires())));
        let orders = self.orders;
        expiries.extend(orders.rings.as_ref().map(|one| ("rings", one.expires())));
        expiries.extend(orders.sites.as_ref().map(|one| ("sites", one.expires())));
        let stale = expiries.into_iter().find(|(_, expires)| *expires <= self.latest);
        let is_explicit = matches!(candidate.approved, Approved::Explicitly { .. });
        match (stale, self.statement) {
            (_, None) => Err((Reason::ManifestStale, "there is no statement".to_owned())),
            (None, Some(statement)) => {
                Ok(format!("the newest statement is of {}", statement.issued))
            }
            (Some((what, expires)), _) if is_explicit && is_staged => {
                Ok(format!("the {what} expired at {expires}; it was approved and staged before"))
            }
            (Some((what, expires)), _) => {
                Err((Reason::ManifestStale, format!("the {what} expired at {expires}")))
            }
        }
    }

    /// Asks what has to be over before anything starts.
    fn ask_for_time(&self, candidate: &Candidate<'_>, gates: &mut Gates) -> Result<(), Stopped> {
        if let Approved::BySilence { deadline, .. } = &candidate.approved {
            // A statement of the deadline itself may not have had the last denial yet.
            let is_over = *deadline < self.earliest;
            gates.ask(
                GateName::Veto,
                if is_over {
                    Ok(format!("the time to deny it was over at {deadline}"))
                } else {
                    Err((Reason::VetoOpen, format!("it can be denied until {deadline}")))
                },
            )?;
        }
        if let Some(soaked) = candidate.soaked {
            gates.ask(
                GateName::Ring,
                if self.has_passed(soaked) {
                    Ok(format!("the rings before have had it until {soaked}"))
                } else {
                    Err((Reason::RingWait, format!("the rings before have it until {soaked}")))
                },
            )?;
        }
        let clock = self.now.clock;
        let fault = if !self.now.is_confirmed {
            Some("its node has not confirmed it")
        } else if !self.is_clock_right() {
            Some("it is behind the newest statement")
        } else if !self.has_passed(candidate.issued.instant()) {
            Some("the order was written later than it is now")
        } else {
            None
        };
        gates.ask(
            GateName::Clock,
            match fault {
                Some(fault) => Err((Reason::Clock, format!("the clock says {clock}: {fault}"))),
                None => Ok(format!("the clock says {clock}")),
            },
        )?;
        let not_before = match candidate.not_before {
            Some(from) if from.instant() > clock => {
                Err((Reason::OutsideWindow, format!("the approval begins at {from}")))
            }
            Some(from) if !self.has_passed(from.instant()) => {
                let input = format!("the approval begins at {from}, and no statement is newer");
                Err((Reason::ManifestStale, input))
            }
            Some(from) => Ok(format!("the approval began at {from}")),
            None => Ok("the approval begins at once".to_owned()),
        };
        gates.ask(GateName::NotBefore, not_before)
    }

    fn ask_to_install(
        &self,
        candidate: &Candidate<'_>,
        content: &Content,
        local: &Local,
        policy: &Effective,
        gates: &mut Gates,
    ) -> Result<Step, Stopped> {
        let mode = format!("{}, {}", policy.mode.value.as_str(), policy.mode.source);
        gates.ask(
            GateName::Mode,
            match policy.mode.value {
                Mode::DownloadOnly => Err((Reason::Held, mode)),
                Mode::DownloadAndInstall | Mode::Immediate => Ok(mode),
            },
        )?;
        let is_missing = |id: &&ContentId| self.local(**id).presence != Presence::Installed;
        gates.ask(
            GateName::Requires,
            match content.about.requires.iter().find(is_missing) {
                Some(missing) => {
                    Err((Reason::PrereqMissing, format!("{missing} is not installed")))
                }
                None => {
                    Ok(format!("{} required contents are installed", content.about.requires.len()))
                }
            },
        )?;
        let open = self.window(candidate, policy);
        let (said, open) = match open {
            Ok((input, open)) => (Ok(input), open),
            Err(refused) => (Err(refused), None),
        };
        gates.ask(GateName::Window, said)?;
        if let Some(open) = open {
            gates.ask(GateName::WindowLeft, self.left(&open, local))?;
        }
        let waits = self.device.on_battery && policy.on_battery.value == Caution::Wait;
        gates.ask(
            GateName::Battery,
            if waits {
                Err((
                    Reason::OnBattery,
                    format!("it runs on its battery, {}", policy.on_battery.source),
                ))
            } else {
                Ok("there is power".to_owned())
            },
        )?;
        gates.ask(
            GateName::Device,
            match (local.progress, local.against) {
                (_, Some(reason)) => Err((reason, "the device says so".to_owned())),
                (Progress::RolledBack, None) => {
                    Err((Reason::Held, "it was taken back and is not tried again".to_owned()))
                }
                (_, None) => Ok("the device has nothing against it".to_owned()),
            },
        )?;
        let policy_minutes = policy.max_run_minutes.value;
        let max_run_minutes = open.and_then(|open| open.max_run_minutes);
        Ok(Step::Install {
            until: open.map(|open| open.until),
            max_run_minutes: max_run_minutes.map_or(policy_minutes, |one| one.min(policy_minutes)),
        })
    }

    /// Says whether the content may start now: because it need not wait for a window, or because one is open.
    fn window(
        &self,
        candidate: &Candidate<'_>,
        policy: &Effective,
    ) -> Result<(String, Option<Open>), (Reason, String)> {
        if candidate.is_patch_now() {
            return Ok(("patch now, outside of every window".to_owned(), None));
        }
        if policy.mode.value == Mode::Immediate && candidate.is_quiet {
            return Ok(("it disturbs nobody, and the policy is immediate".to_owned(), None));
        }
        let outside = |input: String| (Reason::OutsideWindow, input);
        let name = candidate.schedule.or(policy.schedule.value.as_ref());
        let name =
            name.ok_or_else(|| outside("neither approval nor policy name a schedule".to_owned()))?;
        let scope = candidate.scope;
        let schedules = scope.schedules.as_ref().filter(|schedules| {
            scope.schedules_reach.member(self.facts, self.rings).starts()
                && schedules.document().head.organisation == self.facts.organisation
                && self.has_passed(schedules.document().head.issued.instant())
        });
        let schedule = schedules.and_then(|schedules| schedules.document().body.schedule(name));
        let schedule = schedule
            .ok_or_else(|| outside(format!("scope {} has no schedule {name}", scope.name)))?;
        match self.open(schedule, policy) {
            Ok(Some(open)) => {
                let input =
                    format!("schedule {name} is open since {} until {}", open.since, open.until);
                Ok((input, Some(open)))
            }
            Ok(None) => Err(outside(self.next(schedule))),
            Err(fault) => Err(outside(fault)),
        }
    }

    /// Returns the opening of a schedule that a device may start in now.
    fn open(&self, schedule: &Schedule, policy: &Effective) -> Result<Option<Open>, String> {
        let (clock, zones) = (self.now.clock, &self.now.zones);
        let enforced = SignedDuration::from_secs(ENFORCED_START_SECONDS);
        let openings = open_windows(schedule, zones, clock).map_err(|error| error.to_string())?;
        let policy_minutes = policy.max_install_minutes.value;
        let of = |window: usize, since, until| {
            let window = &schedule.windows[window];
            let both = [policy_minutes, window.max_install_minutes];
            let max_install_minutes = both.into_iter().flatten().min();
            Open { since, until, max_install_minutes, max_run_minutes: window.max_run_minutes }
        };
        let may_begin = |opening: &&Opening| {
            let is_late = clock.duration_since(opening.begin) > enforced;
            !(schedule.windows[opening.window].enforce_start && is_late)
        };
        // Of several the one that is open longest: what fits none of the others may fit it.
        let longest = openings.iter().filter(may_begin).max_by_key(|opening| opening.end);
        if let Some(opening) = longest {
            return Ok(Some(of(opening.window, opening.begin, opening.end)));
        }
        let Some(absence) = self.device.absence else { return Ok(None) };
        let searched = SignedDuration::from_hours(24 * MISSED_DAYS_MAX);
        let since =
            clock.checked_sub(searched).map_or(absence.from, |since| since.max(absence.from));
        for (position, window) in schedule.windows.iter().enumerate() {
            let duration = SignedDuration::from_mins(i64::from(window.duration_minutes));
            let Ok(until) = absence.until.checked_add(duration) else { continue };
            let is_back = absence.until <= clock && clock < until;
            if window.missed != Missed::Run || !is_back {
                continue;
            }
            let missed = last_over(window, zones, absence.until, since);
            if missed.is_some_and(|missed| missed.begin >= absence.from) {
                return Ok(Some(of(position, absence.until, until)));
            }
        }
        Ok(None)
    }

    fn next(&self, schedule: &Schedule) -> String {
        let next =
            next_windows(schedule, &self.now.zones, self.now.clock, schedule.windows.len() + 1);
        let next = next.ok().and_then(|openings| {
            openings.into_iter().find(|opening| opening.begin > self.now.clock)
        });
        match next {
            Some(opening) => {
                format!(
                    "schedule {} opens at {}, {} local time",
                    schedule.name, opening.begin, opening.local
                )
            }
            None => format!("schedule {} does not open any more", schedule.name),
        }
    }

    /// Says whether enough is left of a window.
    fn left(&self, open: &Open, local: &Local) -> Result<String, (Reason, String)> {
        let left = open.until.duration_since(self.now.clock).as_mins();
        let used = self.device.used_minutes;
        if let Some(max) = open.max_install_minutes
            && used.saturating_add(local.expected_minutes) >= max
        {
            let input =
                format!("{used} of {max} minutes are used up; the rest is for the next window");
            return Err((Reason::WindowTooShort, input));
        }
        let expected = local.expected_minutes;
        if left < i64::from(expected) {
            let input = format!("{left} minutes are left, and it takes {expected}");
            return Err((Reason::WindowTooShort, input));
        }
        Ok(format!("{left} minutes are left"))
    }
}

/// A window that a device may start in now.
#[derive(Clone, Copy)]
struct Open {
    since: Timestamp,
    until: Timestamp,
    max_install_minutes: Option<u32>,
    max_run_minutes: Option<u32>,
}

impl Candidate<'_> {
    fn is_patch_now(&self) -> bool {
        matches!(self.approved, Approved::Explicitly { patch_now: true, .. })
    }

    fn said(&self) -> String {
        match &self.approved {
            Approved::Explicitly { scope, by, .. } => format!("{by} approved it in scope {scope}"),
            Approved::BySilence { scope, policy, non_responders, .. } => {
                let asked = non_responders.len();
                format!("standing policy {policy} of scope {scope}; none of {asked} has answered")
            }
        }
    }
}

fn by_silence<'a>(
    scope: &'a Scope,
    policy: &'a StandingPolicy,
    issued: Utc,
    expires: Timestamp,
    deadline: Utc,
) -> Candidate<'a> {
    Candidate {
        scope,
        approved: Approved::BySilence {
            scope: scope.name.clone(),
            policy: policy.name.clone(),
            deadline: deadline.instant(),
            non_responders: policy.approvers.clone(),
        },
        issued,
        expires,
        not_before: policy.not_before,
        not_after: policy.not_after,
        schedule: policy.schedule.as_ref(),
        soaked: Some(deadline.plus_hours(policy.soak_hours.into()).instant()),
        // The approvers have not looked at it, and the import key alone does not let it bypass a window.
        is_quiet: false,
    }
}

/// Returns when the time to deny a content is over.
fn deadline(policy: &StandingPolicy, issued: Utc, content: &Content, first_seen: Timestamp) -> Utc {
    let begins = content.about.published.max(issued).max(Utc::of(first_seen));
    begins.plus_hours(policy.veto_hours.into())
}

/// Returns the first thing in which an approval and the content's role differ.
fn disagreement(item: &Item, content: &Content) -> Option<String> {
    let (approved, listed) = (item.bytes(), content.bytes);
    let differs = [
        ("blake3", approved.blake3 != listed.blake3),
        ("sha256", approved.sha256 != listed.sha256),
        ("length", approved.length != listed.length),
        ("kind", item.kind.as_ref() != Some(&content.about.kind)),
        ("hooks", item.hooks != content.about.hooks),
    ];
    let (field, _) = differs.into_iter().find(|(_, differs)| *differs)?;
    Some(format!("its {field} is not the one that the content role says"))
}
