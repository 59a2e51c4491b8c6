//! How far something that stops has got: who has heard of it, and who could still install meanwhile.
//!
//! Pure: a function of the devices' newest reports, of what was published before the stop, and of the time. It errs towards
//! danger: a device counts as one that could still install unless its own report or the orders say that it cannot.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use serde::{Deserialize, Serialize};
use sutler_orders::answer::{State, Step};
use sutler_orders::audience::Audience;
use sutler_orders::evaluate::{Direction, Local, Presence, Progress};
use sutler_orders::report::Report;
use sutler_orders::text::Utc;
use sutler_orders::windows::{Zones, next_windows};
use sutler_orders::{Device, Facts, Now, Reason, evaluate_only};
use sutler_protocol::ContentId;
use sutler_protocol::name::Label;

use crate::judgement::{Published, facts};

/// Openings of each schedule that are looked at: if a device may not start in the next two, something else holds it.
const OPENINGS: usize = 2;

/// What was stopped, for whom.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Which contents. All of them if none is named.
    pub contents: BTreeSet<ContentId>,
    /// The scope whose approvers stopped it. Absent: control did, everywhere.
    pub scope: Option<Label>,
    /// For whom of them.
    pub audience: Audience,
    /// The timestamp's version that brought it.
    pub version: u64,
}

/// How far a stop has got. Numbers alone: it goes to whoever asks control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Sites of which every device has heard of it.
    pub sites_done: u64,
    /// Sites with a device that it is for.
    pub sites: u64,
    /// Devices that have heard of it.
    pub devices_done: u64,
    /// Devices that it is for.
    pub devices: u64,
    /// Devices that have not heard of it, and could install.
    pub could_install: u64,
    /// When the first of them could: now, or when its next window opens.
    pub earliest: Option<Utc>,
}

/// Returns how far `stop` has got by `now`. `before` is what was published until then; zones are looked up in
/// `database`.
pub fn spread(
    reports: &[Report],
    stop: &Stop,
    before: &Published,
    database: &TimeZoneDatabase,
    now: Timestamp,
) -> Spread {
    let mut spread = Spread::default();
    let mut sites: BTreeMap<&Label, bool> = BTreeMap::new();
    for report in reports {
        let facts = facts(report);
        if !stop.reaches(&facts, before) {
            continue;
        }
        let has_heard = stop.is_obeyed(report);
        spread.devices += 1;
        spread.devices_done += u64::from(has_heard);
        *sites.entry(&report.device.site).or_insert(true) &= has_heard;
        if has_heard {
            continue;
        }
        if let Some(at) = could_install(report, &facts, stop, before, database, now) {
            spread.could_install += 1;
            let at = Utc::of(at);
            spread.earliest = Some(spread.earliest.map_or(at, |earliest| earliest.min(at)));
        }
    }
    spread.sites = sites.len() as u64;
    spread.sites_done = sites.values().filter(|is_done| **is_done).count() as u64;
    spread
}

impl Spread {
    /// Returns whether every device has heard of it.
    pub fn is_done(&self) -> bool {
        self.devices_done == self.devices
    }
}

impl Stop {
    /// Returns whether a device says that it knows the stop, and no answer of its says otherwise: one that cannot
    /// believe the very role of it goes by what it believed before.
    fn is_obeyed(&self, report: &Report) -> bool {
        let statement = report.statement.as_ref();
        let knows = statement.is_some_and(|statement| statement.version >= self.version);
        let is_about = |content| self.contents.is_empty() || self.contents.contains(content);
        knows
            && report.answers.iter().all(|answer| {
                let is_open = matches!(
                    answer.state,
                    State::Needed | State::Staged | State::Failed | State::RolledBack
                );
                // That the last attempt took too long is said in any case.
                let is_stopped = matches!(
                    answer.reason,
                    Some(Reason::Denied | Reason::Halted | Reason::Timeout)
                );
                !is_about(&answer.content) || !is_open || is_stopped
            })
    }

    fn reaches(&self, facts: &Facts, before: &Published) -> bool {
        let rings = before.orders().rings();
        let scope = self.scope.as_ref().map(|name| {
            let scope = before.orders().scopes.iter().find(|scope| scope.name == *name);
            scope.is_none_or(|scope| scope.reach.member(facts, rings).stops())
        });
        scope.unwrap_or(true) && self.audience.member(facts, rings).stops()
    }
}

/// Returns when a device that has not heard of a stop could install what it is about, if it could at all.
fn could_install(
    report: &Report,
    facts: &Facts,
    stop: &Stop,
    before: &Published,
    database: &TimeZoneDatabase,
    now: Timestamp,
) -> Option<Timestamp> {
    if report.observes {
        return None;
    }
    let told = report.answers.iter().map(|answer| (answer.content, answer));
    let told: BTreeMap<ContentId, _> = told.collect();
    let named = if stop.contents.is_empty() {
        told.keys().copied().collect()
    } else {
        stop.contents.clone()
    };
    let is_open = |content: &ContentId| {
        told.get(content).is_none_or(|answer| {
            let state = matches!(
                answer.state,
                State::Needed | State::Staged | State::Installing | State::Failed
            );
            state && answer.reason != Some(Reason::Held)
        })
    };
    let open: BTreeSet<ContentId> = named.into_iter().filter(is_open).collect();
    if open.is_empty() {
        return None;
    }
    // What is not there yet may be by then; so may power, and a line that costs nothing.
    let local = |content: &ContentId| {
        let is_there = told.get(content).is_some_and(|answer| answer.state == State::Installed);
        let is_refused =
            told.get(content).is_some_and(|answer| answer.reason == Some(Reason::NotApproved));
        Local {
            progress: Progress::Staged,
            presence: if is_there { Presence::Installed } else { Presence::Missing },
            direction: if is_refused { Direction::Unknown } else { Direction::Upwards },
            first_seen: Some(Timestamp::UNIX_EPOCH),
            ..Local::default()
        }
    };
    let ids = told.keys().chain(&open);
    let device = Device { contents: ids.map(|id| (*id, local(id))).collect(), ..Device::default() };
    let zones = before.zones(facts, database);
    instants(facts, before, &zones, now).into_iter().find(|at| {
        let now = Now { clock: *at, is_confirmed: true, zones: zones.clone() };
        let answers =
            evaluate_only(&open, before.orders(), facts, &device, before.statement(), &now);
        answers.values().any(|answer| matches!(answer.step, Step::Install { .. }))
    })
}

/// Returns when a device may start something: now, and when its windows open. Whatever else starts with time needs a
/// newer statement, and that brings the stop.
fn instants(
    facts: &Facts,
    before: &Published,
    zones: &Zones<'_>,
    now: Timestamp,
) -> BTreeSet<Timestamp> {
    let rings = before.orders().rings();
    let scopes = before.orders().scopes.iter();
    let scopes = scopes.filter(|scope| scope.schedules_reach.member(facts, rings).starts());
    let schedules = scopes.filter_map(|scope| scope.schedules.as_ref());
    let schedules = schedules.flat_map(|schedules| &schedules.document().body.schedules);
    let openings = schedules
        .filter_map(|schedule| next_windows(schedule, zones, now, OPENINGS).ok())
        .flatten()
        .map(|opening| opening.begin.max(now));
    openings.chain([now]).collect()
}
