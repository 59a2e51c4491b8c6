//! `sutler key`: the keys that orders are signed with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;
use sutler_control::key::{self, CreateKeyError, Protection};
use sutler_control::organisation::ONLINE;
use sutler_control::rotation::{self, NewKeys, RotateError};
use sutler_control::status::{Standing, standings};
use sutler_control::{Change, State};
use sutler_node::failure::{Failure, Kind};
use sutler_protocol::expiry::Warning;
use sutler_protocol::manifest::Version;

use crate::command::found::read_all;
use crate::command::publish::change_failure;
use crate::output::{Output, Stop, table};
use crate::signing::{OrgArgs, PassphraseArgs, SignArgs, key_failure, state};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, encrypted with a passphrase, and its public half beside it.
    New(New),
    /// Say when each role of the manifest expires, and who signs for it.
    Status(Status),
    /// Give a role new keys: signed by the old ones and the new ones.
    Rotate(Rotate),
    /// Do everything of a rotation but the publishing.
    Rehearse(Rotate),
    /// Sign roles anew, without a change of what they say, before they expire.
    Renew(Renew),
}

const NEW_EXAMPLES: &str = "\
Examples:
  sutler key new --out anna.key
  sutler key new --out anna.key --passphrase-file ./passphrase";

const STATUS_EXAMPLES: &str = "\
Examples:
  sutler key status --org-dir ./acme
  sutler key status --json";

#[derive(Debug, Args)]
#[command(after_help = NEW_EXAMPLES)]
pub(crate) struct New {
    /// The file to make; its name is the admin's. The public half is NAME.pub beside it.
    #[arg(long, value_name = "NAME.key")]
    out: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub(crate) struct Status {
    #[command(flatten)]
    org: OrgArgs,
}

const ROTATE_EXAMPLES: &str = "\
Examples:
  sutler key rehearse root --with anna2.pub --with ben.pub --with cleo.pub --key anna2.key --key ben.key --key cleo.key
  sutler key rotate approvals-prod --with dora.pub --with finn.pub --threshold 2 --key anna.key --key ben.key
  sutler key rotate approvals-lab --with finn.pub --key hana.key     (the scope lab was left to hana's directorate)
  sutler key rotate timestamp --key anna.key --key ben.key
snapshot, timestamp and halts are control's: a new key is made beside the old one, in online/ROLE.new.key.";

#[derive(Debug, Args)]
#[command(after_help = ROTATE_EXAMPLES)]
pub(crate) struct Rotate {
    /// root, targets, snapshot, timestamp, or a delegated role such as approvals-prod.
    role: String,
    /// The public half of a key that signs from now on: all of them, also those that stay.
    #[arg(long = "with", value_name = "NAME.pub")]
    with: Vec<PathBuf>,
    /// How many of them have to sign; as before unless given.
    #[arg(long, value_name = "K")]
    threshold: Option<u64>,
    #[command(flatten)]
    sign: SignArgs,
}

const RENEW_EXAMPLES: &str = "\
Examples:
  sutler key renew root targets --key anna.key --key ben.key
  sutler key renew --due --key anna.key
`sutler key status` says what expires when. A role that is not signed in time stops: what it approved is installed no
more. Snapshot and timestamp are renewed by control itself.";

#[derive(Debug, Args)]
#[command(after_help = RENEW_EXAMPLES)]
pub(crate) struct Renew {
    /// root, targets, or a delegated role such as approvals-prod; may be several.
    #[arg(value_name = "ROLE", required_unless_present = "due", conflicts_with = "due")]
    roles: Vec<String>,
    /// Every role that expires within 60 days.
    #[arg(long)]
    due: bool,
    #[command(flatten)]
    sign: SignArgs,
}

/// Whether a rotation is published.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Publish,
    Rehearse,
}

impl Rotate {
    fn run(self, mode: Mode, output: Output) -> Result<(), Stop> {
        let now = Timestamp::now();
        let folder = self.sign.open()?;
        let state = state(&folder)?;
        let mut names = BTreeMap::new();
        let mut keys = Vec::new();
        for named in read_all(&self.with)? {
            names.insert(named.name.clone(), Some(named.id()));
            keys.push(named.key);
        }
        let online = folder.path().join("online");
        let new_file = online.join(format!("{}.new.key", self.role));
        let is_online = ONLINE.contains(&self.role.as_str());
        if is_online {
            if folder.control().is_some() {
                let what = format!("give {} new keys from here: they are control's", self.role);
                let failure = Failure::new(Kind::Usage, what);
                return Err(failure.with_help("rotate them where control runs").into());
            }
            if !keys.is_empty() {
                let what = format!("the keys of {} are control's: one is made here", self.role);
                return Err(Failure::new(Kind::Usage, what).into());
            }
            // One that an earlier try has left is used, and nothing is known of it yet.
            if !new_file.exists() {
                key::create(&new_file, &Protection::Mode)
                    .map_err(|error| create_failure(&error))?;
            }
            let key = key::open_plain(&new_file).map_err(|error| key_failure(&error))?;
            keys.push(key.key().clone());
        }
        let what = format!("give {} new keys", self.role);
        let note = self.sign.note(&state, &what, now);
        let new = NewKeys { role: self.role.clone(), keys, threshold: self.threshold };
        let change = Change::new(&state, folder.organisation(), note, now);
        let draft = rotation::rotate(&state, change, &[new], &names, now);
        let draft = draft.map_err(|error| rotate_failure(&error))?;
        if mode == Mode::Rehearse {
            return self.sign.rehearse(&folder, &state, draft, output);
        }
        self.sign.finish(&folder, Some(&state), draft, &[what], output).map(drop)
    }
}

impl Renew {
    fn run(self, output: Output) -> Result<(), Stop> {
        let now = Timestamp::now();
        let folder = self.sign.open()?;
        let state = state(&folder)?;
        let roles = if self.due { due(&state, now) } else { self.roles.clone() };
        if roles.is_empty() {
            output.line("nothing expires within 60 days")?;
            return output.json(&json!({ "published": [] }));
        }
        let what = format!("sign {} anew", roles.join(", "));
        let note = self.sign.note(&state, &what, now);
        let change = Change::new(&state, folder.organisation(), note, now);
        let draft = rotation::renew(&state, change, &roles, now);
        let mut draft = draft.map_err(|error| rotate_failure(&error))?;
        let keys = folder.online_keys().map_err(|error| key_failure(&error))?;
        // Control's halts are a role of its own key, where that is here.
        for key in keys.halts.iter().filter(|_| roles.iter().any(|role| role == "halts")) {
            draft
                .sign(key, Some(&state))
                .map_err(|error| Failure::from_error(Kind::Refused, &error))?;
        }
        self.sign.finish(&folder, Some(&state), draft, &[what], output).map(drop)
    }
}

/// Returns the roles that somebody should sign anew.
fn due(state: &State, now: Timestamp) -> Vec<String> {
    let standings = standings(state, now).into_iter();
    let is_due =
        |standing: &Standing| standing.warning != Warning::None && !is_online(&standing.role);
    standings.filter(is_due).map(|standing| standing.role).collect()
}

/// Returns whether control alone signs a role of the root.
fn is_online(role: &str) -> bool {
    matches!(role, "snapshot" | "timestamp")
}

pub(crate) fn rotate_failure(error: &RotateError) -> Failure {
    match error {
        RotateError::Change(error) => change_failure(error),
        RotateError::Last | RotateError::Propose(_) => Failure::from_error(Kind::Internal, error),
        _ => Failure::from_error(Kind::Usage, error),
    }
}

impl KeyCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::New(new) => new.run(output),
            Self::Status(status) => status.run(output),
            Self::Rotate(rotate) => rotate.run(Mode::Publish, output),
            Self::Rehearse(rotate) => rotate.run(Mode::Rehearse, output),
            Self::Renew(renew) => renew.run(output),
        }
    }
}

