//! What a machine believes of the orders, in memory and on its disk, and how it comes to believe more.
//!
//! Blocking: a follower calls it where that is allowed, with a peer to ask; control calls it with its own
//! repository, which it believes no sooner than anybody else does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::UnixTime;
use sutler_cache::trust::{CreateError, OpenError, TrustStore};
use sutler_orders::admission::{Revocation, Revocations};
use sutler_orders::text::Utc;
use sutler_orders::{Kind, Order, OrderError};
use sutler_protocol::manifest::{LoadError, TargetPath, Trusted};
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::board::Board;
use super::manifest::{From, Manifest, UpdateError, update};
use super::{Mirror, Orders as _};
use crate::endpoint::Endpoint;
use crate::gateway::causes;
use crate::identity::{Revoked, TrustedClock};
use crate::peer::Peer;

/// The folder within a machine's orders that has what it believes; sutler-cache owns what is in it.
pub const TRUST_FOLDER: &str = "trust";

/// What a machine believes, and where it shows.
pub struct Believer {
    endpoint: Endpoint,
    folder: PathBuf,
    board: Board,
    /// Absent after trouble with the disk: then it is read again.
    believed: Option<Believed>,
}

/// What is believed, in memory and on the disk.
struct Believed {
    trusted: Trusted,
    store: TrustStore,
}

/// Why a machine cannot follow.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// What was believed cannot be read.
    #[error("open what {} believes", .folder.display())]
    Open {
        /// The folder of the orders.
        folder: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The root that was handed over is no root.
    #[error("begin to believe in {}", .folder.display())]
    Create {
        /// The folder of the orders.
        folder: PathBuf,
        /// Why.
        source: CreateError,
    },
    /// What was believed does not hold by itself.
    #[error("load what {} believes", .folder.display())]
    Load {
        /// The folder of the orders.
        folder: PathBuf,
        /// Why.
        source: LoadError,
    },
}

