//! `sutler audit verify|export`: what control wrote down, and whether it still holds.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sutler_control::audit::{self, AuditError, Entry, Head};
use sutler_node::failure::{Failure, Kind};

use crate::output::{Output, Stop, printable};

const VERIFY_EXAMPLES: &str = "\
Examples:
  sutler audit verify ./control/audit/log
  sutler audit verify ./log --timestamp ./timestamp.json

A timestamp that a device or node kept says how far the log went when it was signed: a log that was cut or
replaced since is found by it. The copy that lies in DATA/orders/mirror/metadata of any machine will do.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  sutler audit export ./control/audit/log
  sutler audit export ./log --json > audit.jsonl";

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Say whether anything in a log was changed, cut or put in. Needs nothing but the file.
    Verify(Verify),
    /// Print the entries of a log that holds.
    Export(Export),
}

#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct Verify {
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(crate) struct Export {
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
struct LogArgs {
    /// The log: DATA/audit/log of control, or a copy.
    #[arg(value_name = "LOG")]
    file: PathBuf,
    /// A signed timestamp that somebody kept. Its signature is not looked at.
    #[arg(long, value_name = "FILE")]
    timestamp: Option<PathBuf>,
}

impl Audit {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Verify(verify) => verify.run(output),
            Self::Export(export) => export.run(output),
        }
    }
}

impl Verify {
    fn run(self, output: Output) -> Result<(), Stop> {
        let (entries, head) = self.log.read()?;
        let chain = head.chain.to_string();
        output.line(format_args!("{} entries hold; the last is {chain}", entries.len()))?;
        output.json(&json!({ "entries": entries.len(), "seq": head.seq, "blake3": chain }))
    }
}

impl Export {
    fn run(self, output: Output) -> Result<(), Stop> {
        let (entries, _) = self.log.read()?;
        for entry in &entries {
            let Entry { seq, at, actor, action, object, reason } = entry;
            let why = reason.as_deref().map(|why| format!(": {}", printable(why)));
            output.line(format_args!(
                "{seq:>6}  {at}  {}  {action}  {}{}",
                printable(actor),
                printable(object),
                why.unwrap_or_default()
            ))?;
            output.json(entry)?;
        }
        Ok(())
    }
}

impl LogArgs {
    fn read(&self) -> Result<(Vec<Entry>, Head), Failure> {
        let known = self.timestamp.as_deref().map(head_of).transpose()?;
        audit::verify(&self.file, known).map_err(|error| {
            let kind = match &error {
                AuditError::Disk { .. } => Kind::File,
                _ => Kind::Corrupt,
            };
            Failure::from_error(kind, &error)
        })
    }
}

/// Returns the head that a timestamp says.
fn head_of(path: &Path) -> Result<Head, Failure> {
    let what = || format!("read {}", path.display());
    let bytes =
        std::fs::read(path).map_err(|error| Failure::because(Kind::File, what(), &error))?;
    let timestamp: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::because(Kind::File, what(), &error))?;
    let fields = timestamp.get("signed").and_then(Value::as_object);
    fields.and_then(Head::from_extra).ok_or_else(|| {
        Failure::new(Kind::File, format!("{} says nothing of an audit log", path.display()))
    })
}
