//! Whose keys decide for a scope, and whom it reaches: the delegations on the way from the top-level targets to a role.
//!
//! The targets delegate each role of orders themselves, or leave a scope to its directorate: they delegate `staff-SCOPE`, whose
//! document names no file and delegates `approvals-SCOPE` and `schedules-SCOPE`. So a directorate changes who signs for
//! its devices, and the keys of the root are not needed for it.
//!
//! Always true: nothing else counts that a delegated role delegates; and a scope reaches no device that a
//! delegation on its way leaves out, whatever the next one says (T12).

use std::collections::BTreeMap;

use sutler_protocol::manifest::key::{Key, KeyId};
use sutler_protocol::manifest::{
    Delegation, Delegations, Expires, RoleKeys, RoleName, TargetPath, Targets,
};
use sutler_protocol::name::Label;

use crate::audience::{Audience, Reached};
use crate::order::OrderError;

/// What the name of a role begins with that says who signs for a scope.
const STAFF: &str = "staff-";

/// The two roles that sign for a scope, each with its name before the scope's.
const SIGNERS: [&str; 2] = ["approvals", "schedules"];

/// Everybody's mandate in one manifest.
#[derive(Clone, Debug)]
pub struct Mandates<'a> {
    targets: &'a Targets,
    staff: BTreeMap<RoleName, &'a Targets>,
}

/// How a role comes to sign: the delegation to it, and the one above if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Mandate<'a> {
    by: &'a Targets,
    delegations: &'a Delegations,
    delegation: &'a Delegation,
    /// The targets' delegation to the directorate.
    above: Option<&'a Delegation>,
}

/// Why a directorate's document is none. Devices and control would act on part of it, or nobody could sign.
#[derive(Debug, thiserror::Error)]
pub enum StaffError {
    /// It names a file.
    #[error(
        "its field targets names {path}: a directorate says who signs, and names no file itself"
    )]
    File {
        /// Which.
        path: TargetPath,
    },
    /// It delegates something else, or to bins.
    #[error("its field delegations names {found}: a directorate delegates {expected} alone")]
    Foreign {
        /// What it names.
        found: String,
        /// What it may name.
        expected: String,
    },
    /// A role of the scope that nobody would sign for any more.
    #[error("its field delegations lacks {role}")]
    Lacks {
        /// Which.
        role: RoleName,
    },
    /// Other paths than the role's.
    #[error("the paths of its delegation of {role} are not {expected:?} alone")]
    Paths {
        /// Which role.
        role: RoleName,
        /// What they have to be.
        expected: String,
    },
    /// More signatures than there are keys.
    #[error("its delegation of {role} has threshold {threshold}, and {keys} different keys")]
    Threshold {
        /// Which role.
        role: RoleName,
        /// How many have to sign.
        threshold: u64,
        /// How many can.
        keys: usize,
    },
    /// Whom it reaches cannot be read.
    #[error("its delegation of {role} says whom it reaches")]
    Audience {
        /// Which role.
        role: RoleName,
        /// What was wrong with it.
        source: OrderError,
    },
}

/// Returns the name of the role that says who signs for a scope.
pub fn staff(scope: &Label) -> RoleName {
    role(STAFF.trim_end_matches('-'), scope)
}

/// Returns the scope whose signers a role names, if it is a directorate's.
pub fn directorate(role: &RoleName) -> Option<Label> {
    role.as_str().strip_prefix(STAFF)?.parse().ok()
}

/// Returns the two roles that sign for a scope, with the only path that each is for.
pub fn signers(scope: &Label) -> [(RoleName, String); 2] {
    SIGNERS.map(|name| (role(name, scope), format!("{name}/{scope}/*")))
}

/// Checks what a directorate's document says, which its own keys have signed.
///
/// # Errors
///
/// [`StaffError`], naming the field and the rule.
pub fn check_staff(scope: &Label, document: &Targets) -> Result<(), StaffError> {
    if let Some((path, _)) = document.files().next() {
        return Err(StaffError::File { path });
    }
    let signers = signers(scope);
    let foreign = |found: String| {
        let expected = signers.iter().map(|(role, _)| role.to_string()).collect::<Vec<_>>();
        StaffError::Foreign { found, expected: expected.join(" and ") }
    };
    let delegations = document.delegations.as_ref();
    if delegations.is_some_and(|all| all.succinct_roles.is_some()) {
        return Err(foreign("succinct_roles".to_owned()));
    }
    let listed = delegations.into_iter().flat_map(|all| all.roles.iter().flatten());
    for one in listed.clone() {
        if signers.iter().all(|(role, _)| *role != one.name) {
            return Err(foreign(one.name.to_string()));
        }
    }
    for (role, expected) in &signers {
        let lacks = || StaffError::Lacks { role: role.clone() };
        let one = listed.clone().find(|one| one.name == *role).ok_or_else(lacks)?;
        let role = || role.clone();
        if one.paths.as_deref() != Some(std::slice::from_ref(expected)) {
            return Err(StaffError::Paths { role: role(), expected: expected.clone() });
        }
        Audience::of_delegation(one)
            .map_err(|source| StaffError::Audience { role: role(), source })?;
        let known = &delegations.expect("one of them was found").keys;
        let keys = RoleKeys::new(known, &one.keyids, one.threshold).different();
        if one.threshold > keys as u64 {
            return Err(StaffError::Threshold { role: role(), threshold: one.threshold, keys });
        }
    }
    Ok(())
}

