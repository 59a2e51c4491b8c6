//! What a device believes of the manifest, and why a document is not added to it.
//!
//! Always true: a document is in here only if the keys of its role, as the root in here lists them,
//! have signed it. Documents that have expired stay: their versions are what a replayed older one is
//! told by.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::digest::MismatchError;
use super::document::{Expires, Kind, Pin, Root, Snapshot, Targets, Timestamp, Version};
use super::key::RoleKeys;
use super::name::RoleName;
use super::signed::{Believed, Document, ParseError, Signed, VerifyError};

/// Bytes of delegated roles that are held for the next search; beyond it they are read again.
const DELEGATED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a device believes.
#[derive(Clone, Debug)]
pub struct Trusted {
    pub(super) root: Believed<Root>,
    pub(super) timestamp: Option<Believed<Timestamp>>,
    pub(super) snapshot: Option<Believed<Snapshot>>,
    pub(super) targets: Option<Believed<Targets>>,
    /// Versions that were believed and whose documents are lost.
    pub(super) floors: BTreeMap<RoleName, Version>,
    /// Top-level documents that the root vouches for no longer: their versions bind nobody.
    pub(super) unvouched: Vec<RoleName>,
    delegated: BTreeMap<RoleName, Held>,
}

/// What a device has kept: top-level documents as they came, and versions below which none is believed.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The root that was believed last, or that an admin handed over.
    pub root: Bytes,
    /// The timestamp, if there ever was one.
    pub timestamp: Option<Bytes>,
    /// The snapshot, if there ever was one.
    pub snapshot: Option<Bytes>,
    /// The top-level targets, if there ever were any.
    pub targets: Option<Bytes>,
    /// For documents that were lost: the version that they had.
    pub floors: BTreeMap<RoleName, Version>,
}

/// A document that is not believed, and nothing that was believed before is lost by it.
#[derive(Debug, thiserror::Error)]
#[error("refuse the manifest's {role}")]
pub struct Refusal {
    /// Whose document it is.
    pub role: RoleName,
    /// Why.
    #[source]
    pub fault: Fault,
}

