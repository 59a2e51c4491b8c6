//! Running a program of the machine, bounded in time and in what it may say.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// How often a program's end is looked for, once it has said everything: the system has no bounded
/// wait.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Why a program gave no answer.
#[derive(Debug)]
pub(crate) enum ProgramError {
    /// There is no such program.
    Absent,
    /// It could not be run.
    Run(io::Error),
    /// It took too long, and was killed.
    Silent,
    /// It said too much, and was killed.
    Loud,
}

/// Runs a program to its end, and returns how it ended and what it printed.
///
/// It has no input, and its errors go nowhere. It is in English and killed after `time_max`, or once
/// it has printed more than `bytes_max`.
pub(crate) fn run(
    command: &mut Command,
    time_max: Duration,
    bytes_max: u64,
) -> Result<(ExitStatus, Vec<u8>), ProgramError> {
    let until = Instant::now() + time_max;
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut program = match command.spawn() {
        Ok(child) => Program(child),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ProgramError::Absent),
        Err(error) => return Err(ProgramError::Run(error)),
    };
    let mut stdout = program.0.stdout.take().expect("stdout is a pipe").take(bytes_max + 1);
    let (say, said) = sync_channel(1);
    let said = std::thread::scope(|scope| {
        // Ends with the pipe, which ends with the program: it is killed below if it does not.
        scope.spawn(move || {
            let mut bytes = Vec::new();
            drop(say.send(stdout.read_to_end(&mut bytes).map(|_| bytes)));
        });
        let said = match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Ok(bytes)) if bytes.len() as u64 > bytes_max => Err(ProgramError::Loud),
            Ok(said) => said.map_err(ProgramError::Run),
            Err(_) => Err(ProgramError::Silent),
        };
        if said.is_err() {
            program.kill();
        }
        said
    })?;
    Ok((program.wait(until)?, said))
}

/// A program that has ended once this goes.
struct Program(Child);

impl Program {
    fn kill(&mut self) {
        // It may have ended by itself, which is what was wanted.
        let _ = self.0.kill();
    }

    fn wait(&mut self, until: Instant) -> Result<ExitStatus, ProgramError> {
        loop {
            match self.0.try_wait().map_err(ProgramError::Run)? {
                Some(status) => return Ok(status),
                None if Instant::now() >= until => return Err(ProgramError::Silent),
                None => std::thread::sleep(LOOK_EVERY),
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, time_max: Duration) -> Result<(Option<i32>, Vec<u8>), ProgramError> {
        let ended = run(Command::new("sh").args(["-c", script]), time_max, 1000);
        ended.map(|(status, said)| (status.code(), said))
    }

    #[test]
    fn a_program_that_talks_for_ever_is_stopped() {
        let ended = shell("while :; do echo 0123456789; done", Duration::from_mins(1));
        assert!(matches!(ended, Err(ProgramError::Loud)));
    }

    #[test]
    fn a_program_that_says_nothing_is_stopped() {
        let brief = Duration::from_millis(20);
        assert!(matches!(shell("exec sleep 600", brief), Err(ProgramError::Silent)));
        assert!(matches!(shell("exec >&-; exec sleep 600", brief), Err(ProgramError::Silent)));
    }

    #[test]
    fn an_end_is_told_with_what_was_said() {
        let long = Duration::from_mins(1);
        assert_eq!(shell("echo x; exit 2", long).unwrap(), (Some(2), b"x\n".to_vec()));
        assert_eq!(shell("kill -9 $$", long).unwrap(), (None, Vec::new()));
        let mut absent = Command::new("a-program-that-nobody-has");
        assert!(matches!(run(&mut absent, long, 1), Err(ProgramError::Absent)));
    }
}
