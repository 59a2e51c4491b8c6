//! New keys for a role, an admin who leaves, and roles that are signed anew before they expire. Pure: it makes the draft
//! that old and new signers sign.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;
use sutler_protocol::manifest::key::Key;
use sutler_protocol::manifest::sign::ProposeError;
use sutler_protocol::manifest::{Expires, KeyId, Kind, RoleName, Root, Signed, Targets};

use crate::change::{Change, ChangeError};
use crate::draft::Draft;
use crate::preset::ROOT_LIFETIME;
use crate::state::{State, named};

/// New keys for a role.
#[derive(Clone, Debug, PartialEq)]
pub struct NewKeys {
    /// The role: root, targets, snapshot, timestamp, or a delegated one.
    pub role: String,
    /// The keys that sign from now on.
    pub keys: Vec<Key>,
    /// How many of them have to; as before if absent.
    pub threshold: Option<u64>,
}

/// Why no draft was made.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// There is no such role, or nothing was published for it yet.
    #[error("sign for {role}: no such role is published")]
    NoRole {
        /// Which.
        role: String,
    },
    /// A threshold that can never be reached, or is none.
    #[error("give {role} new keys: {threshold} of {keys} different keys cannot sign")]
    Threshold {
        /// Which role.
        role: String,
        /// How many have to sign.
        threshold: u64,
        /// How many there are.
        keys: usize,
    },
    /// Control signs it by itself.
    #[error("sign {role} anew: control does, by itself and in time")]
    Online {
        /// Which.
        role: String,
    },
    /// Nobody of that name signs anything.
    #[error("remove {name}: no admin of that name signs anything")]
    NoAdmin {
        /// The name.
        name: String,
    },
    /// The root has the last version that there is, or the clock is at the end of time.
    #[error("sign a new root: there is no next one")]
    Last,
    /// A change that cannot be made.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A root that nobody would believe.
    #[error("propose the new root")]
    Propose(#[from] ProposeError),
}

/// Returns the draft that gives these roles new keys.
///
/// A role's document is in it as well where its present signatures would no longer do.
///
/// # Errors
///
/// [`RotateError`].
pub fn rotate(
    state: &State,
    mut change: Change<'_>,
    new: &[NewKeys],
    names: &BTreeMap<String, Option<KeyId>>,
    now: Timestamp,
) -> Result<Draft, RotateError> {
    let mut root: Option<Root> = None;
    for NewKeys { role, keys, threshold } in new {
        let top = [Kind::Root, Kind::Targets, Kind::Snapshot, Kind::Timestamp];
        let Some(kind) = top.into_iter().find(|kind| kind.as_str() == role) else {
            delegate_anew(state, &mut change, role, keys, *threshold)?;
            continue;
        };
        let next = root.get_or_insert_with(|| state.root.document().clone());
        let before = next.roles.get(kind.as_str()).map_or(1, |entry| entry.threshold);
        let threshold = reachable(role, keys, threshold.unwrap_or(before))?;
        next.set_keys(kind, keys, threshold);
        if kind == Kind::Targets {
            // Signed by the old keys and the new ones: it is published before the root that lists the new ones.
            change.targets()?;
        }
    }
    for (name, id) in names {
        for document in named_in(state, new, name, id.as_ref()) {
            set_name(change.document_of(&document)?, name, id.as_ref());
        }
    }
    let mut draft = change.draft()?;
    if let Some(root) = root {
        draft.set_root(next_root(root, now)?);
    }
    Ok(draft)
}

/// Returns the roles in whose documents an admin's name changes: those that delegate the roles with new keys, and for one who
/// leaves those that have the name.
fn named_in(state: &State, new: &[NewKeys], name: &str, id: Option<&KeyId>) -> BTreeSet<RoleName> {
    let mandates = state.mandates();
    let delegators = new.iter().map(|NewKeys { role, .. }| {
        let by = RoleName::delegated(role).and_then(|role| mandates.delegator(&role));
        by.unwrap_or_else(RoleName::targets)
    });
    let has = |role: &RoleName| {
        let documents = mandates.directorates().find(|(directorate, _)| *directorate == role);
        named(documents.map_or(&state.targets, |(_, document)| document)).contains_key(name)
    };
    if id.is_some() {
        return delegators.collect();
    }
    let directorates = mandates.directorates().map(|(role, _)| role.clone());
    directorates.chain([RoleName::targets()]).filter(has).collect()
}

