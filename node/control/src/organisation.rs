//! An organisation's folder on an admin's machine, or control's own: where its repository, drafts and keys lie.
//!
//! ```text
//! org.json                                 whose it is; `sutler org init` made it, with the certificate authority
//! repository/                              what is published
//! online/{snapshot,timestamp,halts}.key    control's own keys, to be handed to it
//! drafts/ID.json                           orders that wait for signatures
//! restored.json                            there from a restoration until control has caught up with devices
//! ```
//! The order of every change: what was accepted is published, and only then is its draft removed.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use sutler_protocol::manifest::signed::VerifyError;
use sutler_protocol::manifest::{Kind, ParseError, RoleName, Root, Signed, Targets, Version};
use sutler_protocol::name::Organisation;

use crate::backup::restored;
use crate::bounds::SUBMISSION_BYTES_MAX;
use crate::draft::{Draft, DraftError};
use crate::key::{self, OpenKeyError};
use crate::online::{self, OnlineKeys, SignError};
use crate::repository::{OpenError, ReadError, Repository, WriteError};
use crate::state::State;
use crate::submission::{self, Refused, Submission, SubmissionError};

/// Bytes of `org.json`, at most.
const ABOUT_BYTES_MAX: u64 = 64 * 1024;

/// Drafts that wait at once: more nobody could sign.
const DRAFTS_MAX: usize = 1000;

/// How long another process may have the repository: a publication with all that it syncs.
pub const OWNED_MAX: Duration = Duration::from_secs(10);
const OWNED_PAUSE: Duration = Duration::from_millis(20);

/// Control's own keys, by their files.
pub const ONLINE: [&str; 3] = ["snapshot", "timestamp", "halts"];

/// An organisation's folder, for this process alone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    organisation: Organisation,
    repository: Repository,
}

/// Why an organisation's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is none.
    #[error("open the organisation in {}: it has no org.json", path.display())]
    NotMade {
        /// Where.
        path: PathBuf,
    },
    /// It was made without a preset.
    #[error("open the repository of {}: the organisation has a certificate authority and no manifest", path.display())]
    NoRepository {
        /// Where.
        path: PathBuf,
    },
    /// It was restored, and what devices have seen since the backup is not known yet.
    #[error("open the repository of {}: it was restored, and control has not caught up yet", path.display())]
    Behind {
        /// Where.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// A file says something else than it should.
    #[error("read {}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What was wrong with it.
        source: serde_json::Error,
    },
    /// The repository cannot be opened.
    #[error("open the repository of {}", path.display())]
    Repository {
        /// Where.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
}

/// Why something was not published. Nothing was changed, unless the disk refused half way: then the same
/// may be published again.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// What is published cannot be told.
    #[error("read what is published")]
    Read(#[from] ReadError),
    /// It is not accepted.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It does not hold as the first of its kind.
    #[error("publish the first {role}")]
    First {
        /// Which document.
        role: RoleName,
        /// What was wrong with it.
        source: FirstError,
    },
    /// Control's own keys do not sign it.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The disk refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What is wrong with a first root or targets.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// It is not there.
    #[error("the submission does not have it")]
    Absent,
    /// It is no document.
    #[error("split it into what is signed and by whom")]
    Parse(#[source] ParseError),
    /// Its keys do not vouch for it.
    #[error("verify it")]
    Verify(#[source] VerifyError),
    /// It is not the first.
    #[error("its field version is not 1")]
    Version,
    /// Something else is in there.
    #[error(
        "an organisation begins with a root and targets, and the submission has {role} as well"
    )]
    More {
        /// What.
        role: String,
    },
}

/// Why a draft was not read or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepDraftError {
    /// There is none of that name.
    #[error("find the draft {id}")]
    NotFound {
        /// Which.
        id: String,
    },
    /// Too many wait.
    #[error("keep a draft beside {DRAFTS_MAX} others")]
    TooMany,
    /// The disk refused.
    #[error("read or write {}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// It is no submission.
    #[error("read {}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What was wrong with it.
        source: SubmissionError,
    },
    /// Its documents are none.
    #[error("read {}", path.display())]
    Documents {
        /// Which file.
        path: PathBuf,
        /// What was wrong with them.
        source: DraftError,
    },
}

#[derive(Deserialize)]
struct About {
    organisation: String,
}

