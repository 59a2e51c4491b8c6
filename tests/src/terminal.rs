//! A command at a terminal of its own, as whoever sits there meets it: it is typed to, and what it shows is read.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// How long a command may take to show what is waited for; beyond it, it hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// End of input, as it is typed.
pub const END_OF_INPUT: &str = "\u{4}";

/// A command that runs at a terminal, killed when dropped.
pub struct Terminal {
    process: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Terminal {
    /// Starts a command whose input and outputs are a terminal's.
    ///
    /// # Panics
    ///
    /// If the system has no terminal to give, or the command cannot be started.
    pub fn start(mut command: Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let theirs = Path::new(name.to_str().expect("its name is text"));
        let theirs = File::options().read(true).write(true).open(theirs).expect("it opens");
        let end = || OwnedFd::from(theirs.try_clone().expect("a descriptor"));
        command.stdin(end()).stdout(end()).stderr(end());
        let process = command.spawn().expect("the program runs");
        // With the command and these its ends are gone here: what is read ends with the process.
        drop((command, theirs));
        let keyboard = File::from(ours);
        let mut read = keyboard.try_clone().expect("a descriptor");
        let (shows, screen) = channel();
        // Ends with the terminal's other side, at the latest when the process is killed.
        thread::spawn(move || {
            let mut piece = [0; 4096];
            loop {
                match read.read(&mut piece) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => return,
                    Ok(length) => {
                        if shows.send(piece[..length].to_vec()).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Self { process, keyboard, screen, shown: Vec::new() }
    }

    /// Waits until it shows a text.
    ///
    /// # Panics
    ///
    /// If it does not, or ends without it.
    pub fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.shown().contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(piece) = self.screen.recv_timeout(left) else {
                panic!("it never shows {text:?}: {}", self.shown());
            };
            self.shown.extend(piece);
        }
    }

    /// Types a text.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("somebody reads the terminal");
    }

    /// Waits for its end, and returns its exit code and all that it showed.
    ///
    /// # Panics
    ///
    /// If it hangs.
    pub fn end(mut self) -> (Option<i32>, String) {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it hangs: {}", self.shown());
            match self.screen.recv_timeout(left) {
                Ok(piece) => self.shown.extend(piece),
                Err(_) => break,
            }
        }
        let code = self.process.wait().expect("our own child").code();
        (code, self.shown())
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Already ended: nothing is left to do.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
