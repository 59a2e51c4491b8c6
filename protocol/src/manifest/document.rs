//! What the four kinds of metadata say: section 4 of the specification.
//!
//! Fields that the specification does not name are kept in `extra`: a later version, or Sutler itself,
//! has put them there, and they were signed with the rest.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::bounds::ISSUED_BEFORE_EXPIRY_MAX;
use super::delegation::Delegations;
use super::digest::Digests;
use super::key::{Key, KeyId, RoleKeys};
use super::name::{RoleName, TargetPath};
use super::signed::Document;

/// The version of a document, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

/// The instant at which a document expires, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expires(jiff::Timestamp);

/// The four kinds of metadata. A delegated role's is of the kind of `targets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Which keys are whose.
    Root,
    /// Which snapshot is the newest.
    Timestamp,
    /// Which version of every other role is.
    Snapshot,
    /// Which files there are, and who else may say so.
    Targets,
}

/// Which rule a signed document breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Another kind of document.
    #[error("_type is {found:?} instead of \"{expected}\"")]
    Type {
        /// What was asked for.
        expected: Kind,
        /// What it says.
        found: String,
    },
    /// A specification that is not this one.
    #[error("spec_version is {found:?}, and only 1.x is known")]
    SpecVersion {
        /// What it says.
        found: String,
    },
    /// Something that has to be there.
    #[error("{field} lacks {name}")]
    Lacks {
        /// Where.
        field: &'static str,
        /// What.
        name: String,
    },
    /// A statement that says it was signed when it cannot have been.
    #[error("issued is {issued}, not within 7 days before expires, {expires}")]
    Issued {
        /// When it says that it was signed.
        issued: Expires,
        /// When it expires.
        expires: Expires,
    },
    /// A delegation that could mean two things.
    #[error("delegations: {fault}")]
    Delegations {
        /// What is wrong with them.
        fault: String,
    },
}

/// Who may sign what: the document that an admin hands over, and the chain of its successors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    #[serde(rename = "_type")]
    pub(super) kind: String,
    pub(super) spec_version: String,
    pub(super) version: Version,
    pub(super) expires: Expires,
    /// Whether files have their version or digest in their names.
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// Every key that a role names.
    pub keys: BTreeMap<KeyId, Key>,
    /// The keys of each role.
    pub roles: BTreeMap<String, RoleEntry>,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which keys sign for a role, and how many of them have to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleEntry {
    /// The keys' ids.
    pub keyids: Vec<KeyId>,
    /// How many different keys have to sign; at least 1.
    #[serde(deserialize_with = "at_least_one")]
    pub threshold: u64,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which snapshot is the newest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timestamp {
    #[serde(rename = "_type")]
    pub(super) kind: String,
    pub(super) spec_version: String,
    pub(super) version: Version,
    pub(super) expires: Expires,
    pub(super) meta: BTreeMap<String, Pin>,
    /// When it was signed, as a Sutler control says: nothing is started by it, things only age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) issued: Option<Expires>,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which version of each role belongs to this state of the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    #[serde(rename = "_type")]
    pub(super) kind: String,
    pub(super) spec_version: String,
    pub(super) version: Version,
    pub(super) expires: Expires,
    /// The version of each role, by the name of its file.
    pub meta: BTreeMap<String, Pin>,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which files there are, and who else may say so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    #[serde(rename = "_type")]
    pub(super) kind: String,
    pub(super) spec_version: String,
    pub(super) version: Version,
    pub(super) expires: Expires,
    /// The files, by their paths.
    #[serde(rename = "targets")]
    pub(super) files: BTreeMap<String, TargetFile>,
    /// Who else may name files, if anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which bytes a role's document is, as another document says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// Its version, exactly.
    pub version: Version,
    /// How many bytes it has, at most. The specification leaves it out where the version is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its digests, if they are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<Digests>,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which bytes a target file is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetFile {
    /// How many bytes it has, exactly.
    pub length: u64,
    /// Its digests.
    pub hashes: Digests,
    /// What its signer says of it beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Version {
    /// The first version of anything.
    pub const FIRST: Self = Self(1);

    /// Returns the version with this number, or `None` for 0.
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// Returns its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Returns the version after this one, or `None` after the last that there is.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl Expires {
    /// Returns the instant, cut to the second: documents have no finer ones.
    pub fn at(instant: jiff::Timestamp) -> Self {
        let second = instant.as_nanosecond().div_euclid(1_000_000_000) as i64;
        Self(jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MIN))
    }

    /// Returns whether it has expired at `now`: at the instant itself it has.
    pub fn has_passed(self, now: jiff::Timestamp) -> bool {
        self.0 <= now
    }

    /// Returns the instant.
    pub fn instant(self) -> jiff::Timestamp {
        self.0
    }
}