impl New {
    fn run(self, output: Output) -> Result<(), Stop> {
        let passphrase = self.passphrase.choose()?;
        let named = key::create(&self.out, &Protection::Passphrase(&passphrase))
            .map_err(|error| create_failure(&error))?;
        let public = self.out.with_extension("pub");
        output.line(format_args!("key of {} in {}", named.name, self.out.display()))?;
        output.line(format_args!("public half in {}, id {}", public.display(), named.id()))?;
        output.json(&json!({
            "name": named.name, "keyid": named.id().as_str(),
            "key": self.out.display().to_string(), "public": public.display().to_string(),
        }))
    }
}

impl Status {
    fn run(self, output: Output) -> Result<(), Stop> {
        let folder = self.org.open()?;
        let state = state(&folder)?;
        let mut shown = table(["role", "version", "expires", "signed by", ""]);
        for Standing { role, document, threshold, signers, left_days, warning } in
            standings(&state, Timestamp::now())
        {
            let who = format!("{threshold} of {}", signers.join(", "));
            let (version, expires) = document.unzip();
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            shown.add_row([
                role.clone(),
                or_none(version.map(|version| version.to_string())),
                or_none(expires.map(|expires| expires.to_string())),
                who,
                warning.to_string(),
            ]);
            output.json(&json!({
                "role": role, "version": version.map(Version::number),
                "expires": expires.map(|expires| expires.to_string()), "threshold": threshold,
                "signers": signers, "left_days": left_days, "warning": warning.as_str(),
            }))?;
        }
        output.table(&shown)
    }
}

pub(crate) fn create_failure(error: &CreateKeyError) -> Failure {
    let kind = match error {
        CreateKeyError::Exists { .. } => Kind::File,
        CreateKeyError::Name { .. } => Kind::Usage,
        CreateKeyError::Library => Kind::Internal,
        CreateKeyError::Write { source, .. } => Kind::of_io(source, Kind::File),
    };
    Failure::from_error(kind, error)
}
