//! Bringing a machine's manifest up to date from a peer: the TUF client workflow over QUIC, every role, and
//! every order file.
//!
//! Blocking; the follower calls it where that is allowed. It is all or nothing: a [`Manifest`] has every order
//! file that its roles name, so that who keeps one back (a halt, say) brings about nothing but that the older
//! manifest stays in force until it is stale. A role that cannot be believed is told, and the others stand.
//!
//! Always true: what is put into the mirror was believed, and the timestamp is put in last, so that whoever
//! refreshes from this machine finds all that it pins.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::SystemTime;

use bytes::Bytes;
use sutler_cache::trust::TrustStore;
use sutler_orders::bounds::ORDER_BYTES_MAX;
use sutler_orders::mandate::Mandates;
use sutler_protocol::manifest::bounds::{ROOT_BYTES_MAX, TARGETS_BYTES_MAX};
use sutler_protocol::manifest::drive::{self, DriveError, Keeper, Repository};
use sutler_protocol::manifest::{
    Answer, Believed, Check, Expires, Fetch, Found, Keep, MismatchError, RoleKeys, RoleName, Roles,
    TargetPath, Trusted, Unreadable, Version,
};
use tokio::runtime::Handle;
use tracing::warn;

use super::{Mirror, Place};
use crate::gateway::causes;
use crate::peer::{Peer, RequestError};

/// Order files of one manifest, at most: five for each of some 200 scopes.
pub const FILES_MAX: usize = 1_024;

/// Bytes of all order files of one manifest, at most: they are held in memory.
pub const FILES_BYTES_MAX: u64 = 64 << 20;

/// Where the target files of contents lie; they are contents of the store, not documents.
const CONTENT_FOLDER: &str = "content/";

/// A manifest as a whole, verified.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What the newest timestamp says.
    pub statement: Statement,
    /// The time as of which roles were judged: that of the refresh, or the last at which the statement was
    /// still good, if that is earlier.
    pub as_of: jiff::Timestamp,
    /// When the root expires that vouches for all of it.
    pub root_expires: Expires,
    /// Every role: who may say what, and what contents there are.
    pub roles: Roles,
    /// The order files, each as it was signed, by its path.
    pub files: BTreeMap<TargetPath, Bytes>,
}

impl Manifest {
    /// Returns whose keys decide for which scope, as far as the roles are believed.
    pub fn mandates(&self) -> Mandates<'_> {
        let staff = |role: &RoleName, keys: &RoleKeys| {
            self.roles.role_of(role, keys).map(Believed::document)
        };
        Mandates::new(self.roles.targets(), staff)
    }
}

/// The newest timestamp of control that was believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The timestamp's version.
    pub version: Version,
    /// When control signed it, as it says itself; absent from a repository that does not say.
    pub issued: Option<jiff::Timestamp>,
    /// When it expires.
    pub expires: Expires,
    /// The timestamp as it came.
    pub bytes: Bytes,
}

/// Why a manifest was not brought up to date. What was believed before it stays so.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The peer could not be asked, its answer is not believed, or the disk refused.
    #[error("refresh the manifest")]
    Drive(#[source] Box<DriveError<AskError, KeepError>>),
    /// There is no timestamp yet.
    #[error("there is no manifest yet")]
    Nothing,
    /// A role that decides on a file is not believed.
    #[error("find {path} in the manifest")]
    Find {
        /// The file.
        path: TargetPath,
        /// Which role.
        source: Unreadable,
    },
    /// An order file could not be asked for.
    #[error("fetch {path}")]
    Fetch {
        /// The file.
        path: TargetPath,
        /// What went wrong.
        source: AskError,
    },
    /// The peer does not have an order file that the manifest names.
    #[error("fetch {path}: the peer does not have it")]
    Absent {
        /// The file.
        path: TargetPath,
    },
    /// The bytes are not the order file that was meant (T7).
    #[error("check {path}")]
    Mismatch {
        /// The file.
        path: TargetPath,
        /// How they differ.
        source: MismatchError,
    },
    /// More order files, or larger ones, than a device holds.
    #[error(
        "the manifest has more than {FILES_MAX} order files or {FILES_BYTES_MAX} bytes of them"
    )]
    TooMuch,
    /// The disk refused.
    #[error("keep {path}")]
    Keep {
        /// The file.
        path: TargetPath,
        /// What it answered.
        source: io::Error,
    },
}

/// Why a document could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The repository calls it something that is no place.
    #[error("there is no such place")]
    Place,
    /// The peer did not answer.
    #[error("ask {address}")]
    Peer {
        /// Whom.
        address: std::net::SocketAddr,
        /// What went wrong.
        source: RequestError,
    },
    /// The disk refused.
    #[error("read what is here")]
    Disk(#[source] io::Error),
}

