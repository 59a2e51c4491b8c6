//! What is handed in to be published: signed documents, and the order files that they name.
//!
//! Whoever hands it in is trusted in nothing. [`accept`] finds out whether the keys that delegate vouch for
//! it, and whether every client and device would take it; then, and only then, is it stored.
//!
//! Always true: what is accepted goes exactly one version up; names no path that its role was not given; is of the
//! right organisation and scope; and leaves a published content's bytes as they are.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sutler_orders::content::About;
use sutler_orders::mandate::{self, Mandates, StaffError, check_staff};
use sutler_orders::text::Utc;
use sutler_orders::{Content, OrderError};
use sutler_protocol::manifest::signed::{Document, VerifyError};
use sutler_protocol::manifest::{
    Believed, Expires, Kind, MismatchError, ParseError, RoleKeys, RoleName, Root, Signed,
    TargetFile, TargetPath, Targets, Version,
};
use sutler_protocol::name::{Label, Organisation};

use crate::bounds::{SUBMISSION_BYTES_MAX, SUBMISSION_ITEMS_MAX};
use crate::files::{self, FileError};
use crate::state::State;

/// What is handed in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// Documents by their roles, as they were signed.
    pub documents: BTreeMap<String, Bytes>,
    /// Order files by their paths.
    pub files: BTreeMap<String, Bytes>,
}

/// How a submission is sent and kept: JSON, whose texts are the exact bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u64,
    documents: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

/// What was found to hold, and has not been published yet.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    pub(crate) root: Option<Believed<Root>>,
    pub(crate) targets: Option<Believed<Targets>>,
    pub(crate) roles: BTreeMap<RoleName, Believed<Targets>>,
    pub(crate) files: Vec<(TargetPath, TargetFile, Bytes)>,
}

/// Why bytes are no submission.
#[derive(Debug, thiserror::Error)]
pub enum SubmissionError {
    /// Longer than it may be.
    #[error("a submission has {found} bytes, and {SUBMISSION_BYTES_MAX} are allowed")]
    TooLong {
        /// How many it has.
        found: u64,
    },
    /// A field is missing, unknown or of another kind.
    #[error("read the submission's field {field}")]
    Field {
        /// Which field.
        field: String,
        /// What was wrong with it.
        source: serde_json::Error,
    },
    /// Another format.
    #[error("the submission's field format is {found} instead of 1")]
    Format {
        /// What it says.
        found: u64,
    },
    /// More than is looked at.
    #[error("a submission has {found} documents and files, and {SUBMISSION_ITEMS_MAX} are allowed")]
    TooMany {
        /// How many it has.
        found: usize,
    },
}

