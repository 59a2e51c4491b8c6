//! `sutler schedule|ring|policy|standing set`: an order file that a person wrote, signed and published.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use sutler_control::change::{Change, ChangeError};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::order::{Body, OrderError};
use sutler_orders::{Policies, Rings, Schedules, Standing};
use sutler_protocol::name::Label;

use crate::command::policy::Effective;
use crate::command::publish::change_failure;
use crate::output::{Output, Stop};
use crate::signing::{SignArgs, state};

const SCHEDULE: &str = "\
Examples:
  sutler schedule set windows.json --scope all --key anna.key
FILE holds {\"schedules\": […]}; the rest of the order file (organisation, scope, seq, issued) is filled in.";
const POLICY: &str = "\
Examples:
  sutler policy set policies.json --scope all --key anna.key
FILE holds {\"policies\": […]}; the rest of the order file is filled in.";
const STANDING: &str = "\
Examples:
  sutler standing set standing.json --scope qa --key anna.key
FILE holds {\"policies\": […]}; the rest of the order file is filled in.";
const RING: &str = "\
Examples:
  sutler ring set rings.json --key anna.key
FILE holds {\"rings\": […]}; the rest of the order file is filled in.";

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Say when the devices of a scope act.
    #[command(after_help = SCHEDULE)]
    Set(SetScoped),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say how the devices of a scope behave.
    #[command(after_help = POLICY)]
    Set(SetScoped),
    /// Say how this device behaves, by the orders that its agent has verified.
    Effective(Effective),
}

#[derive(Debug, Subcommand)]
pub(crate) enum StandingCommand {
    /// Say what silence approves in a scope.
    #[command(after_help = STANDING)]
    Set(SetScoped),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RingCommand {
    /// Say in which order devices receive something.
    #[command(after_help = RING)]
    Set(Set),
}

#[derive(Debug, Args)]
pub(crate) struct SetScoped {
    /// The scope that it is for.
    #[arg(long)]
    scope: Label,
    #[command(flatten)]
    set: Set,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The file that says it, as JSON.
    file: PathBuf,
    #[command(flatten)]
    sign: SignArgs,
}

impl ScheduleCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let Self::Set(SetScoped { scope, set }) = self;
        set.run::<Schedules>(Some(&scope), output)
    }
}

impl PolicyCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Set(SetScoped { scope, set }) => set.run::<Policies>(Some(&scope), output),
            Self::Effective(effective) => effective.run(output),
        }
    }
}

impl StandingCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let Self::Set(SetScoped { scope, set }) = self;
        set.run::<Standing>(Some(&scope), output)
    }
}

impl RingCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let Self::Set(set) = self;
        set.run::<Rings>(None, output)
    }
}

impl Set {
    fn run<B: Body + Default>(&self, scope: Option<&Label>, output: Output) -> Result<(), Stop> {
        let now = Timestamp::now();
        let body: B = read(&self.file)?;
        let folder = self.sign.open()?;
        let state = state(&folder)?;
        let of = scope.map_or_else(String::new, |scope| format!(" of the scope {scope}"));
        let what = format!("set the {}{of} from {}", B::KIND, self.file.display());
        let note = self.sign.note(&state, &what, now);
        let mut change = Change::new(&state, folder.organisation(), note, now);
        change.order::<B, Stop>(scope, |old| {
            *old = body;
            Ok(())
        })?;
        let draft = change.draft().map_err(|error: ChangeError| change_failure(&error))?;
        self.sign.finish(&folder, Some(&state), draft, &[what], output).map(drop)
    }
}

/// Reads what a person wrote: a kind's own fields, and no others.
pub(crate) fn read<B: Body>(path: &Path) -> Result<B, Failure> {
    let failed = |error| Failure::because(Kind::File, format!("read {}", path.display()), &error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let bytes_max = sutler_orders::bounds::ORDER_BYTES_MAX;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        let what =
            format!("{} has more than the {bytes_max} bytes of an order file", path.display());
        return Err(Failure::new(Kind::Usage, what));
    }
    let usage = |error: OrderError| {
        Failure::because(Kind::Usage, format!("read {}", path.display()), &error)
    };
    let document = B::KIND;
    let value = sutler_protocol::manifest::json::read(&bytes)
        .map_err(|source| usage(OrderError::Json { document, source }))?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        usage(OrderError::Field { document, field, source: error.into_inner() })
    })
}
