//! `sutler fetch`: contents from nodes, agents and origins into the store, then to the user's
//! files.
//!
//! Whatever was verified before an interruption stays in the store, so the same command typed again
//! goes on where it ended. A file appears under its name when all of it is there, and not before.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use sutler_cache::export::{ExportHow, file_name};
use sutler_node::failure::{Failure, Kind};
use sutler_node::local::FetchRequest;
use sutler_node::report::{Fetched, Progress, SourceBytes, SourceKind};
use sutler_node::size::ByteCount;
use sutler_protocol::{ContentId, ContentName};

use crate::access::{Absent, Access, DataArgs};
use crate::command::add::is_url;
use crate::command::runtime::{self, Peers};
use crate::export::{Batch, Settled, write_out};
use crate::output::{Output, Stop, printable};
use crate::progress::Bars;

/// Bytes of a list, at most: 100,000 lines.
const LIST_BYTES_MAX: u64 = 16 << 20;

const EXAMPLES: &str = "\
Examples:
  sutler fetch 5b12…9c --data ./agent --from 192.0.2.7:7447 --out bash.deb
  sutler fetch 5b12…9c --data ./agent --from 192.0.2.7:7447 --from 192.0.2.31:40113 --out bash.deb
  sutler fetch sha256:8213…a1 --url https://deb.debian.org/debian/pool/main/b/bash/bash_5.2.deb \\
      --data ./agent --from 192.0.2.7:7447 --out bash.deb
  sutler fetch --list packages.txt --data ./agent --from 192.0.2.7:7447 --out-dir ./packages
  sutler fetch --list packages.txt --data ./agent --from 192.0.2.7:7447 --out-dir ./packages --link

An interrupted fetch goes on where it ended: type it again. A list has lines as `b3sum` prints
them: content id, blanks, file name.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Fetch {
    /// A content id, or `sha256:` and the digest that its vendor published.
    #[arg(value_name = "CONTENT", required_unless_present = "list", conflicts_with = "list")]
    content: Option<ContentName>,
    #[command(flatten)]
    data: DataArgs,
    /// A source: HOST:PORT of a node or agent, or the URL of the file. May be repeated.
    #[arg(long, value_name = "ADDR|URL", required_unless_present = "url")]
    from: Vec<String>,
    /// Where the vendor has the file, for a node that does not know it yet.
    #[arg(long)]
    url: Option<String>,
    /// The file to write.
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    out: Option<PathBuf>,
    /// A file with a content id and a file name on each line.
    #[arg(long, value_name = "FILE", requires = "out_dir")]
    list: Option<PathBuf>,
    /// Make each file a second name of the store's own where the disk can: half the writing and
    /// half the room. Never change such a file: the store's copy would go bad with it.
    #[arg(long)]
    link: bool,
    /// The folder to write the files of a list to.
    #[arg(long, value_name = "DIR", requires = "list", conflicts_with = "out")]
    out_dir: Option<PathBuf>,
}

