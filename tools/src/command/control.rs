//! `sutler control`: the control plane in the foreground, until a signal; its backup and how it comes back.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use sutler_control::daemon::catch_up::{CatchUpError, CaughtUp, catch_up};
use sutler_control::daemon::config::ControlConfig;
use sutler_control::daemon::{Daemon, DaemonError, JoiningError};
use sutler_node::config::Config;
use sutler_node::data::DataFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_node::node::Node;
use sutler_node::orders::unfollowed;
use sutler_swarm::identity::{Expect, Identity, PeerVerifier, Role};
use tracing::info;

use crate::access::DataArgs;
use crate::command::runtime;
use crate::output::{Output, Stop};

mod backup;

use backup::{Backup, Restore};

const EXAMPLES: &str = "\
Examples:
  sutler control --data /srv/sutler --listen '[::]:7447'
  sutler control --data ./control --listen 127.0.0.1:0 --config ./control.toml

DATA is an organisation's folder with control's own keys (org.json, repository/, online/) and an identity:
  sutler org issue ORG_DIR --role control --id c1 --out DATA/identity
Admins' commands work on the same folder while it runs, by --org-dir DATA; what they publish is noticed, written
into DATA/audit/log and pushed. The config has [control] beside what a node's has:
  [control]
  http = \"0.0.0.0:8080\"     # the repository for any TUF client, and the door for admins elsewhere; off if absent
  join = \"[::]:7448\"        # where machines join by a token, and renew; nobody does if absent
  sources = [\"10.1.0.2:7447\"]    # nodes that are asked at each start for newer orders and lost contents, as after a restoration
To let machines join it needs an authority: sutler org intermediate ORG_DIR --out DATA/authority
Prints `listening ADDR` when ready, then `repository URL` and `join ADDR`. SIGINT and SIGTERM end it with 0.";

#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Control {
    #[command(subcommand)]
    command: Option<ControlCommand>,
    /// The data folder: an organisation's folder, with control's identity and store.
    #[arg(long, value_name = "DIR", env = "SUTLER_DATA", required = true)]
    data: Option<PathBuf>,
    /// The config file [default: DATA/sutler.toml if there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The UDP address at which nodes and agents are served. Port 0 takes any free port.
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Option<SocketAddr>,
    /// Sign above this version, which devices may have seen, whatever nodes say of it.
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..u64::MAX))]
    above: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ControlCommand {
    /// Write all that control cannot make again into one file.
    Backup(Backup),
    /// Put a backup into an empty folder.
    Restore(Restore),
}

/// The daemon, as it was asked for.
struct Serve {
    data: DataArgs,
    listen: SocketAddr,
    above: Option<u64>,
}

impl Control {
    /// Returns whether it runs until it is told to end.
    pub(crate) const fn is_service(&self) -> bool {
        self.command.is_none()
    }

    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match (self.command, self.data, self.listen) {
            (Some(ControlCommand::Backup(backup)), ..) => backup.run(output),
            (Some(ControlCommand::Restore(restore)), ..) => restore.run(output),
            (None, Some(data), Some(listen)) => {
                let data = DataArgs::with_config(data, self.config);
                Serve { data, listen, above: self.above }.run(output)
            }
            // Never: what is required is asked for before.
            (None, ..) => {
                Err(Failure::new(Kind::Usage, "a folder and an address are needed").into())
            }
        }
    }
}

