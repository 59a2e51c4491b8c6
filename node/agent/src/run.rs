//! Running a command of the operator's: bounded in time and in what it may say, and alone.
//!
//! It has no input, so that no question can wait for an answer (R75); an environment that depends on nothing of
//! ours; and a process group of its own, which ends as a whole when its time is over.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::command::Vector;

/// Bytes of what a command says that are kept unless more is asked for: the last ones, where its errors are.
pub const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// How long a command has to end by itself once it is told to: package managers leave their database in
/// order then (R78).
const GRACE: Duration = Duration::from_secs(10);

/// How long what a command left running may hold its output open after its own end.
const LINGER: Duration = Duration::from_secs(1);

/// All that a command finds in its environment: programs and plain English, and a package manager that asks nothing.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/"),
    ("LANG", "C.UTF-8"),
    ("LC_ALL", "C.UTF-8"),
    ("DEBIAN_FRONTEND", "noninteractive"),
];

/// A command that runs, in a process group that bears its process's id.
pub struct Started {
    child: Child,
    group: Pid,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// In which way.
    pub how: How,
    /// The last of what it said, on both of its outputs.
    pub output: String,
}

/// In which way a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// With this code.
    Code(i32),
    /// By this signal, which was not ours.
    Signal(i32),
    /// It was ended, because its time was over.
    Timeout,
    /// It was ended, because somebody asked for that.
    Stopped,
}

/// Why a command did not run, or not to an end that is known.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started.
    #[error("start {program}")]
    Start {
        /// Its program.
        program: String,
        /// What the system answered.
        source: io::Error,
    },
    /// Its end could not be waited for.
    #[error("wait for the command")]
    Wait(#[source] io::Error),
}

/// Starts a command. Must be called within a tokio runtime.
///
/// # Errors
///
/// [`RunError::Start`].
pub fn start(vector: &Vector) -> Result<Started, RunError> {
    let failed = |source| RunError::Start { program: vector.program.clone(), source };
    let mut command = Command::new(&vector.program);
    command.args(&vector.arguments).current_dir("/").env_clear().envs(ENVIRONMENT);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.process_group(0).spawn().map_err(failed)?;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let group = pid.ok_or_else(|| failed(io::Error::other("it has no process id")))?;
    Ok(Started { child, group })
}

/// Returns whether anything of the process group `group` is still there.
pub fn is_alive(group: i32) -> bool {
    let alive = |group| match rustix::process::test_kill_process_group(group) {
        // It is there, and another user's.
        Err(error) => error == rustix::io::Errno::PERM,
        Ok(()) => true,
    };
    Pid::from_raw(group).is_some_and(alive)
}

impl Started {
    /// Returns its process group.
    pub fn group(&self) -> i32 {
        self.group.as_raw_nonzero().get()
    }

    /// Waits for its end, for `time_max` at most, or until `stop`; then the whole group is told to end, and
    /// made to end.
    ///
    /// # Errors
    ///
    /// [`RunError::Wait`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: a command goes on where nobody waits for it.
    pub async fn end(
        self,
        time_max: Duration,
        stop: &CancellationToken,
    ) -> Result<Ended, RunError> {
        self.end_saying(time_max, stop, OUTPUT_BYTES_MAX).await
    }

    /// As [`Started::end`], and keeps up to `bytes_max` of what it says, half of it for each of its outputs.
    ///
    /// # Errors
    ///
    /// [`RunError::Wait`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe, as [`Started::end`].
    pub async fn end_saying(
        mut self,
        time_max: Duration,
        stop: &CancellationToken,
        bytes_max: usize,
    ) -> Result<Ended, RunError> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let mut said = Tail::new(bytes_max / 2);
        let mut errors = Tail::new(bytes_max / 2);
        let until = Instant::now() + time_max;
        let group = self.group;
        let child = &mut self.child;
        let ending = async {
            let (how, status) = tokio::select! {
                // Cancel-safe: a child's end is there to be had again.
                status = timeout_at(until, child.wait()) => match status {
                    Ok(status) => (None, status),
                    Err(_) => (Some(How::Timeout), end_group(child, group).await),
                },
                // Cancel-safe: a token stays cancelled.
                () = stop.cancelled() => (Some(How::Stopped), end_group(child, group).await),
            };
            Ok::<_, RunError>(how.unwrap_or(how_of(status.map_err(RunError::Wait)?)))
        };
        let reading = async {
            tokio::join!(read(stdout, &mut said), read(stderr, &mut errors));
        };
        let how = {
            tokio::pin!(ending, reading);
            let mut has_said_all = false;
            loop {
                tokio::select! {
                    how = &mut ending => {
                        if !has_said_all {
                            // What it left running may hold its outputs open, and has no more to say.
                            drop(timeout(LINGER, &mut reading).await);
                        }
                        break how?;
                    }
                    () = &mut reading, if !has_said_all => has_said_all = true,
                }
            }
        };
        let output = [said.text(), errors.text()];
        let output: Vec<&str> = output.iter().map(|text| text.trim_end()).collect();
        let output = output.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        Ok(Ended { how, output: output.join("\n") })
    }
}