impl Fetch {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let access = self.data.open(Absent::Make)?;
        let urls: Vec<&String> =
            self.from.iter().filter(|from| is_url(from)).chain(&self.url).collect();
        let (access, network) = runtime::with_network(access, &self.data, &urls, Peers::Some)?;
        let done = match (&self.content, &self.out, &self.list, &self.out_dir) {
            (Some(content), Some(out), ..) => self.one(&access, *content, out, output),
            (_, _, Some(list), Some(out_dir)) => self.many(&access, list, out_dir, output),
            // The command line takes no other combination.
            _ => Err(Failure::new(Kind::Usage, "give a content and --out, or --list").into()),
        };
        let parting = network.part();
        let closed = access.close();
        parting.wait();
        done.and(closed.map_err(Stop::from))
    }

    const fn how(&self) -> ExportHow {
        if self.link { ExportHow::HardLink } else { ExportHow::Copy }
    }

    fn one(
        &self,
        access: &Access,
        content: ContentName,
        out: &Path,
        output: Output,
    ) -> Result<(), Stop> {
        let file_name = out.file_name().map(|name| name.to_string_lossy().into_owned());
        let label = file_name.clone().unwrap_or_else(|| content.to_string());
        let request = FetchRequest {
            name: content.to_string(),
            urls: self.url.iter().cloned().collect(),
            sources: self.from.clone(),
            file_name,
            stream: true,
        };
        let mut bars = Bars::new();
        let mut fetch = || {
            let fetched = access.owner().fetch(&request, &mut |progress| {
                bars.show(&label, &progress);
                ControlFlow::Continue(())
            });
            bars.end(&label);
            fetched
        };
        let report = write_out(fetch()?, out, self.how(), &mut fetch)?;
        show(output, &label, &report)?;
        output.json(&report)
    }

    fn many(
        &self,
        access: &Access,
        list: &Path,
        out_dir: &Path,
        output: Output,
    ) -> Result<(), Stop> {
        let wanted = read_list(list)?;
        fs::create_dir_all(out_dir).map_err(|error| {
            Failure::because(Kind::File, format!("make the folder {}", out_dir.display()), &error)
        })?;
        let request = |(id, name): &(ContentId, String)| FetchRequest {
            name: id.to_string(),
            urls: Vec::new(),
            sources: self.from.clone(),
            file_name: Some(name.clone()),
            stream: true,
        };
        let requests: Vec<FetchRequest> = wanted.iter().map(request).collect();
        let (started, mut totals) = (Instant::now(), Totals::default());
        let mut bars = Bars::new();
        let mut stop = None;
        let mut batch = Batch::new(out_dir, self.how());
        access.owner().fetch_many(&requests, &mut |position, result| {
            let name = &wanted[position].1;
            let mut again =
                || access.owner().fetch(&requests[position], &mut |_| ControlFlow::Continue(()));
            let counted = match result.and_then(|ready| batch.write(ready, name, &mut again)) {
                Ok(durable) => totals.count_all(durable, output),
                Err(failure) => totals.count(name, Err(failure), output),
            };
            let label = format!("{} of {} files", totals.contents, wanted.len());
            let (subject, bytes_had) = (label.clone(), totals.bytes);
            bars.show_as("list", &label, &Progress { subject, bytes_had, bytes: None });
            match counted {
                Ok(()) => ControlFlow::Continue(()),
                Err(why) => {
                    stop = Some(why);
                    ControlFlow::Break(())
                }
            }
        })?;
        bars.end("list");
        match stop.or_else(|| totals.count_all(batch.settle(), output).err()) {
            Some(why) => Err(why),
            None => totals.finish(wanted.len(), started, output),
        }
    }
}

/// What became of a list.
#[derive(Default)]
struct Totals {
    contents: u64,
    bytes: u64,
    bytes_again: u64,
    sources: Vec<SourceBytes>,
    failed: BTreeMap<String, Failure>,
}

impl Totals {
    fn count_all(&mut self, settled: Vec<Settled>, output: Output) -> Result<(), Stop> {
        settled.into_iter().try_for_each(|(name, written)| self.count(&name, written, output))
    }

    fn count(
        &mut self,
        name: &str,
        written: Result<Fetched, Failure>,
        output: Output,
    ) -> Result<(), Stop> {
        match written {
            Ok(report) => {
                self.contents += 1;
                self.bytes += report.bytes;
                self.bytes_again += report.bytes_again;
                for (kind, bytes) in &report.bytes_by_source {
                    self.sources.push(SourceBytes { kind: *kind, address: None, bytes: *bytes });
                }
                output.json(&report)
            }
            Err(failure) => {
                let shown = output.line(format_args!("{}: {failure}", printable(name)));
                self.failed.insert(name.to_owned(), failure);
                shown
            }
        }
    }

