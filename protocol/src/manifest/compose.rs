//! Making documents: what an admin's keys and control's keys sign.
//!
//! A document is made here, or one that was believed is cloned and changed; either way it is of the very
//! types that are read, so that a field has one definition. [`super::Signed::propose`] turns it into what
//! is signed.
//!
//! Always true: what nobody here knows of a document stays in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::delegation::{Delegation, Delegations};
use super::digest::Digests;
use super::document::RoleEntry;
use super::document::{
    Expires, Kind, Pin, Root, SNAPSHOT_FILE, Snapshot, TargetFile, Targets, Timestamp, Version,
};
use super::json;
use super::key::{Key, KeyId, KeyValue};
use super::name::{RoleName, TargetPath};

/// The specification that new documents name: the one whose rules are followed.
const SPEC_VERSION: &str = "1.0.31";

/// Returns the ids of `keys`, each once.
fn ids(keys: &[Key]) -> Vec<KeyId> {
    let mut seen = BTreeSet::new();
    keys.iter().map(Key::id).filter(|id| seen.insert(id.clone())).collect()
}

impl Key {
    /// Returns an ed25519 key as a document lists it.
    pub fn ed25519(public: &[u8; 32]) -> Self {
        let public = Some(super::digest::hex(public));
        Self {
            keytype: "ed25519".to_owned(),
            scheme: "ed25519".to_owned(),
            keyval: KeyValue { public, extra: Map::new() },
            extra: Map::new(),
        }
    }

    /// Returns the public key, if it is an ed25519 key.
    pub fn as_ed25519(&self) -> Option<[u8; 32]> {
        let is_one = self.keytype == "ed25519" && self.scheme == "ed25519";
        let public = self.keyval.public.as_deref().filter(|_| is_one)?;
        super::digest::unhex(public)?.try_into().ok()
    }

    /// Returns the id that the specification has for it: the SHA-256 of its canonical form (4.2).
    pub fn id(&self) -> KeyId {
        let value = serde_json::to_value(self).expect("text and JSON are JSON");
        // A number that is no integer, in a field that nobody knows: a name like any other.
        let form = json::canonical(&value).unwrap_or_else(|_| value.to_string().into_bytes());
        KeyId::from(super::digest::hex(&super::digest::sha256(&form)).as_str())
    }
}

