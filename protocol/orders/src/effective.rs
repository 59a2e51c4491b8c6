//! Which policy a device has, each setting with where it comes from: what `policy effective` prints.

use std::fmt;

use sutler_protocol::name::Label;

use crate::audience::Membership;
use crate::facts::Facts;
use crate::policies::{Caution, Mode, Policies, Policy};
use crate::rings::Rings;

/// Minutes that an installation may take where no policy says: longer than any patch should need, and short enough
/// that a hung one ends within its night.
pub const MAX_RUN_MINUTES: u32 = 120;

/// A setting and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// Its value.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A policy that names the device.
    Device(Label),
    /// A policy of a group that the device is in.
    Group(Label),
    /// No policy says anything.
    Default,
    /// It cannot be told whether this policy is the device's, so the most cautious value holds.
    Unclear(Label),
}

/// The policy of one device in one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// What it does with what is approved.
    pub mode: Setting<Mode>,
    /// The schedule. Absent: it has no window.
    pub schedule: Setting<Option<Label>>,
    /// Minutes that one installation may take.
    pub max_run_minutes: Setting<u32>,
    /// Minutes that all installations of a window may take. Absent: as many as the window has.
    pub max_install_minutes: Setting<Option<u32>>,
    /// What it does on a metered line.
    pub on_metered: Setting<Caution>,
    /// What it does on its battery.
    pub on_battery: Setting<Caution>,
}

/// Returns the policy of a device in a scope. `policies` are absent where none are believed; `rings` where none are
/// known.
pub fn effective(policies: Option<&Policies>, facts: &Facts, rings: Option<&Rings>) -> Effective {
    let ranked = policies.map_or_else(Vec::new, |policies| ranked(policies, facts, rings));
    Effective {
        mode: setting(&ranked, Mode::DownloadOnly, |policy| policy.mode),
        schedule: setting(&ranked, None, |policy| policy.schedule.clone().map(Some)),
        max_run_minutes: setting(&ranked, MAX_RUN_MINUTES, |policy| policy.max_run_minutes),
        max_install_minutes: setting(&ranked, None, |policy| policy.max_install_minutes.map(Some)),
        on_metered: setting(&ranked, Caution::Wait, |policy| policy.on_metered),
        on_battery: setting(&ranked, Caution::Wait, |policy| policy.on_battery),
    }
}

/// Returns the policies that are or may be the device's, the weightiest first.
fn ranked<'p>(
    policies: &'p Policies,
    facts: &Facts,
    rings: Option<&Rings>,
) -> Vec<(&'p Policy, Source)> {
    let of = |is_own: bool| {
        policies.policies.iter().filter_map(move |policy| {
            if is_own == policy.audience.devices.is_empty() {
                return None;
            }
            let name = policy.name.clone();
            let source = match policy.audience.member(facts, rings) {
                Membership::Out { .. } => return None,
                Membership::Unknown { .. } => Source::Unclear(name),
                Membership::In if is_own => Source::Device(name),
                Membership::In => Source::Group(name),
            };
            Some((policy, source))
        })
    };
    of(true).chain(of(false)).collect()
}

/// Returns the first value that is said. Behind a policy of which it cannot be told whether it is the device's,
/// nothing is taken: it may have been the stricter one.
fn setting<T>(
    ranked: &[(&Policy, Source)],
    default: T,
    value: impl Fn(&Policy) -> Option<T>,
) -> Setting<T> {
    let said = ranked.iter().find_map(|(policy, source)| Some((value(policy)?, source.clone())));
    match said {
        Some((_, source @ Source::Unclear(_))) => Setting { value: default, source },
        Some((value, source)) => Setting { value, source },
        None => Setting { value: default, source: Source::Default },
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(policy) => write!(f, "policy {policy}, the device's own"),
            Self::Group(policy) => write!(f, "policy {policy}"),
            Self::Default => f.write_str("no policy says it"),
            Self::Unclear(policy) => {
                write!(f, "it cannot be told whether policy {policy} is the device's")
            }
        }
    }
}
