//! `sutler node`: a site node in the foreground, until a signal.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use serde_json::json;
use sutler_node::failure::{Failure, Kind};
use sutler_node::node::Node as SiteNode;
use sutler_node::proxy::settings::HttpProxyConfig;
use tracing::info;

use crate::access::DataArgs;
use crate::command::runtime;
use crate::output::{Output, Stop};

const EXAMPLES: &str = "\
Examples:
  sutler node --data /srv/sutler --listen '[::]:7447'
  sutler node --data ./node --listen 127.0.0.1:0 --config ./node.toml

  sutler node --data /srv/sutler --print-apt-config > 00sutler

Prints `listening ADDR` when ready, then `metrics URL`, `proxy URL` and `join ADDR`, where devices ask that reach
only this node, if the config turns them on. SIGINT and SIGTERM let open requests finish, then exit 0.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Node {
    #[command(flatten)]
    data: DataArgs,
    /// The UDP address to serve at. Port 0 takes any free port.
    #[arg(long, value_name = "ADDR", required_unless_present = "print_apt_config")]
    listen: Option<SocketAddr>,
    /// Print what clients put into /etc/apt/apt.conf.d/ to use this node's proxy, and exit.
    #[arg(long)]
    print_apt_config: bool,
}

impl Node {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let config = self.data.config()?;
        let Some(listen) = self.listen.filter(|_| !self.print_apt_config) else {
            return print_apt_config(&config.http_proxy, output);
        };
        let runtime = runtime::start()?;
        runtime.block_on(async {
            let stop = runtime::stopped_by_signals()?;
            let node = SiteNode::open(&self.data.folder(), listen, &config)?;
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
            let join = node.join_relay_address();
            if let Some(join) = join {
                output.line(format_args!("join {join}"))?;
            }
            let said = json!({ "listening": address, "http": http, "proxy": proxy, "join": join });
            output.json(&said)?;
            Ok(node.run(stop).await?)
        })
    }
}

/// Prints apt's settings for the proxy of a config. Where that listens at every address, the machine's
/// name is taken.
fn print_apt_config(config: &HttpProxyConfig, output: Output) -> Result<(), Stop> {
    let listen = config.listen.filter(|listen| listen.port() != 0).ok_or_else(|| {
        let what = "the config opens no proxy at a port that clients could know";
        Failure::new(Kind::Usage, what).with_help("[http_proxy] listen = \"0.0.0.0:3142\"")
    })?;
    let host = match listen.ip() {
        ip if ip.is_unspecified() => {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        }
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let login = if config.password_file.is_some() { "USER:PASSWORD@" } else { "" };
    let url = format!("http://{login}{host}:{}", listen.port());
    // https sources use it, too, by CONNECT: apt takes this proxy for both.
    output.line(format_args!("Acquire::http::Proxy \"{url}\";"))?;
    output.json(&json!({ "proxy": url }))
}