impl Folder {
    /// Opens an organisation's folder. Where another process has it, which takes a moment each time, it is
    /// waited for.
    ///
    /// # Errors
    ///
    /// [`FolderError`]; the folder is in use if it was for [`OWNED_MAX`].
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        if path.join(restored::FILE).exists() {
            return Err(FolderError::Behind { path: path.to_owned() });
        }
        Self::open_restored(path)
    }

    /// As [`Folder::open`], whether control has caught up since the folder was restored or not.
    ///
    /// # Errors
    ///
    /// [`FolderError`].
    pub(crate) fn open_restored(path: &Path) -> Result<Self, FolderError> {
        let organisation = organisation(path)?;
        let repository = path.join("repository");
        if !repository.is_dir() {
            return Err(FolderError::NoRepository { path: path.to_owned() });
        }
        let until = Instant::now() + OWNED_MAX;
        let repository = loop {
            match Repository::open(&repository) {
                Err(OpenError::InUse) if Instant::now() < until => thread::sleep(OWNED_PAUSE),
                opened => break opened,
            }
        };
        let repository = repository
            .map_err(|source| FolderError::Repository { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), organisation, repository })
    }

    /// Returns whose folder it is.
    pub fn organisation(&self) -> &Organisation {
        &self.organisation
    }

    /// Returns its repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens control's own keys that are here.
    ///
    /// # Errors
    ///
    /// [`OpenKeyError`]; a key that is not here is none: control has it.
    pub fn online_keys(&self) -> Result<OnlineKeys, OpenKeyError> {
        online_keys(&self.path.join("online"))
    }

    /// Reads what is published.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn state(&self) -> Result<State, ReadError> {
        self.repository.read()
    }

    /// Checks a submission, signs snapshot and timestamp, and publishes all of it.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn publish(
        &self,
        submission: &Submission,
        keys: &OnlineKeys,
        extra: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<State, PublishError> {
        let publication = match self.repository.read() {
            Ok(state) => {
                let accepted = submission::accept(&state, &self.organisation, submission, now)?;
                online::publication(&state, &accepted, keys, extra, now)?
            }
            Err(ReadError::Empty) => first(submission, keys, now)?,
            Err(error) => return Err(error.into()),
        };
        self.repository.write(&publication)?;
        let state = self.repository.read()?;
        self.retire_online_keys(&state).map_err(|source| {
            PublishError::Write(WriteError { file: "online".to_owned(), source })
        })?;
        Ok(state)
    }

    /// Gives control's new keys their names, once nobody names the old ones any more.
    fn retire_online_keys(&self, state: &State) -> io::Result<()> {
        for name in ONLINE {
            let folder = self.path.join("online");
            let (old, new) =
                (folder.join(format!("{name}.key")), folder.join(format!("{name}.new.key")));
            let kind =
                [Kind::Snapshot, Kind::Timestamp].into_iter().find(|kind| kind.as_str() == name);
            let keys = match kind {
                Some(kind) => Some(state.root.keys_of(kind)),
                None => RoleName::delegated(name).and_then(|role| state.keys_of(&role)),
            };
            let holds = |path: &Path| {
                let key = key::open_plain(path).ok();
                key.is_some_and(|key| keys.as_ref().is_some_and(|keys| keys.has(key.id())))
            };
            if holds(&new) && !holds(&old) {
                // The secret last: while it is here, this is not done.
                match fs::rename(new.with_extension("pub"), old.with_extension("pub")) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => fs::rename(&new, &old)?,
                }
            }
        }
        Ok(())
    }

    /// Does everything of [`Folder::publish`] but the writing.
    ///
    /// # Errors
    ///
    /// [`PublishError`], the one that publishing would meet.
    pub fn rehearse(
        &self,
        submission: &Submission,
        keys: &OnlineKeys,
        now: Timestamp,
    ) -> Result<(), PublishError> {
        let state = self.repository.read()?;
        let accepted = submission::accept(&state, &self.organisation, submission, now)?;
        online::publication(&state, &accepted, keys, &Map::new(), now)?;
        Ok(())
    }

    /// Signs the timestamp anew, and the snapshot where it is time.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn resign(
        &self,
        keys: &OnlineKeys,
        extra: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<State, PublishError> {
        let state = self.repository.read()?;
        let nothing = submission::Accepted::default();
        let publication = online::publication(&state, &nothing, keys, extra, now)?;
        self.repository.write(&publication)?;
        Ok(self.repository.read()?)
    }

    /// Signs snapshot and timestamp anew, both above a version that devices may have seen.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub(crate) fn resign_above(
        &self,
        keys: &OnlineKeys,
        extra: &Map<String, Value>,
        above: Version,
        now: Timestamp,
    ) -> Result<State, PublishError> {
        let state = self.repository.read()?;
        let publication = online::publication_above(&state, keys, extra, above, now)?;
        self.repository.write(&publication)?;
        Ok(self.repository.read()?)
    }

    /// Keeps a draft, in place of an earlier copy of it, and returns its file.
    ///
    /// # Errors
    ///
    /// [`KeepDraftError`].
    pub fn keep_draft(&self, draft: &Draft) -> Result<PathBuf, KeepDraftError> {
        let folder = self.path.join("drafts");
        let path = folder.join(format!("{}.json", draft.id()));
        if !path.exists() && self.drafts()?.len() >= DRAFTS_MAX {
            return Err(KeepDraftError::TooMany);
        }
        write_draft(&path, draft)?;
        Ok(path)
    }

    /// Returns the names of the drafts that wait.
    ///
    /// # Errors
    ///
    /// [`KeepDraftError::Disk`].
    pub fn drafts(&self) -> Result<Vec<String>, KeepDraftError> {
        let path = self.path.join("drafts");
        let failed = |source| KeepDraftError::Disk { path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            names.extend(
                name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned),
            );
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Reads a draft by its name, or by the beginning of it that no other has.
    ///
    /// # Errors
    ///
    /// [`KeepDraftError`].
    pub fn draft(&self, id: &str) -> Result<Draft, KeepDraftError> {
        let mut found = self.drafts()?.into_iter().filter(|name| name.starts_with(id));
        match (found.next(), found.next()) {
            (Some(name), None) if !id.is_empty() => {
                read_draft(&self.path.join("drafts").join(format!("{name}.json")))
            }
            _ => Err(KeepDraftError::NotFound { id: id.to_owned() }),
        }
    }

    /// Removes a draft: it was published, or given up.
    ///
    /// # Errors
    ///
    /// [`KeepDraftError::Disk`].
    pub fn remove_draft(&self, id: &str) -> Result<(), KeepDraftError> {
        let path = self.path.join("drafts").join(format!("{id}.json"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(KeepDraftError::Disk { path, source: error })
            }
            _ => Ok(()),
        }
    }
}

