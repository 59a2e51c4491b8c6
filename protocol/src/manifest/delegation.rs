//! Who else may name files: delegations by path, by a prefix of the path's hash, and to bins.
//!
//! Always true: a delegation gives its role the paths that it says and no other, and the keys that it
//! lists, not those that another delegation of a role of that name lists.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bounds::BIN_BITS_MAX;
use super::digest::{hex, sha256};
use super::document::{RuleError, at_least_one};
use super::key::{Key, KeyId, RoleKeys};
use super::name::{RoleName, TargetPath};
use super::pattern;

/// Everybody that one role delegates to, in the order of their priority.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delegations {
    /// Every key that a delegation names.
    pub keys: BTreeMap<KeyId, Key>,
    /// The delegations, the first that matches first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<Delegation>>,
    /// Instead of them: bins that share their keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succinct_roles: Option<SuccinctRoles>,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One delegation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delegation {
    /// Whom it is to.
    pub name: RoleName,
    /// The ids of the keys that sign for it.
    pub keyids: Vec<KeyId>,
    /// How many different keys have to sign; at least 1.
    #[serde(deserialize_with = "at_least_one")]
    pub threshold: u64,
    /// Whether a path that matches is never looked for behind this delegation.
    pub terminating: bool,
    /// Shell-style patterns of the paths it is for, or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// what the SHA-256 of those paths begins with, in hex digits. One of the two is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash_prefixes: Option<Vec<String>>,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Bins by the first bits of a path's SHA-256, each a role of its own with the same keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuccinctRoles {
    /// The ids of the keys that sign for every bin.
    pub keyids: Vec<KeyId>,
    /// How many different keys have to sign; at least 1.
    #[serde(deserialize_with = "at_least_one")]
    pub threshold: u64,
    /// How many bits number the bins, 1 to 32: there are two to the power of it.
    pub bit_length: u32,
    /// What the bins' names begin with.
    pub name_prefix: String,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A role that a path is delegated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegated {
    /// Its name.
    pub role: RoleName,
    /// Who signs for it, as this delegation says.
    pub keys: RoleKeys,
    /// Whether nobody behind it is asked for the path.
    pub is_terminating: bool,
}

impl Delegations {
    /// Returns the roles that `path` is delegated to, the first to be asked first. Behind one that
    /// terminates there is none.
    pub fn of(&self, path: &TargetPath) -> Vec<Delegated> {
        if let Some(bins) = &self.succinct_roles {
            let Some(role) = bins.bin(path) else { return Vec::new() };
            let keys = RoleKeys::new(&self.keys, &bins.keyids, bins.threshold);
            return vec![Delegated { role, keys, is_terminating: true }];
        }
        let mut delegated = Vec::new();
        for delegation in self.roles.iter().flatten().filter(|one| one.is_for(path)) {
            delegated.push(self.delegated(delegation));
            if delegation.terminating {
                break;
            }
        }
        delegated
    }

    /// Returns the delegation to `role`, if there is one by path or hash.
    pub fn to(&self, role: &RoleName) -> Option<&Delegation> {
        self.roles.iter().flatten().find(|one| one.name == *role)
    }

    /// Returns who signs for `role`, if there is a delegation to it by path or hash.
    pub fn keys_of(&self, role: &RoleName) -> Option<RoleKeys> {
        let delegation = self.to(role)?;
        Some(RoleKeys::new(&self.keys, &delegation.keyids, delegation.threshold))
    }

    /// Returns every role that is named here, in the order of their priority. Bins have no names until a
    /// path leads to one.
    pub fn all(&self) -> Vec<Delegated> {
        self.roles.iter().flatten().map(|delegation| self.delegated(delegation)).collect()
    }

    fn delegated(&self, delegation: &Delegation) -> Delegated {
        Delegated {
            role: delegation.name.clone(),
            keys: RoleKeys::new(&self.keys, &delegation.keyids, delegation.threshold),
            is_terminating: delegation.terminating,
        }
    }

    /// Checks that they mean one thing.
    pub(super) fn rules(&self) -> Result<(), RuleError> {
        let refuse = |fault: String| Err(RuleError::Delegations { fault });
        if let Some(bins) = &self.succinct_roles {
            if self.roles.is_some() {
                return refuse("both roles and succinct_roles are there".to_owned());
            }
            if !(1..=BIN_BITS_MAX).contains(&bins.bit_length) {
                return refuse(format!("bit_length is {}, not 1 to 32", bins.bit_length));
            }
        }
        let mut names = BTreeSet::new();
        for delegation in self.roles.iter().flatten() {
            let name = &delegation.name;
            if !names.insert(name) {
                return refuse(format!("the role {name} is there twice"));
            }
            if delegation.paths.is_some() == delegation.path_hash_prefixes.is_some() {
                return refuse(format!("{name} has not one of paths and path_hash_prefixes"));
            }
        }
        Ok(())
    }
}

