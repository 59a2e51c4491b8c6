//! `sutler node`: a site node in the foreground, until a signal.

use std::net::SocketAddr;

use clap::Args;
use serde_json::json;
use sutler_node::node::Node as SiteNode;
use tracing::info;

use crate::access::DataArgs;
use crate::command::runtime;
use crate::output::{Output, Stop};

const EXAMPLES: &str = "\
Examples:
  sutler node --data /srv/sutler --listen '[::]:7447'
  sutler node --data ./node --listen 127.0.0.1:0 --config ./node.toml

Prints `listening ADDR` when ready, then `metrics URL` and `proxy URL` if the config turns them on. SIGINT and SIGTERM let open requests finish, then exit 0.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Node {
    #[command(flatten)]
    data: DataArgs,
    /// The UDP address to serve at. Port 0 takes any free port.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
}

impl Node {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let config = self.data.config()?;
        let runtime = runtime::start()?;
        runtime.block_on(async {
            let stop = runtime::stopped_by_signals()?;
            let node = SiteNode::open(&self.data.folder(), self.listen, &config)?;
            let (address, http) = (node.address(), node.http_address());
            let proxy = node.proxy_address().map(|proxy| format!("http://{proxy}"));
            info!(%address, identity = %node.fetcher().endpoint().name(), "listening");
            output.line(format_args!("listening {address}"))?;
            if let Some(http) = http {
                output.line(format_args!("metrics http://{http}/metrics"))?;
            }
            if let Some(proxy) = &proxy {
                output.line(format_args!("proxy {proxy}"))?;
            }
            output.json(&json!({ "listening": address, "http": http, "proxy": proxy }))?;
            Ok(node.run(stop).await?)
        })
    }
}