impl Serve {
    fn run(self, output: Output) -> Result<(), Stop> {
        let (config, control): (Config, ControlConfig) = self.data.config_with("control")?;
        let data = self.data.folder();
        let runtime = runtime::start()?;
        runtime.block_on(async {
            let stop = runtime::stopped_by_signals()?;
            let node = Node::open(&data, self.listen, &config)?;
            let endpoint = node.fetcher().endpoint().clone();
            let verifier = verifier(&data)?;
            let caught_up = catch_up(data.root(), &control, self.above, &endpoint).await;
            let caught_up = caught_up.map_err(|error| catch_up_failure(&error))?;
            let daemon = Daemon::open(data.root(), &control, node.fetcher().clone(), verifier)
                .map_err(|error| failure(&data, &error))?;
            let (address, http) = (node.address(), daemon.http_address());
            let join = daemon.join_address();
            let repository = http.map(|http| format!("http://{http}"));
            let node = node.publishing(daemon.board().clone());
            info!(%address, identity = %node.fetcher().endpoint().name(), "listening");
            output.line(format_args!("listening {address}"))?;
            if let Some(repository) = &repository {
                output.line(format_args!("repository {repository}"))?;
            }
            let metrics = node.http_address().map(|http| format!("http://{http}/metrics"));
            if let Some(metrics) = &metrics {
                output.line(format_args!("metrics {metrics}"))?;
            }
            if let Some(join) = join {
                output.line(format_args!("join {join}"))?;
            }
            if let Some(CaughtUp { from, above, version }) = &caught_up {
                let from = from.map_or_else(|| "nobody".to_owned(), |from| from.to_string());
                output.line(format_args!("caught up with {from}: {version} is above {above}"))?;
            }
            let caught_up = caught_up.map(|CaughtUp { from, above, version }| {
                json!({ "from": from, "above": above, "version": version })
            });
            let said = json!({
                "listening": address, "repository": repository, "metrics": metrics, "join": join,
                "caught_up": caught_up,
            });
            output.json(&said)?;
            // Whichever ends first takes the other with it.
            let daemon = async {
                let ended = daemon.run(stop.clone()).await;
                stop.cancel();
                ended.map_err(|error| Failure::because(Kind::Internal, "serve", &error))
            };
            let serving = async {
                let ended = node.run(stop.clone()).await;
                stop.cancel();
                ended
            };
            let (served, kept) = tokio::join!(serving, daemon);
            Ok(served.and(kept)?)
        })
    }
}

/// Returns who knows the organisation's devices by their certificates.
pub(crate) fn verifier(data: &DataFolder) -> Result<PeerVerifier, Failure> {
    let refused = |error: &dyn std::error::Error| Failure::from_error(Kind::Refused, error);
    let identity = Identity::load(&data.identity()).map_err(|error| refused(&error))?;
    let organisation = identity.name().organisation().clone();
    let devices = Expect::new(organisation, [Role::Agent]);
    PeerVerifier::new(identity.roots(), devices).map_err(|error| refused(&error))
}

fn foreign(error: &dyn std::error::Error) -> Failure {
    Failure::from_error(Kind::Refused, error)
        .with_help("each organisation has a control and a folder of its own: DATA/identity is to be of its own authority")
}

fn catch_up_failure(error: &CatchUpError) -> Failure {
    match error {
        CatchUpError::Untold { .. } => Failure::from_error(Kind::Unreachable, error).with_help(
            "name nodes by [control] sources, or give the last version that devices saw: --above VERSION",
        ),
        CatchUpError::Above { .. } => Failure::from_error(Kind::Usage, error),
        CatchUpError::Folder(_) => Failure::from_error(Kind::File, error),
        CatchUpError::Foreign(_) => foreign(error),
        CatchUpError::Keys(_) => Failure::from_error(Kind::Refused, error),
        CatchUpError::Task(_) => Failure::from_error(Kind::Internal, error),
        _ => Failure::from_error(Kind::Store, error),
    }
}

/// Says why there is no daemon.
pub(crate) fn failure(data: &DataFolder, error: &DaemonError) -> Failure {
    match error {
        DaemonError::Believe(error) => unfollowed(data, error),
        DaemonError::Listen { .. } | DaemonError::Joining(JoiningError::Bind(_)) => {
            Failure::from_error(Kind::Unreachable, error).with_help("port 0 takes any free port")
        }
        DaemonError::Folder(_) => Failure::from_error(Kind::File, error)
            .with_help("`sutler org init DATA --org NAME --preset solo|team|enterprise` makes one"),
        DaemonError::Foreign(_) => foreign(error),
        DaemonError::Keys(_) => Failure::from_error(Kind::Refused, error),
        DaemonError::Joining(JoiningError::Authority(_)) => {
            Failure::from_error(Kind::Refused, error)
                .with_help("sutler org intermediate ORG_DIR --out DATA/authority")
        }
        DaemonError::Read(_)
        | DaemonError::Desk(_)
        | DaemonError::Joining(JoiningError::Members(_))
        | DaemonError::Reports(_)
        | DaemonError::Disk { .. } => Failure::from_error(Kind::Store, error),
    }
}
