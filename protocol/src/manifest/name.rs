//! What a role and a target file are called, and where their files lie in a repository.
//!
//! Names come from whoever signs, and go into URLs and onto disks. So a place in a repository is always
//! quoted: nothing in a name can leave the folder it is meant for.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer};
use serde::{Serialize, Serializer};

use super::document::Version;

/// A role of the manifest: one of the four that every manifest has, or a delegated one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(String);

/// The path by which the manifest knows a target file, such as `debian/pool/bash.deb`. Any text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetPath(String);

const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

impl RoleName {
    /// The role that says which keys are whose.
    pub fn root() -> Self {
        Self(TOP_LEVEL[0].to_owned())
    }

    /// The role that says which snapshot is the newest.
    pub fn timestamp() -> Self {
        Self(TOP_LEVEL[1].to_owned())
    }

    /// The role that pins the version of every other.
    pub fn snapshot() -> Self {
        Self(TOP_LEVEL[2].to_owned())
    }

    /// The role that every search begins at.
    pub fn targets() -> Self {
        Self(TOP_LEVEL[3].to_owned())
    }

    /// Returns the name of a delegated role, or `None` if it is empty or that of a top-level role.
    pub fn delegated(name: &str) -> Option<Self> {
        let is_free = !name.is_empty() && !TOP_LEVEL.contains(&name);
        is_free.then(|| Self(name.to_owned()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what the snapshot calls the role's file.
    pub fn file(&self) -> String {
        format!("{}.json", self.0)
    }

    /// Returns where the role's file lies below a repository's metadata, quoted for a URL: with the
    /// version before it, or without.
    pub fn place(&self, version: Option<Version>) -> String {
        let role = quote(&self.0, |_| false);
        match version {
            Some(version) => format!("{version}.{role}.json"),
            None => format!("{role}.json"),
        }
    }
}

impl TargetPath {
    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns where the file lies below a repository's targets, quoted for a URL: with a digest before
    /// its name, or without.
    pub fn place(&self, prefix: Option<&str>) -> String {
        // A URL has no way to spell a folder called `..`: such a path becomes one quoted name.
        let is_plain = !self.0.split('/').any(|part| matches!(part, "." | ".."));
        let keeps = if is_plain { "/!$&'()*+,:;=@" } else { "" };
        let quoted = quote(&self.0, |byte| keeps.as_bytes().contains(&byte));
        let (folder, name) = match quoted.rsplit_once('/') {
            Some((folder, name)) => (format!("{folder}/"), name),
            None => (String::new(), quoted.as_str()),
        };
        match prefix {
            Some(prefix) => format!("{folder}{prefix}.{name}"),
            None => format!("{folder}{name}"),
        }
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters and those that `keeps` lets through.
fn quote(text: &str, keeps: impl Fn(u8) -> bool) -> String {
    use fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut quoted, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keeps(byte) {
            quoted.push(char::from(byte));
        } else {
            write!(quoted, "%{byte:02X}").expect("a String takes all that is written");
        }
        quoted
    })
}

impl<'de> Deserialize<'de> for RoleName {
    /// Reads the name of a delegated role.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::delegated(&name).ok_or_else(|| {
            de::Error::custom(format_args!("a delegated role cannot be called {name:?}"))
        })
    }
}

impl Serialize for RoleName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl From<&str> for TargetPath {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // T14
    #[test]
    fn a_role_of_any_name_stays_in_its_folder() {
        for (name, place) in [
            ("content-2026-11", "3.content-2026-11.json"),
            ("../../etc/passwd", "3...%2F..%2Fetc%2Fpasswd.json"),
            ("/abs", "3.%2Fabs.json"),
            ("?", "3.%3F.json"),
            ("#", "3.%23.json"),
            ("a b%2f\0é", "3.a%20b%252f%00%C3%A9.json"),
        ] {
            let role = RoleName::delegated(name).unwrap();
            assert_eq!(role.place(Some(Version::new(3).unwrap())), place);
        }
        assert_eq!(RoleName::timestamp().place(None), "timestamp.json");
    }

    #[test]
    fn a_delegated_role_has_a_name_of_its_own() {
        for name in ["", "root", "timestamp", "snapshot", "targets"] {
            assert_eq!(RoleName::delegated(name), None);
        }
    }

    #[test]
    fn a_digest_goes_before_the_name_and_behind_the_folder() {
        let path = TargetPath::from("a/b c/d#1?.deb");
        assert_eq!(path.place(Some("ab12")), "a/b%20c/ab12.d%231%3F.deb");
        assert_eq!(path.place(None), "a/b%20c/d%231%3F.deb");
        assert_eq!(TargetPath::from("plain+1~x").place(Some("ab")), "ab.plain+1~x");
    }

    // T14
    #[test]
    fn a_target_path_that_climbs_stays_in_its_folder() {
        assert_eq!(TargetPath::from("../../x/y").place(None), "..%2F..%2Fx%2Fy");
        assert_eq!(TargetPath::from("a/./b").place(Some("ab")), "ab.a%2F.%2Fb");
        assert_eq!(TargetPath::from("a/..b").place(None), "a/..b");
    }
}