/// Opens control's own keys in a folder: those that are there. During a rotation `NAME.new.key` is one more.
///
/// # Errors
///
/// [`OpenKeyError`].
pub fn online_keys(folder: &Path) -> Result<OnlineKeys, OpenKeyError> {
    let open = |name: &str| {
        let files = [format!("{name}.key"), format!("{name}.new.key")];
        let there = files.into_iter().map(|file| folder.join(file)).filter(|path| path.exists());
        there.map(|path| key::open_plain(&path)).collect::<Result<Vec<_>, _>>()
    };
    let [snapshot, timestamp, halts] = ONLINE;
    Ok(OnlineKeys { snapshot: open(snapshot)?, timestamp: open(timestamp)?, halts: open(halts)? })
}

/// Reads a draft from a file that was carried here.
///
/// # Errors
///
/// [`KeepDraftError`].
pub fn read_draft(path: &Path) -> Result<Draft, KeepDraftError> {
    let path = path.to_owned();
    let bytes = read(&path, SUBMISSION_BYTES_MAX);
    let bytes = bytes.map_err(|source| KeepDraftError::Disk { path: path.clone(), source })?;
    let submission = Submission::read(&bytes)
        .map_err(|source| KeepDraftError::Parse { path: path.clone(), source })?;
    Draft::of(&submission).map_err(|source| KeepDraftError::Documents { path, source })
}

/// Writes a draft to a file, whole or not at all.
///
/// # Errors
///
/// [`KeepDraftError::Disk`].
pub fn write_draft(path: &Path, draft: &Draft) -> Result<(), KeepDraftError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&draft.submission().write())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
    };
    write().map_err(|source| KeepDraftError::Disk { path: path.to_owned(), source })
}

/// Checks the first root and targets, and signs the first snapshot and timestamp.
fn first(
    submission: &Submission,
    keys: &OnlineKeys,
    now: Timestamp,
) -> Result<crate::repository::Publication, PublishError> {
    let failed = |role: RoleName, source| PublishError::First { role, source };
    let (root_role, targets_role) = (RoleName::root(), RoleName::targets());
    let document = |role: &RoleName| {
        let bytes = submission.documents.get(role.as_str()).cloned();
        bytes.ok_or_else(|| failed(role.clone(), FirstError::Absent))
    };
    let more =
        submission.documents.keys().find(|name| !matches!(name.as_str(), "root" | "targets"));
    if let Some(role) = more.or_else(|| submission.files.keys().next()) {
        return Err(failed(root_role, FirstError::More { role: role.clone() }));
    }
    let root = Signed::<Root>::parse(document(&root_role)?)
        .map_err(|error| failed(root_role.clone(), FirstError::Parse(error)))?
        .verify_by_itself()
        .map_err(|error| failed(root_role.clone(), FirstError::Verify(error)))?;
    let targets = Signed::<Targets>::parse(document(&targets_role)?)
        .map_err(|error| failed(targets_role.clone(), FirstError::Parse(error)))?
        .verify(&root.keys_of(Kind::Targets))
        .map_err(|error| failed(targets_role.clone(), FirstError::Verify(error)))?;
    if root.version().number() != 1 {
        return Err(failed(root_role, FirstError::Version));
    }
    if targets.version().number() != 1 {
        return Err(failed(targets_role, FirstError::Version));
    }
    Ok(online::first(&root, &[(targets_role, targets)].into(), keys, now)?)
}

fn organisation(path: &Path) -> Result<Organisation, FolderError> {
    let file = path.join("org.json");
    let bytes = read(&file, ABOUT_BYTES_MAX).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => FolderError::NotMade { path: path.to_owned() },
        _ => FolderError::Read { path: file.clone(), source },
    })?;
    let parse = |source| FolderError::Parse { path: file.clone(), source };
    let about: About = serde_json::from_slice(&bytes).map_err(parse)?;
    let name = about.organisation.parse::<Organisation>();
    name.map_err(|error| parse(serde::de::Error::custom(error)))
}

fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}
