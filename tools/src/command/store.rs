//! `sutler store …`: looking after the store.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use sutler_node::failure::{Failure, Kind};
use sutler_node::owner::relocate;
use sutler_node::report::ContentRow;
use sutler_node::size::ByteCount;
use url::Url;

use crate::access::{Absent, DataArgs};
use crate::output::{Output, Stop, align_right, printable, table};
use crate::progress::Bars;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// List the contents.
    Ls(Ls),
    /// Read every byte and check it; what is wrong is taken out of service.
    Verify(Verify),
    /// Remove what is neither pinned nor in use until the quota and the free disk are kept.
    Gc(Gc),
    /// Move the store to another folder; the data folder remembers where it is.
    Move(Move),
    /// Throw the index away and make it anew from the contents.
    RebuildIndex(RebuildIndex),
}

const LS_EXAMPLES: &str = "\
Examples:
  sutler store ls --data ./node
  sutler store ls --data ./node --origin deb.debian.org
  sutler store ls --data ./node --json | jq -r .content";

const VERIFY_EXAMPLES: &str = "\
Examples:
  sutler store verify --data ./node";

const GC_EXAMPLES: &str = "\
Examples:
  sutler store gc --data ./node
  sutler store gc --data ./node --bytes-max 10GB";

const MOVE_EXAMPLES: &str = "\
Examples:
  sutler store move --data /srv/sutler /mnt/big/sutler-store

The node must not run meanwhile. On the same disk nothing is copied.";

const REBUILD_EXAMPLES: &str = "\
Examples:
  sutler store rebuild-index --data ./node";

#[derive(Debug, Args)]
#[command(after_help = LS_EXAMPLES)]
pub(crate) struct Ls {
    #[command(flatten)]
    data: DataArgs,
    /// Only what comes from this host, such as deb.debian.org or mirror.lan:8080.
    #[arg(long, value_name = "HOST")]
    origin: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct Verify {
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
#[command(after_help = GC_EXAMPLES)]
pub(crate) struct Gc {
    #[command(flatten)]
    data: DataArgs,
    /// Hold at most so many bytes afterwards, less than the quota: 10GB, 512MiB.
    #[arg(long, value_name = "BYTES")]
    bytes_max: Option<ByteCount>,
}

#[derive(Debug, Args)]
#[command(after_help = MOVE_EXAMPLES)]
pub(crate) struct Move {
    #[command(flatten)]
    data: DataArgs,
    /// The folder to move to, absent or empty.
    to: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = REBUILD_EXAMPLES)]
pub(crate) struct RebuildIndex {
    #[command(flatten)]
    data: DataArgs,
}

impl StoreCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Ls(ls) => ls.run(output),
            Self::Verify(verify) => verify.run(output),
            Self::Gc(gc) => gc.run(output),
            Self::Move(to) => to.run(output),
            Self::RebuildIndex(rebuild) => rebuild.run(output),
        }
    }
}

impl Ls {
    fn run(self, output: Output) -> Result<(), Stop> {
        let access = self.data.open(Absent::Fail)?;
        let mut table = table(["content", "bytes", "had", "for", "name"]);
        let mut printed = Ok(());
        access.owner().list(&mut |row| {
            if !self.origin.as_deref().is_none_or(|host| comes_from(&row, host)) {
                return;
            }
            let had = match (row.complete, row.bytes) {
                (true, _) => "complete".to_owned(),
                (false, 0) => "0 %".to_owned(),
                (false, bytes) => format!("{} %", row.bytes_had.saturating_mul(100) / bytes),
            };
            if printed.is_ok() {
                printed = output.json(&row);
            }
            let name = printable(row.name.as_deref().unwrap_or("-"));
            let whom = if row.offered { "peers" } else { "proxy" };
            table.add_row([row.content, row.bytes.to_string(), had, whom.to_owned(), name]);
        })?;
        printed?;
        align_right(&mut table, &[1, 2]);
        output.table(&table)?;
        Ok(access.close()?)
    }
}

/// Returns whether a content comes from a host, with or without its port.
fn comes_from(row: &ContentRow, host: &str) -> bool {
    row.origins.iter().filter_map(|url| Url::parse(url).ok()).any(|url| {
        let found = url.host_str().unwrap_or_default();
        found == host || url.port().is_some_and(|port| format!("{found}:{port}") == host)
    })
}

impl Verify {
    fn run(self, output: Output) -> Result<(), Stop> {
        let access = self.data.open(Absent::Fail)?;
        let mut bars = Bars::new();
        let verified = access.owner().verify(&mut |progress| {
            bars.show("verify", &progress);
            ControlFlow::Continue(())
        });
        bars.end("verify");
        let verified = verified?;
        for damage in &verified.damaged {
            let what = match &damage.reason {
                Some(reason) => reason.clone(),
                None => format!("{} chunks", damage.chunks.len()),
            };
            output.line(format_args!("damaged  {}  {what}", damage.content))?;
        }
        output.line(format_args!(
            "{} contents, {} bytes read, {} damaged",
            verified.contents,
            verified.bytes,
            verified.damaged.len()
        ))?;
        output.json(&verified)?;
        access.close()?;
        if verified.damaged.is_empty() {
            return Ok(());
        }
        let what = format!("{} contents were damaged", verified.damaged.len());
        let help = "what was wrong is out of service: fetch those contents again";
        Err(Failure::new(Kind::Corrupt, what).with_help(help).into())
    }
}

impl Gc {
    fn run(self, output: Output) -> Result<(), Stop> {
        let access = self.data.open(Absent::Fail)?;
        let collected = access.owner().gc(self.bytes_max.map(|bytes| bytes.0))?;
        output.line(format_args!(
            "{} contents removed, {} freed, {} held",
            collected.contents,
            ByteCount(collected.bytes),
            ByteCount(collected.bytes_left)
        ))?;
        output.json(&collected)?;
        access.close()?;
        if collected.bytes_excess == 0 {
            return Ok(());
        }
        let what = format!("{} bytes too many are pinned or in use", collected.bytes_excess);
        Err(Failure::new(Kind::NoSpace, what).into())
    }
}

impl Move {
    fn run(self, output: Output) -> Result<(), Stop> {
        let moved = relocate(&self.data.folder(), &self.to)?;
        output.line(format_args!(
            "the store is in {} now: {} files, {}",
            moved.to,
            moved.files,
            ByteCount(moved.bytes)
        ))?;
        output.json(&moved)
    }
}

impl RebuildIndex {
    fn run(self, output: Output) -> Result<(), Stop> {
        let access = self.data.open(Absent::Fail)?;
        let rebuilt = access.owner().rebuild_index()?;
        output.line(format_args!("{} contents in the index", rebuilt.contents))?;
        output.json(&json!({ "contents": rebuilt.contents }))?;
        Ok(access.close()?)
    }
}
