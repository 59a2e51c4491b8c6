//! Catching up with what devices know, before anything is signed: after a restoration, or where a machine was put back
//! by other means (T31).
//!
//! Nodes relay what control has signed, and keep it. Each is asked for the newest of it; what it answers is believed by
//! the rules by which every device believes, from the first root on, but for the expiry: what has expired meanwhile is
//! what is to be signed anew. Roots, roles and order files that are newer are taken over, and snapshot and timestamp
//! signed above all that was seen, so that no device takes them for a rollback.
//!
//! Always true: nothing is signed below a version that any node has shown; a kill leaves a folder that catches up again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use sutler_orders::text::Utc;
use sutler_protocol::manifest::drive::{self, DriveError, Keeper};
use sutler_protocol::manifest::{
    Answer, Fault, Fetch, Keep, Kept, LoadError, RoleName, TargetFile, TargetPath, Trusted,
    Unreadable, Version,
};
use sutler_swarm::Endpoint;
use sutler_swarm::gateway::causes;
use sutler_swarm::orders::{Mirror, Place, SOURCES_MAX};
use sutler_swarm::peer::{ConnectError, Peer, RequestError};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::ForeignIdentity;
use super::config::ControlConfig;
use super::fetch_back::Named;
use crate::audit::{Audit, AuditError, Deed};
use crate::backup::{Restored, RestoredError};
use crate::bounds::ORDER_BYTES_MAX;
use crate::key::OpenKeyError;
use crate::organisation::{Folder, FolderError, PublishError};
use crate::repository::{Publication, ReadError, WriteError};
use crate::state::is_content;

/// The time as of which documents are judged: what has expired has to be read to be signed anew.
const NEVER: Timestamp = Timestamp::MIN;

/// What control has caught up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaughtUp {
    /// Who knew the newest orders; absent if nobody knew newer ones.
    pub from: Option<SocketAddr>,
    /// The highest version of a timestamp that was seen, here or there, or was given.
    pub above: u64,
    /// The version that was signed.
    pub version: u64,
}

