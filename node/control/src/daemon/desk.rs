//! The desk: what is handed in goes over it, one thing at a time.
//!
//! A thread of its own, because it waits for the disk; whoever hands something in waits for its answer. It
//! signs the timestamp anew every hour, and sooner when something was published. It owns the repository only
//! while it works on it: an admin's command on this machine publishes in between, and the desk notices,
//! writes it into the audit log, and tells whoever watches.
//!
//! The order of a publication: it is checked, written into the audit log, signed with the log's new head,
//! written to the repository, timestamp last, and told to whoever watches. A kill in between leaves the state
//! before, with a log that says what was about to be done.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use sutler_cache::Store;
use sutler_orders::text::Utc;
use sutler_protocol::manifest::{RoleName, Root, Targets, Version};
use sutler_swarm::gateway::causes;
use sutler_swarm::orders::{Believer, Mirror, Place, RefreshError};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::stock::stock;
use crate::audit::{Audit, AuditError, Deed, Head};
use crate::change::Note;
use crate::members::TokenMakers;
use crate::online::{self, OnlineKeys};
use crate::organisation::{Folder, FolderError, PublishError};
use crate::repository::{ReadError, RoleError};
use crate::state::State;
use crate::submission::{self, Accepted, Submission, SubmissionError};
use crate::uploads::Uploads;

/// How often the timestamp is signed anew.
pub const RESIGN_EVERY: Duration = Duration::from_hours(1);

/// How soon it is tried again where that failed.
const RESIGN_AGAIN: Duration = Duration::from_mins(1);

/// How often it looks whether somebody else has published here.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Submissions that wait at a time. More are told to come again.
const WAITING_MAX: usize = 16;

/// Who signs by itself, in the audit log.
pub(super) const CONTROL: &str = "control";

/// What the desk stands on.
pub struct Tools {
    /// The organisation's folder.
    pub folder: PathBuf,
    /// Control's own keys.
    pub keys: OnlineKeys,
    /// The audit log.
    pub audit: Audit,
    /// What believes the repository, and tells whoever watches.
    pub believer: Believer,
    /// The repository, as others read it.
    pub repository: Mirror,
    /// Where the bytes of published contents lie for machines.
    pub store: Store,
    /// What published contents lack here.
    pub uploads: Uploads,
    /// Whose tokens count: the admins of what is published are told to it.
    pub makers: TokenMakers,
}

/// Hands things in at the desk. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    work: SyncSender<Work>,
}

/// A desk that is open; it closes when every [`Desk`] is gone.
pub struct OpenDesk {
    thread: JoinHandle<()>,
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The timestamp's version.
    pub version: u64,
    /// The audit log behind it.
    pub audit: Head,
}

