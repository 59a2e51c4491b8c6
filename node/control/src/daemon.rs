//! The daemon: the repository kept fresh and served, submissions taken, machines let in, reports kept.
//!
//! It is trusted by nobody. What is handed in is published if the keys that delegate vouch for it; what it
//! signs by itself can stop things and start none. Everything that is published goes through one desk,
//! which writes it down first; the orders that it serves are what it believes of its own repository, by the
//! rules by which every device does.
//!
//! | Question | Room |
//! |---|---|
//! | What may be set? | [`config`] |
//! | What do nodes know that it does not? | [`catch_up`] |
//! | What do they have that it lost? | `fetch_back` |
//! | Who publishes? | [`desk`] |
//! | What do strangers see? | [`http`] |
//! | What may they bring? | `intake` |
//! | What may they count? | `counting` |
//! | What may they ask about a stop? | `spreading` |
//! | Where do machines get bytes? | `stock` |
//! | Where do machines join? | `joining` |

pub mod catch_up;
pub mod config;
mod counting;
pub mod desk;
mod fetch_back;
pub mod http;
mod intake;
mod joining;
mod spreading;
mod stock;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sutler_protocol::name::Organisation;
use sutler_swarm::enrol::{Enrolment, TokenKeys};
use sutler_swarm::identity::PeerVerifier;
use sutler_swarm::orders::{Believer, Board, FollowError, Mirror, Place, Reports};
use sutler_swarm::{Endpoint, Fetcher};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::config::ControlConfig;
use self::desk::{Desk, OpenDesk, Tools, open_audit};
use self::fetch_back::FetchBack;
use self::http::HttpServer;
pub use self::joining::JoiningError;
use crate::key::OpenKeyError;
use crate::members::{Members, TokenMakers};
use crate::organisation::{Folder, FolderError};
use crate::reports::{self, Keeper};
use crate::repository::ReadError;
use crate::uploads::Uploads;

/// A daemon that has everything it needs and does not serve yet.
pub struct Daemon {
    board: Board,
    desk: Desk,
    open_desk: OpenDesk,
    fetch_back: FetchBack,
    http: Option<HttpServer>,
    joining: Option<(SocketAddr, Enrolment<Members>)>,
}

/// Control's identity is of another organisation than its folder: what one is told would be the other's.
#[derive(Debug, thiserror::Error)]
#[error("serve the organisation {folder} by an identity of {identity}")]
pub struct ForeignIdentity {
    /// Whose the folder is.
    pub folder: Organisation,
    /// Whose the identity is.
    pub identity: Organisation,
}

impl ForeignIdentity {
    /// Checks that an endpoint is of the organisation of a folder.
    fn refuse(folder: &Folder, endpoint: &Endpoint) -> Result<(), Self> {
        let (folder, identity) = (folder.organisation(), endpoint.name().organisation());
        if folder == identity {
            return Ok(());
        }
        Err(Self { folder: folder.clone(), identity: identity.clone() })
    }
}