    fn finish(self, wanted: usize, started: Instant, output: Output) -> Result<(), Stop> {
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let by_source = Fetched::sum_by_kind(&self.sources);
        output.line(format_args!(
            "{} of {wanted} files, {} in {}.{:03} s: {}",
            self.contents,
            ByteCount(self.bytes),
            elapsed_ms / 1000,
            elapsed_ms % 1000,
            by_kind(&by_source)
        ))?;
        let failed: BTreeMap<&String, &str> =
            self.failed.iter().map(|(name, failure)| (name, failure.kind.name())).collect();
        output.json(&json!({
            "contents": self.contents, "bytes": self.bytes, "elapsed_ms": elapsed_ms,
            "bytes_by_source": by_source, "bytes_again": self.bytes_again,
            "verified": self.failed.is_empty(), "failed": failed,
        }))?;
        let count = self.failed.len();
        match self.failed.into_values().next() {
            None => Ok(()),
            Some(first) => {
                let what = format!("{count} of {wanted} files were not fetched");
                let mut causes = vec![first.what];
                causes.extend(first.causes);
                let failure =
                    Failure { causes, help: first.help, ..Failure::new(first.kind, what) };
                Err(failure.into())
            }
        }
    }
}

/// Reads a list: content id, blanks, file name.
fn read_list(path: &Path) -> Result<Vec<(ContentId, String)>, Failure> {
    let failed =
        |error| Failure::because(Kind::File, format!("read the list {}", path.display()), &error);
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(LIST_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let mut wanted = Vec::new();
    for (number, line) in (1_u64..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let at = |cause: &dyn std::error::Error| {
            Failure::because(
                Kind::Usage,
                format!("read line {number} of {}", path.display()),
                cause,
            )
        };
        let (id, name) = line.split_once([' ', '\t']).unwrap_or((line, line));
        let id: ContentId = id.parse().map_err(|error| at(&error))?;
        let name = file_name(name.trim()).map_err(|error| at(&error))?;
        wanted.push((id, name.to_owned()));
    }
    Ok(wanted)
}

fn show(output: Output, label: &str, report: &Fetched) -> Result<(), Stop> {
    let rate = ByteCount(report.bytes.saturating_mul(1000) / report.elapsed_ms.max(1));
    output.line(format_args!("{}  {}", report.content, printable(label)))?;
    output.line(format_args!(
        "{} in {}.{:03} s, {rate}/s, verified: {}",
        ByteCount(report.bytes),
        report.elapsed_ms / 1000,
        report.elapsed_ms % 1000,
        by_kind(&report.bytes_by_source)
    ))?;
    for source in report.sources.iter().filter(|source| source.bytes > 0) {
        if let Some(address) = &source.address {
            output.line(format_args!("  {} from {address}", ByteCount(source.bytes)))?;
        }
    }
    report.dropped.iter().try_for_each(|dropped| {
        output.line(format_args!("  gave up {}: {}", dropped.address, printable(&dropped.reason)))
    })
}

fn by_kind(sums: &BTreeMap<SourceKind, u64>) -> String {
    let name = |kind: &SourceKind| match kind {
        SourceKind::Disk => "disk",
        SourceKind::Peer => "peer",
        SourceKind::Node => "node",
        SourceKind::Vendor => "vendor",
    };
    let parts: Vec<String> = sums
        .iter()
        .filter(|(_, bytes)| **bytes > 0)
        .map(|(kind, bytes)| format!("{} {}", name(kind), ByteCount(*bytes)))
        .collect();
    if parts.is_empty() { "nothing to fetch".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<Vec<(ContentId, String)>, Failure> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), text).expect("a list");
        read_list(file.path())
    }

    #[test]
    fn a_list_is_what_b3sum_prints() {
        let id = "00".repeat(32);
        let wanted = list(&format!("{id}  a name.deb\n\n{id}\n")).expect("a good list");
        assert_eq!(wanted.len(), 2);
        assert_eq!((wanted[0].1.as_str(), &wanted[1].1), ("a name.deb", &id));
    }

    // T14
    #[test]
    fn a_list_cannot_name_a_file_outside_of_its_folder() {
        let id = "00".repeat(32);
        for name in ["../evil", "/etc/passwd", "a/b", "..", "a\0b"] {
            let refused = list(&format!("{id}  {name}\n")).expect_err(name);
            assert_eq!(refused.kind, Kind::Usage, "{name}");
        }
    }
}