/// Why something that was handed in was not published.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// It is no submission.
    #[error("read the submission")]
    Submission(#[source] SubmissionError),
    /// It is not accepted, or could not be written.
    #[error("publish the submission")]
    Publish(#[source] PublishError),
    /// It could not be written down.
    #[error("write the submission into the audit log")]
    Audit(#[source] AuditError),
    /// The organisation's folder cannot be had.
    #[error("open the organisation's folder")]
    Folder(#[source] FolderError),
    /// As many wait as may.
    #[error("too many submissions wait")]
    Busy,
    /// The daemon stops.
    #[error("the desk is closed")]
    Closed,
}

/// Why the desk was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is published cannot be told.
    #[error("read what is published")]
    Read(#[source] ReadError),
    /// The audit log does not hold.
    #[error("open the audit log")]
    Audit(#[source] AuditError),
    /// The timestamp could not be signed.
    #[error("sign the timestamp")]
    Sign(#[source] DeskError),
    /// Control does not believe its own repository.
    #[error("believe the repository as a device does")]
    Believe(#[source] RefreshError),
    /// No thread was to be had.
    #[error("start a thread")]
    Thread(#[source] io::Error),
}

struct Work {
    body: Vec<u8>,
    answer: oneshot::Sender<Result<Published, DeskError>>,
}

/// Opens the audit log of a repository at `path`: it has to hold what the repository's timestamp says.
///
/// # Errors
///
/// [`OpenError`].
pub fn open_audit(path: &Path, state: &State) -> Result<Audit, OpenError> {
    Audit::open(path, Head::from_extra(&state.timestamp.extra)).map_err(OpenError::Audit)
}

impl Desk {
    /// Opens the desk: signs the timestamp, has the repository believed, and then takes what is handed in.
    /// Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing is then served.
    pub fn open(tools: Tools) -> Result<(Self, OpenDesk), OpenError> {
        let resign_at = Instant::now() + RESIGN_EVERY;
        let mut clerk = Clerk { tools, resign_at, shown: None };
        clerk.resign().map_err(OpenError::Sign)?;
        clerk.believe().map_err(OpenError::Believe)?;
        let (work, comes) = sync_channel(WAITING_MAX);
        let builder = thread::Builder::new().name("desk".to_owned());
        let thread = builder.spawn(move || clerk.work(&comes)).map_err(OpenError::Thread)?;
        Ok((Self { work }, OpenDesk { thread }))
    }

    /// Hands a submission in, and waits until it is published or refused.
    ///
    /// Cancel-safe: it may or may not be published; to hand it in again is refused as old, which says so.
    ///
    /// # Errors
    ///
    /// [`DeskError`].
    pub async fn submit(&self, body: Vec<u8>) -> Result<Published, DeskError> {
        let (answer, answered) = oneshot::channel();
        self.work.try_send(Work { body, answer }).map_err(|error| match error {
            TrySendError::Full(_) => DeskError::Busy,
            TrySendError::Disconnected(_) => DeskError::Closed,
        })?;
        answered.await.unwrap_or(Err(DeskError::Closed))
    }
}

impl OpenDesk {
    /// Waits until the desk has done what was handed in. Every [`Desk`] has to be gone.
    pub fn close(self) {
        if self.thread.join().is_err() {
            error!("the desk ended by a defect");
        }
    }
}

/// Who works at the desk.
struct Clerk {
    tools: Tools,
    resign_at: Instant,
    /// The timestamp that was signed or noticed last.
    shown: Option<Bytes>,
}

impl Clerk {
    fn work(mut self, comes: &Receiver<Work>) {
        loop {
            match comes.recv_timeout(LOOK_EVERY) {
                Ok(Work { body, answer }) => {
                    let published = self.publish(&body);
                    if let Err(error) = &published {
                        info!(error = causes(error), "a submission was refused");
                    }
                    // Whoever handed it in may be gone; it is published all the same.
                    drop(answer.send(published));
                }
                Err(RecvTimeoutError::Timeout) => self.look_around(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn publish(&mut self, body: &[u8]) -> Result<Published, DeskError> {
        let submission = Submission::read(body).map_err(DeskError::Submission)?;
        let folder = Folder::open(&self.tools.folder).map_err(DeskError::Folder)?;
        self.notice(&folder)?;
        let now = Timestamp::now();
        let Tools { keys, audit, .. } = &mut self.tools;
        let state = state_of(&folder)?;
        let accepted = submission::accept(&state, folder.organisation(), &submission, now)
            .map_err(|error| DeskError::Publish(error.into()))?;
        let done = deed(accepted_documents(&accepted), accepted.root.as_deref());
        let head = audit.add(done.clone(), Utc::of(now)).map_err(DeskError::Audit)?;
        let signed = online::publication(&state, &accepted, keys, &head.to_extra(), now)
            .map_err(PublishError::from)
            .and_then(|publication| Ok(folder.repository().write(&publication)?));
        if let Err(error) = signed {
            let failed = Deed { action: "publish-failed", ..done };
            audit.add(failed, Utc::of(now)).map_err(DeskError::Audit)?;
            return Err(DeskError::Publish(error));
        }
        let version = self.signed(&folder)?;
        info!(manifest.version = version, "published");
        self.show();
        Ok(Published { version, audit: head })
    }

    /// Looks whether bytes have come, whether somebody else has published, and whether it is time to sign the timestamp
    /// anew.
    fn look_around(&mut self) {
        if self.tools.uploads.have_arrived() {
            self.restock();
        }
        let is_known = match (self.timestamp(), &self.shown) {
            (Ok(Some(now)), Some(shown)) => now == *shown,
            // What cannot be read is said when it is to be signed.
            _ => true,
        };
        if is_known && Instant::now() < self.resign_at {
            return;
        }
        match self.resign() {
            Ok(()) => self.show(),
            Err(error) => {
                error!(error = causes(&error), "the timestamp cannot be signed anew, and expires");
                self.resign_at = Instant::now() + RESIGN_AGAIN;
                self.shown = self.timestamp().ok().flatten();
            }
        }
    }

    /// Gives machines what has come for them.
    fn restock(&self) {
        let folder = Folder::open(&self.tools.folder).map_err(DeskError::Folder);
        match folder.and_then(|folder| state_of(&folder)) {
            Ok(state) => {
                stock(&self.tools.folder.join("repository"), &state, &self.tools.store);
            }
            // The next signature tries it again.
            Err(error) => warn!(error = causes(&error), "machines do not get what has come yet"),
        }
    }

    fn resign(&mut self) -> Result<(), DeskError> {
        let folder = Folder::open(&self.tools.folder).map_err(DeskError::Folder)?;
        self.notice(&folder)?;
        let Tools { keys, audit, .. } = &self.tools;
        let resigned = folder.resign(keys, &audit.head().to_extra(), Timestamp::now());
        resigned.map_err(DeskError::Publish)?;
        self.signed(&folder).map(drop)
    }

    /// Writes down what somebody else has published since.
    fn notice(&mut self, folder: &Folder) -> Result<(), DeskError> {
        let now = self.timestamp().map_err(|error| DeskError::Publish(error.into()))?;
        if self.shown.is_none() || now == self.shown {
            return Ok(());
        }
        let state = state_of(folder)?;
        let noticed = deed(state_documents(&state), None);
        let at = Utc::of(Timestamp::now());
        self.tools
            .audit
            .add(Deed { action: "noticed", ..noticed }, at)
            .map_err(DeskError::Audit)?;
        Ok(())
    }

    /// Takes note of what was signed just now, and returns its version.
    fn signed(&mut self, folder: &Folder) -> Result<u64, DeskError> {
        self.resign_at = Instant::now() + RESIGN_EVERY;
        let state = state_of(folder)?;
        self.shown = Some(state.timestamp.bytes().clone());
        self.tools.uploads.know(&state);
        self.tools.makers.set_admins(state.admin_keys());
        stock(&self.tools.folder.join("repository"), &state, &self.tools.store);
        Ok(state.timestamp.version().number())
    }

    fn timestamp(&self) -> Result<Option<Bytes>, ReadError> {
        let place = Place::parse("metadata/timestamp.json");
        let read = place.map(|place| self.tools.repository.read(&place)).transpose();
        let failed = |error| ReadError::Role {
            place: RoleName::timestamp().place(None),
            source: RoleError::Read(error),
        };
        read.map(Option::flatten).map_err(failed)
    }

    fn believe(&mut self) -> Result<(), RefreshError> {
        self.tools.believer.refresh_from(&self.tools.repository)
    }

    /// Shows what is published to whoever watches, once it is believed here.
    fn show(&mut self) {
        if let Err(error) = self.believe() {
            let error = causes(&error);
            warn!(error, "what is published is not believed here, and told to nobody");
        }
    }
}

fn state_of(folder: &Folder) -> Result<State, DeskError> {
    folder.state().map_err(|error| DeskError::Publish(error.into()))
}

fn accepted_documents(accepted: &Accepted) -> Vec<(&str, &Targets)> {
    let targets = accepted.targets.iter().map(|targets| ("targets", targets.document()));
    let roles = accepted.roles.iter().map(|(role, known)| (role.as_str(), known.document()));
    targets.chain(roles).collect()
}

/// Returns the documents that say when they were changed, the newest change alone.
fn state_documents(state: &State) -> Vec<(&str, &Targets)> {
    let roles = state.roles.iter().map(|(role, known)| (role.as_str(), known.document()));
    let all = roles.chain([("targets", state.targets.document())]);
    let dated: Vec<_> =
        all.filter_map(|(role, known)| Some((Note::of(known)?.at, role, known))).collect();
    let newest = dated.iter().map(|(at, ..)| *at).max();
    let is_newest = |(at, ..): &(Utc, &str, &Targets)| Some(*at) == newest;
    dated.into_iter().filter(is_newest).map(|(_, role, known)| (role, known)).collect()
}

/// Returns what the log says of documents: who signed what, and why.
fn deed(documents: Vec<(&str, &Targets)>, root: Option<&Root>) -> Deed {
    let mut object = String::new();
    let mut name = |role: &str, version: Version| {
        let separator = if object.is_empty() { "" } else { ", " };
        write!(object, "{separator}{role} {version}").expect("writing to a string succeeds");
    };
    let mut by = None;
    for (role, document) in documents {
        name(role, document.version());
        by = by.or_else(|| Note::of(document));
    }
    if let Some(root) = root {
        name("root", root.version());
    }
    let reason = by.as_ref().and_then(|note| note.reason.as_ref()).map(ToString::to_string);
    let actor = by.map_or_else(|| CONTROL.to_owned(), |note| note.by.to_string());
    Deed { actor, action: "publish", object, reason }
}
