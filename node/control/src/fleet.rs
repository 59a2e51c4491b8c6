//! How many devices there are, and how many of them an order reaches: what an admin sees before a signature. Pure.
//!
//! Devices are counted that have reported at least once: one that is silent comes back. Where it cannot be told whether a
//! device is reached, it is: nobody is to be surprised by more.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sutler_orders::approvals::{Action, Approvals, Item};
use sutler_orders::audience::Audience;
use sutler_orders::halts::Halt;
use sutler_orders::mandate::Mandate;
use sutler_orders::order::Body;
use sutler_orders::report::Report;
use sutler_orders::text::DeviceName;
use sutler_orders::{Halts, Kind, Order, Rings, Sites};
use sutler_protocol::manifest::TargetPath;
use sutler_protocol::name::Label;

use crate::draft::Draft;
use crate::files;
use crate::halting;
use crate::judgement::facts;
use crate::state::State;

/// Parts of the fleet above which an order is not signed without its number: a tenth.
const ASKED_ABOVE: u64 = 10;

/// How many devices there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// By site.
    sites: BTreeMap<String, u64>,
    /// Those that each scope reaches, by site.
    scopes: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What an order does that is not done yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    starts: Whom,
    stops: Whom,
}

/// For whom, by scope: each of these audiences. What is of no scope is for all.
type Whom = BTreeMap<Option<Label>, Vec<Audience>>;

/// How many devices an order reaches, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// How many devices.
    pub devices: u64,
    /// At how many sites.
    pub sites: u64,
    /// Of how many devices.
    pub fleet: u64,
}

impl Fleet {
    /// Counts the devices that have reported, by the scopes and rings that are published.
    pub fn of(state: &State, reports: &[Report]) -> Self {
        let rings = state.orders.get(&TargetPath::from("rings/rings.json"));
        let rings = rings.and_then(|bytes| Order::<Rings>::read(bytes).ok());
        let rings = rings.as_ref().map(|order| &order.body);
        let mut fleet = Self::default();
        // Whom one covers cannot be read, or who decides for it: no device would take it for covered.
        let reached = |mandate: Option<Mandate<'_>>| mandate.and_then(|one| one.reaches().ok());
        let scopes = state.mandates().scopes().into_iter();
        let scopes: Vec<_> = scopes.map(|(scope, mandate)| (scope, reached(mandate))).collect();
        for report in reports {
            let site = report.device.site.as_str();
            *fleet.sites.entry(site.to_owned()).or_default() += 1;
            let facts = facts(report);
            for (scope, covers) in &scopes {
                let Some(covers) = covers else { continue };
                let sites = fleet.scopes.entry(scope.to_string()).or_default();
                if covers.member(&facts, rings).stops() {
                    *sites.entry(site.to_owned()).or_default() += 1;
                }
            }
        }
        fleet
    }

    /// Returns how many devices an order starts something on, or stops something if it starts nothing. Nothing where no device
    /// is known.
    pub fn reach(&self, effect: &Effect) -> Option<Reach> {
        let whom = if effect.starts() { &effect.starts } else { &effect.stops };
        let fleet: u64 = self.sites.values().sum();
        let (mut devices, mut sites) = (0, 0);
        for (site, all) in &self.sites {
            let of_scope = |(scope, audiences): (&Option<Label>, &Vec<Audience>)| {
                // A scope that is not known there may be new.
                let scope = scope.as_ref().and_then(|scope| self.scopes.get(scope.as_str()));
                let count = scope.map_or(*all, |scope| scope.get(site).copied().unwrap_or(0));
                count.min(named(site, audiences))
            };
            let reached: u64 = whom.iter().map(of_scope).sum();
            devices += reached.min(*all);
            sites += u64::from(reached > 0);
        }
        (fleet > 0).then_some(Reach { devices, sites, fleet })
    }
}

impl Effect {
    /// Finds out what a draft does beside what is published.
    pub fn of(draft: &Draft, state: &State) -> Self {
        let mut effect = Self::default();
        // Whom a halt is for that cannot be read is found below: everybody.
        let halts = halting::halts(state).unwrap_or_default();
        let (roles, paths) = draft.parts();
        for (role, path) in
            roles.iter().flat_map(|role| paths.iter().map(move |path| (role, *path)))
        {
            let path = TargetPath::from(path);
            let after = draft.file(path.as_str()).map_or(&[][..], |bytes| &bytes[..]);
            let before = state.orders.get(&path).map_or(&[][..], |bytes| &bytes[..]);
            match files::place(role, &path) {
                Some((Kind::Approvals, Some(scope))) => {
                    let (starts, stops) = decided(before, after, &halts);
                    effect.add(Some(&scope), starts, stops);
                }
                // How and when devices act, and what silence approves: for all of the scope.
                Some((Kind::Standing | Kind::Policies | Kind::Schedules, Some(scope))) => {
                    effect.add(Some(&scope), vec![Audience::default()], Vec::new());
                }
                Some((Kind::Rings, None)) => {
                    effect.add(None, regrouped(before, after), Vec::new());
                }
                Some((Kind::Sites, None)) => effect.add(None, moved(before, after), Vec::new()),
                Some((Kind::Halts, None)) => effect.add(None, Vec::new(), halted(before, after)),
                _ => {}
            }
        }
        effect
    }

