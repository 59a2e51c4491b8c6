//! What control's own keys sign: the snapshot, and the timestamp that says when it was.
//!
//! Always true: a snapshot pins what the repository said before, and what was accepted since; a timestamp is never
//! issued before the one it follows.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp as Instant};
use serde_json::{Map, Value};
use sutler_protocol::manifest::sign::ProposeError;
use sutler_protocol::manifest::{
    Believed, Expires, Kind, Pin, RoleKeys, RoleName, Root, Signed, SigningKey, Snapshot, Targets,
    Timestamp, Version,
};

use crate::repository::Publication;
use crate::state::State;
use crate::submission::Accepted;

/// How long a snapshot is good for.
pub const SNAPSHOT_LIFETIME: SignedDuration = SignedDuration::from_hours(14 * 24);

/// How long a timestamp is good for; it is signed anew every hour.
pub const TIMESTAMP_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How long before its expiry a snapshot is signed anew.
const SNAPSHOT_RENEWAL: SignedDuration = SignedDuration::from_hours(8 * 24);

/// Control's own keys. During a rotation there are the old and the new ones, and both sign.
#[derive(Default)]
pub struct OnlineKeys {
    /// For the snapshot.
    pub snapshot: Vec<SigningKey>,
    /// For the timestamp.
    pub timestamp: Vec<SigningKey>,
    /// For control's halts.
    pub halts: Vec<SigningKey>,
}

/// Why control signed nothing.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A document that nobody would believe.
    #[error("sign the {role}")]
    Propose {
        /// Which.
        role: RoleName,
        /// Why.
        source: ProposeError,
    },
    /// The keys at hand are not those that the root names.
    #[error("sign the {role}: {lacking} more of the keys that the root names for it are needed")]
    Keys {
        /// Which.
        role: RoleName,
        /// How many signatures it lacks.
        lacking: u64,
    },
    /// The clock is behind what was signed before. Every device would take the new one for older.
    #[error("sign the timestamp: the clock says {now}, and the last one was issued at {issued}")]
    Clock {
        /// What the clock says.
        now: Instant,
        /// What was signed before.
        issued: Instant,
    },
    /// There is no version after the last that there is.
    #[error("sign the {role}: it has the last version that there is")]
    LastVersion {
        /// Which.
        role: RoleName,
    },
    /// A time too far from ours.
    #[error("sign the {role}: the clock says {now}")]
    Time {
        /// Which.
        role: RoleName,
        /// What the clock says.
        now: Instant,
    },
}

/// Returns what has to be written for what was accepted to be published, at `now`. `extra` goes into the timestamp.
///
/// With nothing accepted that is a new timestamp, and a new snapshot where it is time.
///
/// # Errors
///
/// [`SignError`].
pub fn publication(
    state: &State,
    accepted: &Accepted,
    keys: &OnlineKeys,
    extra: &Map<String, Value>,
    now: Instant,
) -> Result<Publication, SignError> {
    signed_above(state, accepted, keys, extra, None, now)
}

/// Returns what has to be written for a snapshot and a timestamp, both of a later version than `above` and than those
/// that are published, so that no device takes them for older than what it has seen (T31).
///
/// # Errors
///
/// [`SignError`].
pub fn publication_above(
    state: &State,
    keys: &OnlineKeys,
    extra: &Map<String, Value>,
    above: Version,
    now: Instant,
) -> Result<Publication, SignError> {
    signed_above(state, &Accepted::default(), keys, extra, Some(above), now)
}

fn signed_above(
    state: &State,
    accepted: &Accepted,
    keys: &OnlineKeys,
    extra: &Map<String, Value>,
    above: Option<Version>,
    now: Instant,
) -> Result<Publication, SignError> {
    let roots: Vec<&Root> =
        [Some(&*state.root), accepted.root.as_deref()].into_iter().flatten().collect();
    if let Some(issued) = state.timestamp.issued().filter(|issued| *issued > now) {
        return Err(SignError::Clock { now, issued });
    }
    let mut documents = Vec::new();
    let new: BTreeMap<RoleName, &Believed<Targets>> = accepted
        .roles
        .iter()
        .map(|(role, document)| (role.clone(), document))
        .chain(accepted.targets.iter().map(|targets| (RoleName::targets(), targets)))
        .collect();
    for (role, document) in &new {
        documents.push((role.place(Some(document.version())), document.bytes().clone()));
    }
    let pin = sign_snapshot(state, &new, keys, &roots, (above, now), &mut documents)?;
    let role = RoleName::timestamp();
    let version = next(&role, state.timestamp.version().max(above.unwrap_or(Version::FIRST)))?;
    let expires = later(&role, now, TIMESTAMP_LIFETIME)?;
    let mut timestamp = Timestamp::new(version, Expires::at(now), expires, pin);
    timestamp.extra.clone_from(extra);
    let signed = signed(&role, &timestamp, &keys.timestamp, &roots, Kind::Timestamp)?;
    documents.push((role.place(None), signed.bytes().clone()));
    // Behind everything that it vouches for as well: whoever goes on from the old root finds all of it.
    if let Some(root) = &accepted.root {
        documents.push((RoleName::root().place(Some(root.version())), root.bytes().clone()));
    }
    Ok(Publication { files: accepted.files.clone(), documents })
}

