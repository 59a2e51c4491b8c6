//! Reading what a repository says: from the top down, each document by the one that leads to it, and the order files
//! that they name.
//!
//! What is read lies on a disk or comes from another machine, and is checked the same way. Nothing here looks at
//! the time: what has expired has to be read to be signed anew.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::io;

use bytes::Bytes;
use sutler_cache::backend::{Backend, read_file};
use sutler_orders::mandate;
use sutler_protocol::manifest::bounds::TARGETS_BYTES_MAX;
use sutler_protocol::manifest::drive::{self, DriveError, Keeper};
use sutler_protocol::manifest::signed::VerifyError;
use sutler_protocol::manifest::{
    Answer, Believed, Fetch, Keep, LoadError, MismatchError, ParseError, Pin, RoleName, Signed,
    TargetFile, TargetPath, Targets, Trusted,
};

use super::{Repository, TARGETS, metadata};
use crate::bounds::ORDER_BYTES_MAX;
use crate::state::{State, is_content};

/// Where the documents and order files of a repository come from.
pub trait Source: drive::Repository {
    /// Fetches the target file at `place`, which is quoted for a URL, reading at most one byte more than
    /// `bytes_max`.
    ///
    /// # Errors
    ///
    /// Whatever kept it from being fetched.
    fn fetch_file(&mut self, place: &str, bytes_max: u64) -> Result<Answer, Self::Error>;
}

