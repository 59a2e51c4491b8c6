//! What a user is told when a command fails: a stable kind, what failed on what, and what to do.
//!
//! Inside the program each operation has its own error enum. A [`Failure`] is what becomes of one
//! where it leaves the program: it crosses the local socket from the process that owns the store
//! to the command that asked, and is printed for people or as JSON. So it is text by now, except
//! for its [`Kind`], which scripts match on and which decides the exit code.

use std::error::Error;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// The stable reason of a failure. The names and their exit codes are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Something we did not foresee, or a defect of ours.
    Internal,
    /// The arguments or the config cannot be used as they are.
    Usage,
    /// Nobody who was asked has such a content.
    UnknownContent,
    /// A certificate is missing, foreign, expired, or not good for this; or a rule forbids it.
    Refused,
    /// No source could be reached, or each stopped answering.
    Unreachable,
    /// The bytes are not the ones that were named.
    Corrupt,
    /// The disk or the quota is full.
    NoSpace,
    /// Another process owns the store, or it is damaged, or of a newer format.
    Store,
    /// The user or the system asked us to stop; what was verified is kept.
    Interrupted,
    /// A file that the user named cannot be read or written, or changed while it was read.
    File,
}

/// A failure as it is shown: what failed on what, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The stable reason.
    pub kind: Kind,
    /// The step that failed, and its object.
    pub what: String,
    /// The chain of causes, outermost first; empty if `what` says all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What the user can do about it, where we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Kind {
    /// Every kind, in the order of its exit code.
    pub const ALL: [Self; 10] = [
        Self::Internal,
        Self::Usage,
        Self::UnknownContent,
        Self::Refused,
        Self::Unreachable,
        Self::Corrupt,
        Self::NoSpace,
        Self::Store,
        Self::Interrupted,
        Self::File,
    ];

    /// Returns the name that JSON output gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::UnknownContent => "unknown-content",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Corrupt => "corrupt",
            Self::NoSpace => "no-space",
            Self::Store => "store",
            Self::Interrupted => "interrupted",
            Self::File => "file",
        }
    }

    /// Returns the kind of an IO error on `otherwise`'s kind of object: a full disk is a full disk
    /// wherever it shows.
    pub fn of_io(error: &io::Error, otherwise: Self) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::Interrupted => Self::Interrupted,
            _ => otherwise,
        }
    }
}

impl Failure {
    /// Returns a failure whose `what` says all.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), causes: Vec::new(), help: None }
    }

    /// Returns a failure of the step and object `what`, because of `cause` and all its sources.
    pub fn because(kind: Kind, what: impl Into<String>, cause: &dyn Error) -> Self {
        Self { causes: chain(Some(cause)), ..Self::new(kind, what) }
    }

    /// Returns a failure that `error` describes by itself, with its sources as causes.
    pub fn from_error(kind: Kind, error: &dyn Error) -> Self {
        Self { causes: chain(error.source()), ..Self::new(kind, error.to_string()) }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Error for Failure {}

/// Returns the texts of `error` and its sources, without those that only repeat the one before.
fn chain(error: Option<&dyn Error>) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error;
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = error.source();
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open the lid")]
    struct Lid(#[source] io::Error);

    #[test]
    fn a_failure_names_the_step_and_every_cause() {
        let cause = Lid(io::Error::other("stuck"));
        let failure = Failure::because(Kind::File, "fill the jar", &cause);
        assert_eq!(failure.to_string(), "fill the jar: open the lid: stuck");
        assert_eq!(Failure::from_error(Kind::File, &cause).to_string(), "open the lid: stuck");
    }

    #[test]
    fn the_name_of_a_kind_is_what_json_says() {
        for kind in Kind::ALL {
            let json = serde_json::to_string(&kind).expect("a kind is plain");
            assert_eq!(json, format!("\"{}\"", kind.name()));
        }
    }

    #[test]
    fn a_full_disk_is_a_full_disk_wherever_it_shows() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Kind::of_io(&full, Kind::File), Kind::NoSpace);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(Kind::of_io(&denied, Kind::File), Kind::File);
    }
}
