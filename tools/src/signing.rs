//! What the commands share that sign orders: the organisation's folder, the keys, and the way from a change to what
//! is published or waits.
//!
//! Nothing is signed before it was shown, and nothing is changed before all of it is accepted. Where control runs on another
//! machine, the folder follows what it publishes, before a change and after, and control's own keys sign there.

use std::io::IsTerminal as _;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sutler_control::appointment::Appointment;
use sutler_control::change::Note;
use sutler_control::draft::Draft;
use sutler_control::fleet::Fleet;
use sutler_control::key::{self, OpenKeyError, Passphrase};
use sutler_control::organisation::{FolderError, KeepDraftError, PublishError};
use sutler_control::repository::ReadError;
use sutler_control::{Folder, State, reports, submission};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::text::{Line, Utc};
use sutler_protocol::manifest::{RoleName, SigningKey, TargetFile, TargetPath, Version};
use zeroize::Zeroizing;

use crate::agreement::{self, Signs};
use crate::output::{Output, Stop, printable};
use crate::remote::{ControlUrl, NotTaken, Remote, Then};

/// The environment variable that holds a passphrase.
const PASSPHRASE: &str = "SUTLER_PASSPHRASE";

/// The organisation's folder.
#[derive(Clone, Debug, Args)]
pub(crate) struct OrgArgs {
    /// The folder that `sutler org init --preset` made.
    #[arg(long, value_name = "DIR", env = "SUTLER_ORG_DIR", default_value = ".")]
    org_dir: PathBuf,
    /// Control's repository over HTTP, where control runs on another machine: the folder is brought up to date from
    /// it first, and what was signed is handed in there. On control's own folder nothing is asked for over HTTP.
    #[arg(long, value_name = "URL", env = "SUTLER_CONTROL")]
    control: Option<ControlUrl>,
}

/// An organisation's folder, for this process alone, and control where that is another machine.
#[derive(Debug)]
pub(crate) struct Office {
    folder: Folder,
    control: Option<Remote>,
}

/// Where a passphrase comes from. A prompt if it is not said.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PassphraseArgs {
    /// A file with the passphrase, which only its owner reads [env: `SUTLER_PASSPHRASE` holds the passphrase itself].
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Who signs.
#[derive(Clone, Debug, Args)]
pub(crate) struct SignArgs {
    #[command(flatten)]
    org: OrgArgs,
    /// A key file to sign with; may be given several times. Without one the orders wait in drafts/.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Why; it is signed with the order.
    #[arg(long, value_name = "TEXT")]
    reason: Option<Line>,
    /// How many devices the order reaches, as it is said before the signature. Above 10 % of the fleet it has to be given
    /// here, or typed at a terminal.
    #[arg(long, value_name = "DEVICES")]
    yes: Option<u64>,
}

impl OrgArgs {
    /// Opens the folder, for this process alone, and brings it up to date.
    pub(crate) fn open(&self) -> Result<Office, Failure> {
        let folder = open(&self.org_dir)?;
        let control = self.control.as_ref().map(Remote::new).transpose()?;
        // A control that runs on this very folder waits for it while it is open here: it is changed here then, and
        // control notices.
        let control = control.filter(|control| !control.runs_on(&folder));
        if let Some(control) = &control {
            control.catch_up(&folder, None)?;
        }
        Ok(Office { folder, control })
    }
}

impl Office {
    /// Returns the office of a folder where control's own keys are.
    pub(crate) const fn of(folder: Folder) -> Self {
        Self { folder, control: None }
    }

    /// Counts the devices that have reported.
    pub(crate) fn fleet(&self, state: &State) -> Result<Fleet, Failure> {
        if let Some(control) = &self.control {
            return control.fleet();
        }
        let folder = self.folder.path().join("reports");
        let reports = reports::read(&folder, self.folder.organisation());
        let reports = reports.map_err(|error| Failure::from_error(Kind::Store, &error))?;
        Ok(Fleet::of(state, &reports))
    }

