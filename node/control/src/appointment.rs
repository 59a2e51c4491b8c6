//! Who would sign for what: what a draft changes of it, for whoever is to sign the draft. Pure.

use std::collections::BTreeMap;
use std::fmt;

use sutler_orders::audience::Audience;
use sutler_protocol::manifest::{Delegation, KeyId, RoleName, Targets};

use crate::draft::Draft;
use crate::state::{State, named};

/// Whom a draft lets sign for a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appointment {
    /// The role.
    pub role: String,
    /// Who may; `None` if nobody any more.
    pub now: Option<Signers>,
    /// Who might before; `None` if nobody.
    pub before: Option<Signers>,
}

/// Who signs for a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signers {
    /// How many have to sign.
    pub threshold: u64,
    /// Of whom: by name where one is written down, else the beginning of the key's id.
    pub names: Vec<String>,
    /// The devices that are reached at most, where some are left out.
    pub reaches: Option<String>,
}

impl Appointment {
    /// Returns what a draft changes, role by role in the order of their names.
    pub fn of(draft: &Draft, state: Option<&State>) -> Vec<Self> {
        let roles = draft.parts().0;
        let documents: Vec<(RoleName, Targets)> =
            roles.into_iter().filter_map(|role| Some((role.clone(), draft.role(&role)?))).collect();
        let mut names: BTreeMap<KeyId, String> = BTreeMap::new();
        let written = documents.iter().flat_map(|(_, document)| named(document));
        for (name, id) in state.map(State::admins).unwrap_or_default().into_iter().chain(written) {
            names.entry(id).or_insert(name);
        }
        let published = |role: &RoleName| {
            let state = state?;
            if *role == RoleName::targets() {
                return Some(state.targets.document());
            }
            Some(state.roles.get(role)?.document())
        };
        let mut changed = BTreeMap::new();
        for (role, document) in &documents {
            let before = published(role).map(|before| delegated(before, &names));
            let (mut before, now) = (before.unwrap_or_default(), delegated(document, &names));
            for (role, now) in now {
                changed.insert(role.clone(), (Some(now), before.remove(&role)));
            }
            changed.extend(before.into_iter().map(|(role, before)| (role, (None, Some(before)))));
        }
        if let Some(root) = draft.new_root() {
            let before = state.map(|state| state.root.document().roles.clone()).unwrap_or_default();
            for (role, entry) in &root.roles {
                let of = |ids: &[KeyId], threshold| Signers {
                    threshold,
                    names: called(ids, &names),
                    reaches: None,
                };
                let before = before.get(role).map(|entry| of(&entry.keyids, entry.threshold));
                changed.insert(role.clone(), (Some(of(&entry.keyids, entry.threshold)), before));
            }
        }
        let appointment = |(role, (now, before))| Self { role, now, before };
        let is_change = |one: &Self| one.now != one.before;
        changed.into_iter().map(appointment).filter(is_change).collect()
    }
}

fn delegated(document: &Targets, names: &BTreeMap<KeyId, String>) -> BTreeMap<String, Signers> {
    let delegations = document.delegations.as_ref();
    let roles = delegations.into_iter().flat_map(|all| all.roles.iter().flatten());
    roles.map(|one| (one.name.to_string(), Signers::of(one, names))).collect()
}

fn called(ids: &[KeyId], names: &BTreeMap<KeyId, String>) -> Vec<String> {
    let short = |id: &KeyId| id.as_str().chars().take(12).collect();
    ids.iter().map(|id| names.get(id).cloned().unwrap_or_else(|| short(id))).collect()
}

impl Signers {
    fn of(delegation: &Delegation, names: &BTreeMap<KeyId, String>) -> Self {
        let reaches = match Audience::of_delegation(delegation) {
            Ok(audience) if audience.is_everybody() => None,
            Ok(audience) => Some(serde_json::to_string(&audience).expect("names are JSON")),
            Err(_) => Some("what cannot be read, which is nobody".to_owned()),
        };
        let names = called(&delegation.keyids, names);
        Self { threshold: delegation.threshold, names, reaches }
    }
}

impl fmt::Display for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.threshold, self.names.join(", "))?;
        self.reaches.iter().try_for_each(|reaches| write!(f, ", for {reaches}"))
    }
}

impl fmt::Display for Appointment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, now, before } = self;
        match (now, before) {
            (Some(now), None) => write!(f, "{role} is signed by {now}"),
            (Some(now), Some(before)) => {
                write!(f, "{role} is signed by {now}; before, by {before}")
            }
            (None, _) => write!(f, "{role} is signed by nobody any more"),
        }
    }
}
