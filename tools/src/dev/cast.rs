//! Who takes part in `sutler dev`: a throw-away organisation, its node, and two agents, all in this
//! process and on loopback, each with a data folder of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sutler_node::config::Config;
use sutler_node::data::DataFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_node::node::Node;
use sutler_swarm::identity::{
    Authority, LEAF_LIFETIME, Label, Member, NameError, Organisation, Validity,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What everything in the throw-away organisation is called.
const ORGANISATION: &str = "dev";
const SITE: &str = "here";

/// The folders of everybody, below one root.
pub(crate) struct Stage {
    root: PathBuf,
}

/// The members that serve.
pub(crate) struct Cast {
    pub(crate) node: Actor,
    pub(crate) agent_a: Actor,
    pub(crate) agent_b: Actor,
    /// Owns all three: none outlives it.
    running: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
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
            let what = format!("make a throw-away organisation in {}", root.display());
            Failure::because(Kind::File, what, error)
        };
        let organisation = root.join("org");
        let authority = if organisation.exists() {
            Authority::open(&organisation).map_err(|error| failed(&error))?
        } else {
            let name: Organisation = ORGANISATION.parse().map_err(|e: NameError| failed(&e))?;
            Authority::create(&organisation, name).map_err(|error| failed(&error))?
        };
        let stage = Self { root: root.to_owned() };
        let site: Label = SITE.parse().map_err(|error: NameError| failed(&error))?;
        for name in ["node", "agent-a", "agent-b", "you"] {
            let folder = stage.data(name);
            if folder.identity().exists() {
                continue;
            }
            let id: Label = name.parse().map_err(|error: NameError| failed(&error))?;
            let site = site.clone();
            let member = match name {
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

    /// Starts everybody. Must be called within a tokio runtime; waits for the disk.
    ///
    /// # Errors
    ///
    /// As [`Node::open`].
    pub(crate) fn start(&self, node: &Config) -> Result<Cast, Failure> {
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        let mut start = |name: &str, config: &Config| {
            let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
            let member = Node::open(&self.data(name), loopback, config)?;
            let actor = Actor {
                address: member.address(),
                proxy: member.proxy_address(),
                fetcher: member.fetcher().clone(),
                counters: member.counters().clone(),
                owner: member.owner().clone(),
            };
            running.spawn(member.run(stop.clone()));
            Ok::<_, Failure>(actor)
        };
        let node = start("node", node)?;
        let (agent_a, agent_b) =
            (start("agent-a", &Config::default())?, start("agent-b", &Config::default())?);
        Ok(Cast { node, agent_a, agent_b, running, stop })
    }
}

impl Cast {
    /// Lets everybody finish what is open, and waits until they have.
    ///
    /// # Errors
    ///
    /// The first trouble that one of them had.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        self.stop.cancel();
        let mut trouble = Ok(());
        while let Some(ended) = self.running.join_next().await {
            let ended = ended.unwrap_or_else(|error| {
                Err(Failure::because(Kind::Internal, "end a member", &error))
            });
            trouble = trouble.and(ended);
        }
        trouble
    }
}