/// Signs the first snapshot and timestamp of a repository.
///
/// # Errors
///
/// [`SignError`].
pub fn first(
    root: &Believed<Root>,
    new: &BTreeMap<RoleName, Believed<Targets>>,
    keys: &OnlineKeys,
    now: Instant,
) -> Result<Publication, SignError> {
    let role = RoleName::snapshot();
    let mut snapshot = Snapshot::new(Version::FIRST, later(&role, now, SNAPSHOT_LIFETIME)?);
    let mut documents = Vec::new();
    for (role, document) in new {
        snapshot.set_pin(role, Pin::of(document.version(), document.bytes()));
        documents.push((role.place(Some(document.version())), document.bytes().clone()));
    }
    let snapshot = signed(&role, &snapshot, &keys.snapshot, &[root], Kind::Snapshot)?;
    documents.push((role.place(Some(Version::FIRST)), snapshot.bytes().clone()));
    let role = RoleName::timestamp();
    let expires = later(&role, now, TIMESTAMP_LIFETIME)?;
    let pin = Pin::of(Version::FIRST, snapshot.bytes());
    let timestamp = Timestamp::new(Version::FIRST, Expires::at(now), expires, pin);
    let timestamp = signed(&role, &timestamp, &keys.timestamp, &[root], Kind::Timestamp)?;
    documents.push((role.place(None), timestamp.bytes().clone()));
    // The root last: until it is there, nothing was published.
    documents.push((RoleName::root().place(Some(Version::FIRST)), root.bytes().clone()));
    Ok(Publication { files: Vec::new(), documents })
}

/// Signs a new snapshot where something changed or the one before gets old, and returns its pin.
fn sign_snapshot(
    state: &State,
    new: &BTreeMap<RoleName, &Believed<Targets>>,
    keys: &OnlineKeys,
    roots: &[&Root],
    (above, now): (Option<Version>, Instant),
    documents: &mut Vec<(String, bytes::Bytes)>,
) -> Result<Pin, SignError> {
    let role = RoleName::snapshot();
    let old = &state.snapshot;
    let is_fresh = old.expires().instant().duration_since(now) > SNAPSHOT_RENEWAL;
    let is_vouched = roots.iter().all(|root| {
        let signed = Signed::<Snapshot>::parse(old.bytes().clone());
        signed.is_ok_and(|signed| signed.verify(&root.keys_of(Kind::Snapshot)).is_ok())
    });
    if new.is_empty() && is_fresh && is_vouched && above.is_none() {
        return Ok(Pin::of(old.version(), old.bytes()));
    }
    let mut snapshot = old.document().clone();
    let version = next(&role, old.version().max(above.unwrap_or(Version::FIRST)))?;
    snapshot.renew(version, later(&role, now, SNAPSHOT_LIFETIME)?);
    for (role, document) in new {
        snapshot.set_pin(role, Pin::of(document.version(), document.bytes()));
    }
    let signed = signed(&role, &snapshot, &keys.snapshot, roots, Kind::Snapshot)?;
    documents.push((role.place(Some(version)), signed.bytes().clone()));
    Ok(Pin::of(version, signed.bytes()))
}

/// Signs a document with those of `keys` that any of the roots names, and checks that each root is satisfied.
fn signed<T>(
    role: &RoleName,
    document: &T,
    keys: &[SigningKey],
    roots: &[&Root],
    kind: Kind,
) -> Result<Signed<T>, SignError>
where
    T: sutler_protocol::manifest::signed::Document + serde::Serialize,
{
    let propose = |source| SignError::Propose { role: role.clone(), source };
    let mut signed = Signed::propose(document).map_err(propose)?;
    let wanted: Vec<RoleKeys> = roots.iter().map(|root| root.keys_of(kind)).collect();
    for key in keys.iter().filter(|key| wanted.iter().any(|keys| keys.has(key.id()))) {
        signed.sign(key);
    }
    match wanted.iter().map(|keys| signed.lacks(keys)).max().unwrap_or_default() {
        0 => Ok(signed),
        lacking => Err(SignError::Keys { role: role.clone(), lacking }),
    }
}

fn next(role: &RoleName, version: Version) -> Result<Version, SignError> {
    version.next().ok_or_else(|| SignError::LastVersion { role: role.clone() })
}

fn later(role: &RoleName, now: Instant, lifetime: SignedDuration) -> Result<Expires, SignError> {
    let at = now.checked_add(lifetime);
    at.map(Expires::at).map_err(|_| SignError::Time { role: role.clone(), now })
}