impl<'a> Mandates<'a> {
    /// Reads the mandates that `targets` give. `staff` returns the document of a directorate's role, if it is believed with these
    /// keys.
    pub fn new(
        targets: &'a Targets,
        mut staff: impl FnMut(&RoleName, &RoleKeys) -> Option<&'a Targets>,
    ) -> Self {
        let mut directorates = BTreeMap::new();
        if let Some(delegations) = &targets.delegations {
            let roles = delegations.roles.iter().flatten();
            // Keys are read of these alone: there may be hundreds of others, and this is asked often.
            for one in roles.filter(|one| directorate(&one.name).is_some()) {
                let keys = RoleKeys::new(&delegations.keys, &one.keyids, one.threshold);
                let document = staff(&one.name, &keys);
                directorates.extend(document.map(|document| (one.name.clone(), document)));
            }
        }
        Self { targets, staff: directorates }
    }

    /// Returns how a role comes to sign, if it does.
    pub fn of(&self, role: &RoleName) -> Option<Mandate<'a>> {
        let top = self.targets.delegations.as_ref()?;
        if let Some(delegation) = top.to(role) {
            return Some(Mandate { by: self.targets, delegations: top, delegation, above: None });
        }
        let (_, scope) = role.as_str().split_once('-')?;
        let scope: Label = scope.parse().ok()?;
        signers(&scope).iter().find(|(signer, _)| signer == role)?;
        let above = staff(&scope);
        let by = *self.staff.get(&above)?;
        let delegations = by.delegations.as_ref()?;
        let delegation = delegations.to(role)?;
        Some(Mandate { by, delegations, delegation, above: Some(top.to(&above)?) })
    }

    /// Returns the role in whose document the delegation to `role` is.
    pub fn delegator(&self, role: &RoleName) -> Option<RoleName> {
        let mandate = self.of(role)?;
        Some(mandate.above.map_or_else(RoleName::targets, |above| above.name.clone()))
    }

    /// Returns the scopes in the order in which the targets name them, each with how its approvals come to be signed: `None`
    /// where the directorate that it was left to is not believed.
    pub fn scopes(&self) -> Vec<(Label, Option<Mandate<'a>>)> {
        let mut scopes: Vec<(Label, Option<Mandate<'a>>)> = Vec::new();
        let delegations = self.targets.delegations.as_ref();
        for one in delegations.into_iter().flat_map(|all| all.roles.iter().flatten()) {
            let direct = || one.name.as_str().strip_prefix("approvals-")?.parse().ok();
            let Some(scope) = directorate(&one.name).or_else(direct) else { continue };
            if scopes.iter().all(|(known, _)| *known != scope) {
                let [(approvals, _), _] = signers(&scope);
                let mandate = self.of(&approvals);
                scopes.push((scope, mandate));
            }
        }
        scopes
    }

    /// Returns every mandate there is: those that the targets give, and those of the directorates.
    pub fn all(&self) -> Vec<Mandate<'a>> {
        let documents = std::iter::once(&self.targets).chain(self.staff.values());
        let listed = documents.filter_map(|document| document.delegations.as_ref());
        let roles = listed.flat_map(|all| all.roles.iter().flatten());
        let mut seen = std::collections::BTreeSet::new();
        roles.filter(|one| seen.insert(&one.name)).filter_map(|one| self.of(&one.name)).collect()
    }

    /// Returns the directorates that are believed, with their documents.
    pub fn directorates(&self) -> impl Iterator<Item = (&RoleName, &'a Targets)> {
        self.staff.iter().map(|(role, document)| (role, *document))
    }
}

impl<'a> Mandate<'a> {
    /// Returns the role that has it.
    pub fn role(&self) -> &'a RoleName {
        &self.delegation.name
    }

    /// Returns the delegation to the role.
    pub fn delegation(&self) -> &'a Delegation {
        self.delegation
    }

    /// Returns who signs for the role.
    pub fn keys(&self) -> RoleKeys {
        RoleKeys::new(self.listed(), &self.delegation.keyids, self.delegation.threshold)
    }

    /// Returns every key that the delegating document lists.
    pub fn listed(&self) -> &'a BTreeMap<KeyId, Key> {
        &self.delegations.keys
    }

    /// Returns whether the role may name `path`.
    pub fn is_for(&self, path: &TargetPath) -> bool {
        self.delegation.is_for(path) && self.above.is_none_or(|above| above.is_for(path))
    }

    /// Returns the devices that the role reaches.
    ///
    /// # Errors
    ///
    /// [`OrderError`] if a delegation on the way cannot be read. Such a role reaches nobody.
    pub fn reaches(&self) -> Result<Reached, OrderError> {
        let above = self.above.map(Audience::of_delegation).transpose()?;
        let own = Audience::of_delegation(self.delegation)?;
        Ok(above.into_iter().chain([own]).collect())
    }

    /// Returns when the document expires that gives the mandate; the targets expire by themselves.
    pub fn expires(&self) -> Option<Expires> {
        self.above.map(|_| self.by.expires())
    }
}

fn role(name: &str, scope: &Label) -> RoleName {
    RoleName::delegated(&format!("{name}-{scope}")).expect("no top-level role has a dash")
}