/// Why no newer manifest is believed. The one before it still is.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// What was believed has to be read again, and cannot be.
    #[error(transparent)]
    Open(#[from] FollowError),
    /// There is none, or it is not believed.
    #[error(transparent)]
    Update(#[from] UpdateError),
}

impl Believer {
    /// Opens what `folder` believes, and brings it to mind; `root` is what an admin handed over, for a
    /// folder that believes nothing yet.
    ///
    /// # Errors
    ///
    /// [`FollowError`]; [`OpenError::NotMade`] where there is neither.
    pub fn open(
        folder: &Path,
        root: Option<&Bytes>,
        board: Board,
        endpoint: Endpoint,
    ) -> Result<Self, FollowError> {
        let believed = Some(Believed::open(folder, root)?);
        let mut believer = Self { endpoint, folder: folder.to_owned(), board, believed };
        match believer.update(From::Mirror) {
            Ok(()) | Err(RefreshError::Update(UpdateError::Nothing)) => {}
            Err(error) => {
                let error = causes(&error);
                info!(error, "the last manifest has to be fetched again");
            }
        }
        Ok(believer)
    }

    /// Returns whether this is the timestamp that is believed, and the whole manifest with it.
    pub fn knows(&self, timestamp: &[u8]) -> bool {
        let believed = self.believed.as_ref();
        let known = believed.and_then(|believed| believed.trusted.timestamp());
        let is_told = self.board.news().borrow().timestamp.is_some();
        is_told && known.is_some_and(|known| known.bytes()[..] == *timestamp)
    }

    /// Brings what is believed up to date from a repository of this machine's own.
    ///
    /// # Errors
    ///
    /// [`RefreshError`].
    pub fn refresh_from(&mut self, repository: &Mirror) -> Result<(), RefreshError> {
        self.update(From::Folder(repository.clone()))
    }

    /// Brings what is believed up to date from a peer, which is asked on `runtime`. Waits for both, and so must not be
    /// called on the runtime's own threads.
    ///
    /// # Errors
    ///
    /// [`RefreshError`].
    pub fn refresh(&mut self, from: Peer, runtime: Handle) -> Result<(), RefreshError> {
        self.update(From::Peer(from, runtime))
    }

    fn update(&mut self, from: From) -> Result<(), RefreshError> {
        let clock = self.endpoint.clock().clone();
        let mut believed = match self.believed.take() {
            Some(believed) => believed,
            None => Believed::open(&self.folder, None)?,
        };
        let Believed { trusted, store } = &mut believed;
        let raise_to = |trusted: &Trusted| {
            if let Some(issued) = trusted.timestamp().and_then(|timestamp| timestamp.issued()) {
                raise(&clock, issued);
            }
        };
        raise_to(trusted);
        let updated = update(trusted, store, self.board.mirror(), from, now(&clock));
        // The statement holds even where the orders are not whole.
        raise_to(trusted);
        match updated {
            Ok(manifest) => {
                self.believed = Some(believed);
                tell(&self.board, &self.endpoint, manifest);
                Ok(())
            }
            Err(error) => {
                // What could not be kept is given up, and read again.
                if !error.is_own() {
                    self.believed = Some(believed);
                }
                Err(error.into())
            }
        }
    }
}

impl Believed {
    fn open(folder: &Path, root: Option<&Bytes>) -> Result<Self, FollowError> {
        let path = folder.join(TRUST_FOLDER);
        let named = || folder.to_owned();
        let (store, kept) = match (TrustStore::open(&path), root) {
            (Err(OpenError::NotMade), Some(root)) => {
                let create = |source| FollowError::Create { folder: named(), source };
                std::fs::create_dir_all(folder).map_err(CreateError::Write).map_err(create)?;
                drop(TrustStore::create(&path, root).map_err(create)?);
                TrustStore::open(&path)
            }
            (opened, _) => opened,
        }
        .map_err(|source| FollowError::Open { folder: named(), source })?;
        let trusted =
            Trusted::load(&kept).map_err(|source| FollowError::Load { folder: named(), source })?;
        Ok(Self { trusted, store })
    }
}

/// Tells the board of a manifest, and shuts out whom it revokes.
fn tell(board: &Board, endpoint: &Endpoint, manifest: Manifest) {
    let version = manifest.statement.version;
    let revoked = revoked(&manifest);
    match board.set_manifest(manifest) {
        Ok(()) => info!(manifest.version = version.number(), "the manifest is up to date"),
        Err(error) => warn!(%error, "denials cannot be read, so the manifest is not heeded"),
    }
    match revoked {
        Some(Ok(revoked)) => {
            let closed = endpoint.set_revoked(revoked);
            if closed > 0 {
                info!(closed, "connections of revoked members were closed");
            }
        }
        // Who was shut out before stays so.
        Some(Err(error)) => warn!(error = causes(&error), "the revocations cannot be read"),
        None => {}
    }
}

/// Returns whom a manifest revokes, if it says anything of it.
fn revoked(manifest: &Manifest) -> Option<Result<Revoked, OrderError>> {
    let (_, path) = Kind::Revocations.target(None)?;
    let bytes = manifest.files.get(&TargetPath::from(path.as_str()))?;
    Some(Order::<Revocations>::read(bytes).map(|order| {
        let at = |until: Utc| {
            let secs = u64::try_from(until.instant().as_second()).unwrap_or_default();
            UnixTime::since_unix_epoch(Duration::from_secs(secs))
        };
        let member = |one: &Revocation| (one.member.member().clone(), one.until.map(at));
        let members = order.body.revocations.iter().map(member).collect();
        Revoked { members, ..Revoked::default() }
    }))
}

fn raise(clock: &TrustedClock, issued: jiff::Timestamp) {
    let secs = u64::try_from(issued.as_second()).unwrap_or_default();
    clock.raise(UnixTime::since_unix_epoch(Duration::from_secs(secs)));
}

fn now(clock: &TrustedClock) -> jiff::Timestamp {
    let secs = i64::try_from(clock.now().as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(secs).unwrap_or(jiff::Timestamp::MAX)
}