impl Delegation {
    /// Returns whether the delegation gives `path` to its role.
    pub fn is_for(&self, path: &TargetPath) -> bool {
        if let Some(prefixes) = &self.path_hash_prefixes {
            let hash = hex(&sha256(path.as_str().as_bytes()));
            return prefixes.iter().any(|prefix| hash.starts_with(&prefix.to_ascii_lowercase()));
        }
        self.paths.iter().flatten().any(|pattern| pattern::matches(pattern, path.as_str()))
    }
}

impl SuccinctRoles {
    /// Returns the bin that `path` belongs to, or `None` if the bins' names are no names of roles.
    pub fn bin(&self, path: &TargetPath) -> Option<RoleName> {
        let hash = sha256(path.as_str().as_bytes());
        let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        let shift = BIN_BITS_MAX.checked_sub(self.bit_length)?;
        let number = u64::from(first) >> shift;
        let width = self.bit_length.div_ceil(4) as usize;
        RoleName::delegated(&format!("{}-{number:0width$x}", self.name_prefix))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn delegations(roles: &Value) -> Delegations {
        serde_json::from_value(json!({ "keys": {}, "roles": roles })).unwrap()
    }

    fn names(delegations: &Delegations, path: &str) -> Vec<String> {
        let found = delegations.of(&TargetPath::from(path));
        found.iter().map(|delegated| delegated.role.to_string()).collect()
    }

    fn role(name: &str, more: &Value) -> Value {
        let mut role = json!({ "name": name, "keyids": [], "threshold": 1, "terminating": false });
        let (role_map, more) = (role.as_object_mut().unwrap(), more.as_object().unwrap());
        role_map.extend(more.clone());
        role
    }

    #[test]
    fn delegations_are_asked_in_order_until_one_terminates() {
        let delegations = delegations(&json!([
            role("a", &json!({ "paths": ["x/*"] })),
            role("b", &json!({ "paths": ["y/*", "*/1"], "terminating": true })),
            role("c", &json!({ "paths": ["*/*"] })),
        ]));
        assert_eq!(names(&delegations, "x/1"), ["a", "b"]);
        assert_eq!(names(&delegations, "x/2"), ["a", "c"]);
        assert_eq!(names(&delegations, "y/2"), ["b"]);
        assert!(names(&delegations, "z").is_empty());
    }

    #[test]
    fn hash_prefixes_are_of_the_paths_sha_256() {
        // sha256("file1.txt") begins with 55ae75.
        let delegations = delegations(&json!([
            role("low", &json!({ "path_hash_prefixes": ["0", "1", "54"] })),
            role("high", &json!({ "path_hash_prefixes": ["9", "55AE"] })),
        ]));
        assert_eq!(names(&delegations, "file1.txt"), ["high"]);
    }

    #[test]
    fn a_bin_is_numbered_by_the_first_bits_of_the_hash() {
        for (bits, bin) in [(1, "bin-0"), (5, "bin-0a"), (8, "bin-55"), (32, "bin-55ae75d9")] {
            let bins: SuccinctRoles = serde_json::from_value(json!({
                "keyids": [], "threshold": 1, "bit_length": bits, "name_prefix": "bin",
            }))
            .unwrap();
            assert_eq!(bins.bin(&TargetPath::from("file1.txt")).unwrap().as_str(), bin);
        }
    }

    #[test]
    fn delegations_that_mean_two_things_are_refused() {
        let twice = json!([role("a", &json!({ "paths": [] })), role("a", &json!({ "paths": [] }))]);
        let both = json!([role("a", &json!({ "paths": [], "path_hash_prefixes": [] }))]);
        for (roles, rule) in [
            (twice, "the role a is there twice"),
            (both, "a has not one of paths"),
            (json!([role("a", &json!({}))]), "a has not one of paths"),
        ] {
            let error = delegations(&roles).rules().unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
        }
        for (bits, is_fine) in [(0, false), (1, true), (32, true), (33, false)] {
            let bins: Delegations = serde_json::from_value(json!({ "keys": {}, "succinct_roles": {
                "keyids": [], "threshold": 1, "bit_length": bits, "name_prefix": "bin",
            }}))
            .unwrap();
            assert_eq!(bins.rules().is_ok(), is_fine, "{bits}");
        }
        let root = json!({ "keys": {}, "roles": [role("root", &json!({ "paths": ["*"] }))] });
        assert!(serde_json::from_value::<Delegations>(root).is_err());
    }
}
