//! What an admin does about a trust store that refuses: keep what still holds, set the rest aside, and
//! leave a trace.
//!
//! What is lost is lost, and fetched again; the version that it had still binds, as far as it is known.
//! Nothing is believed here that was not believed before, but for a root that the admin hands over.
//!
//! Always true: the audit line is durable before anything is changed.

use std::fmt;
use std::io;
use std::path::Path;

use bytes::Bytes;
use sutler_protocol::manifest::{Kept, LoadError, RoleName, Trusted, Version};

use super::marks::{Entry, Mark, Marks, ReadError};
use super::{LOCK, MARKS, file_name, read_document, top_level};
use crate::backend::{Backend, Disk, read_file, replace};

const AUDIT: &str = "audit";

/// Bytes of the audit file: thousands of lines, each for an accident.
const AUDIT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How many copies of one file are set aside before the last is written over.
const ASIDE_MAX: u32 = 100;

/// Who recovers a store, when and why: what the audit line says.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    /// Who.
    pub actor: &'a str,
    /// Why.
    pub reason: &'a str,
    /// When.
    pub at: jiff::Timestamp,
}

/// What became of each top-level document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// In the order root, timestamp, snapshot, targets.
    pub outcomes: Vec<(RoleName, Outcome)>,
}

/// What became of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is believed as before.
    Kept(Version),
    /// It is gone, and will be fetched again: not older than the version, where one is known.
    Lost(Option<Version>),
    /// There was none.
    Absent,
}