impl Kind {
    /// Returns the kind's name, as `_type` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
        }
    }
}

impl Root {
    /// Returns the keys that may sign documents of this kind at the top level.
    pub fn keys_of(&self, kind: Kind) -> RoleKeys {
        // Without an entry nobody may: `rules` has refused such a root.
        match self.roles.get(kind.as_str()) {
            Some(entry) => RoleKeys::new(&self.keys, &entry.keyids, entry.threshold),
            None => RoleKeys::new(&self.keys, &[], u64::MAX),
        }
    }
}

impl Timestamp {
    /// Returns what it says of the snapshot.
    pub fn snapshot(&self) -> &Pin {
        self.meta.get(SNAPSHOT_FILE).expect("`rules` has seen it")
    }

    /// Returns when it was signed, if it says so.
    pub fn issued(&self) -> Option<jiff::Timestamp> {
        self.issued.map(Expires::instant)
    }
}

impl Snapshot {
    /// Returns what it says of `role`, or `None` if there is no such role.
    pub fn pin(&self, role: &RoleName) -> Option<&Pin> {
        self.meta.get(&role.file())
    }
}

impl Targets {
    /// Returns the file that this role itself names `path`, or `None` if it names none so.
    pub fn file(&self, path: &TargetPath) -> Option<&TargetFile> {
        self.files.get(path.as_str())
    }

    /// Returns the files that this role itself names, with their paths.
    pub fn files(&self) -> impl Iterator<Item = (TargetPath, &TargetFile)> {
        self.files.iter().map(|(path, file)| (TargetPath::from(path.as_str()), file))
    }
}

/// Under which name a timestamp pins the snapshot.
pub(super) const SNAPSHOT_FILE: &str = "snapshot.json";

impl Document for Root {
    const KIND: Kind = Kind::Root;

    fn rules(&self) -> Result<(), RuleError> {
        begins_well(Self::KIND, &self.kind, &self.spec_version)?;
        let kinds = [Kind::Root, Kind::Timestamp, Kind::Snapshot, Kind::Targets];
        let lacking = kinds.into_iter().find(|kind| !self.roles.contains_key(kind.as_str()));
        lacking.map_or(Ok(()), |kind| {
            Err(RuleError::Lacks { field: "roles", name: kind.as_str().to_owned() })
        })
    }
}

impl Document for Timestamp {
    const KIND: Kind = Kind::Timestamp;

    fn rules(&self) -> Result<(), RuleError> {
        begins_well(Self::KIND, &self.kind, &self.spec_version)?;
        if !self.meta.contains_key(SNAPSHOT_FILE) {
            return Err(RuleError::Lacks { field: "meta", name: SNAPSHOT_FILE.to_owned() });
        }
        let Some(issued) = self.issued else { return Ok(()) };
        let lifetime = self.expires.0.duration_since(issued.0);
        if lifetime.is_negative() || lifetime > ISSUED_BEFORE_EXPIRY_MAX {
            return Err(RuleError::Issued { issued, expires: self.expires });
        }
        Ok(())
    }
}

impl Document for Snapshot {
    const KIND: Kind = Kind::Snapshot;

    fn rules(&self) -> Result<(), RuleError> {
        begins_well(Self::KIND, &self.kind, &self.spec_version)?;
        let targets = RoleName::targets().file();
        if self.meta.contains_key(&targets) {
            return Ok(());
        }
        Err(RuleError::Lacks { field: "meta", name: targets })
    }
}

impl Document for Targets {
    const KIND: Kind = Kind::Targets;

    fn rules(&self) -> Result<(), RuleError> {
        begins_well(Self::KIND, &self.kind, &self.spec_version)?;
        self.delegations.as_ref().map_or(Ok(()), Delegations::rules)
    }
}