    /// Returns a role's document of an earlier version: the folder's, or else control's.
    pub(crate) fn document(
        &self,
        state: &State,
        role: &RoleName,
        version: Version,
    ) -> Result<Option<Bytes>, Failure> {
        let here = self.folder.repository().document(role, version);
        let what = || format!("read {role} {version}");
        let here = here.map_err(|error| Failure::because(Kind::File, what(), &error))?;
        match (&self.control, here) {
            (Some(control), None) => control.document(state, role, version),
            (_, here) => Ok(here),
        }
    }

    /// Returns an order file of an earlier version: the folder's, or else control's.
    pub(crate) fn file(
        &self,
        path: &TargetPath,
        file: &TargetFile,
    ) -> Result<Option<Bytes>, Failure> {
        match (&self.control, self.folder.repository().file(path, file).ok()) {
            (Some(control), None) => control.file(path, file),
            (_, here) => Ok(here),
        }
    }

    /// Closes the folder, and returns control, if that is another machine.
    pub(crate) fn close(self) -> Option<Remote> {
        self.control
    }

    /// Returns control, if that is another machine.
    pub(crate) const fn control(&self) -> Option<&Remote> {
        self.control.as_ref()
    }
}

impl Deref for Office {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

/// Opens an organisation's folder.
pub(crate) fn open(path: &Path) -> Result<Folder, Failure> {
    Folder::open(path).map_err(|error| {
        let kind = match &error {
            FolderError::Repository { .. } => Kind::Store,
            FolderError::Behind { .. } => Kind::Refused,
            _ => Kind::File,
        };
        let failure = Failure::from_error(kind, &error);
        match &error {
            FolderError::Behind { .. } => failure.with_help("start `sutler control` on it first"),
            FolderError::NotMade { .. } | FolderError::NoRepository { .. } => failure.with_help(
                "`sutler org init DIR --org NAME --preset team` makes one, and `sutler org follow` one of an \
                 organisation that is there; name it by --org-dir",
            ),
            _ => failure,
        }
    })
}

/// Reads what is published.
pub(crate) fn state(folder: &Folder) -> Result<State, Failure> {
    folder.state().map_err(|error| {
        let failure = Failure::from_error(Kind::Store, &error);
        match error {
            ReadError::Empty => {
                failure.with_help("its root and targets wait for signatures: `sutler order list`")
            }
            _ => failure,
        }
    })
}

impl PassphraseArgs {
    /// Returns the passphrase for a key file.
    pub(crate) fn get(&self, what: &str) -> Result<Passphrase, Failure> {
        if let Some(path) = &self.passphrase_file {
            return Passphrase::read(path).map_err(|error| key_failure(&error));
        }
        if let Some(text) = std::env::var_os(PASSPHRASE) {
            let text = Zeroizing::new(text.into_encoded_bytes());
            return Ok(Passphrase::new(text));
        }
        ask(what)
    }

    /// Returns a passphrase for a key that is to be made, which is not empty.
    pub(crate) fn choose(&self) -> Result<Passphrase, Failure> {
        let passphrase = self.get("Passphrase for the new key")?;
        if passphrase.is_empty() {
            return Err(Failure::new(Kind::Usage, "a key without a passphrase is anybody's"));
        }
        let is_asked = self.passphrase_file.is_none() && std::env::var_os(PASSPHRASE).is_none();
        if is_asked && ask("The same again")? != passphrase {
            return Err(Failure::new(Kind::Usage, "the two passphrases differ"));
        }
        Ok(passphrase)
    }
}

fn ask(what: &str) -> Result<Passphrase, Failure> {
    if !std::io::stdin().is_terminal() {
        let failure = Failure::new(Kind::Usage, "there is no terminal to ask for a passphrase at");
        return Err(failure.with_help("give --passphrase-file, or set SUTLER_PASSPHRASE"));
    }
    let typed = dialoguer::Password::new().with_prompt(what).allow_empty_password(true).interact();
    let typed = typed.map_err(|error| {
        let dialoguer::Error::IO(error) = error;
        Failure::because(Kind::of_io(&error, Kind::Interrupted), "ask for a passphrase", &error)
    })?;
    Ok(Passphrase::new(Zeroizing::new(typed.into_bytes())))
}

impl SignArgs {
    /// Opens the organisation's folder, and brings it up to date.
    pub(crate) fn open(&self) -> Result<Office, Failure> {
        self.org.open()
    }