/// Why a submission is refused. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Nothing is in it.
    #[error("publish nothing: the submission has no document")]
    Nothing,
    /// Snapshot and timestamp are control's to sign.
    #[error("publish the {role}: control alone signs it")]
    Online {
        /// Which.
        role: String,
    },
    /// Nobody delegates to such a role.
    #[error("publish {role}: nobody delegates to a role of that name")]
    NotDelegated {
        /// Which.
        role: String,
    },
    /// A scope that is left to a directorate, and delegated beside it.
    #[error("publish the targets: they delegate both {role} and {}", mandate::staff(scope))]
    Both {
        /// Which role.
        role: RoleName,
        /// Of which scope.
        scope: Label,
    },
    /// A directorate that says something else than who signs for its scope.
    #[error("publish {role}")]
    Staff {
        /// Whose.
        role: RoleName,
        /// The rule that it breaks.
        source: Box<StaffError>,
    },
    /// It is no document.
    #[error("publish {role}: split it into what is signed and by whom")]
    Parse {
        /// Whose.
        role: RoleName,
        /// What was wrong with it.
        source: ParseError,
    },
    /// Its role's keys do not vouch for it, or it breaks a rule.
    #[error("publish {role}: verify it")]
    Verify {
        /// Whose.
        role: RoleName,
        /// What was wrong with it.
        source: VerifyError,
    },
    /// Somebody else was first, or it was handed in before.
    #[error("publish {role}: its field version is {found}, and {expected} comes next")]
    Version {
        /// Whose.
        role: RoleName,
        /// What comes next.
        expected: Version,
        /// What it says.
        found: Version,
    },
    /// It expires before anybody could use it.
    #[error("publish {role}: its field expires is {at}, which has passed")]
    Expired {
        /// Whose.
        role: RoleName,
        /// When.
        at: Expires,
    },
    /// A new root whose keys do not vouch for what is published.
    #[error(
        "publish the root: its new keys of targets do not vouch for the targets; sign them with both"
    )]
    Orphans,
    /// It names what its role was not given.
    #[error("publish {role}: its field targets names {path:?}, which it was not delegated")]
    Outside {
        /// Whose.
        role: RoleName,
        /// Which path.
        path: TargetPath,
    },
    /// A name that a URL or a disk would have to quote.
    #[error(
        "publish {name:?}: a name here is of letters, digits and -._~+, in parts between slashes"
    )]
    Name {
        /// Which.
        name: String,
    },
    /// A file that is named did not come along.
    #[error("publish {path}: its bytes are not in the submission")]
    Lacks {
        /// Which.
        path: TargetPath,
    },
    /// A file that came is not the one that is named.
    #[error("publish {path}: compare its bytes with what the document says of them")]
    Mismatch {
        /// Which.
        path: TargetPath,
        /// What differs.
        source: MismatchError,
    },
    /// A file that nothing names.
    #[error("publish {path}: no new document names it")]
    Stray {
        /// Which.
        path: String,
    },
    /// An order file that no device would obey, or a content that none would take.
    #[error("publish {path}")]
    Order {
        /// Which.
        path: TargetPath,
        /// What was wrong with it.
        source: OrderError,
    },
    /// An order file that is not the successor of the one before.
    #[error("publish {path}")]
    File {
        /// Which.
        path: TargetPath,
        /// What was wrong with it.
        source: FileError,
    },
    /// A month that is over, or has not begun.
    #[error("publish {role}: contents of another month than {now} do not change")]
    Closed {
        /// Whose.
        role: RoleName,
        /// The month that it is.
        now: String,
    },
    /// A content that was published, with other bytes.
    #[error("publish {path}: a content's bytes do not change once it is published")]
    Changed {
        /// Which.
        path: TargetPath,
    },
}

impl Submission {
    /// Reads a submission.
    ///
    /// # Errors
    ///
    /// [`SubmissionError`].
    pub fn read(bytes: &[u8]) -> Result<Self, SubmissionError> {
        let found = bytes.len() as u64;
        if found > SUBMISSION_BYTES_MAX {
            return Err(SubmissionError::TooLong { found });
        }
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let field = |error: serde_path_to_error::Error<serde_json::Error>| {
            let field = error.path().to_string();
            SubmissionError::Field { field, source: error.into_inner() }
        };
        let written: Written = serde_path_to_error::deserialize(&mut json).map_err(field)?;
        json.end().map_err(|source| SubmissionError::Field { field: ".".to_owned(), source })?;
        if written.format != 1 {
            return Err(SubmissionError::Format { found: written.format });
        }
        let found = written.documents.len() + written.files.len();
        if found > SUBMISSION_ITEMS_MAX {
            return Err(SubmissionError::TooMany { found });
        }
        let bytes = |texts: BTreeMap<String, String>| {
            texts.into_iter().map(|(name, text)| (name, Bytes::from(text))).collect()
        };
        Ok(Self { documents: bytes(written.documents), files: bytes(written.files) })
    }

    /// Returns the submission as it is sent.
    ///
    /// # Panics
    ///
    /// Never on what was made or read here: documents and order files are text.
    pub fn write(&self) -> Vec<u8> {
        let texts = |all: &BTreeMap<String, Bytes>| {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            all.iter().map(|(name, bytes)| (name.clone(), text(bytes))).collect()
        };
        let written =
            Written { format: 1, documents: texts(&self.documents), files: texts(&self.files) };
        serde_json::to_vec(&written).expect("text is JSON")
    }
}