/// Why what is believed was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The trust store refused.
    #[error(transparent)]
    Store(#[from] sutler_cache::trust::KeepError),
    /// The mirror refused.
    #[error("pass on {place}")]
    Mirror {
        /// What.
        place: String,
        /// What the disk answered.
        source: io::Error,
    },
}

/// Whom an update asks.
#[derive(Clone)]
pub(super) enum From {
    /// A peer.
    Peer(Peer, Handle),
    /// A repository on this machine.
    Folder(Mirror),
    /// Nobody: what was believed last is brought to mind.
    Mirror,
}

/// Brings what is believed up to date from a peer as of `now`, or tells what was believed last.
///
/// # Errors
///
/// [`UpdateError`]; what was believed before stays believed.
pub(super) fn update(
    trusted: &mut Trusted,
    store: &mut TrustStore,
    mirror: &Mirror,
    from: From,
    now: jiff::Timestamp,
) -> Result<Manifest, UpdateError> {
    let drive_error = |error| UpdateError::Drive(Box::new(error));
    let mut asked = Asked { mirror: mirror.clone(), from };
    let mut keeping = Keeping { store, mirror };
    keeping
        .pass_on(&RoleName::root(), trusted.root().version(), trusted.root().bytes())
        .map_err(|source| drive_error(DriveError::Keep(source)))?;
    if !matches!(asked.from, From::Mirror) {
        drive::refresh(trusted, &mut asked, &mut keeping, now).map_err(drive_error)?;
    }
    let as_of = last_good(trusted, now).ok_or(UpdateError::Nothing)?;
    let roles = drive::sweep(trusted, &mut asked, &mut keeping, as_of).map_err(drive_error)?;
    for (role, fault) in roles.refused() {
        warn!(%role, error = causes(fault), "a role of the manifest is not believed");
    }
    let found = wanted(&roles)?;
    let mut files = BTreeMap::new();
    let mut places = BTreeSet::new();
    for found in found {
        let place = format!("targets/{}", trusted.place_of(&found));
        files.insert(found.path.clone(), asked.file(&found, &place)?);
        places.insert(place);
    }
    let timestamp = trusted.timestamp().ok_or(UpdateError::Nothing)?;
    let statement = Statement {
        version: timestamp.version(),
        issued: timestamp.issued(),
        expires: timestamp.expires(),
        bytes: timestamp.bytes().clone(),
    };
    let path = TargetPath::from("timestamp.json");
    let place = place(&format!("metadata/{path}")).ok_or(UpdateError::Nothing)?;
    let put = mirror.put(&place, &statement.bytes);
    put.map_err(|source| UpdateError::Keep { path, source })?;
    tidy(trusted, mirror, &places);
    let root_expires = trusted.root().expires();
    Ok(Manifest { statement, as_of, root_expires, roles, files })
}

/// Returns the last instant up to `now` at which every top-level document was good, so that a device that
/// hears nothing any more still knows what it was told last. Whether that still counts is not decided here.
fn last_good(trusted: &Trusted, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let ends = [
        trusted.timestamp()?.expires(),
        trusted.snapshot()?.expires(),
        trusted.targets()?.expires(),
    ];
    let before = |end: Expires| end.instant().checked_sub(jiff::SignedDuration::from_secs(1)).ok();
    ends.into_iter().filter_map(before).chain([now]).min()
}

/// Returns the order files that the roles name.
fn wanted(roles: &Roles) -> Result<Vec<Found>, UpdateError> {
    let mut found = Vec::new();
    let mut bytes = 0_u64;
    for path in roles.paths() {
        if path.as_str().starts_with(CONTENT_FOLDER) {
            continue;
        }
        let file = match roles.find(&path) {
            Ok(Some(file)) => file,
            // Nobody who may name it does.
            Ok(None) => continue,
            Err(source) => return Err(UpdateError::Find { path, source }),
        };
        bytes = bytes.saturating_add(file.file.length);
        if found.len() == FILES_MAX || bytes > FILES_BYTES_MAX || file.file.length > ORDER_BYTES_MAX
        {
            return Err(UpdateError::TooMuch);
        }
        found.push(file);
    }
    Ok(found)
}

