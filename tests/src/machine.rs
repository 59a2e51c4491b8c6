//! A machine as a user has it: a folder, an organisation, and commands that are typed.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::sutler;
use crate::running::Running;

/// How long a node may take to say that it listens, on a machine that builds meanwhile.
const READY_MAX: Duration = Duration::from_mins(1);

/// A folder with an organisation in it; commands run there.
pub struct Machine {
    folder: TempDir,
}

/// A node in a process of its own. Killed when dropped.
pub struct NodeProcess {
    child: Child,
    /// Where it serves.
    pub address: SocketAddr,
}

impl Machine {
    /// Makes a machine with the identities `node/identity` and `agent/identity`.
    ///
    /// # Panics
    ///
    /// If a command fails.
    pub fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        machine.ok(["org", "init", "ca", "--org", "acme"]);
        for role in ["node", "agent"] {
            let out = format!("{role}/identity");
            machine.ok(["org", "issue", "ca", "--site", "here", "--role", role, "--out", &out]);
        }
        machine
    }

    /// Returns the path of a file of this machine.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves everything where it is when this goes, and returns where that is.
    pub fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// Writes a file of `len` bytes that depend on `seed`, and returns them.
    ///
    /// # Panics
    ///
    /// If the disk refuses.
    pub fn file(&self, name: &str, len: usize, seed: u8) -> Vec<u8> {
        let mut state = u32::from(seed) + 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let bytes: Vec<u8> = (0..len).map(|_| next()).collect();
        fs::write(self.path(name), &bytes).expect("a file");
        bytes
    }

    /// Runs `sutler` to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be run.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Prepares `sutler` to run here.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.other(sutler(), arguments)
    }

    /// Prepares `sutler` for somebody to whom permissions apply: root without its powers.
    pub fn powerless<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        if !rustix::process::geteuid().is_root() {
            return self.command(arguments);
        }
        let mut command = self.other("setpriv", ["--bounding-set=-all", "--inh-caps=-all"]);
        command.arg(sutler()).args(arguments);
        command
    }

    /// Prepares another program to run here.
    pub fn other<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_remove("SUTLER_DATA").env_remove("SUTLER_LOG");
        command
    }

    /// Starts `sutler`; what it prints goes to files that begin with `output`.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        output: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Running {
        Running::start(&mut self.command(arguments), &self.path(output))
    }

    /// Runs what must succeed, and returns what it printed on stdout.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs what must succeed, with `--json`, and returns the last line.
    ///
    /// # Panics
    ///
    /// If it fails or does not end with JSON.
    pub fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Value {
        last_json(&self.ok(with_json(arguments)))
    }

    /// Runs what must fail with `code`, and returns the error that it ends with.
    ///
    /// # Panics
    ///
    /// If it ends otherwise.
    pub fn fails<S: AsRef<OsStr>>(
        &self,
        code: i32,
        arguments: impl IntoIterator<Item = S>,
    ) -> Value {
        let output = self.run(with_json(arguments));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        let error = last_json(&String::from_utf8_lossy(&output.stdout))["error"].take();
        if error["exit_code"] != Value::Null {
            assert_eq!(error["exit_code"], code);
        }
        assert!(said.contains("error: "), "{said}");
        error
    }

    /// Adds a file to a data folder, and returns its content id.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn add(&self, data: &str, file: &str) -> String {
        let added = self.json(["add", "--data", data, file]);
        added["content"].as_str().expect("an id").to_owned()
    }

    /// Starts a node with the data folder `node`, and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn node(&self, more: &[&str]) -> NodeProcess {
        self.node_at("node", more)
    }

    /// Starts a node with the data folder `data`, and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn node_at(&self, data: &str, more: &[&str]) -> NodeProcess {
        self.node_listening("127.0.0.1:0", data, more)
    }

    /// Starts a node that listens at an address, and waits until it does.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn node_listening(&self, listen: &str, data: &str, more: &[&str]) -> NodeProcess {
        let node = ["node", "--data", data, "--listen", listen];
        let (mut child, said) = self.start(&[&node, more].concat(), "listening ");
        let address = said.strip_prefix("listening ").and_then(|address| address.parse().ok());
        let Some(address) = address else {
            drop(child.kill());
            panic!("the node does not say where it listens: {said:?}");
        };
        NodeProcess { child, address }
    }

    /// Starts a command that goes on until it is told to stop, waits until it prints a line that
    /// starts with `ready`, and returns that line.
    ///
    /// # Panics
    ///
    /// If it does not print one.
    pub fn start(&self, arguments: &[&str], ready: &str) -> (Child, String) {
        let mut child =
            self.command(arguments).stdout(Stdio::piped()).spawn().expect("the program runs");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (say, said) = mpsc::channel();
        // Ends with the command's stdout, which is read to its end so that it can go on printing.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                drop(say.send(line));
            }
        });
        loop {
            match said.recv_timeout(READY_MAX) {
                Ok(line) if line.starts_with(ready) => return (child, line),
                Ok(_) => {}
                Err(error) => {
                    drop(child.kill());
                    panic!("{arguments:?} does not print {ready:?}: {error}");
                }
            }
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeProcess {
    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM`, and returns how the node ended.
    ///
    /// # Panics
    ///
    /// If the signal cannot be sent.
    pub fn end(mut self, signal: &str) -> ExitStatus {
        end(&mut self.child, signal)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends a signal, such as `TERM`, to a command, and returns how it ended.
///
/// # Panics
///
/// If the signal cannot be sent.
pub fn end(child: &mut Child, signal: &str) -> ExitStatus {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill runs");
    assert!(sent.success());
    child.wait().expect("it ends")
}

fn with_json<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Vec<std::ffi::OsString> {
    let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
    arguments.chain([OsStr::new("--json").to_owned()]).collect()
}

fn last_json(text: &str) -> Value {
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {last:?}"))
}