fn set_name(document: &mut Targets, name: &str, id: Option<&KeyId>) {
    let ours = document.extra.entry("sutler").or_insert_with(|| serde_json::json!({}));
    let admins = ours.as_object_mut().map(|ours| ours.entry("admins"));
    let admins = admins.map(|entry| entry.or_insert_with(|| serde_json::json!({})));
    if let Some(Value::Object(admins)) = admins {
        match id {
            Some(id) => drop(admins.insert(name.to_owned(), id.as_str().into())),
            None => drop(admins.remove(name)),
        }
    }
}

/// Returns the draft that signs these roles anew, with the keys that they have and without a change of what they say.
///
/// # Errors
///
/// [`RotateError`].
pub fn renew(
    state: &State,
    mut change: Change<'_>,
    roles: &[String],
    now: Timestamp,
) -> Result<Draft, RotateError> {
    let mut is_root = false;
    for role in roles {
        match role.as_str() {
            "root" => is_root = true,
            "targets" => drop(change.targets()?),
            "snapshot" | "timestamp" => return Err(RotateError::Online { role: role.clone() }),
            delegated => {
                let no_role = || RotateError::NoRole { role: role.clone() };
                let name = RoleName::delegated(delegated).ok_or_else(no_role)?;
                if !state.roles.contains_key(&name) {
                    return Err(no_role());
                }
                change.renew(&name)?;
            }
        }
    }
    let mut draft = change.draft()?;
    if is_root {
        draft.set_root(next_root(state.root.document().clone(), now)?);
    }
    Ok(draft)
}

/// Returns a root as the next one, to be signed.
fn next_root(mut root: Root, now: Timestamp) -> Result<Signed<Root>, RotateError> {
    let version = root.version().next().ok_or(RotateError::Last)?;
    let expires = now.checked_add(ROOT_LIFETIME).map_err(|_| RotateError::Last)?;
    root.renew(version, Expires::at(expires));
    Ok(Signed::propose(&root)?)
}

/// Returns the new keys of every role that `name` signs for, without that admin's.
///
/// # Errors
///
/// [`RotateError::NoAdmin`], or [`RotateError::Threshold`] where too few would be left.
pub fn without(state: &State, name: &str) -> Result<Vec<NewKeys>, RotateError> {
    let no_admin = || RotateError::NoAdmin { name: name.to_owned() };
    let id = state.admins().remove(name).ok_or_else(no_admin)?;
    let mut new = Vec::new();
    let rest = |role: &str, ids: &[KeyId], listed: &BTreeMap<KeyId, Key>, threshold| {
        let left = ids.iter().filter(|other| **other != id);
        let keys: Vec<Key> = left.filter_map(|id| listed.get(id).cloned()).collect();
        reachable(role, &keys, threshold)?;
        Ok::<_, RotateError>(NewKeys { role: role.to_owned(), keys, threshold: Some(threshold) })
    };
    for (role, entry) in &state.root.roles {
        if entry.keyids.contains(&id) {
            new.push(rest(role, &entry.keyids, &state.root.keys, entry.threshold)?);
        }
    }
    for mandate in state.mandates().all() {
        let one = mandate.delegation();
        if one.keyids.contains(&id) {
            new.push(rest(one.name.as_str(), &one.keyids, mandate.listed(), one.threshold)?);
        }
    }
    if new.is_empty() { Err(no_admin()) } else { Ok(new) }
}

fn delegate_anew(
    state: &State,
    change: &mut Change<'_>,
    role: &str,
    keys: &[Key],
    threshold: Option<u64>,
) -> Result<(), RotateError> {
    let no_role = || RotateError::NoRole { role: role.to_owned() };
    let name = RoleName::delegated(role).ok_or_else(no_role)?;
    let old = state.mandates().of(&name).ok_or_else(no_role)?.delegation();
    let threshold = reachable(role, keys, threshold.unwrap_or(old.threshold))?;
    let paths = old.paths.clone().unwrap_or_default();
    let mut new = sutler_protocol::manifest::Delegation::new(name.clone(), keys, threshold, paths);
    (new.terminating, new.extra) = (old.terminating, old.extra.clone());
    change.delegator(&name)?.delegate(new, keys);
    if state.roles.contains_key(&name) || state.unvouched.contains_key(&name) {
        change.renew(&name)?;
    }
    Ok(())
}

fn reachable(role: &str, keys: &[Key], threshold: u64) -> Result<u64, RotateError> {
    let different: std::collections::BTreeSet<KeyId> = keys.iter().map(Key::id).collect();
    let keys = different.len();
    if threshold == 0 || threshold > keys as u64 {
        return Err(RotateError::Threshold { role: role.to_owned(), threshold, keys });
    }
    Ok(threshold)
}
