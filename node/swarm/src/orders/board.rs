//! What one machine has of the orders, in memory and on its disk: the manifest that it believes, the
//! documents that it passes on, and denials that travel by themselves.
//!
//! ```text
//! FOLDER/trust/          which documents are believed; sutler-cache owns what is in it
//! FOLDER/mirror/         the documents, for whoever asks
//! FOLDER/denials/ID.json denials, each by the BLAKE3 of its bytes
//! FOLDER/reports/        reports on their way
//! ```
//!
//! Always true: a denial is here only if an approver of its scope signed it, as the manifest of the time
//! said; it is durable before anybody hears that it was taken; and it goes only when the scope's approvers
//! withdraw it or a manifest that is believed knows no such approver any more.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sutler_orders::denial::{BelievedDenial, DenialError, SignedDenial};
use sutler_orders::{Approvals, Kind, Order, mandate};
use sutler_protocol::ContentId;
use sutler_protocol::frame::DENIAL_BYTES_MAX;
use sutler_protocol::manifest::{RoleName, TargetPath, VerifyError};
use sutler_protocol::name::{Label, Organisation};
use tokio::sync::watch;
use tracing::{info, warn};

use super::manifest::Manifest;
use super::{DENIALS_MAX, Latest, Mirror, NotTaken, Orders, Place};
use crate::gateway::causes;
use crate::identity::PeerName;

/// What becomes of the reports that a machine takes.
pub trait Reports: Send + Sync + 'static {
    /// Keeps a report that `from` handed over; when this returns, it is durable. May wait for the disk.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    fn take(&self, from: &PeerName, report: Bytes) -> Result<(), NotTaken>;
}

/// A machine's orders. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct Board {
    shared: Arc<Shared>,
}

struct Shared {
    organisation: Organisation,
    mirror: Mirror,
    folder: PathBuf,
    latest: watch::Sender<Arc<Latest>>,
    manifest: watch::Sender<Option<Arc<Manifest>>>,
    denials: Mutex<BTreeMap<ContentId, Held>>,
    reports: Option<Arc<dyn Reports>>,
}

/// A denial that is held.
#[derive(Clone)]
struct Held {
    bytes: Bytes,
    believed: BelievedDenial,
}

/// Why a denial is not believed.
#[derive(Debug, thiserror::Error)]
pub enum DenyError {
    /// It is no denial.
    #[error(transparent)]
    Denial(#[from] DenialError),
    /// It is another organisation's.
    #[error("the denial is of the organisation {found}")]
    Organisation {
        /// Whose.
        found: Organisation,
    },
    /// Nobody approves for such a scope.
    #[error("the manifest knows of no approvers of the scope {scope}")]
    Scope {
        /// Which it says.
        scope: Label,
    },
    /// Who approves for the scope cannot be told now: the directorate's document is not believed.
    #[error(
        "who approves for the scope {scope} cannot be told: {} is not believed",
        mandate::staff(scope)
    )]
    Directorate {
        /// Which it says.
        scope: Label,
    },
    /// No approver of the scope signed it.
    #[error("check the denial's signatures")]
    Signature(#[source] VerifyError),
    /// The scope's approvers withdrew it.
    #[error("the denial {id} was withdrawn by the approvers of {scope}")]
    Withdrawn {
        /// Its id.
        id: Label,
        /// Its scope.
        scope: Label,
    },
    /// This machine has no manifest yet to judge it by.
    #[error("there is no manifest yet to judge it by")]
    NoManifest,
}

