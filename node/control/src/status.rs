//! How the manifest stands: what expires when, and who signs for it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sutler_protocol::expiry::{BY_HAND_DAYS, HOURLY_DAYS, Warning, left_days};
use sutler_protocol::manifest::{Expires, KeyId, Version};

use crate::state::State;

/// How one role stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The role.
    pub role: String,
    /// Its version and when it expires; `None` if nothing was signed for it yet, or nothing that counts now.
    pub document: Option<(Version, Expires)>,
    /// How many have to sign.
    pub threshold: u64,
    /// Who may, by name where the targets have one.
    pub signers: Vec<String>,
    /// Whole days until it expires; negative if it has.
    pub left_days: Option<i64>,
    /// Whether somebody should do something.
    pub warning: Warning,
}

/// Returns how every role of the manifest stands. Snapshot and timestamp are control's, which signs them in time
/// by itself: they are warned of only when they are gone.
pub fn standings(state: &State, now: Timestamp) -> Vec<Standing> {
    let (mut standings, admins) = (Vec::new(), state.admins());
    for (role, entry) in &state.root.roles {
        let (version, expires, days) = match role.as_str() {
            "root" => (state.root.version(), state.root.expires(), BY_HAND_DAYS),
            "targets" => (state.targets.version(), state.targets.expires(), BY_HAND_DAYS),
            "snapshot" => (state.snapshot.version(), state.snapshot.expires(), HOURLY_DAYS),
            "timestamp" => (state.timestamp.version(), state.timestamp.expires(), HOURLY_DAYS),
            _ => continue,
        };
        let who = (entry.keyids.as_slice(), entry.threshold);
        standings.push(standing(&admins, role, Some((version, expires)), days, who, now));
    }
    for mandate in state.mandates().all() {
        let (role, delegation) = (mandate.role(), mandate.delegation());
        let who = (delegation.keyids.as_slice(), delegation.threshold);
        let document = state.roles.get(role).map(|known| (known.version(), known.expires()));
        standings.push(standing(&admins, role.as_str(), document, BY_HAND_DAYS, who, now));
    }
    standings
}

fn standing(
    admins: &BTreeMap<String, KeyId>,
    role: &str,
    document: Option<(Version, Expires)>,
    days: &[i64],
    (ids, threshold): (&[KeyId], u64),
    now: Timestamp,
) -> Standing {
    let expires = document.map(|(_, expires)| expires.instant());
    let left_days = expires.map(|expires| left_days(expires, now));
    let warning = expires.map_or(Warning::None, |expires| Warning::of(expires, now, days));
    let signers = ids.iter().map(|id| called(admins, id)).collect();
    Standing { role: role.to_owned(), document, threshold, signers, left_days, warning }
}

/// Returns what the holder of a key is called, else the beginning of its id.
pub fn name(state: &State, id: &KeyId) -> String {
    called(&state.admins(), id)
}

fn called(admins: &BTreeMap<String, KeyId>, id: &KeyId) -> String {
    let named = admins.iter().find(|(_, held)| *held == id);
    named.map_or_else(|| id.as_str().chars().take(12).collect(), |(name, _)| name.clone())
}
