//! How large, how often, and on what: the arguments that all measurements share.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use sutler_swarm::TransportConfig;

use crate::role::Threads;
use crate::table::RUNS_MIN;

/// The path MTU of Ethernet, less what IPv6 and UDP take.
const MTU_ETHERNET: u16 = 1_452;

/// Clients of the crowds that are measured.
const CROWDS: [usize; 2] = [50, 200];

/// Approvals that are published while orders are measured.
const APPROVALS: [usize; 2] = [100, 1_000];

/// How large, how often, and on what.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scale {
    /// Runs that count; the median of them is printed.
    #[arg(long, default_value_t = RUNS_MIN)]
    runs: usize,
    /// Keep stores on the disk of this folder; in memory otherwise.
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// MiB of the one large content.
    #[arg(long, default_value_t = 1_024)]
    large_mib: u64,
    /// Clients of a crowd; may be repeated.
    #[arg(long, value_name = "N", default_values_t = CROWDS)]
    clients: Vec<usize>,
    /// Agents that follow one control, or join it.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    agents: usize,
    /// Approvals that are published before a device refreshes; may be repeated. The agents begin with the first.
    #[arg(long, value_name = "N", default_values_t = APPROVALS)]
    approvals: Vec<usize>,
    /// Measure at one path MTU only.
    #[arg(long, value_enum)]
    mtu: Option<Mtu>,
    /// Measure with one kind of runtime only, where the process is ours.
    #[arg(long, value_enum)]
    threads: Option<Threads>,
    /// The program `sendme`, to measure beside ours; left out otherwise.
    #[arg(long, value_name = "FILE")]
    sendme: Option<PathBuf>,
    /// A program that moves a file by iroh-blobs, to measure beside ours; `benches/README.md` says how
    /// it is called.
    #[arg(long, value_name = "FILE")]
    iroh_blobs: Option<PathBuf>,
}

/// The path MTU of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mtu {
    /// What the program finds by itself.
    Discovered,
    /// That of Ethernet.
    Ethernet,
}

impl Scale {
    /// Returns the runs that count.
    pub(crate) const fn runs(&self) -> usize {
        self.runs
    }

    /// Returns the folder of the disk that is measured, if it is not memory.
    pub(crate) fn disk(&self) -> Option<&Path> {
        self.disk.as_deref()
    }

    /// Says where stores and files are.
    pub(crate) const fn place(&self) -> &'static str {
        if self.disk.is_some() { "on disk" } else { "in memory" }
    }

    /// Returns the length of the one large content, in bytes.
    pub(crate) const fn large_bytes(&self) -> u64 {
        self.large_mib << 20
    }

    /// Returns the program `sendme`, where it was given.
    pub(crate) fn sendme(&self) -> Option<&Path> {
        self.sendme.as_deref()
    }

    /// Returns the program that moves a file by iroh-blobs, where one was given.
    pub(crate) fn iroh_blobs(&self) -> Option<&Path> {
        self.iroh_blobs.as_deref()
    }

    /// Returns how many clients each crowd has.
    pub(crate) fn crowds(&self) -> &[usize] {
        &self.clients
    }

    /// Returns how many agents follow, or join.
    pub(crate) const fn agents(&self) -> usize {
        self.agents
    }

    /// Returns how many approvals are published, each number measured by itself.
    pub(crate) fn approvals(&self) -> &[usize] {
        &self.approvals
    }

    /// Returns the path MTUs to measure at.
    pub(crate) fn mtus(&self) -> Vec<Mtu> {
        self.mtu.map_or_else(|| vec![Mtu::Discovered, Mtu::Ethernet], |mtu| vec![mtu])
    }

    /// Returns the runtimes to measure with.
    pub(crate) fn threads(&self) -> Vec<Threads> {
        self.threads.map_or_else(|| vec![Threads::One, Threads::Many], |threads| vec![threads])
    }
}

impl Mtu {
    /// Returns the settings of the transport at this path MTU, otherwise the defaults.
    pub(crate) fn transport(self) -> TransportConfig {
        match self {
            Self::Discovered => TransportConfig::default(),
            Self::Ethernet => TransportConfig {
                mtu_initial: MTU_ETHERNET,
                mtu_max: MTU_ETHERNET,
                ..TransportConfig::default()
            },
        }
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discovered => f.write_str("MTU as discovered"),
            Self::Ethernet => write!(f, "MTU {MTU_ETHERNET}"),
        }
    }
}