/// Checks the two fields that say what a document is.
fn begins_well(expected: Kind, kind: &str, spec_version: &str) -> Result<(), RuleError> {
    if kind != expected.as_str() {
        return Err(RuleError::Type { expected, found: kind.to_owned() });
    }
    let mut parts = spec_version.split('.');
    let is_known = parts.next() == Some("1")
        && parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_known {
        return Err(RuleError::SpecVersion { found: spec_version.to_owned() });
    }
    Ok(())
}

macro_rules! dated {
    ($($document:ident)*) => { $(
        impl $document {
            /// Returns its version.
            pub fn version(&self) -> Version {
                self.version
            }

            /// Returns when it expires.
            pub fn expires(&self) -> Expires {
                self.expires
            }
        }
    )* };
}

dated!(Root Timestamp Snapshot Targets);

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| de::Error::custom("versions begin at 1"))
    }
}

impl<'de> Deserialize<'de> for Expires {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let shape = b"0000-00-00T00:00:00Z";
        let fits = |(byte, shape): (u8, &u8)| match shape {
            b'0' => byte.is_ascii_digit(),
            shape => byte == *shape,
        };
        let is_shaped = text.len() == shape.len() && text.bytes().zip(shape).all(fits);
        let civil: Option<DateTime> =
            text.strip_suffix('Z').filter(|_| is_shaped).and_then(|text| text.parse().ok());
        let civil = civil.ok_or_else(|| {
            de::Error::custom(format_args!("{text:?} is no instant as 2026-11-30T12:00:00Z"))
        })?;
        // The last days of the year 9999 are how some say "never", and past what an instant can be.
        let instant = TimeZone::UTC.to_timestamp(civil).unwrap_or(jiff::Timestamp::MAX);
        Ok(Self(instant))
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl Serialize for Expires {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

/// Reads a threshold.
pub(super) fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(de::Error::custom("a threshold is at least 1")),
        threshold => Ok(threshold),
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expires(text: &str) -> Option<Expires> {
        serde_json::from_value(json!(text)).ok()
    }

    #[test]
    fn an_expiry_has_one_way_to_be_written() {
        let instant = expires("2026-11-30T12:00:00Z").unwrap();
        assert_eq!(instant.instant().as_second(), 1_796_040_000);
        assert!(instant.has_passed(instant.instant()));
        assert!(!instant.has_passed(instant.instant() - jiff::SignedDuration::from_secs(1)));
        for bad in [
            "2026-11-30 12:00:00Z",
            "2026-11-30T12:00:00",
            "2026-11-30T12:00:00+00:00",
            "2026-11-30T12:00:00.5Z",
            "2026-02-30T12:00:00Z",
            "+026-11-30T12:00:00Z",
            "",
        ] {
            assert_eq!(expires(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_end_of_time_is_an_expiry_too() {
        assert_eq!(expires("9999-12-31T23:59:59Z").unwrap().instant(), jiff::Timestamp::MAX);
        assert!(expires("0001-01-01T00:00:00Z").unwrap().has_passed(jiff::Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn versions_and_thresholds_begin_at_one() {
        assert!(serde_json::from_value::<Version>(json!(0)).is_err());
        assert!(serde_json::from_value::<Version>(json!(-1)).is_err());
        assert!(serde_json::from_value::<Version>(json!(1.0)).is_err());
        assert_eq!(serde_json::from_value::<Version>(json!(1)).unwrap(), Version::FIRST);
        let entry = |threshold: Value| json!({ "keyids": [], "threshold": threshold });
        assert!(serde_json::from_value::<RoleEntry>(entry(json!(0))).is_err());
        assert!(serde_json::from_value::<RoleEntry>(entry(json!(1))).is_ok());
        assert_eq!(Version(u64::MAX).next(), None);
    }

    #[test]
    fn only_the_first_major_specification_is_known() {
        for known in ["1.0.31", "1.0", "1.7.0"] {
            assert_eq!(begins_well(Kind::Root, "root", known), Ok(()), "{known}");
        }
        for unknown in ["2.0.0", "0.9", "", "1.", "1.0.x", "10.0.0"] {
            assert!(begins_well(Kind::Root, "root", unknown).is_err(), "{unknown}");
        }
        assert!(begins_well(Kind::Targets, "root", "1.0.0").is_err());
    }
}
