//! `sutler dev`: everything at once, on this machine, with real packages.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use sutler_cache::import::{ImportFrom, ImportHow};
use sutler_control::reports::SILENT_AFTER;
use sutler_node::config::Config;
use sutler_node::failure::{Failure, Kind};
use sutler_node::local::{AddFile, StoreOwner};
use sutler_node::size::ByteCount;
use sutler_swarm::origin::AllowEntry;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use url::{Position, Url};

use crate::command::report::patches;
use crate::command::runtime;
use crate::dev::apt::{self, AptError, Choice, Package};
use crate::dev::cast::{AGENTS, Cast, Stage};
use crate::dev::orders;
use crate::dev::play::{Prop, PropFrom, play};
use crate::dev::share;
use crate::dev::summary::{Row, Summary};
use crate::output::{Output, Stop, printable};

const EXAMPLES: &str = "\
Examples:
  sutler dev
  sutler dev --once --limit 50MB
  sutler dev --share ./packages --share ./image.iso

Makes a throw-away organisation, its control, a node and two agents on loopback. Without --share the files are
the packages that `apt` would upgrade to, fetched from this machine's own sources by the node. What both agents
have is then published and approved, with throw-away keys and for a window that is always open; the agents obey,
and all that their command does is to write down the content's id, in DIR/agent-a/recorded. Nothing is installed.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Dev {
    /// Keep everything in this folder, so that the next run finds it [default: a temporary one].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Share these files and folders instead of packages.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    share: Vec<PathBuf>,
    /// Take packages of together at most so many bytes.
    #[arg(long, value_name = "BYTES", default_value = "200MB")]
    limit: ByteCount,
    /// Exit when everything has moved, instead of serving until Ctrl-C.
    #[arg(long)]
    once: bool,
}

/// What is to be moved.
enum Content {
    Packages(Vec<Package>),
    Files(Vec<PathBuf>),
}

impl Dev {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let runtime = runtime::start()?;
        // Removed when the command ends, whatever way it ends.
        let temporary =
            match &self.data {
                Some(_) => None,
                None => Some(tempfile::Builder::new().prefix("sutler-dev-").tempdir().map_err(
                    |error| Failure::because(Kind::File, "make a temporary folder", &error),
                )?),
            };
        let root = match (&self.data, &temporary) {
            (Some(data), _) => data.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => PathBuf::from("."),
        };
        let done = runtime.block_on(self.perform(&root, output));
        // No task is left that could still write into the folder.
        drop(runtime);
        done
    }

    async fn perform(&self, root: &Path, output: Output) -> Result<(), Stop> {
        let stop = runtime::stopped_by_signals()?;
        let content = tokio::select! {
            content = self.content(output) => content?,
            // Cancel-safe: a token stays cancelled.
            () = stop.cancelled() => {
                return Err(Failure::new(Kind::Interrupted, "interrupted").into());
            }
        };
        let mut config = Config::default();
        if let Content::Packages(packages) = &content {
            config.origin.allow = origins(packages.iter().map(|package| &package.url));
            config.origin.proxy = apt::proxy().await.unwrap_or_default();
        }
        config.http_proxy.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let stage = Stage::set(root)?;
        let cast = stage.start(config)?;
        let name = |actor: &crate::dev::cast::Actor| actor.fetcher.endpoint().name().to_string();
        output.line(format_args!("control  at {}", cast.control.address))?;
        output.line(format_args!("node     {} at {}", name(&cast.node), cast.node.address))?;
        for (label, actor) in [("agent A", &cast.agent_a), ("agent B", &cast.agent_b)] {
            output.line(format_args!("{label}  {} at {}", name(actor), actor.address))?;
        }
        let props = match &content {
            Content::Packages(packages) => packages.iter().map(prop).collect(),
            Content::Files(files) => {
                files.iter().map(|file| add(&cast, file)).collect::<Result<Vec<_>, _>>()?
            }
        };
        let outcome = play(&cast, &props, &stop).await;
        let vendor = &cast.node.counters;
        let vendor_bytes = match content {
            Content::Packages(..) => {
                Some(vendor.fetched_vendor_bytes.value() + vendor.wasted_bytes.value())
            }
            Content::Files(_) => None,
        };
        let mut summary = Summary::new(outcome.rows, vendor_bytes);
        output.table(&summary.table())?;
        summary.lines().iter().try_for_each(|line| output.line(line))?;
        for (file, failure) in &outcome.failed {
            output.line(format_args!("not moved: {}: {failure}", printable(file)))?;
        }
        let ordered = order(&stage, &cast, &summary.files, &stop, output).await;
        if let Ok(report) = &ordered {
            summary.report.clone_from(report);
        }
        output.json(&summary)?;
        if !self.once && ordered.is_ok() && !stop.is_cancelled() {
            by_hand(&stage, &cast, summary.files.first(), output)?;
            stop.cancelled().await;
        }
        cast.stop().await?;
        finish(outcome.failed, &stop)?;
        ordered.map(drop)
    }

    /// Finds out what to move.
    async fn content(&self, output: Output) -> Result<Content, Stop> {
        if !self.share.is_empty() {
            return Ok(Content::Files(shared(&self.share)?));
        }
        let why = match apt::packages(self.limit.0).await {
            Ok((choice, packages)) if !packages.is_empty() => {
                let bytes = packages.iter().map(|package| package.bytes).sum();
                let which = match choice {
                    Choice::Upgrades => "that apt would upgrade to",
                    Choice::Installed => "that are installed; nothing is to be upgraded",
                };
                output.line(format_args!(
                    "content  {} packages of {} {which}",
                    packages.len(),
                    ByteCount(bytes)
                ))?;
                return Ok(Content::Packages(packages));
            }
            Ok(_) => "apt knows no source for any package that fits --limit".to_owned(),
            Err(error @ AptError::Absent { .. }) => error.to_string(),
            Err(error) => Failure::from_error(Kind::File, &error).to_string(),
        };
        output.line(format_args!("content  {why}: sharing this program's own binary"))?;
        let own = std::env::current_exe().map_err(|error| {
            Failure::because(Kind::File, "find this program's own binary", &error)
        })?;
        Ok(Content::Files(shared(&[own])?))
    }
}