/// Removes what nothing pins any more. Trouble with it is no trouble of the manifest's.
fn tidy(trusted: &Trusted, mirror: &Mirror, targets: &BTreeSet<String>) {
    let Some(snapshot) = trusted.snapshot() else { return };
    let mut wanted = targets.clone();
    wanted.insert("metadata/timestamp.json".to_owned());
    let version = Some(snapshot.version());
    wanted.insert(format!("metadata/{}", RoleName::snapshot().place(version)));
    let roles = std::iter::once(RoleName::targets()).chain(
        snapshot.meta.keys().filter_map(|file| RoleName::delegated(file.strip_suffix(".json")?)),
    );
    for role in roles {
        let version = snapshot.pin(&role).map(|pin| pin.version);
        wanted.insert(format!("metadata/{}", role.place(version)));
    }
    let is_wanted = |name: &str| name.ends_with(".root.json") || wanted.contains(name);
    if let Err(error) = mirror.prune(SystemTime::now(), is_wanted) {
        warn!(%error, "old documents cannot be removed");
    }
}

/// Documents from a peer, or from the mirror where they are there already.
struct Asked {
    mirror: Mirror,
    from: From,
}

impl Asked {
    fn ask(&self, place: &Place, bytes_max: u64) -> Result<Option<Bytes>, AskError> {
        // One byte more, so that what is too long is seen to be.
        let bytes_max = u32::try_from(bytes_max.saturating_add(1)).unwrap_or(u32::MAX);
        match &self.from {
            From::Peer(peer, runtime) => runtime
                .block_on(peer.document(place, bytes_max))
                .map_err(|source| AskError::Peer { address: peer.address(), source }),
            From::Folder(repository) => repository.read(place).map_err(AskError::Disk),
            From::Mirror => self.mirror.read(place).map_err(AskError::Disk),
        }
    }

    /// Returns an order file, checked.
    fn file(&self, found: &Found, at: &str) -> Result<Bytes, UpdateError> {
        let path = &found.path;
        let fetch = |source| UpdateError::Fetch { path: path.clone(), source };
        let place = place(at).ok_or_else(|| fetch(AskError::Place))?;
        // What is here and is not the right one is as if it were absent.
        let here = self.mirror.read(&place).ok().flatten();
        if let Some(here) = here.filter(|here| check(found, here).is_ok()) {
            return Ok(here);
        }
        let bytes = self.ask(&place, found.file.length).map_err(fetch)?;
        let bytes = bytes.ok_or_else(|| UpdateError::Absent { path: path.clone() })?;
        check(found, &bytes)
            .map_err(|source| UpdateError::Mismatch { path: path.clone(), source })?;
        let put = self.mirror.put(&place, &bytes);
        put.map_err(|source| UpdateError::Keep { path: path.clone(), source })?;
        Ok(bytes)
    }
}

impl Repository for Asked {
    type Error = AskError;

    fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, AskError> {
        let place = place(&format!("metadata/{}", fetch.place)).ok_or(AskError::Place)?;
        let document = self.ask(&place, fetch.bytes_max.min(bytes_max(&fetch.role)))?;
        Ok(document.map_or(Answer::Absent, Answer::Document))
    }
}

/// Keeps what is believed, and passes it on.
struct Keeping<'a> {
    store: &'a mut TrustStore,
    mirror: &'a Mirror,
}

impl Keeping<'_> {
    fn pass_on(&self, role: &RoleName, version: Version, bytes: &Bytes) -> Result<(), KeepError> {
        let text = format!("metadata/{}", role.place(Some(version)));
        // A role that is called something which is no place is passed on by nobody.
        let Some(place) = place(&text) else { return Ok(()) };
        self.mirror.put(&place, bytes).map_err(|source| KeepError::Mirror { place: text, source })
    }
}

impl Keeper for Keeping<'_> {
    type Error = KeepError;

    fn keep(&mut self, keep: Keep) -> Result<(), KeepError> {
        if let Keep::Document { role, version, bytes } = &keep
            && *role != RoleName::timestamp()
        {
            self.pass_on(role, *version, bytes)?;
        }
        Ok(self.store.keep(keep)?)
    }

    fn load(&mut self, role: &RoleName) -> Option<Bytes> {
        self.store.load(role)
    }
}

fn place(text: &str) -> Option<Place> {
    Place::parse(text)
}

fn bytes_max(role: &RoleName) -> u64 {
    if *role == RoleName::root() { ROOT_BYTES_MAX } else { TARGETS_BYTES_MAX }
}

fn check(found: &Found, bytes: &[u8]) -> Result<(), MismatchError> {
    let mut check = Check::new(found.file.length, &found.file.hashes)?;
    check.update(bytes)?;
    check.finish()
}

impl UpdateError {
    /// Returns whether the trouble is this machine's own, and not the peer's or the orders'.
    pub fn is_own(&self) -> bool {
        match self {
            Self::Drive(error) => matches!(**error, DriveError::Keep(_)),
            Self::Keep { .. } => true,
            Self::Nothing
            | Self::Find { .. }
            | Self::Fetch { .. }
            | Self::Absent { .. }
            | Self::Mismatch { .. }
            | Self::TooMuch => false,
        }
    }
}
