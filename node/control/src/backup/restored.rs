//! What a folder that was restored, or put back by other means, says of itself until control has caught up with what devices
//! know: `restored.json`.
//!
//! While it is there, nothing is signed in the folder. A timestamp that followed the backup's would be older than those
//! that devices have seen since, and they would refuse it as a rollback.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sutler_orders::text::Utc;

/// The file's name within the organisation's folder.
pub(crate) const FILE: &str = "restored.json";

/// Bytes of the file, at most.
const BYTES_MAX: u64 = 64 * 1024;

/// What is known of a restoration that is not over yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// When it was restored, or found to have been put back.
    pub at: Utc,
    /// The version of the timestamp in the backup, or in the folder then.
    pub version: u64,
    /// Nodes that may know newer orders, beside those of the config.
    #[serde(default)]
    pub sources: Vec<SocketAddr>,
    /// A version that is to be signed above, whatever nodes say.
    #[serde(default)]
    pub above: Option<u64>,
}

/// Why it cannot be told whether a folder was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoredError {
    /// The disk refused.
    #[error("read or write {}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("read {}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What was wrong with it.
        source: serde_json::Error,
    },
}

impl Restored {
    /// Returns what the folder `data` says; `None` if it was not restored, or control has caught up.
    ///
    /// # Errors
    ///
    /// [`RestoredError`].
    pub fn read(data: &Path) -> Result<Option<Self>, RestoredError> {
        let path = data.join(FILE);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RestoredError::Disk { path, source }),
            Ok(_) => {}
        }
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|source| RestoredError::Parse { path, source })
    }

    /// Writes it into the folder `data`; when this returns, that is durable. A kill leaves all of it or nothing.
    ///
    /// # Errors
    ///
    /// [`RestoredError::Disk`].
    pub(crate) fn write(&self, data: &Path) -> Result<(), RestoredError> {
        let path = data.join(FILE);
        let text = serde_json::to_vec(self).expect("addresses and numbers are JSON");
        let new = path.with_extension("json.new");
        let written = File::create(&new)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| File::open(data)?.sync_all());
        written.map_err(|source| RestoredError::Disk { path, source })
    }

    /// Says that it is over; when this returns, that is durable.
    ///
    /// # Errors
    ///
    /// [`RestoredError::Disk`].
    pub(crate) fn remove(data: &Path) -> Result<(), RestoredError> {
        let path = data.join(FILE);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => File::open(data).and_then(|data| data.sync_all()),
        };
        removed.map_err(|source| RestoredError::Disk { path, source })
    }
}
