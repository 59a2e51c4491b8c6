//! Programs of others that move a file to a verified file, measured where the user names them: they
//! are installed outside the workspace.
//!
//! `sendme` is called as it is. Of iroh-blobs there is no program, only the library; whoever wants it
//! measured writes one that is called so:
//!
//! - `PROGRAM serve FILE` prints a line `listening TICKET` when it is ready, and serves until SIGTERM;
//! - `PROGRAM fetch TICKET OUT move|copy` ends when the verified file is at `OUT`: moved there out of
//!   its store, which it keeps in the current folder, or copied.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ground::Ground;
use crate::process::{Daemon, finish};
use crate::scale::Scale;
use crate::table::Sample;

/// A program whose server runs, and how its client is called.
pub(crate) struct Other {
    pub(crate) name: &'static str,
    server: Daemon,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The folder that its client runs in, emptied after each run.
    into: PathBuf,
}

/// Starts the servers of those that were named, with a file to serve.
pub(crate) fn all(scale: &Scale, ground: &Ground, file: &Path) -> anyhow::Result<Vec<Other>> {
    let mut others = Vec::new();
    if let Some(program) = scale.sendme() {
        let (server, ticket) = serve(program, "send", file, "sendme receive ")?;
        let arguments = vec!["receive".into(), ticket.into()];
        others.push(Other::new("sendme", server, program, arguments, ground)?);
    }
    for (name, how) in [("iroh-blobs, moved", "move"), ("iroh-blobs, copied", "copy")] {
        let Some(program) = scale.iroh_blobs() else { continue };
        let (server, ticket) = serve(program, "serve", file, "listening ")?;
        let arguments = ["fetch", &ticket, "out", how].map(OsString::from).to_vec();
        others.push(Other::new(name, server, program, arguments, ground)?);
    }
    Ok(others)
}

impl Other {
    fn new(
        name: &'static str,
        server: Daemon,
        program: &Path,
        arguments: Vec<OsString>,
        ground: &Ground,
    ) -> anyhow::Result<Self> {
        let into = ground.folder(&format!("received by {name}"))?;
        Ok(Self { name, server, program: std::path::absolute(program)?, arguments, into })
    }

    /// Runs its client once.
    pub(crate) fn sample(&self) -> anyhow::Result<Sample> {
        let mut client = Command::new(&self.program);
        client.args(&self.arguments).current_dir(&self.into);
        let sample = self.server.sample(|| finish(&mut client))?;
        fs::remove_dir_all(&self.into)?;
        fs::create_dir(&self.into)?;
        Ok(sample)
    }
}

fn serve(program: &Path, verb: &str, file: &Path, mark: &str) -> anyhow::Result<(Daemon, String)> {
    let mut serve = Command::new(std::path::absolute(program)?);
    serve.arg(verb).arg(file);
    // What it keeps of its own goes with the ground.
    if let Some(folder) = file.parent().and_then(Path::parent) {
        serve.current_dir(folder);
    }
    Daemon::saying(&mut serve, mark)
}
