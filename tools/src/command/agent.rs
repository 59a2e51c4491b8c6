//! `sutler agent`: a device's daemon in the foreground, until a signal.

use std::net::SocketAddr;
use std::path::absolute;

use clap::Args;
use serde_json::json;
use sutler_agent::agent::{Agent as Device, Parts, REPORTS_APART};
use sutler_agent::config::AgentConfig;
use sutler_node::config::Config;
use sutler_node::failure::{Failure, Kind};
use sutler_node::node::Node;
use tracing::info;

use crate::access::DataArgs;
use crate::command::runtime;
use crate::output::{Output, Stop};

const EXAMPLES: &str = "\
Examples:
  sutler agent --data /var/lib/sutler --config /etc/sutler/agent.toml
  sutler agent --data ./anna --listen 127.0.0.1:0

The config names whose orders it follows, and what installs:

  [orders]
  sources = [\"10.3.0.2:7447\"]        # the site's node, and others
  root = \"/etc/sutler/root.json\"     # once, from an admin

  [agent]
  observe_only = false               # true unless it is said: then it only looks and reports

  [[agent.install]]
  kind = \"deb\"
  command = [\"/usr/bin/dpkg\", \"--force-confold\", \"--install\", \"{file}\"]
  detect = [\"/usr/local/lib/sutler/has-deb\", \"{file}\"]    # 0 yes, 1 no, 3 of no use here, 4 after a restart
  max_run_minutes = 30

  [agent.versions]                   # what lists installed versions, lines of PRODUCT VERSION, for standing
  tool = [\"/usr/local/lib/sutler/tool-versions\"]    # policies; `deb` is known and needs no line

`metered = true|false` in [agent] says whether the line costs money; else NetworkManager is asked, if it is there.

Prints `listening ADDR` when ready. SIGINT and SIGTERM tell a command that runs to end, then exit 0.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Agent {
    #[command(flatten)]
    data: DataArgs,
    /// The UDP address to serve peers at. Port 0 takes any free port.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0")]
    listen: SocketAddr,
}

impl Agent {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let (config, agent): (Config, AgentConfig) = self.data.config_with(AgentConfig::NAME)?;
        let mistakes = agent.mistakes();
        if !mistakes.is_empty() {
            let causes = mistakes.iter().map(|(path, wrong)| format!("agent.{path}: {wrong}"));
            let what = "use the [agent] part of the config";
            let failure = Failure { causes: causes.collect(), ..Failure::new(Kind::Usage, what) };
            return Err(failure.into());
        }
        let runtime = runtime::start()?;
        runtime.block_on(async {
            let stop = runtime::stopped_by_signals()?;
            let data = self.data.folder();
            let node = Node::open(&data, self.listen, &config)?;
            let (board, outbox) = node.follows().ok_or_else(|| {
                let what = "the config does not say whose orders to follow";
                Failure::new(Kind::Usage, what)
                    .with_help("[orders] sources = [\"NODE:7447\"]; `sutler agent --help` has more")
            })?;
            let folder = absolute(data.agent()).map_err(|error| {
                let what = format!("find {}", data.agent().display());
                Failure::because(Kind::File, what, &error)
            })?;
            let device = Device::open(Parts {
                sources: config.orders.sources.clone(),
                config: agent,
                folder,
                fetcher: node.fetcher().clone(),
                board,
                outbox,
                reports_apart: REPORTS_APART,
                clock: jiff::Timestamp::now,
            })
            .map_err(|error| Failure::from_error(Kind::Refused, &error))?;
            let address = node.address();
            info!(%address, identity = %node.fetcher().endpoint().name(), "listening");
            output.line(format_args!("listening {address}"))?;
            let metrics = node.http_address().map(|http| format!("http://{http}/metrics"));
            if let Some(metrics) = &metrics {
                output.line(format_args!("metrics {metrics}"))?;
            }
            output.json(&json!({ "listening": address, "metrics": metrics }))?;
            let (served, ()) = tokio::join!(node.run(stop.clone()), device.run(stop));
            Ok(served?)
        })
    }
}
