//! Many agents in one process: each with an identity, a socket, a connection and a disk folder of its own. They watch
//! control, verify what they hear of, and pull what they lack, by the very code of an agent; they evaluate and
//! install nothing.

use std::fs;
use std::io::{BufReader, Lines};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sutler_swarm::Endpoint;
use sutler_swarm::identity::Identity;
use sutler_swarm::orders::{Board, Follower, Orders as _};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::process::{Daemon, Usage};
use crate::scale::Mtu;

/// Processes that the agents are spread over.
const PROCESSES: usize = 4;

/// Threads of a process that verify and write. An agent alone has as many as it wants; here the cores are shared.
const VERIFYING: usize = 16;

/// Time between two agents that connect: no fleet is switched on within a moment.
const CONNECT_EVERY: Duration = Duration::from_millis(4);

/// Files that an agent has open: its socket, the lock of what it believes, and what it writes.
const FILES_EACH: u64 = 4;

/// Files that a process has open beside.
const FILES_SPARE: u64 = 128;

/// What a process of agents is told.
#[derive(Debug, Args)]
pub(crate) struct Followers {
    /// The folder of the agents' data, by their numbers.
    #[arg(long)]
    agents: PathBuf,
    /// The root that they begin to believe.
    #[arg(long)]
    root: PathBuf,
    /// The first of this process.
    #[arg(long)]
    first: usize,
    /// How many are in this process.
    #[arg(long)]
    count: usize,
    /// Whom they follow.
    #[arg(long)]
    from: SocketAddr,
}

/// What all agents of a process have heard at least, said whenever it changes.
struct Least {
    heard: Mutex<Vec<[u64; 2]>>,
}

/// What is said, in the order of what was heard.
const SAID: [&str; 2] = ["version", "denials"];

impl Followers {
    /// Follows until the process is ended.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        allow_files(self.count as u64 * FILES_EACH + FILES_SPARE)?;
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(VERIFYING).build()?;
        runtime.block_on(self.follow())
    }

    async fn follow(&self) -> anyhow::Result<()> {
        let root = Bytes::from(fs::read(&self.root)?);
        let least = Arc::new(Least { heard: Mutex::new(vec![[0; 2]; self.count]) });
        let mut agents = Vec::with_capacity(self.count);
        for place in 0..self.count {
            agents.push(self.agent(&self.agents.join((self.first + place).to_string()), &root)?);
        }
        let mut following = JoinSet::new(); // Owns every agent.
        for (place, (board, follower)) in agents.into_iter().enumerate() {
            following.spawn(say(board, least.clone(), place));
            following.spawn(follower.run(CancellationToken::new()));
            tokio::time::sleep(CONNECT_EVERY).await;
        }
        while following.join_next().await.is_some() {}
        Ok(())
    }

    fn agent(&self, data: &Path, root: &Bytes) -> anyhow::Result<(Board, Follower)> {
        let identity = Identity::load(&data.join("identity"))?;
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::bind(any, &identity, Mtu::Ethernet.transport())?;
        let orders = data.join("orders");
        let board = Board::new(&orders, identity.name().organisation().clone(), None);
        let sources = vec![self.from];
        let follower = Follower::open(&orders, Some(root), board.clone(), endpoint, sources)?;
        Ok((board, follower))
    }
}

/// Notes what one agent has verified, whenever that changes.
async fn say(board: Board, least: Arc<Least>, place: usize) {
    let (mut manifest, mut news) = (board.manifest(), board.news());
    loop {
        let version = {
            let manifest = manifest.borrow_and_update();
            manifest.as_ref().map_or(0, |manifest| manifest.statement.version.number())
        };
        let denials = news.borrow_and_update().denials.len() as u64;
        least.note(place, [version, denials]);
        let changed = tokio::select! {
            // Cancel-safe: what has changed is seen when it is next looked at.
            changed = manifest.changed() => changed,
            changed = news.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

impl Least {
    fn note(&self, place: usize, now: [u64; 2]) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let least = |heard: &[[u64; 2]], of: usize| heard.iter().map(|all| all[of]).min();
        let before = [least(&heard, 0), least(&heard, 1)];
        heard[place] = now;
        for (of, what) in SAID.iter().enumerate() {
            let after = least(&heard, of);
            if after != before[of] {
                println!("{what} {}", after.unwrap_or_default());
            }
        }
    }
}

/// Lets this process open so many files.
fn allow_files(wanted: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    ensure!(
        most >= wanted,
        "{wanted} files have to be open, and the system allows {most}: ulimit -n"
    );
    if limit.current.is_some_and(|now| now < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })?;
    }
    Ok(())
}

/// Agents in a few processes, which end with it.
pub(crate) struct Crowd(Vec<Process>);

struct Process {
    daemon: Daemon,
    lines: Lines<BufReader<ChildStdout>>,
    /// What all of its agents have heard at least.
    heard: [u64; 2],
}

impl Crowd {
    /// Starts so many agents, whose data lie in `agents` by their numbers.
    pub(crate) fn start(
        agents: &Path,
        root: &Path,
        from: SocketAddr,
        count: usize,
    ) -> anyhow::Result<Self> {
        let each = count.div_ceil(PROCESSES);
        let firsts = (0..count).step_by(each.max(1));
        firsts
            .map(|first| Process::start(agents, root, from, first, each.min(count - first)))
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// Waits until every agent has verified a manifest whose timestamp has this version, or a newer one.
    pub(crate) fn wait_for_version(&mut self, version: u64) -> anyhow::Result<()> {
        self.0.iter_mut().try_for_each(|process| process.wait(0, version))
    }

    /// Waits until every agent has verified so many denials.
    pub(crate) fn wait_for_denials(&mut self, denials: u64) -> anyhow::Result<()> {
        self.0.iter_mut().try_for_each(|process| process.wait(1, denials))
    }

    /// Returns what all of them took so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        self.0.iter().try_fold(Usage::default(), |all, process| {
            let one = process.daemon.usage()?;
            Ok(Usage {
                cpu_s: all.cpu_s + one.cpu_s,
                rss_bytes_max: all.rss_bytes_max + one.rss_bytes_max,
            })
        })
    }
}

impl Process {
    fn start(
        agents: &Path,
        root: &Path,
        from: SocketAddr,
        first: usize,
        count: usize,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["role", "followers", "--from", &from.to_string()]);
        command.args(["--first", &first.to_string(), "--count", &count.to_string()]);
        command.arg("--agents").arg(agents).arg("--root").arg(root);
        let (daemon, lines) = Daemon::speaking(&mut command)?;
        Ok(Self { daemon, lines, heard: [0; 2] })
    }

    fn wait(&mut self, of: usize, at_least: u64) -> anyhow::Result<()> {
        while self.heard[of] < at_least {
            let line = self.lines.next().context("the agents ended")??;
            let (what, number) = line.split_once(' ').context("agents say what they heard")?;
            let said = SAID.iter().position(|said| *said == what).context("an unknown word")?;
            self.heard[said] = number.parse()?;
        }
        Ok(())
    }
}
