//! `sutler apt-proxy`: what apt asks before each run, so that a laptop away from its site is not
//! stranded.
//!
//! apt starts the program that `Acquire::http::Proxy-Auto-Detect` names, with a URL and nothing else,
//! and takes what it prints: a proxy, or `DIRECT`. So the program answers in any case and within
//! [`ANSWER_MAX`], whatever the network does.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use sutler_node::failure::{Failure, Kind};
use url::Url;

use crate::output::{Output, Stop};

const EXAMPLES: &str = "\
Examples:
  sutler apt-proxy --node http://node.site.lan:3142
  ln -s /usr/bin/sutler /usr/local/bin/sutler-apt-proxy
  echo http://node.site.lan:3142 > /etc/sutler/apt-proxy
  echo 'Acquire::http::Proxy-Auto-Detect \"/usr/local/bin/sutler-apt-proxy\";' \\
      > /etc/apt/apt.conf.d/00sutler

Prints the first node that answers, or DIRECT. Called as `sutler-apt-proxy` it is this command.";

/// How long apt waits, at most.
const ANSWER_MAX: Duration = Duration::from_millis(300);

/// How long one node may take.
const NODE_MAX: Duration = Duration::from_millis(250);

/// Nodes that are asked, at most; all at once.
const NODES_MAX: usize = 16;

/// Bytes of a node's answer that are read.
const ANSWER_BYTES_MAX: usize = 2048;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AptProxy {
    /// A node's proxy, http://HOST:PORT; several are tried in this order.
    #[arg(long, value_name = "URL")]
    node: Vec<String>,
    /// A file with such URLs, one a line, where no --node is given.
    #[arg(long, value_name = "FILE", default_value = "/etc/sutler/apt-proxy")]
    list: PathBuf,
    /// What apt is about to fetch; not looked at.
    url: Option<String>,
}

impl AptProxy {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let nodes = if self.node.is_empty() { listed(&self.list) } else { read(&self.node)? };
        let found = first_that_answers(&nodes);
        let said = found.map_or_else(|| "DIRECT".to_owned(), |url| trimmed(&url));
        output.line(&said)?;
        output.json(&json!({ "proxy": said }))
    }
}

fn read(texts: &[String]) -> Result<Vec<Url>, Failure> {
    let one = |text: &String| {
        let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host());
        url.ok_or_else(|| {
            Failure::new(Kind::Usage, format!("{text} is no http:// URL of a node's proxy"))
        })
    };
    texts.iter().map(one).collect()
}

/// Returns the nodes of a list. One that is not there, or a line that is no node, must not keep apt
/// from its work.
fn listed(path: &PathBuf) -> Vec<Url> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(str::trim);
    let named = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    named.filter_map(|line| read(&[line.to_owned()]).ok()?.pop()).collect()
}

/// Asks all nodes at once, and returns the first in their order that answers in time.
fn first_that_answers(nodes: &[Url]) -> Option<Url> {
    let until = Instant::now() + ANSWER_MAX;
    let nodes = &nodes[..nodes.len().min(NODES_MAX)];
    let (sender, answers) = mpsc::channel();
    for (place, node) in nodes.iter().cloned().enumerate() {
        let sender = sender.clone();
        // Not joined: a resolver that hangs must not hold apt up, and the process ends soon.
        std::thread::spawn(move || {
            // Fails only if nobody waits any more.
            let _ = sender.send((place, answers_as_node(&node)));
        });
    }
    drop(sender);
    let mut known = vec![None; nodes.len()];
    loop {
        // Known as soon as all before it are known not to answer.
        let first = known.iter().position(|answer| *answer != Some(false));
        match first {
            None => return None,
            Some(place) if known[place] == Some(true) => return Some(nodes[place].clone()),
            Some(_) => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        let Ok((place, answer)) = answers.recv_timeout(left) else {
            let place = known.iter().position(|answer| *answer == Some(true))?;
            return Some(nodes[place].clone());
        };
        known[place] = Some(answer);
    }
}

/// Returns whether a node's proxy answers there.
fn answers_as_node(url: &Url) -> bool {
    ask(url).is_some_and(|answer| {
        let answer = answer.to_ascii_lowercase();
        answer.starts_with("http/1.1 ") && answer.contains("\r\nvia: 1.1 sutler\r\n")
    })
}

fn ask(url: &Url) -> Option<String> {
    let place = (url.host_str()?, url.port_or_known_default()?);
    let address = place.to_socket_addrs().ok()?.next()?;
    let until = Instant::now() + NODE_MAX;
    let left =
        || Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
    let mut stream = TcpStream::connect_timeout(&address, left()?).ok()?;
    stream.set_write_timeout(left()).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: sutler\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    let mut block = [0; 512];
    while answer.len() < ANSWER_BYTES_MAX && !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        stream.set_read_timeout(Some(left()?)).ok()?;
        match stream.read(&mut block).ok()? {
            0 => break,
            count => answer.extend_from_slice(&block[..count]),
        }
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// Returns a URL as apt wants it.
fn trimmed(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}
