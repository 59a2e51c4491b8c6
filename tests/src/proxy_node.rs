//! A node with its caching proxy, in a process of its own: the real program, as an operator runs it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::apt_root::AptRoot;
use crate::machine::{Machine, end};
use crate::vendor::Origin;

/// How long a node may take to say that it listens, on a machine that builds meanwhile.
const READY_MAX: Duration = Duration::from_mins(1);

/// A node whose proxy answers. Killed when dropped.
pub struct ProxyNode {
    child: Child,
    data: String,
    /// Where it serves peers.
    pub address: SocketAddr,
    /// Where its proxy listens.
    pub proxy: SocketAddr,
}

/// How a node is to be set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Nodes that it asks before origins.
    pub upstream: Vec<SocketAddr>,
    /// Folders of Releases, as URLs, each with the keyring that signs it.
    pub feeds: Vec<(String, PathBuf)>,
    /// The `apt.conf` of the apt whose sources it knows besides.
    pub apt_config: Option<PathBuf>,
}

impl ProxyNode {
    /// Starts a node on the data folder `data`, with an identity of its own, that may ask one origin.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start(machine: &Machine, data: &str, origin: &Origin, setup: &Setup) -> Self {
        let identity = format!("{data}/identity");
        if !machine.path(&identity).exists() {
            machine
                .ok(["org", "issue", "ca", "--site", "here", "--role", "node", "--out", &identity]);
        }
        let upstream: Vec<String> =
            setup.upstream.iter().map(|address| format!("\"{address}\"")).collect();
        let feed = |(url, keyring): &(String, PathBuf)| {
            format!("{{ url = \"{url}\", keyring = \"{}\" }}", keyring.display())
        };
        let feeds: Vec<String> = setup.feeds.iter().map(feed).collect();
        let apt = setup.apt_config.as_ref().map_or("apt_sources = false".to_owned(), |config| {
            format!("apt_sources = true\napt_config = \"{}\"", config.display())
        });
        let config = format!(
            "[store]\nfree_bytes_min = 0\n\n[origin]\nproxy = \"none\"\n\n[http_proxy]\n\
             listen = \"127.0.0.1:0\"\nupstream = [{}]\nfeeds = [{}]\n{apt}\n\
             allow = [{{ url = \"{}\", private = true }}]\n",
            upstream.join(", "),
            feeds.join(", "),
            origin.url("")
        );
        fs::write(machine.path(format!("{data}/sutler.toml")), config).expect("a file");
        let mut command = machine.command(["node", "--data", data, "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let lines = lines_of(&mut child);
        let mut said = |mark: &str| loop {
            match lines.recv_timeout(READY_MAX) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix(mark) {
                        break address.parse().expect("an address");
                    }
                }
                Err(error) => {
                    drop(child.kill());
                    panic!("the node does not say {mark:?}: {error}");
                }
            }
        };
        let (address, proxy) = (said("listening "), said("proxy http://"));
        Self { child, data: data.to_owned(), address, proxy }
    }

    /// Makes an apt that fetches everything through it.
    pub fn client(&self) -> AptRoot {
        AptRoot::behind(self.proxy)
    }

    /// Returns what `sutler status` says of it.
    ///
    /// # Panics
    ///
    /// If it says nothing.
    pub fn status(&self, machine: &Machine) -> Value {
        machine.json(["status", "--data", &self.data])
    }

    /// Kills it, as a power cut would.
    pub fn kill(mut self) {
        end(&mut self.child, "KILL");
    }

    /// Asks it for a URL, with `curl` and its options, and returns the head of the answer and its body.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub fn curl(&self, url: &str, options: &[&str]) -> (String, Vec<u8>) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--noproxy", "", "--proxy"]);
        curl.arg(format!("http://{}", self.proxy)).args(options).arg(url);
        let output = curl.output().expect("curl runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let split = output.stdout.windows(4).position(|window| window == b"\r\n\r\n");
        let split = split.expect("an answer has a head");
        let head = String::from_utf8_lossy(&output.stdout[..split]).to_ascii_lowercase();
        (head, output.stdout[split + 4..].to_vec())
    }
}

impl Drop for ProxyNode {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns the lines that a program prints, which is read to its end so that it can go on printing.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let stdout = child.stdout.take().expect("stdout is a pipe");
    let (say, said) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            drop(say.send(line));
        }
    });
    said
}
