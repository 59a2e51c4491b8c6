//! How the manifest stands: what expires when, and who signs for it. Pure.

use std::fmt;

use jiff::Timestamp;
use sutler_protocol::manifest::{Expires, KeyId, Version};

use crate::state::State;

/// Days before an expiry at which it is spoken of, the most urgent first.
const WARNING_DAYS: [i64; 3] = [7, 30, 60];

/// How one role stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The role.
    pub role: String,
    /// Its version.
    pub version: Version,
    /// When it expires.
    pub expires: Expires,
    /// How many have to sign.
    pub threshold: u64,
    /// Who may, by name where the targets have one.
    pub signers: Vec<String>,
    /// Whole days until it expires; negative if it has.
    pub left_days: i64,
    /// Whether somebody should do something.
    pub warning: Warning,
}

/// How urgent an expiry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// Not yet.
    None,
    /// Within so many days.
    Within(i64),
    /// It has expired.
    Expired,
}

impl Warning {
    /// Returns the warning of something that expires in so many days.
    fn of(left_days: i64) -> Self {
        if left_days < 0 {
            return Self::Expired;
        }
        WARNING_DAYS.into_iter().find(|days| left_days < *days).map_or(Self::None, Self::Within)
    }

    /// Returns its name.
    pub fn as_str(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Within(days) => format!("within {days} days"),
            Self::Expired => "expired".to_owned(),
        }
    }
}

/// Returns how every role of the manifest stands. Snapshot and timestamp are control's, which signs them in time
/// by itself: they are warned of only when they are gone.
pub fn standings(state: &State, now: Timestamp) -> Vec<Standing> {
    let mut standings = Vec::new();
    for (role, entry) in &state.root.roles {
        let (version, expires, is_online) = match role.as_str() {
            "root" => (state.root.version(), state.root.expires(), false),
            "targets" => (state.targets.version(), state.targets.expires(), false),
            "snapshot" => (state.snapshot.version(), state.snapshot.expires(), true),
            "timestamp" => (state.timestamp.version(), state.timestamp.expires(), true),
            _ => continue,
        };
        let mut one = standing(
            state,
            role,
            version,
            expires,
            (entry.keyids.as_slice(), entry.threshold),
            now,
        );
        if is_online && one.warning != Warning::Expired {
            one.warning = Warning::None;
        }
        standings.push(one);
    }
    for (role, document) in &state.roles {
        let Some(delegation) = state.delegation(role) else { continue };
        let who = (delegation.keyids.as_slice(), delegation.threshold);
        let (version, expires) = (document.version(), document.expires());
        standings.push(standing(state, role.as_str(), version, expires, who, now));
    }
    standings
}

fn standing(
    state: &State,
    role: &str,
    version: Version,
    expires: Expires,
    (ids, threshold): (&[KeyId], u64),
    now: Timestamp,
) -> Standing {
    let left = expires.instant().duration_since(now);
    let left_days = left.as_hours().div_euclid(24);
    let signers = ids.iter().map(|id| name(state, id)).collect();
    let warning = if expires.has_passed(now) { Warning::Expired } else { Warning::of(left_days) };
    Standing { role: role.to_owned(), version, expires, threshold, signers, left_days, warning }
}

/// Returns what the holder of a key is called, else the beginning of its id.
pub fn name(state: &State, id: &KeyId) -> String {
    let ours = state.targets.document().extra.get("sutler");
    let admins = ours.and_then(|ours| ours.get("admins")).and_then(serde_json::Value::as_object);
    let named = admins.into_iter().flatten().find(|(_, held)| held.as_str() == Some(id.as_str()));
    named.map_or_else(|| id.as_str().chars().take(12).collect(), |(name, _)| name.clone())
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_spoken_of_at_60_30_and_7_days() {
        for (days, warning) in [
            (61, Warning::None),
            (60, Warning::None),
            (59, Warning::Within(60)),
            (29, Warning::Within(30)),
            (6, Warning::Within(7)),
            (0, Warning::Within(7)),
            (-1, Warning::Expired),
        ] {
            assert_eq!(Warning::of(days), warning, "{days}");
        }
    }
}