/// Why a document is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The repository does not have it.
    #[error("the repository does not have it")]
    Absent,
    /// It is longer than it may be.
    #[error("it has more than the {bytes_max} bytes that it may have")]
    TooLong {
        /// The most that it may have.
        bytes_max: u64,
    },
    /// It is not the bytes that the document before it pins.
    #[error("compare it with what pins it")]
    Mismatch(#[source] MismatchError),
    /// It is no document at all.
    #[error("split it into what is signed and by whom")]
    Parse(#[source] ParseError),
    /// Its role's keys do not vouch for it, or it breaks a rule.
    #[error("verify it")]
    Verify(#[source] VerifyError),
    /// It is not the version that was asked for.
    #[error("its field version is {found} instead of {expected}")]
    WrongVersion {
        /// The version that was asked for.
        expected: Version,
        /// What it says.
        found: Version,
    },
    /// A newer one was believed before (T1).
    #[error("its field version is {found}, and {trusted} was believed before")]
    Rollback {
        /// What was believed before.
        trusted: Version,
        /// What it says.
        found: Version,
    },
    /// It pins an older version of a role than was pinned before (T1).
    #[error("its field meta pins version {found} of {file}, and {trusted} was pinned before")]
    PinRollback {
        /// The role's file.
        file: String,
        /// What was pinned before.
        trusted: Version,
        /// What it says.
        found: Version,
    },
    /// It no longer pins a role that was pinned before.
    #[error("its field meta does not pin {file}, which was pinned before")]
    PinDropped {
        /// The role's file.
        file: String,
    },
    /// It has expired (T3).
    #[error("it expired at {at}")]
    Expired {
        /// When.
        at: Expires,
    },
    /// What is here is older than what pins it: a refresh did not get as far as this.
    #[error("a newer one is pinned, and has not come")]
    Superseded,
    /// The snapshot knows of no such role.
    #[error("the snapshot's field meta does not pin it")]
    NotPinned,
    /// A search was led through too many roles.
    #[error("the search came through {delegations_max} delegated roles before it")]
    TooDeep {
        /// The most that a search looks into.
        delegations_max: usize,
    },
}

/// Why what was kept is not what was kept: nothing is believed, and an admin has to look.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A document cannot be read.
    #[error("read the {role} that was kept")]
    Parse {
        /// Whose document.
        role: RoleName,
        /// What was wrong with it.
        source: ParseError,
    },
    /// The root does not hold by itself, or another document breaks a rule.
    #[error("verify the {role} that was kept")]
    Verify {
        /// Whose document.
        role: RoleName,
        /// What was wrong with it.
        source: VerifyError,
    },
}

/// A delegated role that was searched before.
#[derive(Clone, Debug)]
struct Held {
    document: Arc<Believed<Targets>>,
    /// The keys that it was verified with. Another delegation's are another question.
    verified_with: Vec<RoleKeys>,
}

impl Trusted {
    /// Believes what was kept, or a root that an admin handed over with nothing beside it.
    ///
    /// A document that the root's keys no longer vouch for is left out: a newer root has replaced them.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the root does not hold, or if another document is no document.
    pub fn load(kept: &Kept) -> Result<Self, LoadError> {
        let role = RoleName::root();
        let root = Signed::parse(kept.root.clone())
            .map_err(|source| LoadError::Parse { role: role.clone(), source })?
            .verify_by_itself()
            .map_err(|source| LoadError::Verify { role, source })?;
        let mut unvouched = Vec::new();
        let floors = kept.floors.clone();
        let timestamp = vouched(&root, kept.timestamp.as_ref(), &mut unvouched)?;
        let snapshot = vouched(&root, kept.snapshot.as_ref(), &mut unvouched)?;
        let targets = vouched(&root, kept.targets.as_ref(), &mut unvouched)?;
        let delegated = BTreeMap::new();
        Ok(Self { root, timestamp, snapshot, targets, floors, unvouched, delegated })
    }

    /// Returns the root. It may have expired.
    pub fn root(&self) -> &Believed<Root> {
        &self.root
    }

    /// Returns the timestamp, if there is one. It may have expired.
    pub fn timestamp(&self) -> Option<&Believed<Timestamp>> {
        self.timestamp.as_ref()
    }

    /// Returns the snapshot, if there is one. It may have expired, or be older than the timestamp says.
    pub fn snapshot(&self) -> Option<&Believed<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// Returns the top-level targets, if there are any. They may have expired, or be older than the
    /// snapshot says.
    pub fn targets(&self) -> Option<&Believed<Targets>> {
        self.targets.as_ref()
    }

    /// Takes the root's successor, and leaves out what its keys no longer vouch for.
    ///
    /// That is how a repository whose keys were stolen comes down from versions that the thief drove up
    /// (5.3.11 of the specification): with new keys for the roles that he could sign.
    pub(super) fn set_root(&mut self, root: Believed<Root>) {
        let before = std::mem::replace(&mut self.root, root);
        let has_new_keys = |kind| before.keys_of(kind) != self.root.keys_of(kind);
        for kind in [Kind::Timestamp, Kind::Snapshot] {
            // Whose document is lost cannot be asked whether it still holds; the keys can.
            if has_new_keys(kind) && self.floors.remove(&name(kind)).is_some() {
                self.unvouched.push(name(kind));
            }
        }
        let (root, lost) = (&self.root, &mut self.unvouched);
        if has_new_keys(Kind::Timestamp) {
            self.timestamp = self.timestamp.take().and_then(|old| still_vouched(root, old, lost));
        }
        if has_new_keys(Kind::Snapshot) {
            self.snapshot = self.snapshot.take().and_then(|old| still_vouched(root, old, lost));
        }
        if has_new_keys(Kind::Targets) {
            self.targets = self.targets.take().and_then(|old| still_vouched(root, old, lost));
        }
    }

    /// Checks that the timestamp that is here has not expired, and that the snapshot that is here is the
    /// one that it pins and has not expired either.
    pub(super) fn check_snapshot(&self, now: jiff::Timestamp) -> Result<&Snapshot, Refusal> {
        let refuse = |kind, fault| Refusal { role: name(kind), fault };
        let timestamp = self.timestamp.as_ref();
        let timestamp = timestamp.ok_or_else(|| refuse(Kind::Timestamp, Fault::Absent))?;
        in_time(timestamp.expires(), now).map_err(|fault| refuse(Kind::Timestamp, fault))?;
        let snapshot = self.snapshot.as_ref();
        let snapshot = snapshot.ok_or_else(|| refuse(Kind::Snapshot, Fault::Absent))?;
        if !fits(timestamp.snapshot(), snapshot.version(), snapshot.bytes()) {
            return Err(refuse(Kind::Snapshot, Fault::Superseded));
        }
        in_time(snapshot.expires(), now).map_err(|fault| refuse(Kind::Snapshot, fault))?;
        Ok(snapshot)
    }

    /// Checks the targets that are here likewise, and the snapshot before them.
    pub(super) fn check_targets(&self, now: jiff::Timestamp) -> Result<&Targets, Refusal> {
        let refuse = |fault| Refusal { role: name(Kind::Targets), fault };
        let snapshot = self.check_snapshot(now)?;
        let pin = snapshot.pin(&name(Kind::Targets)).ok_or_else(|| refuse(Fault::NotPinned))?;
        let targets = self.targets.as_ref().ok_or_else(|| refuse(Fault::Absent))?;
        if !fits(pin, targets.version(), targets.bytes()) {
            return Err(refuse(Fault::Superseded));
        }
        in_time(targets.expires(), now).map_err(refuse)?;
        Ok(targets)
    }

    /// Returns the version of a role below which none is believed.
    pub(super) fn floor(&self, kind: Kind) -> Option<Version> {
        self.floors.get(&name(kind)).copied()
    }

    /// Returns a delegated role that was searched before, if it is still what `pin` says and `keys`
    /// vouch for it.
    pub(super) fn held(
        &mut self,
        role: &RoleName,
        pin: &Pin,
        keys: &RoleKeys,
    ) -> Option<Arc<Believed<Targets>>> {
        let held = self.delegated.get_mut(role)?;
        if !fits(pin, held.document.version(), held.document.bytes()) {
            return None;
        }
        if !held.verified_with.contains(keys) {
            Signed::<Targets>::parse(held.document.bytes().clone()).ok()?.verify(keys).ok()?;
            held.verified_with.push(keys.clone());
        }
        Some(Arc::clone(&held.document))
    }

    /// Holds a delegated role for the next search.
    pub(super) fn hold(
        &mut self,
        role: RoleName,
        document: Believed<Targets>,
        keys: RoleKeys,
    ) -> Arc<Believed<Targets>> {
        let held_bytes: usize =
            self.delegated.values().map(|held| held.document.bytes().len()).sum();
        if held_bytes + document.bytes().len() > DELEGATED_BYTES_MAX {
            self.delegated.clear();
        }
        let document = Arc::new(document);
        let held = Held { document: Arc::clone(&document), verified_with: vec![keys] };
        self.delegated.insert(role, held);
        document
    }
}

/// Returns what is in `bytes` once everything but time speaks for it: length, digests, signatures and
/// version, in that order.
pub(super) fn believe<T: Document>(
    bytes: &Bytes,
    keys: &RoleKeys,
    pin: Option<&Pin>,
    bytes_max: u64,
) -> Result<Believed<T>, Fault>
where
    Believed<T>: Versioned,
{
    if bytes.len() as u64 > bytes_max {
        return Err(Fault::TooLong { bytes_max });
    }
    if let Some(pin) = pin {
        compare(pin, bytes).map_err(Fault::Mismatch)?;
    }
    let signed = Signed::<T>::parse(bytes.clone()).map_err(Fault::Parse)?;
    let believed = signed.verify(keys).map_err(Fault::Verify)?;
    if let Some(expected) = pin.map(|pin| pin.version)
        && believed.version() != expected
    {
        return Err(Fault::WrongVersion { expected, found: believed.version() });
    }
    Ok(believed)
}

/// Refuses what has expired at `now`.
pub(super) fn in_time(expires: Expires, now: jiff::Timestamp) -> Result<(), Fault> {
    if expires.has_passed(now) { Err(Fault::Expired { at: expires }) } else { Ok(()) }
}

/// Returns whether a document that is here is the one that `pin` means.
pub(super) fn fits(pin: &Pin, version: Version, bytes: &[u8]) -> bool {
    pin.version == version && compare(pin, bytes).is_ok()
}

fn compare(pin: &Pin, bytes: &[u8]) -> Result<(), MismatchError> {
    let found = bytes.len() as u64;
    if let Some(expected) = pin.length
        && expected != found
    {
        return Err(MismatchError::Length { expected, found });
    }
    pin.hashes.as_ref().map_or(Ok(()), |hashes| hashes.check(bytes))
}

/// What has a version, for whoever handles several kinds alike.
pub(super) trait Versioned {
    fn version(&self) -> Version;
}

macro_rules! versioned {
    ($($document:ident)*) => { $(
        impl Versioned for Believed<$document> {
            fn version(&self) -> Version {
                self.document().version()
            }
        }
    )* };
}

versioned!(Root Timestamp Snapshot Targets);

fn name(kind: Kind) -> RoleName {
    match kind {
        Kind::Root => RoleName::root(),
        Kind::Timestamp => RoleName::timestamp(),
        Kind::Snapshot => RoleName::snapshot(),
        Kind::Targets => RoleName::targets(),
    }
}

/// Returns a kept document if the root vouches for it, and notes it in `unvouched` if it does not.
fn vouched<T: Document>(
    root: &Root,
    bytes: Option<&Bytes>,
    unvouched: &mut Vec<RoleName>,
) -> Result<Option<Believed<T>>, LoadError> {
    let Some(bytes) = bytes else { return Ok(None) };
    let role = name(T::KIND);
    let signed = Signed::<T>::parse(bytes.clone())
        .map_err(|source| LoadError::Parse { role: role.clone(), source })?;
    match signed.verify(&root.keys_of(T::KIND)) {
        Ok(believed) => Ok(Some(believed)),
        Err(VerifyError::Threshold { .. }) => {
            unvouched.push(role);
            Ok(None)
        }
        Err(source) => Err(LoadError::Verify { role, source }),
    }
}

fn still_vouched<T: Document>(
    root: &Root,
    old: Believed<T>,
    unvouched: &mut Vec<RoleName>,
) -> Option<Believed<T>> {
    let signed = Signed::<T>::parse(old.bytes().clone()).ok();
    let holds = signed.is_some_and(|signed| signed.verify(&root.keys_of(T::KIND)).is_ok());
    if !holds {
        unvouched.push(name(T::KIND));
    }
    holds.then_some(old)
}