impl Root {
    /// Returns a root that lists nobody yet.
    pub fn new(version: Version, expires: Expires) -> Self {
        Self {
            kind: Kind::Root.as_str().to_owned(),
            spec_version: SPEC_VERSION.to_owned(),
            version,
            expires,
            consistent_snapshot: true,
            keys: BTreeMap::new(),
            roles: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// Has `threshold` of `keys` sign for a top-level role, and nobody else. Keys that no role names any more are
    /// left out.
    pub fn set_keys(&mut self, kind: Kind, keys: &[Key], threshold: u64) {
        self.keys.extend(keys.iter().map(|key| (key.id(), key.clone())));
        let extra = self.roles.remove(kind.as_str()).map(|entry| entry.extra).unwrap_or_default();
        let entry = RoleEntry { keyids: ids(keys), threshold, extra };
        self.roles.insert(kind.as_str().to_owned(), entry);
        let named: BTreeSet<&KeyId> = self.roles.values().flat_map(|entry| &entry.keyids).collect();
        self.keys.retain(|id, _| named.contains(id));
    }
}

impl Targets {
    /// Returns a role that names no file and delegates to nobody.
    pub fn new(version: Version, expires: Expires) -> Self {
        Self {
            kind: Kind::Targets.as_str().to_owned(),
            spec_version: SPEC_VERSION.to_owned(),
            version,
            expires,
            files: BTreeMap::new(),
            delegations: None,
            extra: Map::new(),
        }
    }

    /// Names a file, in place of one that had the path.
    pub fn set_file(&mut self, path: &TargetPath, file: TargetFile) {
        self.files.insert(path.as_str().to_owned(), file);
    }

    /// Names a file no longer, and returns what was said of it.
    pub fn remove_file(&mut self, path: &TargetPath) -> Option<TargetFile> {
        self.files.remove(path.as_str())
    }

    /// Delegates to a role, in place of a delegation to one of its name, else behind all others.
    pub fn delegate(&mut self, delegation: Delegation, keys: &[Key]) {
        let delegations = self.delegations.get_or_insert_with(|| Delegations {
            keys: BTreeMap::new(),
            roles: None,
            succinct_roles: None,
            extra: Map::new(),
        });
        delegations.keys.extend(keys.iter().map(|key| (key.id(), key.clone())));
        let roles = delegations.roles.get_or_insert_default();
        match roles.iter_mut().find(|one| one.name == delegation.name) {
            Some(one) => *one = delegation,
            None => roles.push(delegation),
        }
        delegations.prune();
    }
}

impl Delegations {
    /// Leaves out keys that no delegation names.
    fn prune(&mut self) {
        let bins = self.succinct_roles.iter().flat_map(|bins| &bins.keyids);
        let roles = self.roles.iter().flatten().flat_map(|one| &one.keyids);
        let named: BTreeSet<&KeyId> = bins.chain(roles).collect();
        self.keys.retain(|id, _| named.contains(id));
    }
}

impl Delegation {
    /// Returns a terminating delegation of paths to a role, which `threshold` of `keys` sign for.
    pub fn new(name: RoleName, keys: &[Key], threshold: u64, paths: Vec<String>) -> Self {
        Self {
            name,
            keyids: ids(keys),
            threshold,
            terminating: true,
            paths: Some(paths),
            path_hash_prefixes: None,
            extra: Map::new(),
        }
    }
}

impl Snapshot {
    /// Returns a snapshot that pins nothing yet.
    pub fn new(version: Version, expires: Expires) -> Self {
        Self {
            kind: Kind::Snapshot.as_str().to_owned(),
            spec_version: SPEC_VERSION.to_owned(),
            version,
            expires,
            meta: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// Pins a role, in place of what was pinned of it.
    pub fn set_pin(&mut self, role: &RoleName, pin: Pin) {
        self.meta.insert(role.file(), pin);
    }
}

impl Timestamp {
    /// Returns a timestamp that pins a snapshot, and says when it was signed.
    pub fn new(version: Version, issued: Expires, expires: Expires, snapshot: Pin) -> Self {
        Self {
            kind: Kind::Timestamp.as_str().to_owned(),
            spec_version: SPEC_VERSION.to_owned(),
            version,
            expires,
            meta: BTreeMap::from([(SNAPSHOT_FILE.to_owned(), snapshot)]),
            issued: Some(issued),
            extra: Map::new(),
        }
    }
}

impl Pin {
    /// Returns the pin of a document: its version, length and SHA-256.
    pub fn of(version: Version, document: &[u8]) -> Self {
        let (length, hashes) = (Some(document.len() as u64), Some(Digests::of(document)));
        Self { version, length, hashes, extra: Map::new() }
    }
}

impl TargetFile {
    /// Returns what is said of a file with these bytes: length and SHA-256.
    pub fn of(bytes: &[u8]) -> Self {
        Self::new(bytes.len() as u64, Digests::of(bytes), None)
    }

    /// Returns what is said of a file that is not at hand.
    pub fn new(length: u64, hashes: Digests, custom: Option<Value>) -> Self {
        Self { length, hashes, custom, extra: Map::new() }
    }
}

macro_rules! renewed {
    ($($document:ident)*) => { $(
        impl $document {
            /// Makes it the document of another version, which expires at another instant.
            pub fn renew(&mut self, version: Version, expires: Expires) {
                (self.version, self.expires) = (version, expires);
            }
        }
    )* };
}

renewed!(Root Timestamp Snapshot Targets);
