//! How many devices there are, and how many of them an order reaches: what an admin sees before a signature. Pure.
//!
//! Devices are counted that have reported at least once: one that is silent comes back. Where it cannot be told whether a
//! device is reached, it is: nobody is to be surprised by more.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sutler_orders::approvals::{Action, Approvals, Item};
use sutler_orders::audience::Audience;
use sutler_orders::facts::Facts;
use sutler_orders::report::Report;
use sutler_orders::text::{DeviceName, Line};
use sutler_orders::{Kind, Order, Rings};
use sutler_protocol::manifest::TargetPath;
use sutler_protocol::name::Label;

use crate::draft::Draft;
use crate::files;
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

/// What an order starts, by scope: for each of these audiences. It is empty for one that only stops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started(BTreeMap<Label, Vec<Audience>>);

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
        let delegations = state.targets.delegations.as_ref();
        let delegations = delegations.into_iter().flat_map(|all| all.roles.iter().flatten());
        let scopes: Vec<(&str, Option<Audience>)> = delegations
            .filter_map(|one| {
                let scope = one.name.as_str().strip_prefix("approvals-")?;
                Some((scope, Audience::of_delegation(one).ok()))
            })
            .collect();
        for report in reports {
            let site = report.device.site.as_str();
            *fleet.sites.entry(site.to_owned()).or_default() += 1;
            let facts = facts(report);
            for (scope, covers) in &scopes {
                // Whom it covers cannot be read: no device would take it for covered.
                let Some(covers) = covers else { continue };
                let sites = fleet.scopes.entry((*scope).to_owned()).or_default();
                if covers.member(&facts, rings).stops() {
                    *sites.entry(site.to_owned()).or_default() += 1;
                }
            }
        }
        fleet
    }

    /// Returns how many devices an order reaches that starts this, or nothing where no device is known.
    pub fn reach(&self, started: &Started) -> Option<Reach> {
        let fleet: u64 = self.sites.values().sum();
        let (mut devices, mut sites) = (0, 0);
        for (site, all) in &self.sites {
            let of_scope = |(scope, audiences): (&Label, &Vec<Audience>)| {
                // A scope that is not known there may be new.
                let scope = self.scopes.get(scope.as_str());
                let count = scope.map_or(*all, |scope| scope.get(site).copied().unwrap_or(0));
                count.min(named(site, audiences))
            };
            let reached: u64 = started.0.iter().map(of_scope).sum();
            devices += reached.min(*all);
            sites += u64::from(reached > 0);
        }
        (fleet > 0).then_some(Reach { devices, sites, fleet })
    }
}

impl Started {
    /// Finds out what a draft starts that is not started yet.
    pub fn by(draft: &Draft, state: &State) -> Self {
        let mut started = Self::default();
        let (roles, paths) = draft.parts();
        for (role, path) in
            roles.iter().flat_map(|role| paths.iter().map(move |path| (role, *path)))
        {
            let path = TargetPath::from(path);
            let audiences = match files::place(role, &path) {
                Some((Kind::Approvals, Some(scope))) => {
                    let after = draft.file(path.as_str()).map_or(&[][..], |bytes| &bytes[..]);
                    let before = state.orders.get(&path).map_or(&[][..], |bytes| &bytes[..]);
                    Some((scope, approved(before, after)))
                }
                // How and when devices act, and what silence approves: for all of the scope.
                Some((Kind::Standing | Kind::Policies | Kind::Schedules, Some(scope))) => {
                    Some((scope, vec![Audience::default()]))
                }
                _ => None,
            };
            if let Some((scope, audiences)) = audiences.filter(|(_, one)| !one.is_empty()) {
                started.0.entry(scope).or_default().extend(audiences);
            }
        }
        started
    }

    /// Returns whether it starts nothing.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

impl Reach {
    /// Returns whether it is so many that an admin says how many.
    pub const fn is_asked(&self) -> bool {
        self.devices * ASKED_ABOVE > self.fleet
    }
}

/// Returns for whom something is approved that was not, or no longer stopped that was.
fn approved(before: &[u8], after: &[u8]) -> Vec<Audience> {
    let read = |bytes| Order::<Approvals>::read(bytes).map(|order| order.body);
    let before = read(before).unwrap_or_default();
    // What cannot be read here is for everybody.
    let Ok(after) = read(after) else { return vec![Audience::default()] };
    let starts = |item: &&Item| item.action == Action::Install;
    let is_new = |item: &&Item| !before.items.contains(item);
    let is_gone = |item: &&Item| {
        let is_same = |other: &Item| {
            (other.action, other.bytes()) == (item.action, item.bytes())
                && other.audience == item.audience
        };
        !after.items.iter().any(is_same)
    };
    let new = after.items.iter().filter(starts).filter(is_new);
    let gone = before.items.iter().filter(|item| !starts(item)).filter(is_gone);
    let mut audiences: Vec<Audience> = new.chain(gone).map(|item| item.audience.clone()).collect();
    // Halts and free-standing denials are for whomever they say.
    let goes_on = after.resumed.iter().any(|one| !before.resumed.contains(one))
        || after.withdrawn.iter().any(|one| !before.withdrawn.contains(one))
        || before.countersigned.iter().any(|one| !after.countersigned.contains(one));
    if goes_on {
        audiences.push(Audience::default());
    }
    audiences
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

/// Returns what a device says of itself. The ring that its certificate begins at is not among it.
fn facts(report: &Report) -> Facts {
    let text = |line: &Option<Line>| line.as_ref().map(ToString::to_string).unwrap_or_default();
    let told = &report.facts;
    Facts {
        organisation: report.organisation.clone(),
        device: report.device.clone(),
        os: text(&told.os),
        version: text(&told.version),
        architecture: text(&told.architecture),
        language: text(&told.language),
        host_name: text(&told.host_name),
        tags: told.tags.iter().map(ToString::to_string).collect(),
        first_ring: None,
    }
}
