//! Finds whoever owns a store: nobody, then this command opens it itself; or a node or agent that
//! runs, then it is asked through its socket.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::de::DeserializeOwned;
use sutler_cache::OpenError;
use sutler_node::config::{Config, ConfigError};
use sutler_node::data::DataFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_node::local::{LocalClient, StoreOwner};
use sutler_node::owner::OpenStore;

/// How long a store may be owned by somebody who does not answer: a command that ends just now, or
/// a node that starts.
const OWNER_WAIT: Duration = Duration::from_secs(3);
const OWNER_PAUSE: Duration = Duration::from_millis(50);

/// The data folder, and how it is to be used.
#[derive(Clone, Debug, Args)]
pub(crate) struct DataArgs {
    /// The data folder: identity, store and control socket.
    #[arg(long, value_name = "DIR", env = "SUTLER_DATA")]
    data: PathBuf,
    /// The config file [default: DATA/sutler.toml if there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A store, wherever it is open.
pub(crate) enum Access {
    /// In this process.
    Own(Box<OpenStore>),
    /// In another.
    Owner(LocalClient),
}

/// Whether a store that is not there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The command puts something in.
    Make,
    /// The command looks at what is there.
    Fail,
}

impl DataArgs {
    /// Returns the data folder `data` with its usual config.
    pub(crate) const fn of(data: PathBuf) -> Self {
        Self { data, config: None }
    }

    /// Returns the data folder `data` with a config of its own, or else its usual one.
    pub(crate) const fn with_config(data: PathBuf, config: Option<PathBuf>) -> Self {
        Self { data, config }
    }

    pub(crate) fn folder(&self) -> DataFolder {
        DataFolder::new(&self.data)
    }

    /// Reads the config; the defaults if there is none.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        read_config(self.config.as_deref(), &self.data)
    }

    /// Reads the config of a machine that is more than a node: the table `name` is another role's.
    pub(crate) fn config_with<T: DeserializeOwned + Default>(
        &self,
        name: &str,
    ) -> Result<(Config, T), Failure> {
        match named_or_usual(self.config.as_deref(), &self.data) {
            Some(path) => Config::read_with(&path, name).map_err(|error| unusable(&path, &error)),
            None => Ok(Default::default()),
        }
    }

    /// Opens the store, or finds its owner.
    pub(crate) fn open(&self, absent: Absent) -> Result<Access, Failure> {
        if absent == Absent::Fail && !self.folder().store().exists() {
            let what = format!("there is no store in {}", self.data.display());
            return Err(Failure::new(Kind::Store, what)
                .with_help("`sutler add` and `sutler fetch` make one; or name another --data"));
        }
        let config = self.config()?;
        let until = Instant::now() + OWNER_WAIT;
        loop {
            match OpenStore::open(self.folder(), &config.store) {
                Ok(store) => return Ok(Access::Own(Box::new(store))),
                Err(OpenError::Owned) => {}
                Err(error) => return Err(Failure::from(error)),
            }
            match LocalClient::connect(self.folder()) {
                Ok(client) => return Ok(Access::Owner(client)),
                Err(_) if Instant::now() < until => std::thread::sleep(OWNER_PAUSE),
                Err(error) => {
                    let what = "the store is in use by a process that takes no commands";
                    return Err(Failure::because(Kind::Store, what, &error)
                        .with_help("wait until the other command has ended"));
                }
            }
        }
    }
}

impl Access {
    /// Returns the store as every command uses it.
    pub(crate) fn owner(&self) -> &dyn StoreOwner {
        match self {
            Self::Own(store) => store.as_ref(),
            Self::Owner(client) => client,
        }
    }

    /// Ends the use of the store, so that its next start is quick.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        match self {
            Self::Own(store) => store.close(),
            Self::Owner(_) => Ok(()),
        }
    }
}

fn read_config(named: Option<&Path>, data: &Path) -> Result<Config, Failure> {
    match named_or_usual(named, data) {
        Some(path) => Config::read(&path).map_err(|error| unusable(&path, &error)),
        None => Ok(Config::default()),
    }
}

fn named_or_usual(named: Option<&Path>, data: &Path) -> Option<PathBuf> {
    let usual = data.join("sutler.toml");
    named.map(Path::to_owned).or_else(|| usual.exists().then_some(usual))
}

fn unusable(path: &Path, error: &ConfigError) -> Failure {
    Failure::because(Kind::Usage, format!("use the config {}", path.display()), error)
}
