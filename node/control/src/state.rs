//! What a repository says now: every document that its timestamp leads to, and the order files they name.
//!
//! Always true: each document in here is vouched for by the keys that delegate to it, whatever the time is. One that
//! is not, because its signers were replaced, stands apart until the rest of them sign it anew.

use std::collections::BTreeMap;

use bytes::Bytes;
use sutler_protocol::manifest::{
    Believed, Delegation, RoleKeys, RoleName, Root, Snapshot, TargetPath, Targets, Timestamp,
    Version,
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