impl Board {
    /// Returns the orders that lie in `folder`, of which none is believed before
    /// [`Board::set_manifest`]; reports go to `reports`.
    pub fn new(
        folder: &Path,
        organisation: Organisation,
        reports: Option<Arc<dyn Reports>>,
    ) -> Self {
        let shared = Shared {
            organisation,
            mirror: Mirror::new(folder.join("mirror")),
            folder: folder.to_owned(),
            latest: watch::Sender::new(Arc::default()),
            manifest: watch::Sender::new(None),
            denials: Mutex::default(),
            reports,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns where the documents lie that this machine passes on.
    pub fn mirror(&self) -> &Mirror {
        &self.shared.mirror
    }

    /// Returns the manifest that is believed, as it changes.
    pub fn manifest(&self) -> watch::Receiver<Option<Arc<Manifest>>> {
        self.shared.manifest.subscribe()
    }

    /// Returns the denials that are held.
    pub fn denials(&self) -> Vec<BelievedDenial> {
        self.denials_held().values().map(|held| held.believed.clone()).collect()
    }

    /// Takes a manifest that is believed now. Denials on the disk are judged by it anew; then watchers
    /// hear of it. Waits for the disk.
    ///
    /// # Errors
    ///
    /// The disk's; the manifest is then not told of, because a denial that cannot be read might stop it.
    pub fn set_manifest(&self, manifest: Manifest) -> io::Result<()> {
        let denials = self.judged(&manifest)?;
        let timestamp = manifest.statement.bytes.clone();
        *self.denials_held() = denials;
        self.shared.manifest.send_replace(Some(Arc::new(manifest)));
        self.tell(Some(timestamp));
        Ok(())
    }

    /// Tells watchers that there is this timestamp, where no manifest is followed: control's own.
    pub fn tell(&self, timestamp: Option<Bytes>) {
        let denials = self.denials_held().values().map(|held| held.bytes.clone()).collect();
        self.shared.latest.send_if_modified(|latest| {
            let timestamp = timestamp.or_else(|| latest.timestamp.clone());
            let new = Arc::new(Latest { timestamp, denials });
            let is_new = *latest != new;
            *latest = new;
            is_new
        });
    }

    /// Reads the denials on the disk, and removes those that are believed no longer.
    fn judged(&self, manifest: &Manifest) -> io::Result<BTreeMap<ContentId, Held>> {
        let folder = self.denials_folder();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries?,
        };
        let mut held = BTreeMap::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = Bytes::from(fs::read(&path)?);
            match self.believe(&bytes, manifest) {
                Ok(believed) => drop(held.insert(ContentId::of(&bytes), Held { bytes, believed })),
                // Whoever breaks a directorate's document does not take its denials away.
                Err(error @ DenyError::Directorate { .. }) => {
                    warn!(error = causes(&error), "a denial cannot be judged");
                    let id = ContentId::of(&bytes);
                    held.extend(self.denials_held().get(&id).map(|before| (id, before.clone())));
                }
                Err(error) => {
                    info!(error = causes(&error), "a denial holds no longer");
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(held)
    }

    /// Believes a denial, if an approver of its scope signed it.
    fn believe(&self, bytes: &Bytes, manifest: &Manifest) -> Result<BelievedDenial, DenyError> {
        let signed = SignedDenial::parse(bytes)?;
        let scope = signed.claimed_scope().clone();
        let unknown = || DenyError::Scope { scope: scope.clone() };
        let (role, path) = Kind::Approvals.target(Some(&scope)).ok_or_else(unknown)?;
        let role = RoleName::delegated(&role).ok_or_else(unknown)?;
        let path = TargetPath::from(path.as_str());
        let mandate = manifest.mandates().of(&role);
        let mandate = mandate.ok_or_else(|| without_mandate(manifest, &scope))?;
        let keys = &mandate.delegation().keyids;
        let believed = signed.verify(mandate.listed(), keys).map_err(DenyError::Signature)?;
        let denial = believed.denial();
        if denial.organisation != self.shared.organisation {
            return Err(DenyError::Organisation { found: denial.organisation.clone() });
        }
        // A file that cannot be read withdraws nothing.
        let approvals = manifest.files.get(&path);
        let approvals = approvals.and_then(|bytes| Order::<Approvals>::read(bytes).ok());
        if approvals.is_some_and(|order| order.body.withdrawn.contains(&denial.id)) {
            return Err(DenyError::Withdrawn { id: denial.id.clone(), scope });
        }
        Ok(believed)
    }

    fn keep(&self, id: ContentId, bytes: &[u8]) -> io::Result<()> {
        let folder = self.denials_folder();
        fs::create_dir_all(&folder)?;
        let mut beside = tempfile::NamedTempFile::new_in(&folder)?;
        beside.write_all(bytes)?;
        beside.as_file().sync_all()?;
        beside.persist(folder.join(format!("{id}.json"))).map_err(|error| error.error)?;
        fs::File::open(&folder)?.sync_all()
    }

    fn denials_folder(&self) -> PathBuf {
        self.shared.folder.join("denials")
    }

    fn denials_held(&self) -> MutexGuard<'_, BTreeMap<ContentId, Held>> {
        // The table is whole between statements, so a panic elsewhere does not spoil it.
        self.shared.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orders for Board {
    fn document(&self, place: &Place) -> io::Result<Option<Bytes>> {
        self.shared.mirror.read(place)
    }

    fn news(&self) -> watch::Receiver<Arc<Latest>> {
        self.shared.latest.subscribe()
    }

    fn take_denial(&self, from: &PeerName, denial: Bytes) -> Result<(), NotTaken> {
        let refused = |error: DenyError| NotTaken::Refused(Box::new(error));
        let id = ContentId::of(&denial);
        if denial.len() > DENIAL_BYTES_MAX {
            return Err(NotTaken::Refused("it is longer than a denial".into()));
        }
        if self.denials_held().contains_key(&id) {
            return Ok(());
        }
        let manifest = self.shared.manifest.borrow().clone();
        let manifest = manifest.ok_or_else(|| refused(DenyError::NoManifest))?;
        let believed = self.believe(&denial, &manifest).map_err(refused)?;
        if self.denials_held().len() >= DENIALS_MAX {
            warn!(peer.id = %from, "there is no room for another denial");
            return Err(NotTaken::Full);
        }
        self.keep(id, &denial).map_err(NotTaken::Disk)?;
        let said = believed.denial();
        info!(peer.id = %from, scope = %said.scope, by = %said.by, "a denial was taken");
        self.denials_held().insert(id, Held { bytes: denial, believed });
        self.tell(None);
        Ok(())
    }

    fn take_report(&self, from: &PeerName, report: Bytes) -> Result<(), NotTaken> {
        self.shared.reports.as_ref().ok_or(NotTaken::Unwanted)?.take(from, report)
    }
}

/// Says why nobody has the mandate to approve for a scope.
fn without_mandate(manifest: &Manifest, scope: &Label) -> DenyError {
    let scope = scope.clone();
    let is_known = manifest.mandates().scopes().iter().any(|(known, _)| *known == scope);
    if is_known { DenyError::Directorate { scope } } else { DenyError::Scope { scope } }
}