/// Ends a group: first it is told, then it is made to.
async fn end_group(child: &mut Child, group: Pid) -> io::Result<ExitStatus> {
    // A group that is gone already is what was wanted.
    let _ = kill_process_group(group, Signal::TERM);
    let told = timeout(GRACE, child.wait()).await;
    // Also where the first of them ended in order: what it started has to go, too.
    let _ = kill_process_group(group, Signal::KILL);
    match told {
        Ok(status) => status,
        Err(_) => child.wait().await,
    }
}

fn how_of(status: ExitStatus) -> How {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => How::Code(code),
        (None, signal) => How::Signal(signal.unwrap_or_default()),
    }
}

/// The last bytes of a stream.
struct Tail {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Tail {
    const fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Twice the bound, so that a stream without an end is not moved with each of its pieces.
        if self.bytes.len() > 2 * self.bytes_max {
            self.bytes.drain(..self.bytes.len() - self.bytes_max);
        }
    }

    /// Returns it as text in which nothing commands a terminal.
    fn text(&self) -> String {
        let kept = self.bytes.len().saturating_sub(self.bytes_max);
        let text = String::from_utf8_lossy(&self.bytes[kept..]);
        let shown = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
        text.chars().map(shown).collect()
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>, into: &mut Tail) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 4_096];
    while let Ok(len @ 1..) = stream.read(&mut buffer).await {
        into.push(&buffer[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn shell(script: &str) -> Vector {
        let arguments = ["-c", script].map(str::to_owned).to_vec();
        Vector { program: "/bin/sh".to_owned(), arguments }
    }

    async fn run(script: &str, time_max: Duration) -> Ended {
        let started = start(&shell(script)).unwrap();
        started.end(time_max, &CancellationToken::new()).await.unwrap()
    }

    #[tokio::test]
    async fn an_end_is_told_with_the_last_of_what_was_said() {
        let ended = run("echo x; echo y >&2; exit 2", LONG).await;
        assert_eq!(ended, Ended { how: How::Code(2), output: "x\ny".to_owned() });
        assert_eq!(run("kill -9 $$", LONG).await.how, How::Signal(9));
        let ended = run("seq 1 100000; printf 'z\\033[2J'", LONG).await;
        assert!(ended.output.len() <= OUTPUT_BYTES_MAX);
        assert!(ended.output.ends_with("100000\nz\u{fffd}[2J"), "{}", ended.output);
    }

    // T24, R75
    #[tokio::test]
    async fn a_command_gets_its_arguments_as_they_are_and_nothing_else() {
        let name = "$(touch /x); 'a' \"b\" \n*";
        let vector = Vector {
            program: "/usr/bin/printf".to_owned(),
            arguments: vec!["[%s]".to_owned(), name.to_owned(), "--help".to_owned()],
        };
        let ended = start(&vector).unwrap().end(LONG, &CancellationToken::new()).await.unwrap();
        assert_eq!(ended.output, format!("[{name}][--help]"));
        let ended =
            run("env | cut -d= -f1 | sort | tr '\\n' ' '; pwd; read x || echo none", LONG).await;
        let expected = "DEBIAN_FRONTEND HOME LANG LC_ALL PATH PWD /\nnone";
        assert_eq!(ended.output, expected);
    }

    // R78
    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        let script = "trap 'echo tidy; exit 0' TERM; sleep 600 & echo $!; wait";
        let ended = run(script, Duration::from_millis(300)).await;
        assert_eq!(ended.how, How::Timeout);
        let (child, last) = ended.output.split_once('\n').unwrap();
        assert_eq!(last, "tidy");
        // Killed, and perhaps not yet buried by whoever inherits it.
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let is_dead =
            stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'));
        assert!(is_dead, "{stat}");
    }

    #[tokio::test]
    async fn a_command_that_kills_its_own_group_is_told_from_a_timeout() {
        assert_eq!(run("kill -15 0; sleep 600", LONG).await.how, How::Signal(15));
    }

    #[tokio::test]
    async fn what_a_command_leaves_running_does_not_hold_its_end_back() {
        let started = start(&shell("sleep 600 & echo done")).unwrap();
        let group = started.group();
        let ended = started.end(LONG, &CancellationToken::new()).await.unwrap();
        assert_eq!(ended, Ended { how: How::Code(0), output: "done".to_owned() });
        assert!(is_alive(group));
        kill_process_group(Pid::from_raw(group).unwrap(), Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn whoever_stops_the_agent_stops_its_command() {
        let stop = CancellationToken::new();
        let started = start(&shell("sleep 600")).unwrap();
        stop.cancel();
        assert_eq!(started.end(LONG, &stop).await.unwrap().how, How::Stopped);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let vector = Vector { program: "/nowhere/x".to_owned(), arguments: Vec::new() };
        let error = start(&vector).err().unwrap();
        assert_eq!(error.to_string(), "start /nowhere/x");
    }
}
