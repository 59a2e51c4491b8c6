//! A Debian archive made of nothing: tiny packages by `dpkg-deb`, indexes by `apt-ftparchive`, and a
//! release after the other as time goes by.
//!
//! A release replaces the plain names of its indexes, as a mirror does; what lies under `by-hash`
//! and in the pool stays, as it does at a vendor's for a while.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::signer::Signer;
use crate::random::bytes_of;

/// One suite of an archive, in a folder that an [`Origin`](super::Origin) serves.
pub struct Archive {
    root: PathBuf,
    suite: String,
    components: Vec<String>,
    /// Releases until now. Each is dated a minute after the one before: validators have seconds, and
    /// a test publishes two in one.
    releases: AtomicU32,
}

/// How a release is published.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Indexes are also to be had by their digests, and the Release says so.
    pub by_hash: bool,
    /// For how long it is valid; for ever where absent.
    pub valid_for: Option<Duration>,
    /// When it was made.
    pub at: SystemTime,
    /// What stands before the names of components, such as `updates/`.
    pub prefix: &'static str,
    /// Signed in one file, `InRelease`; otherwise `Release` has a `Release.gpg`.
    pub in_release: bool,
    /// Packed forms of its indexes, beside the plain one.
    pub packed: Vec<&'static str>,
}

impl Default for Publication {
    fn default() -> Self {
        Self {
            by_hash: true,
            valid_for: Some(Duration::from_hours(24)),
            at: SystemTime::now(),
            prefix: "",
            in_release: true,
            packed: vec!["xz", "gz"],
        }
    }
}