/// Why control has not caught up. Nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The organisation's folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The identity is another organisation's.
    #[error(transparent)]
    Foreign(#[from] ForeignIdentity),
    /// It cannot be told whether it was restored.
    #[error(transparent)]
    Restored(#[from] RestoredError),
    /// It was restored, and nobody has told what devices have seen since.
    #[error(
        "this control was restored from a backup or put back, at version {version}, and {}",
        untold(tried)
    )]
    Untold {
        /// The version that it was restored with.
        version: u64,
        /// Who was asked, and what came of it.
        tried: Vec<(SocketAddr, String)>,
    },
    /// The first root cannot be read.
    #[error("read the repository's first root")]
    Root(#[source] io::Error),
    /// The first root does not hold.
    #[error("believe the repository's first root")]
    Load(#[source] LoadError),
    /// No version can be above the one that was given or seen.
    #[error("sign above version {above}: there is no version 0, and none after the last")]
    Above {
        /// The version.
        above: u64,
    },
    /// The disk refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What was taken over is not whole.
    #[error("read what was taken over")]
    Read(#[from] ReadError),
    /// Control's own keys cannot be read.
    #[error("read control's own keys")]
    Keys(#[source] OpenKeyError),
    /// It could not be written down.
    #[error("write down what was taken over")]
    Audit(#[from] AuditError),
    /// A folder cannot be made or written into.
    #[error("use {}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// Snapshot and timestamp could not be signed.
    #[error("sign above what was seen")]
    Sign(#[source] PublishError),
    /// A defect.
    #[error("catch up")]
    Task(#[source] tokio::task::JoinError),
}

/// Why a node's orders were not taken over.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    /// It is not there.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Its answers are not believed, or it stopped answering.
    #[error(transparent)]
    Drive(#[from] DriveError<AskError, std::convert::Infallible>),
    /// A role that decides on a file is not believed.
    #[error("find {path}")]
    Find { path: TargetPath, source: Unreadable },
    /// An order file did not come.
    #[error("fetch {path}")]
    Fetch { path: TargetPath, source: AskError },
    /// An order file is not there, or is another one.
    #[error("fetch {path}: the node does not have the file that is named")]
    File { path: TargetPath },
}

/// Why a document could not be asked for.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("there is no such place")]
    Place,
    #[error("ask the node")]
    Peer(#[from] RequestError),
    #[error("read what is here")]
    Disk(#[from] io::Error),
}

/// Asks the nodes of the config, and those that a restoration named, for what is newer than what lies in `data`, and
/// signs above it. Says `None` if there was no need to. `above` is a version to sign above whatever they say.
///
/// Must be done before [`super::Daemon::open`], which signs.
///
/// # Errors
///
/// [`CatchUpError`]. A node that does not answer is no error unless the folder was restored, and none answers.
///
/// # Cancel safety
///
/// Dropping it while nodes are asked gives up; once something is written it is finished all the same.
pub async fn catch_up(
    data: &Path,
    config: &ControlConfig,
    above: Option<u64>,
    endpoint: &Endpoint,
) -> Result<Option<CaughtUp>, CatchUpError> {
    let restored = Restored::read(data)?;
    let more = restored.iter().flat_map(|restored| &restored.sources);
    let sources: BTreeSet<SocketAddr> = config.sources.iter().chain(more).copied().collect();
    let above = above.max(restored.as_ref().and_then(|restored| restored.above));
    if restored.is_none() && sources.is_empty() && above.is_none() {
        return Ok(None);
    }
    let mut connecting = JoinSet::new(); // Owns a handshake with each, all bounded by the endpoint's time-out.
    for source in sources.into_iter().take(SOURCES_MAX) {
        let endpoint = endpoint.clone();
        connecting.spawn(async move { (source, endpoint.connect(source).await) });
    }
    let connected = connecting.join_all().await;
    let (data, runtime, endpoint) = (data.to_owned(), Handle::current(), endpoint.clone());
    let work = move || {
        let asked = connected.into_iter().map(|(source, peer)| (source, peer, runtime.clone()));
        Catching { data: &data, restored, above }.run(&endpoint, asked.collect())
    };
    tokio::task::spawn_blocking(work).await.map_err(CatchUpError::Task)?
}

/// A node that was reached or not, and how to wait for its answers.
type Asked = (SocketAddr, Result<Peer, ConnectError>, Handle);

struct Catching<'a> {
    data: &'a Path,
    restored: Option<Restored>,
    above: Option<u64>,
}

impl Catching<'_> {
    fn run(
        &self,
        endpoint: &Endpoint,
        asked: Vec<Asked>,
    ) -> Result<Option<CaughtUp>, CatchUpError> {
        let folder = Folder::open_restored(self.data)?;
        ForeignIdentity::refuse(&folder, endpoint)?;
        let here = self.believed_here()?;
        let mut seen = version_of(&here);
        let (mut newest, mut tried, mut answered) =
            (None::<(SocketAddr, Collected)>, Vec::new(), 0);
        for (source, peer, runtime) in asked {
            let mut trusted = here.clone();
            let collected = peer
                .map_err(CollectError::from)
                .and_then(|peer| Collected::of(&mut trusted, Documents::of_peer(peer, runtime)));
            // What it has shown counts, also where it could not show the rest.
            seen = seen.max(version_of(&trusted));
            match collected {
                Ok(collected) => {
                    answered += 1;
                    let known = newest.as_ref().map_or(age_of(&here), |(_, newest)| newest.age);
                    if collected.age > known {
                        newest = Some((source, collected));
                    }
                }
                Err(error) if error.is_older() => answered += 1,
                Err(error) => {
                    let error = causes(&error);
                    warn!(address = %source, error, "its orders are not taken over");
                    tried.push((source, error));
                }
            }
        }
        if let Some(restored) = self.restored.as_ref().filter(|_| answered == 0)
            && self.above.is_none()
        {
            return Err(CatchUpError::Untold { version: restored.version, tried });
        }
        if newest.is_none() && self.restored.is_none() && self.above.is_none() {
            return Ok(None);
        }
        let above = seen.max(self.above.unwrap_or_default());
        self.take_over(&folder, newest, above).map(Some)
    }

    /// Returns what the repository here leads to, as far as it does: one that was written in part leads less far.
    fn believed_here(&self) -> Result<Trusted, CatchUpError> {
        let repository = Mirror::new(self.data.join("repository"));
        let root = Place::parse("metadata/1.root.json").expect("it is a place");
        let root = repository.read(&root).map_err(CatchUpError::Root)?;
        let kept = Kept { root: root.unwrap_or_default(), ..Kept::default() };
        let mut trusted = Trusted::load(&kept).map_err(CatchUpError::Load)?;
        let mut documents = Documents::Here(repository);
        let refreshed =
            drive::refresh(&mut trusted, &mut documents, &mut Collector::default(), NEVER);
        if let Err(error) = refreshed {
            warn!(error = causes(&error), "the repository here is not whole");
        }
        Ok(trusted)
    }

    /// Writes what is newer, writes that down, and signs above it.
    fn take_over(
        &self,
        folder: &Folder,
        newest: Option<(SocketAddr, Collected)>,
        above: u64,
    ) -> Result<CaughtUp, CatchUpError> {
        let least = Version::new(above).filter(|version| version.next().is_some());
        let least = least.ok_or(CatchUpError::Above { above })?;
        let from = newest.as_ref().map(|(source, _)| *source);
        if let Some((source, collected)) = newest {
            // From the first file on, what lies here is not control's own state: a kill leaves the way back open.
            self.mark(source)?;
            folder.repository().write(&collected.publication)?;
        }
        let keys = folder.online_keys().map_err(CatchUpError::Keys)?;
        let log = self.data.join("audit");
        std::fs::create_dir_all(&log)
            .map_err(|source| CatchUpError::Disk { path: log.clone(), source })?;
        // What the newest timestamp says of the log may be of entries that are lost.
        let mut audit = Audit::open(&log.join("log"), None)?;
        let now = Timestamp::now();
        let head = audit.add(self.deed(from, above), Utc::of(now))?;
        let state =
            folder.resign_above(&keys, &head.to_extra(), least, now).map_err(CatchUpError::Sign)?;
        if let Some(Restored { sources, .. }) = &self.restored
            && !sources.is_empty()
        {
            let (named, path) = (Named { sources: sources.clone() }, self.data.to_owned());
            named.write(self.data).map_err(|source| CatchUpError::Disk { path, source })?;
        }
        Restored::remove(self.data)?;
        let version = state.timestamp.version().number();
        info!(manifest.version = version, "caught up");
        Ok(CaughtUp { from, above, version })
    }

    /// Writes down that control has not caught up yet, where no restoration has. Without it, what is taken over in part
    /// or whole, and not signed anew, would count as this control's, whose audit log does not hold what it says.
    fn mark(&self, source: SocketAddr) -> Result<(), CatchUpError> {
        if self.restored.is_some() {
            return Ok(());
        }
        let version = version_of(&self.believed_here()?);
        let at = Utc::of(Timestamp::now());
        let restored = Restored { at, version, sources: vec![source], above: self.above };
        Ok(restored.write(self.data)?)
    }

    fn deed(&self, from: Option<SocketAddr>, above: u64) -> Deed {
        let backup = self.restored.as_ref();
        let backup =
            backup.map(|one| format!(", restored on {} from version {}", one.at, one.version));
        let from = from.map_or_else(
            || "nobody knew newer orders".to_owned(),
            |from| format!("orders of {from}"),
        );
        Deed {
            actor: super::desk::CONTROL.to_owned(),
            action: "catch-up",
            object: format!("{from}, signed above version {above}{}", backup.unwrap_or_default()),
            reason: None,
        }
    }
}

impl CollectError {
    /// Returns whether the node is behind what is here, which is no fault.
    fn is_older(&self) -> bool {
        let Self::Drive(DriveError::Refused(refusal)) = self else { return false };
        matches!(refusal.fault, Fault::Rollback { .. }) && refusal.role == RoleName::timestamp()
    }
}

/// What a node has of the newest orders, all of it believed.
struct Collected {
    age: Age,
    publication: Publication,
}

impl Collected {
    /// Asks a node for all that is newer than what `trusted` believes, and believes it.
    fn of(trusted: &mut Trusted, mut documents: Documents) -> Result<Self, CollectError> {
        let mut kept = Collector::default();
        drive::refresh(trusted, &mut documents, &mut kept, NEVER)?;
        let roles = drive::sweep(trusted, &mut documents, &mut kept, NEVER)?;
        let mut files = Vec::new();
        for path in roles.paths().into_iter().filter(|path| !is_content(path)) {
            let found = roles.find(&path);
            let found =
                found.map_err(|source| CollectError::Find { path: path.clone(), source })?;
            // Nobody who may name it does.
            let Some(found) = found else { continue };
            let place = format!("targets/{}", trusted.place_of(&found));
            let bytes = documents.ask(&place, found.file.length.min(ORDER_BYTES_MAX));
            let bytes =
                bytes.map_err(|source| CollectError::Fetch { path: path.clone(), source })?;
            let is_meant = |bytes: &Bytes| is_meant(&found.file, bytes);
            let Some(bytes) = bytes.filter(is_meant) else {
                return Err(CollectError::File { path });
            };
            files.push((path, found.file, bytes));
        }
        let publication = Publication { files, documents: kept.documents() };
        Ok(Self { age: age_of(trusted), publication })
    }
}

fn is_meant(file: &TargetFile, bytes: &Bytes) -> bool {
    bytes.len() as u64 == file.length && file.hashes.check(bytes).is_ok()
}

/// The version of the root, whose keys vouch for all else, and of the timestamp: what is newer has the later root.
type Age = (Version, u64);

fn age_of(trusted: &Trusted) -> Age {
    (trusted.root().version(), version_of(trusted))
}

fn version_of(trusted: &Trusted) -> u64 {
    trusted.timestamp().map_or(0, |timestamp| timestamp.version().number())
}

/// Where documents come from.
enum Documents {
    Node { peer: Peer, runtime: Handle },
    Here(Mirror),
}

impl Documents {
    fn of_peer(peer: Peer, runtime: Handle) -> Self {
        Self::Node { peer, runtime }
    }

    fn ask(&self, place: &str, bytes_max: u64) -> Result<Option<Bytes>, AskError> {
        let place = Place::parse(place).ok_or(AskError::Place)?;
        match self {
            Self::Here(repository) => Ok(repository.read(&place)?),
            Self::Node { peer, runtime } => {
                // One byte more, so that what is too long is seen to be.
                let bytes_max = u32::try_from(bytes_max.saturating_add(1)).unwrap_or(u32::MAX);
                Ok(runtime.block_on(peer.document(&place, bytes_max))?)
            }
        }
    }
}

impl drive::Repository for Documents {
    type Error = AskError;

    fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, AskError> {
        let document = self.ask(&format!("metadata/{}", fetch.place), fetch.bytes_max)?;
        Ok(document.map_or(Answer::Absent, Answer::Document))
    }
}

/// Collects what is believed, to be written as one.
#[derive(Default)]
struct Collector {
    roots: BTreeMap<Version, Bytes>,
    documents: BTreeMap<RoleName, (Version, Bytes)>,
}

impl Collector {
    /// Returns the documents with their places, in the order of every publication: who leads to another comes behind it.
    fn documents(self) -> Vec<(String, Bytes)> {
        let Self { roots, mut documents } = self;
        let last = [RoleName::targets(), RoleName::snapshot(), RoleName::timestamp()];
        let last = last.map(|role| documents.remove(&role).map(|document| (role, document)));
        let place = |(role, (version, bytes)): (RoleName, (Version, Bytes))| {
            let version = Some(version).filter(|_| role != RoleName::timestamp());
            (role.place(version), bytes)
        };
        let top = last.into_iter().flatten();
        let roots = roots
            .into_iter()
            .map(|(version, bytes)| (RoleName::root().place(Some(version)), bytes));
        documents.into_iter().chain(top).map(place).chain(roots).collect()
    }
}

impl Keeper for Collector {
    type Error = std::convert::Infallible;

    fn keep(&mut self, keep: Keep) -> Result<(), Self::Error> {
        match keep {
            Keep::Document { role, version, bytes } if role == RoleName::root() => {
                self.roots.insert(version, bytes);
            }
            Keep::Document { role, version, bytes } => {
                self.documents.insert(role, (version, bytes));
            }
            Keep::Forget { role } => drop(self.documents.remove(&role)),
        }
        Ok(())
    }

    fn load(&mut self, _: &RoleName) -> Option<Bytes> {
        None
    }
}

fn untold(tried: &[(SocketAddr, String)]) -> String {
    if tried.is_empty() {
        return "no node was named that could say what devices have seen since".to_owned();
    }
    let tried: Vec<String> = tried.iter().map(|(source, why)| format!("{source}: {why}")).collect();
    format!("no node has said what devices have seen since: {}", tried.join("; "))
}
