//! What a repository says now: every document that its timestamp leads to, and the order files they name.
//!
//! Always true: each document in here is vouched for by the keys that delegate to it, whatever the time is. One that
//! is not, because its signers were replaced, stands apart until the rest of them sign it anew.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use sutler_protocol::manifest::{
    Believed, Delegation, KeyId, RoleKeys, RoleName, Root, Snapshot, TargetPath, Targets,
    Timestamp, Version,
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

    /// Returns the delegation to a role, if there is one.
    pub fn delegation(&self, role: &RoleName) -> Option<&Delegation> {
        delegation(&self.targets, role)
    }

    /// Returns who signs for a delegated role, if there is a delegation to it.
    pub fn keys_of(&self, role: &RoleName) -> Option<RoleKeys> {
        self.targets.delegations.as_ref()?.keys_of(role)
    }

    /// Returns the ids of the admins' keys by their names, as the targets have them.
    pub fn admins(&self) -> BTreeMap<String, KeyId> {
        let ours = self.targets.document().extra.get("sutler");
        let admins = ours.and_then(|ours| ours.get("admins")).and_then(Value::as_object);
        let named = admins.into_iter().flatten();
        named.filter_map(|(name, id)| Some((name.clone(), KeyId::from(id.as_str()?)))).collect()
    }

    /// Returns the admins' public keys. One that is of another kind than ed25519, or listed nowhere, is left out.
    pub fn admin_keys(&self) -> Vec<[u8; 32]> {
        let delegated = self.targets.delegations.as_ref().map(|delegations| &delegations.keys);
        let key = |id: &KeyId| {
            let listed = self.root.keys.get(id);
            listed.or_else(|| delegated?.get(id))?.as_ed25519()
        };
        self.admins().values().filter_map(key).collect()
    }

    /// Returns the contents that are published, with their paths and roles.
    pub fn contents(
        &self,
    ) -> impl Iterator<Item = (TargetPath, &sutler_protocol::manifest::TargetFile)> {
        let roles = self.roles.iter().filter(|(role, _)| role.as_str().starts_with("content-"));
        roles.flat_map(|(_, document)| document.document().files())
    }
}

/// Returns the delegation that `targets` have to a role.
pub(crate) fn delegation<'a>(targets: &'a Targets, role: &RoleName) -> Option<&'a Delegation> {
    targets.delegations.as_ref()?.to(role)
}

/// Returns whether a path is a content's.
pub(crate) fn is_content(path: &TargetPath) -> bool {
    path.as_str().starts_with("content/")
}
