//! 2,000 small files, ending synced: a list over one connection, beside curl over one TLS
//! connection that is kept alive.
//!
//! What a run wrote stays until the end. A file system may work on what was removed while the next
//! run is timed: ext4 without a journal looks past every inode that was freed in the last minutes
//! for each that it makes, which took three quarters of a run.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ground::{Ground, Noise};
use crate::nginx::Nginx;
use crate::process::finish;
use crate::program::{Program, agent_data, node_data};
use crate::scale::{Mtu, Scale};
use crate::table::{Contestant, Table};

const FILES: u64 = 2_000;
const FILE_BYTES_MIN: u64 = 4 << 10;
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Runs the comparison.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let (ground, program) = (Ground::new(scale.disk())?, Program::find()?);
    let mtu = Mtu::Discovered;
    let shared = ground.folder("shared")?;
    let (mut noise, mut files, mut bytes) = (Noise::new(0), Vec::new(), 0);
    for number in 0..FILES {
        let len = FILE_BYTES_MIN + noise.word() % (FILE_BYTES_MAX - FILE_BYTES_MIN + 1);
        files.push(ground.noise(&format!("shared/{number}"), len, number)?);
        bytes += len;
    }
    let node = node_data(&ground, "node", mtu)?;
    let agent = agent_data(&ground, "agent", mtu)?;
    let (list, curls) = (ground.path("list"), ground.path("curls"));
    let (ours, theirs) = (ground.path("ours"), ground.path("theirs"));
    let nginx = Nginx::start(&ground, &shared)?;
    let (mut list_text, mut curls_text) = (String::new(), String::new());
    for (number, id) in ground.store_with_all("node/store", &files)?.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(list_text, "{id}  {number}");
        let (url, out) = (nginx.url(&number.to_string()), theirs.join(number.to_string()));
        let _ = writeln!(curls_text, "url = \"{url}\"\noutput = \"{}\"", out.display());
    }
    fs::write(&list, list_text)?;
    fs::write(&curls, curls_text)?;
    let (server, address) = program.node(&node)?;

    let spent = Spent { folder: ground.folder("spent")?, count: Cell::new(0) };
    let fetch = |link: Option<&str>| {
        let mut fetch = program.command("fetch", &agent);
        fetch.args(["--from", &address, "--list"]).arg(&list).arg("--out-dir").arg(&ours);
        fetch.args(link);
        let sample = server.sample(|| finish(&mut fetch))?;
        spent.take(&agent.join("store"))?;
        spent.take(&ours)?;
        Ok(sample)
    };
    let download = || {
        fs::create_dir(&theirs)?;
        let sample = nginx.sample(|| {
            let done = finish(nginx.curl().arg("--config").arg(&curls))?;
            Ok(done.then(finish(Command::new("sync").arg("--file-system").arg(&theirs))?))
        })?;
        spent.take(&theirs)?;
        Ok(sample)
    };
    let title = format!("small: {FILES} files of 4-64 KiB, {}", scale.place());
    let contestants = vec![
        Contestant::new("sutler fetch --list --link", bytes, || fetch(Some("--link"))),
        Contestant::new("sutler fetch --list", bytes, || fetch(None)),
        Contestant::new("curl keep-alive, sync", bytes, download),
    ];
    let mut table = Table::of(title, scale.runs(), contestants)?;
    let wanted = "at least 2 x, aim 3 x";
    table.compare("sutler fetch --list --link", "curl keep-alive, sync", wanted);
    table.compare("sutler fetch --list", "curl keep-alive, sync", wanted);
    Ok(vec![table])
}

/// Where the folders go that runs have written.
struct Spent {
    folder: PathBuf,
    count: Cell<usize>,
}

impl Spent {
    /// Takes a folder out of the way of the next run.
    fn take(&self, written: &Path) -> anyhow::Result<()> {
        let number = self.count.replace(self.count.get() + 1);
        Ok(fs::rename(written, self.folder.join(number.to_string()))?)
    }
}
