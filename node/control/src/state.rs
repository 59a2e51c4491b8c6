//! What a repository says now: every document that its timestamp leads to, and the order files they name.
//!
//! Always true: each document in here is vouched for by the keys that delegate to it, whatever the time is. One that
//! is not, because its signers were replaced, stands apart until the rest of them sign it anew.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use sutler_orders::mandate::Mandates;
use sutler_protocol::manifest::{
    Believed, KeyId, RoleKeys, RoleName, Root, Snapshot, TargetPath, Targets, Timestamp, Version,
};

/// What a repository says now.
#[derive(Clone, Debug)]
pub struct State {
    /// Which keys are whose.
    pub root: Believed<Root>,
    /// Who else may name files.
    pub targets: Believed<Targets>,
    /// Which versions belong together.
    pub snapshot: Believed<Snapshot>,
    /// Which snapshot is the newest.
    pub timestamp: Believed<Timestamp>,
    /// The delegated roles.
    pub roles: BTreeMap<RoleName, Believed<Targets>>,
    /// Delegated roles whose present keys do not vouch for their documents, with the versions of these.
    pub unvouched: BTreeMap<RoleName, Version>,
    /// Every file that is named and is no content: the order files.
    pub orders: BTreeMap<TargetPath, Bytes>,
}

impl State {
    /// Returns the version that a role's next document has.
    pub fn next_version(&self, role: &RoleName) -> Option<Version> {
        let now = if *role == RoleName::targets() {
            Some(self.targets.version())
        } else {
            let known = self.roles.get(role).map(|document| document.version());
            known.or_else(|| self.unvouched.get(role).copied())
        };
        now.map_or(Some(Version::FIRST), Version::next)
    }

    /// Returns whose keys decide for which scope.
    pub fn mandates(&self) -> Mandates<'_> {
        // What is in `roles` is vouched for by the keys that its delegation has now.
        Mandates::new(&self.targets, |role, _| self.roles.get(role).map(Believed::document))
    }

    /// Returns who signs for a delegated role, if there is a delegation to it.
    pub fn keys_of(&self, role: &RoleName) -> Option<RoleKeys> {
        self.mandates().of(role).map(|mandate| mandate.keys())
    }

    /// Returns the ids of the admins' keys by their names: those that the targets name, and those that directorates do. A
    /// directorate gives nobody a name or key of another.
    pub fn admins(&self) -> BTreeMap<String, KeyId> {
        let mut admins = named(&self.targets);
        for (_, document) in self.mandates().directorates() {
            for (name, id) in named(document) {
                let is_taken = admins.iter().any(|(other, held)| *other == name || *held == id);
                if !is_taken {
                    admins.insert(name, id);
                }
            }
        }
        admins
    }

    /// Returns the public keys of the admins whom the targets name: who may make tokens. One that is of another kind than ed25519, or listed nowhere, is left out.
    pub fn admin_keys(&self) -> Vec<[u8; 32]> {
        let delegated = self.targets.delegations.as_ref().map(|delegations| &delegations.keys);
        let key = |id: &KeyId| {
            let listed = self.root.keys.get(id);
            listed.or_else(|| delegated?.get(id))?.as_ed25519()
        };
        named(&self.targets).values().filter_map(key).collect()
    }

    /// Returns the contents that are published, with their paths and roles.
    pub fn contents(
        &self,
    ) -> impl Iterator<Item = (TargetPath, &sutler_protocol::manifest::TargetFile)> {
        let roles = self.roles.iter().filter(|(role, _)| role.as_str().starts_with("content-"));
        roles.flat_map(|(_, document)| document.document().files())
    }
}

/// Returns the ids of keys by the names that a document gives their holders.
pub(crate) fn named(document: &Targets) -> BTreeMap<String, KeyId> {
    let ours = document.extra.get("sutler");
    let admins = ours.and_then(|ours| ours.get("admins")).and_then(Value::as_object);
    let named = admins.into_iter().flatten();
    named.filter_map(|(name, id)| Some((name.clone(), KeyId::from(id.as_str()?)))).collect()
}

/// Returns whether a path is a content's.
pub(crate) fn is_content(path: &TargetPath) -> bool {
    path.as_str().starts_with("content/")
}
