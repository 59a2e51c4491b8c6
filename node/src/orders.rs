//! The node as a relay of orders: it follows control, or another node, and passes on what it believes,
//! denials in all directions, and its site's reports.
//!
//! It obeys none of them itself but the revocations, and goes on without a line: what it believed last is
//! served to whoever asks, and reports wait.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use sutler_cache::trust::OpenError;
use sutler_protocol::manifest::bounds::ROOT_BYTES_MAX;
use sutler_swarm::Endpoint;
use sutler_swarm::identity::instance_here;
use sutler_swarm::orders::{Board, FollowError, Follower, Orders, Outbox, Reports, SOURCES_MAX};
use tokio_util::sync::CancellationToken;

use crate::catalogue::Catalogue;
use crate::data::DataFolder;
use crate::failure::{Failure, Kind};
use crate::fill::Filler;
use crate::status::OrdersStatus;

/// The `[orders]` table: whose orders a node passes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrdersConfig {
    /// Control, or nodes nearer to it, at most [`SOURCES_MAX`]: all are watched, and reports go to the
    /// first that takes them. Empty: no orders are passed on.
    pub sources: Vec<SocketAddr>,
    /// The `root.json` that an admin handed over. Absent: the one that joining left beside the identity.
    /// Needed once.
    pub root: Option<PathBuf>,
}

/// A relay that does not run yet.
pub(crate) struct Relay {
    board: Board,
    outbox: Outbox,
    follower: Follower,
    endpoint: Endpoint,
    sources: Vec<SocketAddr>,
}

/// What `sutler status` asks of a relay.
#[derive(Clone)]
pub(crate) struct RelayGauge {
    board: Board,
    outbox: Outbox,
}

impl OrdersConfig {
    /// Returns what is wrong with it, each with its key.
    pub(crate) fn problems(&self) -> Vec<(&'static str, String)> {
        if self.sources.len() <= SOURCES_MAX {
            return Vec::new();
        }
        let found = self.sources.len();
        vec![("sources", format!("{found} are given, and at most {SOURCES_MAX} are watched"))]
    }

    /// Reads the root that was handed over to the machine in `data`, if there is one. Waits for the disk.
    ///
    /// # Errors
    ///
    /// Kind `file` if it cannot be read, or is longer than a root.
    pub fn root(&self, data: &DataFolder) -> Result<Option<Bytes>, Failure> {
        let joined = data.identity().join("root.json");
        match &self.root {
            Some(path) => read_root(path).map(Some),
            None if joined.exists() => read_root(&joined).map(Some),
            None => Ok(None),
        }
    }
}

impl Relay {
    /// Opens what the machine in `data` believes; `None` if its config names nobody to follow. `filler` fills
    /// what the orders name from then on. Must be called within a tokio runtime; waits for the disk.
    ///
    /// # Errors
    ///
    /// Kind `usage` if there is no root to begin with, `refused` if what was believed is damaged, `store`
    /// if the disk refuses.
    pub(crate) fn open(
        data: &DataFolder,
        config: &OrdersConfig,
        endpoint: &Endpoint,
        filler: &Filler,
    ) -> Result<Option<Self>, Failure> {
        if config.sources.is_empty() {
            return Ok(None);
        }
        let (folder, sources) = (data.orders(), config.sources.clone());
        let outbox = Outbox::open(&folder.join("reports")).map_err(|error| {
            Failure::because(Kind::Store, format!("open {}", folder.display()), &error)
        })?;
        let organisation = endpoint.name().organisation().clone();
        let reports = Some(Arc::new(outbox.clone()) as Arc<dyn Reports>);
        let board = Board::new(&folder, organisation, reports);
        let root = config.root(data)?;
        let endpoint = endpoint.clone();
        let follower = Follower::open(
            &folder,
            root.as_ref(),
            board.clone(),
            endpoint.clone(),
            sources.clone(),
        )
        .map_err(|error| unfollowed(data, &error))?
        .as_instance(instance_here(&data.identity()));
        filler.consult(Catalogue::new(board.clone(), sources.clone()));
        Ok(Some(Self { board, outbox, follower, endpoint, sources }))
    }

    /// Returns what the node answers about orders.
    pub(crate) fn orders(&self) -> Arc<dyn Orders> {
        Arc::new(self.board.clone())
    }

    pub(crate) fn follows(&self) -> (Board, Outbox) {
        (self.board.clone(), self.outbox.clone())
    }

    pub(crate) fn gauge(&self) -> RelayGauge {
        RelayGauge { board: self.board.clone(), outbox: self.outbox.clone() }
    }

    /// Follows and passes on until `shutdown`.
    ///
    /// Cancel-safe: whatever was believed or handed over is durable.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let Self { outbox, follower, endpoint, sources, .. } = self;
        tokio::join!(
            follower.run(shutdown.clone()),
            outbox.run(endpoint, sources, shutdown.clone()),
        );
        Ok(())
    }
}

impl RelayGauge {
    pub(crate) fn status(&self) -> OrdersStatus {
        let manifest = self.board.manifest().borrow().clone();
        let statement = manifest.as_ref().map(|manifest| &manifest.statement);
        let refused = manifest.iter().flat_map(|manifest| manifest.roles.refused());
        OrdersStatus {
            version: statement.map(|statement| statement.version.number()),
            issued: statement.and_then(|statement| statement.issued).map(|at| at.to_string()),
            expires: statement.map(|statement| statement.expires.to_string()),
            refused_roles: refused.map(|(role, _)| role.to_string()).collect(),
            denials: self.board.denials().len() as u64,
            reports_waiting: self.outbox.waiting() as u64,
        }
    }
}

/// Reads a root that was handed over. Waits for the disk.
///
/// # Errors
///
/// Kind `file` if it cannot be read, or is longer than a root.
pub fn read_root(path: &Path) -> Result<Bytes, Failure> {
    let failed =
        |error: io::Error| Failure::because(Kind::File, format!("read {}", path.display()), &error);
    match std::fs::metadata(path) {
        Err(error) => Err(failed(error)),
        Ok(about) if about.len() > ROOT_BYTES_MAX => {
            Err(failed(io::ErrorKind::FileTooLarge.into()))
        }
        Ok(_) => std::fs::read(path).map(Bytes::from).map_err(failed),
    }
}

/// Returns what its user is told of a machine in `data` that cannot follow.
pub fn unfollowed(data: &DataFolder, error: &FollowError) -> Failure {
    match error {
        FollowError::Open { source: OpenError::NotMade, .. } => {
            Failure::from_error(Kind::Usage, error)
                .with_help("name the organisation's root.json: [orders] root = \"FILE\"")
        }
        FollowError::Open { source: OpenError::Damaged { .. }, .. } => {
            Failure::from_error(Kind::Refused, error).with_help(format!(
                "`sutler trust recover --data {} --reason TEXT` keeps what still holds",
                data.root().display()
            ))
        }
        FollowError::Open { .. } => Failure::from_error(Kind::Store, error),
        FollowError::Create { .. } | FollowError::Load { .. } => {
            Failure::from_error(Kind::Refused, error)
        }
    }
}
