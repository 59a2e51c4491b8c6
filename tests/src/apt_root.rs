//! The real `apt` in a root of its own: its sources, keys, lists, packages and what it has installed.
//!
//! Nothing of this machine's apt is read or written, but for its programs. What is installed is
//! installed by the real `dpkg`, below the root.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::vendor::Signer;
use crate::vendor::archive::architecture;

/// An apt, apart from this machine's.
pub struct AptRoot {
    folder: TempDir,
}

/// What an apt command came to.
#[derive(Debug)]
pub struct Said {
    /// It ended with success.
    pub is_ok: bool,
    /// All that it printed.
    pub text: String,
}

impl AptRoot {
    /// Makes one without sources that goes to vendors by itself.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn new() -> Self {
        let root = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        for folder in [
            "etc/sources.list.d",
            "etc/preferences.d",
            "etc/trusted.gpg.d",
            "etc/keys",
            "state/lists/partial",
            "cache/archives/partial",
            "log",
            "root/var/lib/dpkg/info",
            "root/var/lib/dpkg/updates",
            "root/var/lib/dpkg/triggers",
            "downloads",
        ] {
            fs::create_dir_all(root.path(folder)).expect("a folder");
        }
        for file in ["root/var/lib/dpkg/status", "root/var/lib/dpkg/available"] {
            fs::write(root.path(file), "").expect("a file");
        }
        root.configure(None);
        root
    }

    /// Makes one that fetches everything through a proxy.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn behind(proxy: SocketAddr) -> Self {
        let root = Self::new();
        root.configure(Some(proxy));
        root
    }

    /// Adds a source signed by a key: `archive` is a URL, `suites` the words after it in a source.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn follow(&self, name: &str, archive: &str, suite: &str, signer: &Signer) {
        self.follow_types("deb", name, archive, suite, signer);
    }

    /// As [`AptRoot::follow`], for the sources of packages, too.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn follow_sources(&self, name: &str, archive: &str, suite: &str, signer: &Signer) {
        self.follow_types("deb deb-src", name, archive, suite, signer);
    }

    fn follow_types(&self, types: &str, name: &str, archive: &str, suite: &str, signer: &Signer) {
        let key = self.path(format!("etc/keys/{name}.asc"));
        fs::write(&key, signer.public_armored()).expect("a file");
        let source = format!(
            "Types: {types}\nURIs: {archive}\nSuites: {suite}\nComponents: main\nSigned-By: {}\n",
            key.display()
        );
        fs::write(self.path(format!("etc/sources.list.d/{name}.sources")), source).expect("a file");
    }

    /// Returns a path below the root.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the file that describes this apt, for `APT_CONFIG`.
    pub fn config(&self) -> PathBuf {
        self.path("apt.conf")
    }

    /// Sets the proxy, from the next command on.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn configure(&self, proxy: Option<SocketAddr>) {
        let root = self.folder.path().display();
        let proxy = proxy.map_or("DIRECT".to_owned(), |proxy| format!("http://{proxy}"));
        let text = format!(
            "Dir \"{root}/\";\n\
             Dir::Etc \"etc/\";\n\
             Dir::State \"state/\";\n\
             Dir::State::status \"{root}/root/var/lib/dpkg/status\";\n\
             Dir::Cache \"cache/\";\n\
             Dir::Log \"log/\";\n\
             Dir::Bin::dpkg \"/usr/bin/dpkg\";\n\
             DPkg::Options {{ \"--root={root}/root\"; \"--force-not-root\"; \"--force-bad-path\"; }};\n\
             APT::Architecture \"{}\";\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"0\";\n\
             Acquire::http::Proxy \"{proxy}\";\n",
            architecture()
        );
        fs::write(self.config(), text).expect("a file");
    }

    /// Fetches the lists.
    pub fn update(&self) -> Said {
        // An old list beside a failure is a success to apt, otherwise.
        self.run(&["-o", "APT::Update::Error-Mode=any", "update"])
    }

    /// Fetches the lists, and must succeed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn update_well(&self) {
        let said = self.update();
        assert!(said.is_ok, "{}", said.text);
    }

    /// Installs packages.
    pub fn install(&self, packages: &[&str]) -> Said {
        self.run(&[&["install"], packages].concat())
    }

    /// Installs the newest of all that is installed.
    pub fn upgrade(&self) -> Said {
        self.run(&["dist-upgrade"])
    }

    /// Downloads packages into the folder `downloads`.
    pub fn download(&self, packages: &[&str]) -> Said {
        self.run(&[&["download"], packages].concat())
    }

    /// Downloads the sources of packages into the folder `downloads`.
    pub fn source(&self, packages: &[&str]) -> Said {
        self.run(&[&["source", "--download-only"], packages].concat())
    }

    /// Starts a command, to go on beside the test.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("apt-get runs")
    }

    /// Forgets the packages that were fetched, so that the next to install is fetched again.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn clean(&self) {
        let said = self.run(&["clean"]);
        assert!(said.is_ok, "{}", said.text);
    }

    /// Returns the version of a package that is installed, if it is.
    ///
    /// # Panics
    ///
    /// If there is no `dpkg-query`.
    pub fn installed(&self, package: &str) -> Option<String> {
        let mut query = Command::new("dpkg-query");
        query.arg(format!("--admindir={}", self.path("root/var/lib/dpkg").display()));
        query.args(["--show", "--showformat=${db:Status-Status} ${Version}", package]);
        let output = query.output().expect("dpkg-query runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.strip_prefix("installed ").map(str::to_owned)
    }

    fn run(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().expect("apt-get runs"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "--yes", "--no-install-recommends"]).args(arguments);
        command.env("APT_CONFIG", self.config()).env("LC_ALL", "C").stdin(Stdio::null());
        command.env("DEBIAN_FRONTEND", "noninteractive").current_dir(self.path("downloads"));
        for name in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command
    }
}

impl Default for AptRoot {
    fn default() -> Self {
        Self::new()
    }
}

impl Said {
    /// Returns what a command that has ended came to.
    pub fn of(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Self { is_ok: output.status.success(), text }
    }
}