    /// Says who does what, by the name that the first key has among the admins.
    pub(crate) fn note(&self, state: &State, what: &str, now: Timestamp) -> Note {
        let by = self.keys.first().and_then(|path| path.file_stem()?.to_str()?.parse().ok());
        let by = by.filter(|name: &Line| state.admins().contains_key(name.as_str()));
        let by = by.unwrap_or_else(|| user().parse().unwrap_or_else(|_| line("somebody")));
        let what = what.parse().unwrap_or_else(|_| line("a change"));
        Note { by, at: Utc::of(now), what, reason: self.reason.clone() }
    }

    /// Opens the keys, each with its passphrase.
    fn keys(&self) -> Result<Vec<SigningKey>, Failure> {
        self.keys
            .iter()
            .map(|path| {
                let passphrase =
                    self.passphrase.get(&format!("Passphrase of {}", path.display()))?;
                key::open(path, &passphrase).map_err(|error| key_failure(&error))
            })
            .collect()
    }

    /// Shows a draft, signs it, and publishes it, or keeps it if it needs more signatures. Returns whether it was
    /// published.
    pub(crate) fn finish(
        &self,
        office: &Office,
        state: Option<&State>,
        draft: Draft,
        said: &[String],
        output: Output,
    ) -> Result<bool, Stop> {
        let draft = self.signed(office, state, draft, said)?;
        settle(office, state, &draft, output)
    }

    /// Shows a draft and whom it reaches, and signs it.
    pub(crate) fn signed(
        &self,
        office: &Office,
        state: Option<&State>,
        mut draft: Draft,
        said: &[String],
    ) -> Result<Draft, Failure> {
        for line in said {
            eprintln!("{}", printable(line));
        }
        for appointment in Appointment::of(&draft, state) {
            eprintln!("{}", printable(&appointment.to_string()));
        }
        if let Some(state) = state {
            self.agree(office, state, &draft)?;
        }
        self.sign(&mut draft, state)?;
        Ok(draft)
    }

    /// Shows what a draft does to how many, and asks whether that is meant where it is much.
    pub(crate) fn agree(
        &self,
        office: &Office,
        state: &State,
        draft: &Draft,
    ) -> Result<(), Failure> {
        let signs = if self.keys.is_empty() { Signs::Nothing } else { Signs::Orders(self.yes) };
        agreement::agree(office, state, draft, signs)
    }

    /// Does everything that publishing a draft takes, and publishes nothing.
    pub(crate) fn rehearse(
        &self,
        office: &Office,
        state: &State,
        mut draft: Draft,
        output: Output,
    ) -> Result<(), Stop> {
        self.sign(&mut draft, Some(state))?;
        if let Some(lack) = draft.lacks(Some(state)).iter().find(|lack| !lack.is_nothing()) {
            let what = format!("rehearse, but it lacks {lack}");
            return Err(Failure::new(Kind::Refused, what).into());
        }
        let (submission, now) = (draft.submission(), Timestamp::now());
        let rehearsed = if office.control().is_some() {
            // Control's own keys are there.
            submission::accept(state, office.organisation(), &submission, now)
                .map(drop)
                .map_err(PublishError::from)
        } else {
            let keys = office.online_keys().map_err(|error| key_failure(&error))?;
            office.rehearse(&submission, &keys, now)
        };
        rehearsed.map_err(|error| publish_failure(&error))?;
        output.line("it would be published; nothing was")?;
        output.json(&json!({ "rehearsed": draft.id() }))
    }