/// Checks a submission against what is published, as of `now`.
///
/// # Errors
///
/// [`Refused`], naming the document, the field and the rule.
pub fn accept(
    state: &State,
    organisation: &Organisation,
    submission: &Submission,
    now: Timestamp,
) -> Result<Accepted, Refused> {
    let mut accepted = Accepted::default();
    let mut rest = submission.documents.clone();
    if let Some(bytes) = rest.remove("root") {
        accepted.root = Some(next_root(state, bytes, now)?);
    }
    let new_root = accepted.root.as_deref();
    if let Some(bytes) = rest.remove("targets") {
        let role = RoleName::targets();
        let targets = vouched(&role, bytes.clone(), &state.root.keys_of(Kind::Targets))?;
        next(&role, &targets, state, now)?;
        if let Some(root) = new_root {
            vouched::<Targets>(&role, bytes, &root.keys_of(Kind::Targets))?;
        }
        check_scopes(&targets)?;
        accepted.targets = Some(targets);
    } else if let Some(root) = new_root {
        let keys = root.keys_of(Kind::Targets);
        let targets = Signed::<Targets>::parse(state.targets.bytes().clone());
        targets.ok().and_then(|targets| targets.verify(&keys).ok()).ok_or(Refused::Orphans)?;
    }
    // Who says who signs comes before what is signed.
    let is_staff = |name: &str| {
        RoleName::delegated(name).is_some_and(|role| mandate::directorate(&role).is_some())
    };
    let (staff, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(name, _)| is_staff(name));
    for (name, bytes) in staff.into_iter().chain(rest) {
        if matches!(name.as_str(), "snapshot" | "timestamp") {
            return Err(Refused::Online { role: name });
        }
        let (role, document) = delegated(state, &accepted, &name, bytes, now)?;
        accepted.roles.insert(role, document);
    }
    accept_files(state, organisation, submission, &mut accepted, now)?;
    let is_empty = accepted.root.is_none() && accepted.targets.is_none();
    if is_empty && accepted.roles.is_empty() { Err(Refused::Nothing) } else { Ok(accepted) }
}

fn next_root(state: &State, bytes: Bytes, now: Timestamp) -> Result<Believed<Root>, Refused> {
    let role = RoleName::root();
    let root: Believed<Root> = vouched(&role, bytes, &state.root.keys_of(Kind::Root))?;
    let signed = Signed::<Root>::parse(root.bytes().clone());
    let parse = |source| Refused::Parse { role: role.clone(), source };
    let verify = |source| Refused::Verify { role: role.clone(), source };
    let root = signed.map_err(parse)?.verify_by_itself().map_err(verify)?;
    let expected = state.root.version().next().unwrap_or(state.root.version());
    in_turn(&role, root.version(), expected, root.expires(), now)?;
    Ok(root)
}

/// Checks a delegated role's document: by the delegation that will hold, should that change as well.
fn delegated(
    state: &State,
    accepted: &Accepted,
    name: &str,
    bytes: Bytes,
    now: Timestamp,
) -> Result<(RoleName, Believed<Targets>), Refused> {
    let not_delegated = || Refused::NotDelegated { role: name.to_owned() };
    let role = RoleName::delegated(name).ok_or_else(not_delegated)?;
    let mandates = mandates(state, accepted);
    let mandate = mandates.of(&role).ok_or_else(not_delegated)?;
    check_name(role.as_str())?;
    let document: Believed<Targets> = vouched(&role, bytes, &mandate.keys())?;
    next(&role, &document, state, now)?;
    if let Some(scope) = mandate::directorate(&role) {
        check_staff(&scope, &document)
            .map_err(|error| Refused::Staff { role: role.clone(), source: Box::new(error) })?;
    }
    if let Some((path, _)) = document.files().find(|(path, _)| !mandate.is_for(path)) {
        return Err(Refused::Outside { role, path });
    }
    Ok((role, document))
}

/// Returns whose keys decide for which scope once what was accepted is published.
fn mandates<'a>(state: &'a State, accepted: &'a Accepted) -> Mandates<'a> {
    let targets = accepted.targets.as_ref().unwrap_or(&state.targets);
    Mandates::new(targets, |role, keys| {
        if let Some(new) = accepted.roles.get(role) {
            return Some(new);
        }
        // New targets may have given it other keys.
        let old = state.roles.get(role)?;
        let signed = Signed::<Targets>::parse(old.bytes().clone()).ok()?;
        signed.verify(keys).ok().map(|_| old.document())
    })
}

/// Refuses targets by which two would decide for one scope.
fn check_scopes(targets: &Targets) -> Result<(), Refused> {
    let Some(delegations) = &targets.delegations else { return Ok(()) };
    for scope in
        delegations.roles.iter().flatten().filter_map(|one| mandate::directorate(&one.name))
    {
        for (role, _) in mandate::signers(&scope) {
            if delegations.to(&role).is_some() {
                return Err(Refused::Both { role, scope });
            }
        }
    }
    Ok(())
}

fn vouched<T: Document>(
    role: &RoleName,
    bytes: Bytes,
    keys: &RoleKeys,
) -> Result<Believed<T>, Refused> {
    let signed = Signed::<T>::parse(bytes)
        .map_err(|source| Refused::Parse { role: role.clone(), source })?;
    signed.verify(keys).map_err(|source| Refused::Verify { role: role.clone(), source })
}