/// Why what a repository says cannot be told. `E` is why a document could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E: Error + 'static = io::Error> {
    /// Nothing was published in it yet.
    #[error("read a repository in which nothing was published")]
    Empty,
    /// The first root does not hold.
    #[error("believe the repository's first root")]
    Root(#[source] LoadError),
    /// A document is missing, or is not what it has to be.
    #[error("go through the repository's documents")]
    Documents(#[source] DriveError<E, Infallible>),
    /// A delegated role's document is missing, or is not what the snapshot pins.
    #[error("read {place} of the repository")]
    Role {
        /// Where it should be.
        place: String,
        /// What was found.
        source: RoleError<E>,
    },
    /// An order file is missing or is another one.
    #[error("read the target file {path} of the repository")]
    File {
        /// Which.
        path: TargetPath,
        /// What was found.
        source: FileError<E>,
    },
}

/// What is wrong with a delegated role's document.
#[derive(Debug, thiserror::Error)]
pub enum RoleError<E: Error + 'static = io::Error> {
    /// It could not be had.
    #[error("read it")]
    Read(#[source] E),
    /// It is not there.
    #[error("the repository does not have it")]
    Absent,
    /// It is no document.
    #[error("split it into what is signed and by whom")]
    Parse(#[source] ParseError),
    /// It is not the one that the snapshot pins.
    #[error("it is not the document that the snapshot pins")]
    NotPinned,
    /// It breaks a rule.
    #[error("verify it")]
    Verify(#[source] VerifyError),
}

/// What is wrong with an order file.
#[derive(Debug, thiserror::Error)]
pub enum FileError<E: Error + 'static = io::Error> {
    /// It could not be had.
    #[error("read it")]
    Read(#[source] E),
    /// It is not there.
    #[error("the repository does not have it")]
    Absent,
    /// It is another one.
    #[error("compare it with what the documents say of it")]
    Mismatch(#[source] MismatchError),
}

/// What a repository says, and in which bytes.
pub(super) struct Read {
    pub(super) state: State,
    /// The documents of delegated roles by their places, also of those that nobody vouches for.
    pub(super) roles: Vec<(String, Bytes)>,
    /// The order files.
    pub(super) files: Vec<OrderFile>,
}

/// An order file, and what the documents say of it.
type OrderFile = (TargetPath, TargetFile, Bytes);

/// What was verified and written here before.
#[derive(Clone, Copy)]
pub(super) struct Near<'a> {
    pub(super) repository: &'a Repository,
    /// What was published here, as far as it can be read.
    pub(super) state: Option<&'a State>,
}

/// Brings `trusted` to what the source says now, at whatever time.
pub(super) fn go_through<S, K>(
    trusted: &mut Trusted,
    source: &mut S,
    keeper: &mut K,
) -> Result<(), ReadError<S::Error>>
where
    S: Source,
    K: Keeper<Error = Infallible>,
{
    let never = jiff::Timestamp::MIN;
    drive::refresh(trusted, source, keeper, never).map_err(ReadError::Documents)
}

/// Reads all that the documents in `trusted` lead to. What lies `near` is taken from there; what does not has to be
/// vouched for by keys that delegate to it, or did so when `near` was written.
pub(super) fn read<S: Source>(
    trusted: &Trusted,
    source: &mut S,
    near: Option<Near<'_>>,
) -> Result<Read, ReadError<S::Error>> {
    let parts = (trusted.targets(), trusted.snapshot(), trusted.timestamp());
    let (Some(targets), Some(snapshot), Some(timestamp)) = parts else {
        return Err(ReadError::Empty);
    };
    let mut state = State {
        root: trusted.root().clone(),
        targets: targets.clone(),
        snapshot: snapshot.clone(),
        timestamp: timestamp.clone(),
        roles: BTreeMap::new(),
        unvouched: BTreeMap::new(),
        orders: BTreeMap::new(),
    };
    let roles = read_roles(&mut state, source, near)?;
    let files = read_orders(&state, source, near)?;
    state.orders = files.iter().map(|(path, _, bytes)| (path.clone(), bytes.clone())).collect();
    Ok(Read { state, roles, files })
}

fn read_roles<S: Source>(
    state: &mut State,
    source: &mut S,
    near: Option<Near<'_>>,
) -> Result<Vec<(String, Bytes)>, ReadError<S::Error>> {
    let pinned = state.snapshot.meta.iter().filter_map(|(file, pin)| {
        let role = file.strip_suffix(".json").and_then(RoleName::delegated)?;
        Some((role, pin.clone()))
    });
    // Who says who signs comes before what is signed.
    let (staff, rest): (Vec<_>, Vec<_>) =
        pinned.partition(|(role, _)| mandate::directorate(role).is_some());
    let mut documents = Vec::new();
    for (role, pin) in staff.into_iter().chain(rest) {
        let place = role.place(Some(pin.version));
        let failed = |source| ReadError::Role { place: place.clone(), source };
        let here = near.and_then(|near| near.repository.pinned(&place, &pin));
        let is_new = near.is_some() && here.is_none();
        let bytes = match here {
            Some(bytes) => bytes,
            None => fetch_role(&role, &place, &pin, source).map_err(failed)?,
        };
        let is_pinned = pin.hashes.as_ref().is_none_or(|hashes| hashes.check(&bytes).is_ok());
        if !is_pinned {
            return Err(failed(RoleError::NotPinned));
        }
        let signed = Signed::<Targets>::parse(bytes.clone())
            .map_err(|error| failed(RoleError::Parse(error)))?;
        match state.keys_of(&role).map(|keys| signed.verify(&keys)) {
            Some(Ok(believed)) if believed.version() == pin.version => {
                state.roles.insert(role, believed);
            }
            Some(Ok(_)) => return Err(failed(RoleError::NotPinned)),
            Some(Err(error)) if is_new && !vouched_before(near, &role, &signed) => {
                return Err(failed(RoleError::Verify(error)));
            }
            // Its signers were replaced, or it is delegated to no longer.
            None | Some(Err(VerifyError::Threshold { .. })) => {
                state.unvouched.insert(role, pin.version);
            }
            Some(Err(error)) => return Err(failed(RoleError::Verify(error))),
        }
        documents.push((place, bytes));
    }
    Ok(documents)
}

fn vouched_before(near: Option<Near<'_>>, role: &RoleName, signed: &Signed<Targets>) -> bool {
    let keys = near.and_then(|near| near.state?.keys_of(role));
    keys.is_some_and(|keys| signed.verify(&keys).is_ok())
}

fn fetch_role<S: Source>(
    role: &RoleName,
    place: &str,
    pin: &Pin,
    source: &mut S,
) -> Result<Bytes, RoleError<S::Error>> {
    let bytes_max = pin.length.map_or(TARGETS_BYTES_MAX, |length| length.min(TARGETS_BYTES_MAX));
    let fetch = Fetch { role: role.clone(), place: place.to_owned(), bytes_max };
    match source.fetch(&fetch).map_err(RoleError::Read)? {
        Answer::Document(bytes) if bytes.len() as u64 <= bytes_max => Ok(bytes),
        Answer::Document(_) => Err(RoleError::NotPinned),
        Answer::Absent => Err(RoleError::Absent),
    }
}

fn read_orders<S: Source>(
    state: &State,
    source: &mut S,
    near: Option<Near<'_>>,
) -> Result<Vec<OrderFile>, ReadError<S::Error>> {
    let documents = state.roles.values().chain([&state.targets]).map(Believed::document);
    let mut orders = Vec::new();
    for (path, file) in documents.flat_map(Targets::files).filter(|(path, _)| !is_content(path)) {
        let bytes = match near.and_then(|near| near.repository.file(&path, file).ok()) {
            Some(bytes) => bytes,
            None => fetch_order(&path, file, source)
                .map_err(|source| ReadError::File { path: path.clone(), source })?,
        };
        orders.push((path, file.clone(), bytes));
    }
    Ok(orders)
}

fn fetch_order<S: Source>(
    path: &TargetPath,
    file: &TargetFile,
    source: &mut S,
) -> Result<Bytes, FileError<S::Error>> {
    let place = path.place(file.hashes.prefix().as_deref());
    let bytes_max = file.length.min(ORDER_BYTES_MAX);
    let answer = source.fetch_file(&place, bytes_max).map_err(FileError::Read)?;
    let Answer::Document(bytes) = answer else { return Err(FileError::Absent) };
    let (expected, found) = (file.length, bytes.len() as u64);
    if found != expected {
        return Err(FileError::Mismatch(MismatchError::Length { expected, found }));
    }
    file.hashes.check(&bytes).map_err(FileError::Mismatch)?;
    Ok(bytes)
}

/// A repository on this disk, as a client asks for it.
pub(super) struct Here<'a>(pub(super) &'a dyn Backend);

impl Here<'_> {
    fn answer(&self, place: &std::path::Path, bytes_max: u64) -> io::Result<Answer> {
        match read_file(self.0, place, bytes_max) {
            Ok(bytes) => Ok(Answer::Document(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Absent),
            Err(error) => Err(error),
        }
    }
}

impl drive::Repository for Here<'_> {
    type Error = io::Error;

    fn fetch(&mut self, fetch: &Fetch) -> io::Result<Answer> {
        self.answer(&metadata(&fetch.place), fetch.bytes_max)
    }
}

impl Source for Here<'_> {
    fn fetch_file(&mut self, place: &str, bytes_max: u64) -> io::Result<Answer> {
        self.answer(&std::path::Path::new(TARGETS).join(place), bytes_max)
    }
}

/// Keeps nothing: what is read lies here already.
pub(super) struct NoKeeper;

impl Keeper for NoKeeper {
    type Error = Infallible;

    fn keep(&mut self, _: Keep) -> Result<(), Infallible> {
        Ok(())
    }

    fn load(&mut self, _: &RoleName) -> Option<Bytes> {
        None
    }
}
