//! `sutler trust show|recover`: what a machine believes of the orders, and what an admin does where its files are not
//! the ones that were kept. It works on the folder itself, so no node, agent or control may have it meanwhile.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use sutler_cache::trust::{self, OpenError, Outcome, RecoverError, Recovery, TrustStore, Why};
use sutler_node::failure::{Failure, Kind};
use sutler_node::orders::read_root;
use sutler_orders::text::Line;
use sutler_protocol::manifest::{Expires, Trusted, Version};

use crate::access::DataArgs;
use crate::output::{Output, Stop, printable, table};
use crate::signing::user;

const SHOW_EXAMPLES: &str = "\
Examples:
  sutler trust show --data /var/lib/sutler
  sutler trust show --data ./node --json

While a node, agent or control runs, `sutler status --data DATA` asks it instead.";

const RECOVER_EXAMPLES: &str = "\
Examples:
  sutler trust recover --data /var/lib/sutler --reason \"the disk was full, ticket 4711\"
  sutler trust recover --data ./node --reason \"root lost\" --root ./3.root.json

What still holds is kept, the rest is set aside as NAME.damaged-N, and DATA/orders/trust/audit says who did it, when
and why. A lost document is fetched again, and its version still binds: no older one is believed in its place. Only
where the root itself is lost is one needed: the one handed over before, if it is not older than what was lost.";

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Say what this machine believes.
    Show(Show),
    /// Keep what still holds of a trust store that refuses, and begin again from there.
    Recover(Recover),
}

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(crate) struct Show {
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
#[command(after_help = RECOVER_EXAMPLES)]
pub(crate) struct Recover {
    #[command(flatten)]
    data: DataArgs,
    /// Why; it is written down.
    #[arg(long, value_name = "TEXT")]
    reason: Line,
    /// A root.json from an admin, where the one here is lost [default: the one of the config, or of joining].
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

impl TrustCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Show(show) => show.run(output),
            Self::Recover(recover) => recover.run(output),
        }
    }
}

impl Show {
    fn run(&self, output: Output) -> Result<(), Stop> {
        let data = self.data.folder();
        let (_store, kept) = TrustStore::open(&data.trust()).map_err(|error| {
            let failure = Failure::from_error(kind_of(&error), &error);
            match error {
                OpenError::Damaged { .. } => failure.with_help(format!(
                    "`sutler trust recover --data {} --reason TEXT` keeps what still holds",
                    data.root().display()
                )),
                OpenError::InUse => {
                    failure.with_help("`sutler status` asks the process that has it")
                }
                _ => failure,
            }
        })?;
        let trusted =
            Trusted::load(&kept).map_err(|error| Failure::from_error(Kind::Refused, &error))?;
        let (root, timestamp) = (trusted.root(), trusted.timestamp());
        let rows = [
            ("root", Some((root.version(), root.expires()))),
            ("timestamp", timestamp.map(|known| (known.version(), known.expires()))),
            ("snapshot", trusted.snapshot().map(|known| (known.version(), known.expires()))),
            ("targets", trusted.targets().map(|known| (known.version(), known.expires()))),
        ];
        let mut shown = table(["role", "version", "expires", "not below"]);
        for (role, known) in rows {
            let floor = kept.floors.iter().find(|(name, _)| name.as_str() == role);
            let floor = floor.map(|(_, version)| *version);
            show(role, known, floor, &mut shown, output)?;
        }
        output.table(&shown)
    }
}

/// Shows one document: what is believed, or below which version none will be.
fn show(
    role: &str,
    known: Option<(Version, Expires)>,
    floor: Option<Version>,
    shown: &mut comfy_table::Table,
    output: Output,
) -> Result<(), Stop> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    shown.add_row([
        role.to_owned(),
        text(known.map(|(version, _)| version.to_string())),
        text(known.map(|(_, expires)| expires.to_string())),
        text(floor.map(|version| version.to_string())),
    ]);
    output.json(&json!({
        "role": role,
        "version": known.map(|(version, _)| version.number()),
        "expires": known.map(|(_, expires)| expires.to_string()),
        "not_below": floor.map(Version::number),
    }))
}

impl Recover {
    fn run(&self, output: Output) -> Result<(), Stop> {
        let data = self.data.folder();
        let root = match &self.root {
            Some(path) => Some(read_root(path)?),
            None => self.data.config()?.orders.root(&data)?,
        };
        let actor = user();
        let why = Why { actor: &actor, reason: self.reason.as_str(), at: Timestamp::now() };
        if !data.trust().is_dir() {
            let what =
                format!("{} believes nothing that could be recovered", data.root().display());
            return Err(Failure::new(Kind::Store, what).into());
        }
        let Recovery { outcomes } =
            trust::recover(&data.trust(), root, why).map_err(|error| failure(&error))?;
        let mut shown = table(["role", "outcome"]);
        let mut said = Vec::new();
        for (role, outcome) in &outcomes {
            shown.add_row([role.to_string(), outcome.to_string()]);
            said.push(as_json(role.as_str(), outcome));
        }
        output.table(&shown)?;
        let audit = data.trust().join("audit");
        output.line(format_args!("written down in {}", printable(&audit.display().to_string())))?;
        output.json(&json!({ "recovered": said, "audit": audit.display().to_string() }))
    }
}

fn as_json(role: &str, outcome: &Outcome) -> Value {
    let (outcome, version) = match outcome {
        Outcome::Kept(version) => ("kept", Some(version.number())),
        Outcome::Lost(version) => ("lost", version.map(Version::number)),
        Outcome::Absent => ("absent", None),
    };
    json!({ "role": role, "outcome": outcome, "version": version })
}

fn kind_of(error: &OpenError) -> Kind {
    match error {
        OpenError::Damaged { .. } => Kind::Refused,
        _ => Kind::Store,
    }
}

fn failure(error: &RecoverError) -> Failure {
    let failure = |kind| Failure::from_error(kind, error);
    match error {
        RecoverError::InUse => failure(Kind::Store).with_help("stop the process that has it first"),
        RecoverError::NoRoot => failure(Kind::Refused).with_help(
            "--root FILE hands one over: the newest metadata/N.root.json of control's repository",
        ),
        RecoverError::OldRoot { known, .. } => failure(Kind::Refused)
            .with_help(format!("--root FILE hands over {known}.root.json of control's repository")),
        RecoverError::Root(_) => failure(Kind::Refused),
        RecoverError::Unsaid => failure(Kind::Usage),
        RecoverError::Write(source) => failure(Kind::of_io(source, Kind::Store)),
    }
}