/// Why a store was not recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Another process has the folder.
    #[error("own the trust store: another process has it")]
    InUse,
    /// The root is lost, and none was handed over.
    #[error("recover a trust store whose root is lost, without a root handed over")]
    NoRoot,
    /// The root that was handed over does not hold.
    #[error("believe the root that was handed over")]
    Root(#[source] LoadError),
    /// The root that was handed over is older than the one that was believed. Every other device has that.
    #[error("believe a root of version {given} where {known} was believed before")]
    OldRoot {
        /// What was handed over.
        given: Version,
        /// What was believed.
        known: Version,
    },
    /// There are no such words to be written on one line.
    #[error("write an audit line of who and why: both have to be said")]
    Unsaid,
    /// The disk refused.
    #[error("write the trust store")]
    Write(#[source] io::Error),
}

/// Recovers the store in the folder at `path`. `root` is used if its own root is lost.
///
/// # Errors
///
/// [`RecoverError`]; the store may be called for recovery again.
pub fn recover(path: &Path, root: Option<Bytes>, why: Why<'_>) -> Result<Recovery, RecoverError> {
    recover_on(&Disk::open(path).map_err(RecoverError::Write)?, root, why)
}

/// Recovers a store on another kind of disk.
///
/// # Errors
///
/// [`RecoverError`]; the store may be called for recovery again.
pub fn recover_on(
    backend: &dyn Backend,
    root: Option<Bytes>,
    why: Why<'_>,
) -> Result<Recovery, RecoverError> {
    if why.actor.trim().is_empty() || why.reason.trim().is_empty() {
        return Err(RecoverError::Unsaid);
    }
    let lock = backend.lock(Path::new(LOCK)).map_err(RecoverError::Write)?;
    let _lock = lock.ok_or(RecoverError::InUse)?;
    let old = match Marks::read(backend) {
        Ok(marks) => marks,
        Err(ReadError::Damaged) => None,
        Err(ReadError::Read(error)) => return Err(RecoverError::Write(error)),
    };
    let files = top_level().map(|role| {
        let bytes = read_document(backend, &role).ok().map(Bytes::from);
        (role, bytes)
    });
    let (marks, recovery, handed_over) = judge(&files, old.as_ref(), root)?;
    let write = || {
        audit(backend, &recovery, why)?;
        if old.is_none() {
            set_aside(backend, MARKS)?;
        }
        for (role, outcome) in &recovery.outcomes {
            if !matches!(outcome, Outcome::Kept(_)) {
                set_aside(backend, &file_name(role))?;
            }
        }
        if let Some(root) = &handed_over {
            let file = file_name(&RoleName::root());
            set_aside(backend, &file)?;
            replace(backend, Path::new(&file), root)?;
        }
        marks.write(backend)
    };
    write().map_err(RecoverError::Write)?;
    Ok(recovery)
}

/// Decides what still holds: by the marks where there are any, else by what the root vouches for.
fn judge(
    files: &[(RoleName, Option<Bytes>)],
    old: Option<&Marks>,
    root: Option<Bytes>,
) -> Result<(Marks, Recovery, Option<Bytes>), RecoverError> {
    let marked = |role: &RoleName| old.map(|marks| marks.of(role)).unwrap_or_default();
    let whole = |role: &RoleName| {
        let (_, bytes) = files.iter().find(|(other, _)| other == role)?;
        let Mark { now, next, .. } = marked(role);
        let is = |bytes: &Bytes| [now, next].into_iter().flatten().any(|entry| entry.is(bytes));
        bytes.clone().filter(|bytes| old.is_none() || is(bytes))
    };
    let load = |root: Bytes| Trusted::load(&Kept { root, ..Kept::default() });
    let own = whole(&RoleName::root()).filter(|root| load(root.clone()).is_ok());
    let (root, handed_over) = match (own, root) {
        (Some(own), _) => (own, None),
        (None, Some(root)) => {
            let given = load(root.clone()).map_err(RecoverError::Root)?.root().version();
            let known = newest(&marked(&RoleName::root()));
            if let Some(known) = known.filter(|known| given < *known) {
                return Err(RecoverError::OldRoot { given, known });
            }
            (root.clone(), Some(root))
        }
        (None, None) => return Err(RecoverError::NoRoot),
    };
    let mut marks = Marks::default();
    let mut outcomes = Vec::new();
    for role in top_level() {
        let is_root = role == RoleName::root();
        let bytes = if is_root { Some(root.clone()) } else { whole(&role) };
        let version = bytes.as_ref().and_then(|bytes| vouched(&root, &role, bytes));
        let outcome = match (bytes, version) {
            (Some(bytes), Some(version)) => {
                let now = Some(Entry::of(version, &bytes));
                marks.set(&role, Mark { now, ..Mark::default() });
                Outcome::Kept(version)
            }
            // Whole, and no longer vouched for: a newer root has new keys for it, and its version binds
            // nobody.
            (Some(_), None) => Outcome::Lost(None),
            (None, _) => match newest(&marked(&role)) {
                Some(version) => {
                    marks.set(&role, Mark { lost: Some(version), ..Mark::default() });
                    Outcome::Lost(Some(version))
                }
                None if files.iter().any(|(other, file)| *other == role && file.is_some()) => {
                    Outcome::Lost(None)
                }
                None => Outcome::Absent,
            },
        };
        outcomes.push((role, outcome));
    }
    Ok((marks, Recovery { outcomes }, handed_over))
}

/// Returns the newest version that a mark knows of.
fn newest(Mark { now, next, lost }: &Mark) -> Option<Version> {
    let kept = [now, next].into_iter().flatten().map(|entry| entry.version);
    kept.chain(*lost).max()
}

/// Returns the version of a document that the root vouches for.
fn vouched(root: &Bytes, role: &RoleName, bytes: &Bytes) -> Option<Version> {
    let mut kept = Kept { root: root.clone(), ..Kept::default() };
    match role.as_str() {
        "root" => {}
        "timestamp" => kept.timestamp = Some(bytes.clone()),
        "snapshot" => kept.snapshot = Some(bytes.clone()),
        _ => kept.targets = Some(bytes.clone()),
    }
    let trusted = Trusted::load(&kept).ok()?;
    match role.as_str() {
        "root" => Some(trusted.root().version()),
        "timestamp" => trusted.timestamp().map(|believed| believed.version()),
        "snapshot" => trusted.snapshot().map(|believed| believed.version()),
        _ => trusted.targets().map(|believed| believed.version()),
    }
}

/// Adds a line to the audit file.
fn audit(backend: &dyn Backend, recovery: &Recovery, why: Why<'_>) -> io::Result<()> {
    let mut text = match read_file(backend, Path::new(AUDIT), AUDIT_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let Why { actor, reason, at } = why;
    text.extend(format!("{at} recover by {actor:?} because {reason:?}: {recovery}\n").bytes());
    replace(backend, Path::new(AUDIT), &text)
}

/// Gives a file another name, under which a human finds it.
fn set_aside(backend: &dyn Backend, file: &str) -> io::Result<()> {
    let names = backend.read_dir(Path::new(""))?;
    let aside = |number: u32| format!("{}.damaged-{number}", file.trim_end_matches(".json"));
    let free = (1..ASIDE_MAX).find(|number| !names.contains(&aside(*number)));
    let aside = aside(free.unwrap_or(ASIDE_MAX));
    match backend.rename(Path::new(file), Path::new(&aside)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => backend.sync_dir(Path::new("")),
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (role, outcome)) in self.outcomes.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{role} {outcome}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(version) => write!(f, "kept {version}"),
            Self::Lost(Some(version)) => write!(f, "lost {version}"),
            Self::Lost(None) => f.write_str("lost, its version unknown"),
            Self::Absent => f.write_str("absent"),
        }
    }
}
