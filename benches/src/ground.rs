//! What a measurement stands on: a throw-away folder, an organisation, and bytes to move.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sutler_cache::import::{ImportFrom, ImportHow};
use sutler_cache::{About, Content};
use sutler_protocol::ContentId;
use sutler_swarm::identity::{Authority, LEAF_LIFETIME, Member, Validity, random_label};
use tempfile::TempDir;

use crate::role::open_store;

/// Memory that looks like a disk.
const MEMORY: &str = "/dev/shm";

/// Bytes made and written at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// A folder that goes with its owner, and the organisation of those who work in it.
pub(crate) struct Ground {
    dir: TempDir,
    authority: Authority,
}

impl Ground {
    /// Makes a folder in memory, or on the disk that `disk` lies on, and an organisation.
    pub(crate) fn new(disk: Option<&Path>) -> anyhow::Result<Self> {
        let dir = folder_in(disk.unwrap_or(Path::new(MEMORY)))?;
        let authority = Authority::create(&dir.path().join("org"), "bench".parse()?)?;
        Ok(Self { dir, authority })
    }

    /// Makes a folder on the disk that `disk` lies on, for members of another ground's organisation.
    pub(crate) fn within(disk: &Path, other: &Self) -> anyhow::Result<Self> {
        let authority = Authority::open(&other.path("org"))?;
        Ok(Self { dir: folder_in(disk)?, authority })
    }

    /// Returns a path within the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Issues the identity of a node and returns its folder.
    pub(crate) fn node(&self, name: &str) -> anyhow::Result<PathBuf> {
        let member = Member::Node { site: "here".parse()?, id: random_label() };
        self.issue(member, name)
    }

    /// Issues the identity of an agent and returns its folder.
    pub(crate) fn agent(&self, name: &str) -> anyhow::Result<PathBuf> {
        let member = Member::Agent { site: "here".parse()?, id: random_label() };
        self.issue(member, name)
    }

    fn issue(&self, member: Member, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.path(name);
        if let Some(folder) = dir.parent() {
            std::fs::create_dir_all(folder)?;
        }
        self.authority.issue(member, Validity::from_now(LEAF_LIFETIME), &dir)?;
        Ok(dir)
    }

    /// Makes a folder within the folder.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// Writes a file that only its owner reads.
    pub(crate) fn secret(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }

    /// Writes a file of `bytes` bytes that differ everywhere.
    pub(crate) fn file(&self, name: &str, bytes: u64) -> anyhow::Result<PathBuf> {
        self.noise(name, bytes, bytes)
    }

    /// Writes a file of the first `bytes` bytes of a seed.
    pub(crate) fn noise(&self, name: &str, bytes: u64, seed: u64) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        let mut file = File::create(&path)?;
        let (mut noise, mut block) = (Noise::new(seed), vec![0; BLOCK_BYTES]);
        let mut left = bytes;
        while left > 0 {
            let now = left.min(BLOCK_BYTES as u64) as usize;
            noise.fill(&mut block[..now]);
            file.write_all(&block[..now])?;
            left -= now as u64;
        }
        Ok(path)
    }

    /// Makes a store in the folder that holds a file, and returns its path and the content's id.
    pub(crate) fn store_with(
        &self,
        name: &str,
        from: &Path,
    ) -> anyhow::Result<(PathBuf, ContentId)> {
        let ids = self.store_with_all(name, &[from.to_owned()])?;
        Ok((self.path(name), ids[0]))
    }

    /// Makes a store in the folder that holds files, without copying them, and returns their ids.
    pub(crate) fn store_with_all(
        &self,
        name: &str,
        files: &[PathBuf],
    ) -> anyhow::Result<Vec<ContentId>> {
        let store = open_store(&self.path(name))?;
        let mut contents = Vec::with_capacity(files.len());
        for path in files {
            let file = File::open(path)?;
            let from = ImportFrom::File { file: &file, path, how: ImportHow::HardLink };
            contents.push(store.stage(from, &About::default())?.content);
        }
        store.complete(&contents)?;
        let ids = contents.iter().map(Content::id).collect();
        drop(contents);
        store.close()?;
        Ok(ids)
    }
}

fn folder_in(base: &Path) -> anyhow::Result<TempDir> {
    let made = tempfile::Builder::new().prefix("sutler-bench-").tempdir_in(base);
    made.with_context(|| format!("make a folder in {}", base.display()))
}

/// Bytes that differ everywhere and do not compress, fast and the same for the same seed.
pub(crate) struct Noise(u64);

impl Noise {
    /// Returns the bytes of a seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Returns the next word.
    pub(crate) const fn word(&mut self) -> u64 {
        // A multiplier and an odd step make every state come once; the shift hides its low bits.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    /// Fills a block.
    pub(crate) fn fill(&mut self, block: &mut [u8]) {
        for bytes in block.chunks_mut(8) {
            bytes.copy_from_slice(&self.word().to_le_bytes()[..bytes.len()]);
        }
    }
}