impl Archive {
    /// Makes an empty archive below `root` with one suite and its components.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn new(root: impl Into<PathBuf>, suite: &str, components: &[&str]) -> Self {
        let root = root.into();
        let components: Vec<String> = components.iter().map(|&name| name.to_owned()).collect();
        for component in &components {
            fs::create_dir_all(root.join("pool").join(component)).expect("a folder");
        }
        Self { root, suite: suite.to_owned(), components, releases: AtomicU32::new(0) }
    }

    /// Adds a package that holds `len` bytes of its own, and returns its path below the root. Those
    /// that are not published yet are nowhere but in the pool.
    ///
    /// # Panics
    ///
    /// If `dpkg-deb` fails.
    pub fn add(&self, component: &str, name: &str, version: &str, len: usize) -> String {
        let build = tempfile::tempdir().expect("a temporary folder");
        let (control, data) =
            (build.path().join("DEBIAN"), build.path().join("usr/share").join(name));
        fs::create_dir_all(&control).expect("a folder");
        fs::create_dir_all(&data).expect("a folder");
        let text = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\n\
             Maintainer: Nobody <nobody@sutler.invalid>\nDescription: nothing of use\n"
        );
        fs::write(control.join("control"), text).expect("a file");
        let seed = blake3::hash(format!("{name} {version}").as_bytes());
        let seed = u64::from_le_bytes(*seed.as_bytes().first_chunk().expect("8 of 32 bytes"));
        fs::write(data.join("data"), bytes_of(seed, len)).expect("a file");
        let path = format!("pool/{component}/{name}_{version}_all.deb");
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.args(["--root-owner-group", "-Znone", "--build"]);
        ok(dpkg.arg(build.path()).arg(self.root.join(&path)));
        path
    }

    /// Adds the source of a package, with `len` bytes of its own, and returns the paths of its files
    /// below the root: what describes it, and what it is made of.
    ///
    /// # Panics
    ///
    /// If a program fails.
    pub fn add_source(
        &self,
        component: &str,
        name: &str,
        version: &str,
        len: usize,
    ) -> [String; 2] {
        let tar = format!("{name}_{version}.tar.xz");
        let paths = [format!("{name}_{version}.dsc"), tar.clone()];
        let paths = paths.map(|file| format!("pool/{component}/{file}"));
        let bytes = bytes_of(len as u64, len);
        fs::write(self.path(&paths[1]), bytes).expect("a file");
        let sum = |program| {
            let said = ok(Command::new(program).arg(self.path(&paths[1])));
            let said = String::from_utf8(said).expect("text");
            said.split(' ').next().expect("a digest").to_owned()
        };
        let text = format!(
            "Format: 3.0 (native)\nSource: {name}\nBinary: {name}\nArchitecture: all\n\
             Version: {version}\nMaintainer: Nobody <nobody@sutler.invalid>\n\
             Checksums-Sha256:\n {} {len} {tar}\nFiles:\n {} {len} {tar}\n",
            sum("sha256sum"),
            sum("md5sum")
        );
        fs::write(self.path(&paths[0]), text).expect("a file");
        paths
    }

    /// Takes a package's file away, as a vendor does some time after its release.
    ///
    /// # Panics
    ///
    /// If it is not there.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.root.join(path)).expect("a package");
    }

    /// Returns the path of a file on the disk.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the folder of the suite's Release below the root.
    pub fn suite_folder(&self) -> String {
        format!("dists/{}", self.suite)
    }

    /// Publishes what is in the pool now.
    ///
    /// # Panics
    ///
    /// If a program fails.
    pub fn publish(&self, signer: &Signer, publication: &Publication) {
        let folder = self.path(self.suite_folder());
        for component in &self.components {
            self.write_packages(&folder, component, publication);
            self.write_sources(&folder, component);
        }
        self.sign(signer, publication);
    }

    /// Publishes the indexes as they lie there now, whatever somebody has made of them.
    ///
    /// # Panics
    ///
    /// If a program fails.
    pub fn sign(&self, signer: &Signer, publication: &Publication) {
        let folder = self.path(self.suite_folder());
        let text = self.release_text(&folder, publication);
        fs::write(folder.join("Release"), &text).expect("a file");
        if publication.by_hash {
            keep_by_hash(&folder, &text);
        }
        let (inline, detached) = (folder.join("InRelease"), folder.join("Release.gpg"));
        if publication.in_release {
            fs::write(inline, signer.clear_signed(text.as_bytes())).expect("a file");
            drop(fs::remove_file(detached));
        } else {
            fs::write(detached, signer.detached(text.as_bytes())).expect("a file");
            drop(fs::remove_file(inline));
        }
        self.date(&folder);
    }

    /// Dates the plain names of a release.
    fn date(&self, folder: &Path) {
        let age = Duration::from_hours(24);
        let later = Duration::from_mins(1) * self.releases.fetch_add(1, Ordering::Relaxed);
        let at = SystemTime::now() - age + later;
        let tables = self
            .components
            .iter()
            .map(|name| folder.join(name).join(format!("binary-{}", architecture())));
        for folder in tables.chain([folder.to_owned()]) {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_file() {
                    let file = fs::File::options().append(true).open(path).expect("a file");
                    file.set_modified(at).expect("a date");
                }
            }
        }
    }

    fn write_packages(&self, folder: &Path, component: &str, publication: &Publication) {
        let folder = folder.join(component).join(format!("binary-{}", architecture()));
        fs::create_dir_all(&folder).expect("a folder");
        let mut ftparchive = Command::new("apt-ftparchive");
        ftparchive.args(["packages", &format!("pool/{component}")]).current_dir(&self.root);
        let plain = folder.join("Packages");
        fs::write(&plain, ok(&mut ftparchive)).expect("a file");
        for packed in ["xz", "gz", "zst", "lz4"] {
            drop(fs::remove_file(plain.with_extension(packed)));
        }
        for packed in &publication.packed {
            let program = match *packed {
                "gz" => "gzip",
                "zst" => "zstd",
                other => other,
            };
            let bytes = ok(Command::new(program).arg("--stdout").arg(&plain));
            fs::write(plain.with_extension(packed), bytes).expect("a file");
        }
    }

    fn write_sources(&self, folder: &Path, component: &str) {
        let mut ftparchive = Command::new("apt-ftparchive");
        ftparchive.args(["sources", &format!("pool/{component}")]).current_dir(&self.root);
        let sources = ok(&mut ftparchive);
        if !sources.is_empty() {
            let folder = folder.join(component).join("source");
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("Sources"), sources).expect("a file");
        }
    }

    fn release_text(&self, folder: &Path, publication: &Publication) -> String {
        let day = |at| httpdate::fmt_http_date(at).replace("GMT", "UTC");
        let prefixed: Vec<String> =
            self.components.iter().map(|name| format!("{}{name}", publication.prefix)).collect();
        let until = publication.valid_for.map(|valid_for| publication.at + valid_for);
        let fields = [
            ("Origin", Some("Throw Away".to_owned())),
            ("Label", Some("Throw Away".to_owned())),
            ("Suite", Some(self.suite.clone())),
            ("Codename", Some(self.suite.clone())),
            ("Date", Some(day(publication.at))),
            ("Valid-Until", until.map(day)),
            ("Acquire-By-Hash", publication.by_hash.then(|| "yes".to_owned())),
            ("Architectures", Some(architecture())),
            ("Components", Some(prefixed.join(" "))),
        ];
        let fields = fields.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let fields: Vec<String> =
            fields.map(|(name, value)| format!("{name}: {value}\n")).collect();
        // What it writes of a release before the files is its own and the clock's; ours is above.
        let mut ftparchive = Command::new("apt-ftparchive");
        for hash in ["MD5", "SHA1"] {
            ftparchive.args(["-o", &format!("APT::FTPArchive::Release::{hash}=false")]);
        }
        for name in ["Release", "InRelease", "Release.gpg"] {
            drop(fs::remove_file(folder.join(name)));
        }
        let written = ok(ftparchive.args(["release", "."]).current_dir(folder));
        let written = String::from_utf8(written).expect("text");
        // Copies under their digests are no files of the release.
        let lines = written.lines().skip_while(|line| !line.starts_with("SHA"));
        let lines = lines.filter(|line| !line.contains("/by-hash/"));
        fields.concat() + &lines.flat_map(|line| [line, "\n"]).collect::<String>()
    }
}

/// Returns the architecture of this machine, as Debian calls it.
///
/// # Panics
///
/// If there is no `dpkg`.
pub fn architecture() -> String {
    let said = ok(Command::new("dpkg").arg("--print-architecture"));
    String::from_utf8(said).expect("text").trim().to_owned()
}

/// Copies each file that a Release names to where its digests lead.
fn keep_by_hash(folder: &Path, release: &str) {
    let mut hash = "";
    for line in release.lines() {
        if let Some(name) = line.strip_suffix(':') {
            hash = name;
        } else if line.starts_with(' ') {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let file = folder.join(words[2]);
            let copies = file.parent().expect("a folder").join("by-hash").join(hash);
            fs::create_dir_all(&copies).expect("a folder");
            fs::copy(&file, copies.join(words[0])).expect("a copy");
        }
    }
}

fn ok(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}