    fn add(&mut self, scope: Option<&Label>, starts: Vec<Audience>, stops: Vec<Audience>) {
        for (whom, audiences) in [(&mut self.starts, starts), (&mut self.stops, stops)] {
            if !audiences.is_empty() {
                whom.entry(scope.cloned()).or_default().extend(audiences);
            }
        }
    }

    /// Returns whether it starts something anywhere.
    pub fn starts(&self) -> bool {
        !self.starts.is_empty()
    }

    /// Returns whether it neither starts nor stops anything.
    pub fn is_nothing(&self) -> bool {
        self.starts.is_empty() && self.stops.is_empty()
    }
}

impl Reach {
    /// Returns whether it is so many that an admin says how many.
    pub const fn is_asked(&self) -> bool {
        self.devices * ASKED_ABOVE > self.fleet
    }
}

/// Returns for whom something may start that might not: it is approved, or no longer stopped; and for whom something is
/// stopped that was not. A halt that is countersigned stops whom it names.
fn decided(before: &[u8], after: &[u8], halts: &[Halt]) -> (Vec<Audience>, Vec<Audience>) {
    let read = |bytes| Order::<Approvals>::read(bytes).map(|order| order.body);
    let before = read(before).unwrap_or_default();
    // What cannot be read here is for everybody.
    let Ok(after) = read(after) else { return (vec![Audience::default()], Vec::new()) };
    let starts = |item: &&Item| item.action == Action::Install;
    let stops = |item: &&Item| item.action != Action::Install;
    let is_new = |item: &&Item| !before.items.contains(item);
    let is_gone = |item: &&Item| {
        let is_same = |other: &Item| {
            (other.action, other.bytes()) == (item.action, item.bytes())
                && other.audience == item.audience
        };
        !after.items.iter().any(is_same)
    };
    let audience = |item: &Item| item.audience.clone();
    let gone = before.items.iter().filter(stops).filter(is_gone);
    let started = after.items.iter().filter(starts).filter(is_new).chain(gone);
    let mut started: Vec<Audience> = started.map(audience).collect();
    // Halts and free-standing denials are for whomever they say.
    let goes_on = after.resumed.iter().any(|one| !before.resumed.contains(one))
        || after.withdrawn.iter().any(|one| !before.withdrawn.contains(one))
        || before.countersigned.iter().any(|one| !after.countersigned.contains(one));
    if goes_on {
        started.push(Audience::default());
    }
    let held = after.countersigned.iter().filter(|one| !before.countersigned.contains(one));
    let held = held.map(|one| {
        let halt = halts.iter().find(|halt| halt.id == one.halt);
        halt.map_or_else(Audience::default, |halt| halt.audience.clone())
    });
    let stopped = after.items.iter().filter(stops).filter(is_new).map(audience).chain(held);
    (started, stopped.collect())
}

/// Returns for whom something may start because rings are others: whoever is in another ring has other orders.
fn regrouped(before: &[u8], after: &[u8]) -> Vec<Audience> {
    let (before, after) = (body::<Rings>(before), body::<Rings>(after));
    if after.is_some() && before.unwrap_or_default() == after.unwrap_or_default() {
        return Vec::new();
    }
    vec![Audience::default()]
}

/// Returns for whom something may start because the hour is another one: the devices of sites that are new, or gone, or in
/// another zone.
fn moved(before: &[u8], after: &[u8]) -> Vec<Audience> {
    // What cannot be read here is for everybody.
    let Some(after) = body::<Sites>(after) else { return vec![Audience::default()] };
    let before = body::<Sites>(before).unwrap_or_default();
    let zones = |sites: Sites| -> BTreeSet<_> {
        sites.sites.into_iter().map(|site| (site.name, site.zone)).collect()
    };
    let (before, after) = (zones(before), zones(after));
    let moved: BTreeSet<&Label> =
        before.symmetric_difference(&after).map(|(name, _)| name).collect();
    let of_site = |site: &Label| Audience { sites: vec![site.clone()], ..Audience::default() };
    moved.into_iter().map(of_site).collect()
}

/// Returns for whom control stops something that it did not.
fn halted(before: &[u8], after: &[u8]) -> Vec<Audience> {
    let Some(after) = body::<Halts>(after) else { return vec![Audience::default()] };
    let before = body::<Halts>(before).unwrap_or_default();
    let new = after.halts.into_iter().filter(|halt| !before.halts.contains(halt));
    new.map(|halt| halt.audience).collect()
}

fn body<B: Body>(bytes: &[u8]) -> Option<B> {
    Order::<B>::read(bytes).ok().map(|order| order.body)
}

/// Returns how many devices of a site are named, all of them if one of the audiences names none.
fn named(site: &str, audiences: &[Audience]) -> u64 {
    let mut named: BTreeSet<&DeviceName> = BTreeSet::new();
    for Audience { sites, devices, .. } in audiences {
        if !sites.is_empty() && !sites.iter().any(|one| one.as_str() == site) {
            continue;
        }
        if devices.is_empty() {
            return u64::MAX;
        }
        named.extend(devices.iter().filter(|device| device.site.as_str() == site));
    }
    named.len() as u64
}
