//! Who takes part in `sutler dev`: a throw-away organisation's control, its node, and two agents, all in this
//! process and on loopback, each with a data folder of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use sutler_agent::agent::{Agent, Parts};
use sutler_control::daemon::Daemon;
use sutler_control::daemon::config::ControlConfig;
use sutler_control::daemon::desk::Desk;
use sutler_node::config::Config;
use sutler_node::data::DataFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_node::node::Node;
use sutler_node::orders::OrdersConfig;
use sutler_swarm::identity::{LEAF_LIFETIME, Label, Member, NameError, Validity};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{orders, organisation};
use crate::command::control;

/// The site of them all.
pub(crate) const SITE: &str = "here";

/// The agents.
pub(crate) const AGENTS: [&str; 2] = ["agent-a", "agent-b"];

/// Any free port of this machine's own.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How soon an agent's report may follow another one: somebody watches.
const REPORTS_APART: Duration = Duration::from_millis(500);

/// The folders of everybody, below one root.
pub(crate) struct Stage {
    root: PathBuf,
}

/// The members that serve.
pub(crate) struct Cast {
    pub(crate) control: Control,
    pub(crate) node: Actor,
    pub(crate) agent_a: Actor,
    pub(crate) agent_b: Actor,
    running: Running,
}

/// What runs: each member as one who serves, control's daemon, and the agents'. None outlives it.
struct Running {
    tasks: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
}

/// Control, while it serves.
pub(crate) struct Control {
    pub(crate) address: SocketAddr,
    /// Where orders are handed in.
    pub(crate) desk: Desk,
}

/// One member, while it serves.
pub(crate) struct Actor {
    pub(crate) address: SocketAddr,
    /// Where its caching proxy listens, if it has one.
    pub(crate) proxy: Option<SocketAddr>,
    pub(crate) fetcher: sutler_swarm::Fetcher,
    pub(crate) counters: std::sync::Arc<sutler_swarm::counters::Counters>,
    pub(crate) owner: std::sync::Arc<sutler_node::owner::OpenStore>,
}

impl Stage {
    /// Makes what is missing below `root`: the organisation, and an identity for everybody.
    ///
    /// # Errors
    ///
    /// Kind `file` if the folder cannot be written in.
    pub(crate) fn set(root: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| {
            let what = format!("name the members in {}", root.display());
            Failure::because(Kind::File, what, error)
        };
        let stage = Self { root: root.to_owned() };
        let authority = organisation::open_or_make(stage.organisation().root())?;
        let site: Label = SITE.parse().map_err(|error: NameError| failed(&error))?;
        for name in ["control", "node", AGENTS[0], AGENTS[1], "you"] {
            let folder = if name == "control" { stage.organisation() } else { stage.data(name) };
            if folder.identity().exists() {
                continue;
            }
            let id: Label = name.parse().map_err(|error: NameError| failed(&error))?;
            let site = site.clone();
            let member = match name {
                "control" => Member::Control { id },
                "node" => Member::Node { site, id },
                _ => Member::Agent { site, id },
            };
            let validity = Validity::from_now(LEAF_LIFETIME);
            authority
                .issue(member, validity, &folder.identity())
                .map_err(|error| failed(&error))?;
        }
        Ok(stage)
    }

    /// Returns the data folder of the member `name`.
    pub(crate) fn data(&self, name: &str) -> DataFolder {
        DataFolder::new(self.root.join(name))
    }

    /// Returns the organisation's folder, which is control's data folder.
    pub(crate) fn organisation(&self) -> DataFolder {
        self.data("org")
    }

    /// Starts everybody. Must be called within a tokio runtime; waits for the disk.
    ///
    /// # Errors
    ///
    /// As [`Node::open`] and [`Daemon::open`].
    pub(crate) fn start(&self, node: Config) -> Result<Cast, Failure> {
        let mut running = Running { tasks: JoinSet::new(), stop: CancellationToken::new() };
        let control = self.start_control(&mut running)?;
        let follows = |address| OrdersConfig {
            sources: vec![address],
            root: Some(self.organisation().root().join("repository/metadata/1.root.json")),
        };
        let config = Config { orders: follows(control.address), ..node };
        let member = Node::open(&self.data("node"), LOOPBACK, &config)?;
        let node = Actor::of(&member);
        running.spawn(|stop| member.run(stop));
        let config = Config { orders: follows(node.address), ..Config::default() };
        let agent_a = self.start_agent(AGENTS[0], &config, &mut running)?;
        let agent_b = self.start_agent(AGENTS[1], &config, &mut running)?;
        Ok(Cast { control, node, agent_a, agent_b, running })
    }

    fn start_control(&self, running: &mut Running) -> Result<Control, Failure> {
        let data = self.organisation();
        let member = Node::open(&data, LOOPBACK, &Config::default())?;
        let (config, devices) = (ControlConfig::default(), control::verifier(&data)?);
        let daemon = Daemon::open(data.root(), &config, member.fetcher().clone(), devices)
            .map_err(|error| control::failure(&data, &error))?;
        let (address, desk) = (member.address(), daemon.desk());
        let member = member.publishing(daemon.board().clone());
        running.spawn(|stop| member.run(stop));
        running.spawn(|stop| async move {
            let served = daemon.run(stop).await;
            served.map_err(|error| Failure::because(Kind::Internal, "serve", &error))
        });
        Ok(Control { address, desk })
    }

    fn start_agent(
        &self,
        name: &str,
        config: &Config,
        running: &mut Running,
    ) -> Result<Actor, Failure> {
        let data = self.data(name);
        let member = Node::open(&data, LOOPBACK, config)?;
        let follows = member.follows();
        let (board, outbox) = follows
            .ok_or_else(|| Failure::new(Kind::Internal, format!("{name} follows nobody")))?;
        let folder = absolute(data.agent()).map_err(|error| {
            Failure::because(Kind::File, format!("find {}", data.agent().display()), &error)
        })?;
        let device = Agent::open(Parts {
            config: orders::recording(&data)?,
            folder,
            fetcher: member.fetcher().clone(),
            sources: config.orders.sources.clone(),
            board,
            outbox,
            reports_apart: REPORTS_APART,
            clock: jiff::Timestamp::now,
        })
        .map_err(|error| Failure::from_error(Kind::Refused, &error))?;
        let actor = Actor::of(&member);
        running.spawn(|stop| member.run(stop));
        running.spawn(|stop| async move {
            device.run(stop).await;
            Ok(())
        });
        Ok(actor)
    }
}

impl Actor {
    fn of(member: &Node) -> Self {
        Self {
            address: member.address(),
            proxy: member.proxy_address(),
            fetcher: member.fetcher().clone(),
            counters: member.counters().clone(),
            owner: member.owner().clone(),
        }
    }
}

impl Running {
    fn spawn<F>(&mut self, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.tasks.spawn(run(self.stop.clone()));
    }
}

impl Cast {
    /// Lets everybody finish what is open, and waits until they have.
    ///
    /// # Errors
    ///
    /// The first trouble that one of them had.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let Self { control, mut running, .. } = self;
        // Control ends once nobody can hand anything in any more.
        drop(control);
        running.stop.cancel();
        let mut trouble = Ok(());
        while let Some(ended) = running.tasks.join_next().await {
            let ended = ended.unwrap_or_else(|error| {
                Err(Failure::because(Kind::Internal, "end a member", &error))
            });
            trouble = trouble.and(ended);
        }
        trouble
    }
}
