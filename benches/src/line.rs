//! A line of a known rate: two ends of a virtual cable, the far one in a network of its own, with a token
//! bucket that holds back what comes from there. It takes root and iproute2.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// The rate of the line in Mbit/s, frames included, as of many a branch.
pub(crate) const RATE_MBIT: u32 = 100;

/// Bytes that may come at once: some 5 ms at that rate, which hides the timer's coarseness.
const BURST: &str = "64kb";

/// How long a frame may wait at the far end: as long as routers let it.
const LATENCY: &str = "50ms";

/// The addresses of its ends, in a private network that few use.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 1);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 2);
const NETWORK_BITS: u8 = 30;

/// A line. It goes when it is dropped, with whatever runs at its far end.
pub(crate) struct Line {
    name: String,
}

impl Line {
    /// Lays one.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let id = std::process::id();
        // Names of interfaces have 15 bytes at most.
        let (name, near, far) =
            (format!("sutler-bench-{id}"), format!("sb{id}a"), format!("sb{id}b"));
        ip(&["netns", "add", &name]).context("root and iproute2 are needed")?;
        let line = Self { name: name.clone() };
        ip(&["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &name])?;
        ip(&["address", "add", &within(NEAR), "dev", &near])?;
        ip(&["link", "set", &near, "up"])?;
        ip(&["-n", &name, "address", "add", &within(FAR), "dev", &far])?;
        ip(&["-n", &name, "link", "set", &far, "up"])?;
        let rate = format!("{RATE_MBIT}mbit");
        let bucket = ["root", "tbf", "rate", &rate, "burst", BURST, "latency", LATENCY];
        let mut tc = Command::new("tc");
        tc.args(["-n", &name, "qdisc", "add", "dev", &far]).args(bucket);
        done(&mut tc)?;
        Ok(line)
    }

    /// Returns a command that runs a program at the far end.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The cable goes with the network that one of its ends is in.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn within(address: Ipv4Addr) -> String {
    format!("{address}/{NETWORK_BITS}")
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    done(Command::new("ip").args(arguments))
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}
