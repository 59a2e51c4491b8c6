//! The `root.json` files that were published, found by the hash that a token carries.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use sutler_protocol::join::ROOT_BYTES_MAX;
use sutler_swarm::enrol::token::sha256;

/// Files that are looked at: as many as a device refreshes through at once.
const ROOTS_MAX: usize = 256;

/// A repository's folder of metadata, with its `N.root.json`.
#[derive(Clone, Debug)]
pub struct RootFolder {
    metadata: PathBuf,
}

impl RootFolder {
    /// Returns the roots in the folder `metadata`. Nothing is read before it is asked for.
    pub fn new(metadata: impl Into<PathBuf>) -> Self {
        Self { metadata: metadata.into() }
    }

    /// Returns the newest root, and its version.
    pub fn newest(&self) -> Option<(u32, Vec<u8>)> {
        let version = self.versions().into_iter().next()?;
        Some((version, self.read(version)?))
    }

    /// Returns the root with this SHA-256; newer ones are looked at first.
    pub fn find(&self, root_sha256: &[u8; 32]) -> Option<Vec<u8>> {
        let mut roots = self.versions().into_iter().filter_map(|version| self.read(version));
        roots.find(|root| sha256(root) == *root_sha256)
    }

    fn versions(&self) -> Vec<u32> {
        let files = fs::read_dir(&self.metadata).into_iter().flatten().filter_map(Result::ok);
        let mut versions: Vec<u32> = files
            .filter_map(|file| file.file_name().to_str()?.strip_suffix(".root.json")?.parse().ok())
            .collect();
        versions.sort_unstable_by(|one, other| other.cmp(one));
        versions.truncate(ROOTS_MAX);
        versions
    }

    fn read(&self, version: u32) -> Option<Vec<u8>> {
        let file = File::open(self.metadata.join(format!("{version}.root.json"))).ok()?;
        let mut root = Vec::new();
        file.take(ROOT_BYTES_MAX as u64 + 1).read_to_end(&mut root).ok()?;
        (root.len() <= ROOT_BYTES_MAX).then_some(root)
    }
}
