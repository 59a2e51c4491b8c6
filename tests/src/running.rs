//! A command that runs while the test goes on, and may be killed at any moment of it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often a running command is looked at: the system has no bounded wait for a child.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How long a command may take for what takes it seconds; beyond it, it hangs.
const PATIENCE: Duration = Duration::from_mins(2);

/// A command that runs, killed when dropped. What it prints goes to files, because a pipe that
/// nobody reads would stop it once it is full, and what it printed before a kill counts.
pub struct Running {
    process: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, or `None` if a signal ended it.
    pub code: Option<i32>,
    /// All that it printed on stdout.
    pub stdout: String,
    /// All that it printed on stderr.
    pub stderr: String,
}

impl Running {
    /// Starts a command whose output goes to the files `output` with `.out` and `.err`.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(command: &mut Command, output: &std::path::Path) -> Self {
        let (stdout, stderr) = (output.with_extension("out"), output.with_extension("err"));
        let process = command
            .stdout(fs::File::create(&stdout).expect("a file for stdout"))
            .stderr(fs::File::create(&stderr).expect("a file for stderr"))
            .spawn()
            .expect("the program runs");
        Self { process, stdout, stderr }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// Never: the process is ours and was not waited for.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        // One that has ended already needs none.
        let _ = kill_process(id.expect("a process has an id"), signal);
    }

    /// Waits for its end, at most until `until`.
    ///
    /// # Panics
    ///
    /// Never: the process is ours.
    pub fn ended_by(&mut self, until: Instant) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.process.try_wait().expect("our own child") {
                return Some(status);
            }
            let left = until.checked_duration_since(Instant::now())?;
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Returns what it has printed on stdout until now.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it hangs.
    pub fn end(mut self) -> Ended {
        let status = self.ended_by(Instant::now() + PATIENCE);
        let code = status.unwrap_or_else(|| panic!("hangs: {}", self.printed())).code();
        let stderr = fs::read(&self.stderr).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Ended { code, stdout: self.printed(), stderr }
    }

    /// Kills it, and returns how that ended: by the kill, or by itself just before.
    ///
    /// # Panics
    ///
    /// If a killed process does not end.
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.end()
    }
}

impl Ended {
    /// Runs a command until it ends.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code();
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended: nothing is left to do.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
