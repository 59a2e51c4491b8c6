//! The real `dnf` in a root of its own: its repositories, keys, caches and what it has installed.
//!
//! Nothing of this machine's dnf is read or written, but for its programs. It installs as root alone.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::apt_root::Said;
use crate::vendor::Signer;

/// A dnf, apart from this machine's.
pub struct DnfRoot {
    folder: TempDir,
}

impl DnfRoot {
    /// Makes one without repositories that fetches everything through a proxy.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn behind(proxy: SocketAddr) -> Self {
        let root = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        for folder in ["repos", "vars", "home", "root"] {
            fs::create_dir(root.path(folder)).expect("a folder");
        }
        let text = format!(
            "[main]\nproxy=http://{proxy}\nreposdir={}\nvarsdir={}\nplugins=0\nmetadata_expire=0\n\
             keepcache=0\nretries=1\n",
            root.path("repos").display(),
            root.path("vars").display()
        );
        fs::write(root.path("dnf.conf"), text).expect("a file");
        root
    }

    /// Adds a repository, whose indexes have to be signed where a signer is given.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn follow(&self, name: &str, url: &str, signer: Option<&Signer>) {
        let key = self.path(format!("{name}.asc"));
        let signed = signer.map_or("repo_gpgcheck=0".to_owned(), |signer| {
            fs::write(&key, signer.public_armored()).expect("a file");
            format!("repo_gpgcheck=1\ngpgkey=file://{}", key.display())
        });
        let text = format!("[{name}]\nname={name}\nbaseurl={url}\ngpgcheck=0\n{signed}\n");
        fs::write(self.path(format!("repos/{name}.repo")), text).expect("a file");
    }

    /// Returns a path below the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Installs packages.
    pub fn install(&self, packages: &[&str]) -> Said {
        self.run(&[&["install"], packages].concat())
    }

    /// Installs the newest of all that is installed.
    pub fn upgrade(&self) -> Said {
        // An index of this very second has not expired for dnf, however soon it should.
        self.run(&["upgrade", "--refresh"])
    }

    /// Fetches the indexes.
    pub fn make_cache(&self) -> Said {
        self.run(&["makecache"])
    }

    /// Returns the version of a package that is installed, if it is.
    ///
    /// # Panics
    ///
    /// If there is no `rpm`.
    pub fn installed(&self, package: &str) -> Option<String> {
        let mut rpm = Command::new("rpm");
        // Below the root, Debian's rpm has its records in the user's home.
        rpm.env("HOME", self.path("home")).arg("--root").arg(self.path("root"));
        let output = rpm.args(["--query", "--queryformat", "%{VERSION}", package]).output();
        let output = output.expect("rpm runs; cargo xtask test installs it");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let mut dnf = Command::new("dnf");
        dnf.arg("--config").arg(self.path("dnf.conf"));
        dnf.arg("--installroot").arg(self.path("root"));
        dnf.args(["--releasever=1", "--assumeyes", "--verbose"]).args(arguments);
        dnf.env("HOME", self.path("home")).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        for name in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
            dnf.env_remove(name).env_remove(name.to_uppercase());
        }
        Said::of(dnf.output().expect("dnf runs; cargo xtask test installs it"))
    }
}
