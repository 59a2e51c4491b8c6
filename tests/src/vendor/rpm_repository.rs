//! An RPM repository made of nothing: tiny packages by `rpmbuild`, indexes by `createrepo_c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::signer::Signer;
use crate::random::bytes_of;

/// When the first release was made, in seconds since 1970.
const FIRST: u64 = 1_700_000_000;

/// A repository, in a folder that an [`Origin`](super::Origin) serves.
pub struct RpmRepository {
    root: PathBuf,
    /// Releases until now, each dated a second after the one before: its revision says which it is.
    releases: AtomicU64,
}

/// How the indexes of a repository are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexNames {
    /// Each has its digest in its name, and so another with each release.
    Unique,
    /// `primary.xml.gz`, which each release replaces.
    Simple,
}

impl RpmRepository {
    /// Makes an empty repository at `root`.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        fs::create_dir_all(root.join("Packages")).expect("a folder");
        Self { root, releases: AtomicU64::new(0) }
    }

    /// Adds a package that holds `len` bytes of its own, and returns its path below the root.
    ///
    /// # Panics
    ///
    /// If `rpmbuild` fails.
    pub fn add(&self, name: &str, version: &str, len: usize) -> String {
        let build = tempfile::tempdir().expect("a temporary folder");
        let seed = blake3::hash(format!("{name} {version}").as_bytes());
        let seed = u64::from_le_bytes(*seed.as_bytes().first_chunk().expect("8 of 32 bytes"));
        let data = build.path().join("data");
        fs::write(&data, bytes_of(seed, len)).expect("a file");
        let spec = build.path().join("package.spec");
        let text = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: nothing of use\nLicense: none\n\
             BuildArch: noarch\n%description\nnothing\n%install\n\
             install -D {} %{{buildroot}}/usr/share/{name}/data\n%files\n/usr/share/{name}/data\n",
            data.display()
        );
        fs::write(&spec, text).expect("a file");
        let define = |name: &str, value: &Path| format!("{name} {}", value.display());
        let mut rpmbuild = Command::new("rpmbuild");
        rpmbuild.args([
            "--quiet",
            "-bb",
            "--define",
            &define("_topdir", &build.path().join("top")),
        ]);
        rpmbuild.args(["--define", &define("_rpmdir", &build.path().join("rpms"))]);
        // Nothing of the user's: neither macros nor what they sign with.
        ok(rpmbuild.arg(&spec).env("HOME", build.path()));
        let file = format!("{name}-{version}-1.noarch.rpm");
        let path = format!("Packages/{file}");
        fs::copy(build.path().join("rpms/noarch").join(file), self.root.join(&path))
            .expect("a package");
        path
    }

    /// Returns the path of a file on the disk.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Publishes what is there now, signed where somebody signs.
    ///
    /// # Panics
    ///
    /// If a program fails.
    pub fn publish(&self, names: IndexNames, signer: Option<&Signer>) {
        let revision = FIRST + self.releases.fetch_add(1, Ordering::Relaxed);
        let mut createrepo = Command::new("createrepo_c");
        createrepo.args(["--quiet", "--no-database", "--revision", &revision.to_string()]);
        createrepo.args([
            "--set-timestamp-to-revision",
            match names {
                IndexNames::Unique => "--unique-md-filenames",
                IndexNames::Simple => "--simple-md-filenames",
            },
        ]);
        ok(createrepo.arg(&self.root));
        let repomd = self.path("repodata/repomd.xml");
        if let Some(signer) = signer {
            let text = fs::read(&repomd).expect("a file");
            fs::write(repomd.with_extension("xml.asc"), signer.detached(&text)).expect("a file");
        }
    }
}

fn ok(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