fn next(role: &RoleName, document: &Targets, state: &State, now: Timestamp) -> Result<(), Refused> {
    let found = document.version();
    let expected = state.next_version(role).unwrap_or(found);
    in_turn(role, found, expected, document.expires(), now)
}

fn in_turn(
    role: &RoleName,
    found: Version,
    expected: Version,
    at: Expires,
    now: Timestamp,
) -> Result<(), Refused> {
    let role = role.clone();
    if found != expected {
        return Err(Refused::Version { role, expected, found });
    }
    if at.has_passed(now) { Err(Refused::Expired { role, at }) } else { Ok(()) }
}

/// Checks what the new documents name, and takes the order files among it.
fn accept_files(
    state: &State,
    organisation: &Organisation,
    submission: &Submission,
    accepted: &mut Accepted,
    now: Timestamp,
) -> Result<(), Refused> {
    let mut wanted = BTreeSet::new();
    let mut files = Vec::new();
    let targets =
        accepted.targets.iter().map(|targets| (RoleName::targets(), targets, Some(&state.targets)));
    let roles = accepted.roles.iter().map(|(role, new)| (role.clone(), new, state.roles.get(role)));
    for (role, new, old) in targets.chain(roles) {
        let old = old.map(Believed::document);
        if role.as_str().starts_with("content-") {
            check_contents(&role, new, old, now)?;
            continue;
        }
        for (path, file) in new.files() {
            if old.and_then(|old| old.file(&path)) == Some(file) {
                continue;
            }
            let bytes = submission.files.get(path.as_str());
            let bytes = bytes.ok_or_else(|| Refused::Lacks { path: path.clone() })?;
            let mismatch = |source| Refused::Mismatch { path: path.clone(), source };
            if bytes.len() as u64 != file.length {
                let (expected, found) = (file.length, bytes.len() as u64);
                return Err(mismatch(MismatchError::Length { expected, found }));
            }
            file.hashes.check(bytes).map_err(mismatch)?;
            check_name(path.as_str())?;
            let before = state.orders.get(&path);
            files::check(&role, &path, bytes, before, organisation)
                .map_err(|source| Refused::File { path: path.clone(), source })?;
            wanted.insert(path.as_str().to_owned());
            files.push((path, file.clone(), bytes.clone()));
        }
    }
    if let Some(path) = submission.files.keys().find(|path| !wanted.contains(*path)) {
        return Err(Refused::Stray { path: path.clone() });
    }
    accepted.files = files;
    Ok(())
}

/// Checks a month's contents: the month is now, or nothing but the document's expiry changes.
fn check_contents(
    role: &RoleName,
    new: &Targets,
    old: Option<&Targets>,
    now: Timestamp,
) -> Result<(), Refused> {
    let kept = |path: &TargetPath, file: &TargetFile| {
        old.is_none_or(|old| {
            old.file(path)
                .is_none_or(|before| before.length == file.length && before.hashes == file.hashes)
        })
    };
    if let Some((path, _)) = new.files().find(|(path, file)| !kept(path, file)) {
        return Err(Refused::Changed { path });
    }
    let is_unchanged = old.is_some_and(|old| {
        old.files().count() == new.files().count()
            && old.files().all(|(path, file)| new.file(&path) == Some(file))
    });
    // A day of grace on either side: clocks differ, and a signature may have been made before midnight.
    let day = jiff::SignedDuration::from_hours(24);
    let months = [now.checked_sub(day), Ok(now), now.checked_add(day)]
        .map(|instant| About::month(Utc::of(instant.unwrap_or(now))));
    let is_open = months.iter().any(|month| role.as_str() == format!("content-{month}"));
    if !is_open && !is_unchanged {
        return Err(Refused::Closed { role: role.clone(), now: months[1].clone() });
    }
    for (path, file) in new.files() {
        check_name(path.as_str())?;
        Content::of(&path, file).map_err(|source| Refused::Order { path, source })?;
    }
    Ok(())
}

/// Refuses a name that would have to be quoted: on the disk and in a URL it is the same one.
fn check_name(name: &str) -> Result<(), Refused> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+".contains(&byte);
    let is_part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.len() <= 180
            && part.bytes().all(is_plain)
    };
    if name.split('/').all(is_part) { Ok(()) } else { Err(Refused::Name { name: name.to_owned() }) }
}