fn shared(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    share::files(paths).map_err(|error| Failure::because(Kind::File, "share files", &error))
}

/// Returns the origins of some URLs, each once: this machine trusts them already, whatever they
/// resolve to.
fn origins<'u>(urls: impl Iterator<Item = &'u Url>) -> Vec<AllowEntry> {
    let origins: BTreeSet<&str> = urls.map(|url| &url[..Position::BeforePath]).collect();
    origins.into_iter().map(AllowEntry::private).collect()
}

fn prop(package: &Package) -> Prop {
    let from = PropFrom::Vendor { sha256: package.sha256, url: package.url.clone() };
    Prop { name: package.file.clone(), from }
}

/// Puts a file of the user's into the node's store.
fn add(cast: &Cast, path: &Path) -> Result<Prop, Failure> {
    let failed = |error| Failure::because(Kind::File, format!("read {}", path.display()), &error);
    let file = File::open(path).map_err(failed)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let bytes = file.metadata().map_err(failed)?.len();
    let request = AddFile { name: Some(name.clone()), bytes, sha256: None };
    let from = ImportFrom::File { file: &file, path, how: ImportHow::Reflink };
    let added = cast.node.owner.add(&request, from)?;
    let id = added.content.parse().map_err(|error: sutler_protocol::content::NameError| {
        Failure::from_error(Kind::Internal, &error)
    })?;
    Ok(Prop { name, from: PropFrom::Node(id) })
}

/// Has both agents install what they have, and returns what they reported in the end. Nothing is ordered where nothing
/// was moved, or after `stop`.
async fn order(
    stage: &Stage,
    cast: &Cast,
    rows: &[Row],
    stop: &CancellationToken,
    output: Output,
) -> Result<Vec<Value>, Stop> {
    if rows.is_empty() || stop.is_cancelled() {
        return Ok(Vec::new());
    }
    let folder = stage.organisation().root().to_owned();
    let mut ordered = BTreeSet::new();
    for rows in rows.chunks(orders::AT_A_TIME) {
        let (folder, store) = (folder.clone(), cast.agent_a.fetcher.store().clone());
        let contents = orders::approve(folder.clone(), store, rows, &cast.control.desk).await?;
        orders::recorded(&folder, &contents, stop).await?;
        ordered.extend(contents);
        if stop.is_cancelled() {
            break;
        }
    }
    let count = ordered.len();
    output.line(format_args!("orders   {count} published, and approved for the ring qa"))?;
    let report = spawn_blocking(move || patches(&folder, SILENT_AFTER)).await;
    let report = report.map_err(|error| {
        Failure::because(Kind::Internal, "read what the agents reported", &error)
    })??;
    output.table(&report.table())?;
    Ok(report.into_values())
}

/// Says how to do by hand what was just done.
fn by_hand(stage: &Stage, cast: &Cast, row: Option<&Row>, output: Output) -> Result<(), Stop> {
    if let Some(proxy) = cast.node.proxy {
        output
            .line("apt gets its files through the node, and the second time from its store, by")?;
        output.line(format_args!(
            "  apt-get -o Acquire::http::Proxy=http://{proxy} download PACKAGE"
        ))?;
    }
    let Some(row) = row else { return output.line("serving until Ctrl-C") };
    output.line("serving until Ctrl-C; to fetch by hand, type in another terminal:")?;
    output.line(format_args!(
        "  sutler fetch {} --data {} --from {} --from {} --out ./fetched",
        row.agent_a.content,
        stage.data("you").root().display(),
        cast.node.address,
        cast.agent_a.address,
    ))?;
    let (organisation, agent) = (stage.organisation(), stage.data(AGENTS[0]));
    output.line("and to see what was ordered, and why a device did it:")?;
    output.line(format_args!("  sutler report patch --data {}", organisation.root().display()))?;
    let content = &row.agent_a.content;
    output.line(format_args!("  sutler explain {content} --data {}", agent.root().display()))
}

fn finish(failed: Vec<(String, Failure)>, stop: &CancellationToken) -> Result<(), Stop> {
    let count = failed.len();
    match failed.into_iter().next() {
        // Told to stop while everything had moved: that is how it ends.
        None => Ok(()),
        Some(_) if stop.is_cancelled() => {
            Err(Failure::new(Kind::Interrupted, "interrupted before everything had moved").into())
        }
        Some((file, first)) => {
            let mut causes = vec![first.what];
            causes.extend(first.causes);
            let what = match count {
                1 => format!("{} was not moved", printable(&file)),
                _ => format!("{count} files were not moved, {} among them", printable(&file)),
            };
            Err(Failure { causes, help: first.help, ..Failure::new(first.kind, what) }.into())
        }
    }
}
