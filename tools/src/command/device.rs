//! `sutler device`: who has joined, who waits to be accepted, and who is given nothing any more.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rustls::pki_types::UnixTime;
use serde_json::json;
use sutler_control::Members;
use sutler_control::members::{Change, ChangeError, OpenError, Record, Standing};
use sutler_node::failure::{Failure, Kind};
use sutler_swarm::enrol::token::hex;

use crate::command::revoke::Revoke;
use crate::output::{Output, Stop, table};

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// List the machines that asked to join.
    List(List),
    /// Let a machine join that waits for it.
    Accept(Named),
    /// Turn down a machine that waits to join.
    Reject(Named),
    /// Give a lost or replaced machine no certificate any more, and free its name.
    Retire(Named),
    /// Let a member in no longer, wherever it comes: an order that every node and device follows.
    Revoke(Revoke),
}

const LIST_EXAMPLES: &str = "\
Examples:
  sutler device list --data /srv/control
  sutler device list --data /srv/control --json";

const NAMED_EXAMPLES: &str = "\
Examples:
  sutler device accept 90c1f2a37be4d5f6 --data /srv/control
  sutler device reject 90c1f2a37be4d5f6 --data /srv/control
  sutler device retire spiffe://acme/site/paris/agent/laptop7 --data /srv/control";

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct List {
    /// The folder of control's data.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = NAMED_EXAMPLES)]
pub(crate) struct Named {
    /// The machine's full name, or its id alone.
    name: String,
    /// The folder of control's data. Control may be running.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl Device {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::List(list) => list.run(output),
            Self::Accept(named) => named.change(Change::Accept, output),
            Self::Reject(named) => named.change(Change::Reject, output),
            Self::Retire(named) => named.change(Change::Retire, output),
            Self::Revoke(revoke) => revoke.run(output),
        }
    }
}

impl List {
    fn run(self, output: Output) -> Result<(), Stop> {
        let records = Members::list(&folder(&self.data)?).map_err(|error| unusable(&error))?;
        let mut shown = table(["name", "state", "asked", "from"]);
        for record in &records {
            shown.add_row([
                record.name.to_string(),
                record.standing.to_string(),
                record.asked.to_string(),
                record.from.to_string(),
            ]);
            output.json(&described(record))?;
        }
        output.table(&shown)
    }
}

impl Named {
    fn change(self, change: Change, output: Output) -> Result<(), Stop> {
        let by = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
        let dir = folder(&self.data)?;
        let changed = Members::change(&dir, &self.name, change, &by, UnixTime::now());
        let record = changed.map_err(|error| match &error {
            ChangeError::Unknown(_) | ChangeError::Standing { .. } => {
                Failure::from_error(Kind::Refused, &error)
                    .with_help(format!("sutler device list --data {}", self.data.display()))
            }
            ChangeError::Folder(error) => unusable(error),
        })?;
        output.line(format_args!("{} is {}", record.name, record.standing))?;
        if record.standing == Standing::Retired && record.chain.is_some() {
            output.line("its certificate ends by itself; to end it at once, revoke it")?;
        }
        output.json(&described(&record))
    }
}

/// Returns the folder of the records; one that is not there is not made, because it would be that of a
/// mistyped name.
fn folder(data: &std::path::Path) -> Result<PathBuf, Failure> {
    let dir = data.join("members");
    if !dir.is_dir() {
        let what = format!("{} is missing: no control has its data there", dir.display());
        return Err(Failure::new(Kind::File, what));
    }
    Ok(dir)
}

fn described(record: &Record) -> serde_json::Value {
    json!({
        "name": record.name.to_string(), "state": record.standing, "key": hex(&record.key),
        "token": record.token.map(|token| hex(&token)), "asked": record.asked.to_string(),
        "from": record.from.to_string(),
        "changed": record.changed,
    })
}

fn unusable(error: &OpenError) -> Failure {
    match error {
        OpenError::Disk { source, .. } => {
            Failure::from_error(Kind::of_io(source, Kind::File), error)
        }
        OpenError::Damaged { .. } => Failure::from_error(Kind::Store, error),
    }
}