    fn sign(&self, draft: &mut Draft, state: Option<&State>) -> Result<(), Failure> {
        for key in self.keys()? {
            draft.sign(&key, state).map_err(|error| {
                Failure::from_error(Kind::Refused, &error)
                    .with_help("`sutler key status` says who signs for what")
            })?;
        }
        Ok(())
    }
}

/// Publishes a draft that lacks nothing, or keeps it. Returns whether it was published.
pub(crate) fn settle(
    office: &Office,
    state: Option<&State>,
    draft: &Draft,
    output: Output,
) -> Result<bool, Stop> {
    let id = draft.id();
    let lacks: Vec<_> = draft.lacks(state).into_iter().filter(|lack| !lack.is_nothing()).collect();
    if !lacks.is_empty() {
        office.keep_draft(draft).map_err(|error| draft_failure(&error))?;
        output.line(format_args!("draft {id} waits for signatures"))?;
        for lack in &lacks {
            output.line(format_args!("  {lack}"))?;
        }
        let lacks: Vec<Value> = lacks
            .iter()
            .map(|lack| json!({ "role": lack.role.as_str(), "signatures": lack.signatures }))
            .collect();
        output.json(&json!({ "draft": id, "lacks": lacks }))?;
        return Ok(false);
    }
    publish(office, draft, output)?;
    Ok(true)
}

/// Publishes a draft, then removes what was kept of it.
pub(crate) fn publish(office: &Office, draft: &Draft, output: Output) -> Result<(), Stop> {
    if let Some(control) = &office.control {
        hand_in(office, control, draft)?;
    } else {
        let keys = office.online_keys().map_err(|error| key_failure(&error))?;
        let submission = draft.submission();
        let published = office.publish(&submission, &keys, &Map::new(), Timestamp::now());
        published.map_err(|error| publish_failure(&error))?;
    }
    office.remove_draft(&draft.id()).map_err(|error| draft_failure(&error))?;
    let mut published = Vec::new();
    for (role, version) in draft.versions() {
        output.line(format_args!("published {role} version {version}"))?;
        published.push(json!({ "role": role.as_str(), "version": version.number() }));
    }
    output.json(&json!({ "published": published }))
}

/// Hands a draft in at control, and takes over what control then publishes. What may yet be published is kept.
fn hand_in(folder: &Folder, control: &Remote, draft: &Draft) -> Result<(), Failure> {
    let answered = control.submit(&draft.submission());
    let caught_up = control.catch_up(folder, None);
    let Err(NotTaken { failure, then }) = answered else {
        if let Err(failure) = caught_up {
            eprintln!("warning: published, but {failure}");
        }
        return Ok(());
    };
    // An answer that was lost, of this time or one before.
    if caught_up.is_ok_and(|state| draft.is_published(&state)) {
        return Ok(());
    }
    if then == Then::Nothing {
        return Err(failure);
    }
    folder.keep_draft(draft).map_err(|error| draft_failure(&error))?;
    let id = draft.id();
    Err(match then {
        Then::Rebase => failure.with_help(format!(
            "somebody was first: `sutler order rebase {id}` puts your orders on top, signed anew"
        )),
        _ => failure.with_help(format!("`sutler order submit {id}` hands them in again")),
    })
}

pub(crate) fn publish_failure(error: &PublishError) -> Failure {
    use sutler_control::submission::Refused;
    let kind = match error {
        PublishError::Refused(_) | PublishError::First { .. } | PublishError::Sign(_) => {
            Kind::Refused
        }
        PublishError::Write(error) => Kind::of_io(&error.source, Kind::File),
        PublishError::Read(_) => Kind::Store,
    };
    let failure = Failure::from_error(kind, error);
    match error {
        PublishError::Refused(Refused::Version { .. }) => {
            failure.with_help("somebody was first: `sutler order rebase` puts your orders on top")
        }
        _ => failure,
    }
}

pub(crate) fn key_failure(error: &OpenKeyError) -> Failure {
    let kind = match error {
        OpenKeyError::Exposed { .. } | OpenKeyError::Passphrase { .. } => Kind::Refused,
        _ => Kind::File,
    };
    let failure = Failure::from_error(kind, error);
    match error {
        OpenKeyError::Exposed { path, .. } => {
            failure.with_help(format!("chmod 600 {}", path.display()))
        }
        _ => failure,
    }
}

pub(crate) fn draft_failure(error: &KeepDraftError) -> Failure {
    let kind = match error {
        KeepDraftError::NotFound { .. } => Kind::Usage,
        KeepDraftError::Disk { source, .. } => Kind::of_io(source, Kind::File),
        _ => Kind::File,
    };
    Failure::from_error(kind, error)
}

fn line(text: &str) -> Line {
    text.parse().expect("a short text is a line")
}

/// Returns who is logged in, for what nobody has signed yet.
pub(crate) fn user() -> String {
    std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned())
}
