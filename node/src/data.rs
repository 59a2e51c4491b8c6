//! What lies where in a data folder, the one folder that a node or agent is given.
//!
//! ```text
//! DATA/identity/      certificate and key, made by `sutler org issue`
//! DATA/store/         the contents; sutler-cache owns what is in it
//! DATA/proxy/         what the caching proxy remembers; may be thrown away
//! DATA/orders/        what is believed of the orders, and what waits to be passed on
//! DATA/agent/         what an agent remembers and shows; sutler-agent owns what is in it
//! DATA/control.sock   where commands reach the process that owns the store
//! ```

use std::path::{Path, PathBuf};

use sutler_swarm::orders::TRUST_FOLDER;

/// The paths inside one data folder. Making one touches no disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// Returns the layout of the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of the machine's certificate and key.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// Returns the folder of the store.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Returns the folder of what the caching proxy remembers.
    pub fn proxy(&self) -> PathBuf {
        self.root.join("proxy")
    }

    /// Returns the folder of what is believed of the orders.
    pub fn orders(&self) -> PathBuf {
        self.root.join("orders")
    }

    /// Returns the folder of what is believed: the trust store within the orders.
    pub fn trust(&self) -> PathBuf {
        self.orders().join(TRUST_FOLDER)
    }

    /// Returns the folder of what an agent remembers and shows.
    pub fn agent(&self) -> PathBuf {
        self.root.join("agent")
    }

    /// Returns where the control socket lies, unless that path is too long for a socket.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }
}
