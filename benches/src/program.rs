//! The real program, `sutler`, as its users run it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::ground::Ground;
use crate::process::Daemon;
use crate::scale::Mtu;

/// The program, built beside this one.
pub(crate) struct Program(PathBuf);

impl Program {
    /// Finds it.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let path = here.parent().context("a program lies in a folder")?.join("sutler");
        ensure!(path.exists(), "{} is not built: cargo xtask bench does it", path.display());
        Ok(Self(path))
    }

    /// Returns a command of it for a data folder.
    pub(crate) fn command(&self, name: &str, data: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command.args(["--log", "warn", name, "--data"]).arg(data);
        command
    }

    /// Returns a command of it without anything.
    pub(crate) fn plain(&self) -> Command {
        Command::new(&self.0)
    }

    /// Starts a node for a data folder and returns it with its address.
    pub(crate) fn node(&self, data: &Path) -> anyhow::Result<(Daemon, String)> {
        Daemon::listening(self.command("node", data).args(["--listen", "127.0.0.1:0"]))
    }
}

/// Makes the data folder of a node: identity, settings, and no store yet.
pub(crate) fn node_data(ground: &Ground, name: &str, mtu: Mtu) -> anyhow::Result<PathBuf> {
    ground.node(&format!("{name}/identity"))?;
    configure(ground.path(name), mtu)
}

/// Makes the data folder of an agent: identity, settings, and no store yet.
pub(crate) fn agent_data(ground: &Ground, name: &str, mtu: Mtu) -> anyhow::Result<PathBuf> {
    ground.agent(&format!("{name}/identity"))?;
    configure(ground.path(name), mtu)
}

/// Empties the store of a data folder.
pub(crate) fn forget(data: &Path) -> anyhow::Result<()> {
    Ok(std::fs::remove_dir_all(data.join("store"))?)
}

fn configure(data: PathBuf, mtu: Mtu) -> anyhow::Result<PathBuf> {
    let transport = mtu.transport();
    let (initial, max) = (transport.mtu_initial, transport.mtu_max);
    let text = format!("[transport]\nmtu_initial = {initial}\nmtu_max = {max}\n");
    std::fs::write(data.join("sutler.toml"), text)?;
    Ok(data)
}