/// Why the daemon was not started. Nothing is served then.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The organisation's folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The identity is another organisation's.
    #[error(transparent)]
    Foreign(#[from] ForeignIdentity),
    /// Control's own keys cannot be read.
    #[error("read control's own keys")]
    Keys(#[source] OpenKeyError),
    /// What is published cannot be told.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What control believed cannot be read.
    #[error(transparent)]
    Believe(#[from] FollowError),
    /// The reports that were kept cannot be read.
    #[error("open the reports of devices")]
    Reports(#[from] reports::ReadError),
    /// The desk cannot be opened.
    #[error("open the desk")]
    Desk(#[from] desk::OpenError),
    /// A folder cannot be made or read.
    #[error("use {}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// Machines cannot join.
    #[error("let machines join")]
    Joining(#[from] JoiningError),
    /// The address cannot be listened at.
    #[error("listen at {address} for the repository over HTTP")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Daemon {
    /// Opens everything in `data`, an organisation's folder that has control's own keys: signs the
    /// timestamp, and believes the repository. `fetcher` has the endpoint that machines watch and the store
    /// where they get bytes, and fetches back what was lost of those; `verifier` knows whose reports count. Must be called within a tokio runtime; waits for the disk.
    ///
    /// # Errors
    ///
    /// [`DaemonError`].
    pub fn open(
        data: &Path,
        config: &ControlConfig,
        fetcher: Fetcher,
        verifier: PeerVerifier,
    ) -> Result<Self, DaemonError> {
        let folder = Folder::open(data)?;
        let (endpoint, store) = (fetcher.endpoint().clone(), fetcher.store().clone());
        ForeignIdentity::refuse(&folder, &endpoint)?;
        let (organisation, clock) = (folder.organisation().clone(), endpoint.clock().clone());
        let reports = Keeper::open(&data.join("reports"), organisation, verifier, clock)?;
        let keys = folder.online_keys().map_err(DaemonError::Keys)?;
        let state = folder.state()?;
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |source| DaemonError::Disk { path, source }
        };
        let (orders, log) = (data.join("orders"), data.join("audit"));
        std::fs::create_dir_all(&log).map_err(disk(&log))?;
        let audit = open_audit(&log.join("log"), &state)?;
        let repository = Mirror::new(data.join("repository"));
        let root = Place::parse("metadata/1.root.json").expect("it is a place");
        let root = repository.read(&root).map_err(disk(data))?;
        let reports = Some(Arc::new(reports) as Arc<dyn Reports>);
        let board = Board::new(&orders, folder.organisation().clone(), reports);
        let makers = TokenMakers::new(TokenKeys::of_roots(endpoint.identity().roots()));
        let joining =
            config.join.map(|address| joining::open(address, data, &endpoint, makers.clone()));
        let joining = joining.transpose()?.map(|port| {
            let address = port.local_address().map_err(disk(data))?;
            Ok::<_, DaemonError>((address, port))
        });
        let joining = joining.transpose()?;
        let believer = Believer::open(&orders, root.as_ref(), board.clone(), endpoint)?;
        // The desk takes it again whenever it works on it.
        drop(folder);
        let folder = data.to_owned();
        let uploads = Uploads::open(&data.join("repository"), store.free_bytes_min());
        let uploads = uploads.map_err(disk(data))?;
        let tools = Tools { folder, keys, audit, believer, repository, store, uploads, makers };
        let uploads = tools.uploads.clone();
        let (desk, open_desk) = Desk::open(tools)?;
        let fetch_back = FetchBack::new(data, &config.sources, fetcher, uploads.clone());
        let http = config.http.map(|address| {
            HttpServer::bind(address, data, desk.clone(), uploads)
                .map_err(|source| DaemonError::Listen { address, source })
        });
        Ok(Self { board, desk, open_desk, fetch_back, http: http.transpose()?, joining })
    }

    /// Returns what is believed of the repository, and answered about it.
    pub const fn board(&self) -> &Board {
        &self.board
    }

    /// Returns where orders are handed in. The daemon ends only once every such desk is gone.
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Returns the address of the repository over HTTP, if it is on.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpServer::address)
    }

    /// Returns the address at which machines join, if any may.
    pub fn join_address(&self) -> Option<SocketAddr> {
        self.joining.as_ref().map(|(address, _)| *address)
    }

    /// Keeps the repository fresh, takes submissions and fetches back what is lacking, until `shutdown`.
    ///
    /// # Errors
    ///
    /// The runtime does not take a socket.
    ///
    /// # Cancel safety
    ///
    /// What was handed in is published or not, and the repository is whole, at any moment.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let Self { desk, open_desk, fetch_back, http, joining, .. } = self;
        // Owns the port, which is closed with this, and what fetches back.
        let mut beside = JoinSet::new();
        beside.spawn(fetch_back.run(shutdown.clone()));
        if let Some((_, joining)) = joining {
            beside.spawn(joining.run(shutdown.clone()));
        }
        let served = if let Some(http) = http {
            http.run(shutdown).await
        } else {
            shutdown.cancelled().await;
            Ok(())
        };
        drop(desk);
        while beside.join_next().await.is_some() {}
        // Its thread ends with what it is doing.
        drop(tokio::task::spawn_blocking(move || open_desk.close()).await);
        served
    }
}
