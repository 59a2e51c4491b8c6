//! The nodes that a restoration named, until what was lost is back: `fetch-back.json` in control's data folder.
//!
//! What the restoration said of itself goes once control has caught up; contents may take longer to come.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sutler_cache::backend::{Backend as _, Disk, read_file, replace};

const FILE: &str = "fetch-back.json";

/// Bytes of the file, at most.
const BYTES_MAX: u64 = 64 * 1024;

/// Whom to ask beside the nodes of the config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::daemon) struct Named {
    /// Nodes that may have what was lost.
    pub(in crate::daemon) sources: Vec<SocketAddr>,
}

impl Named {
    /// Returns what the folder `data` says; nobody if it says nothing.
    ///
    /// # Errors
    ///
    /// What the disk answered, or that it makes no sense.
    pub(super) fn read(data: &Path) -> io::Result<Self> {
        match read_file(&Disk::open(data)?, Path::new(FILE), BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it into the folder `data`, durably.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub(in crate::daemon) fn write(&self, data: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).expect("addresses are JSON");
        replace(&Disk::open(data)?, Path::new(FILE), &text)
    }

    /// Says that nothing is lacking, durably.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub(super) fn remove(data: &Path) -> io::Result<()> {
        let disk = Disk::open(data)?;
        match disk.remove(Path::new(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => disk.sync_dir(Path::new("")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_until_it_is_over() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Named::read(data.path()).unwrap(), Named::default());
        let named = Named { sources: vec!["10.1.0.2:7447".parse().unwrap()] };
        named.write(data.path()).unwrap();
        assert_eq!(Named::read(data.path()).unwrap(), named);
        for _ in 0..2 {
            Named::remove(data.path()).unwrap();
            assert_eq!(Named::read(data.path()).unwrap(), Named::default());
        }
        std::fs::write(data.path().join(FILE), "{\"sources\": 1}").unwrap();
        Named::read(data.path()).unwrap_err();
    }
}
