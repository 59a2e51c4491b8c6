//! A file into the store, beside `b3sum` and `cp`, which do the same without a store.

use std::fs;
use std::process::Command;

use crate::ground::Ground;
use crate::process::finish;
use crate::program::{Program, forget};
use crate::scale::Scale;
use crate::table::{Contestant, Table};

/// Runs the comparison.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let (ground, program) = (Ground::new(scale.disk())?, Program::find()?);
    let bytes = scale.large_bytes();
    let (file, copy) = (ground.file("content", bytes)?, ground.path("copy"));
    let data = ground.folder("data")?;
    let add = || {
        let finished = finish(program.command("add", &data).arg(&file))?;
        forget(&data)?;
        Ok(finished.into())
    };
    let copied = || {
        let mut done = finish(Command::new("b3sum").arg(&file))?;
        done = done.then(finish(Command::new("cp").arg(&file).arg(&copy))?);
        if scale.disk().is_some() {
            done = done.then(finish(Command::new("sync").arg(&copy))?);
        }
        fs::remove_file(&copy)?;
        Ok(done.into())
    };
    let title = format!("add: {} MiB, {}", bytes >> 20, scale.place());
    let contestants = vec![
        Contestant::new("sutler add", bytes, add),
        Contestant::new("b3sum, cp", bytes, copied),
    ];
    let mut table = Table::of(title, scale.runs(), contestants)?;
    table.compare("sutler add", "b3sum, cp", "at least 0.5 x");
    table.note("Where the disk can share blocks between files, both do.");
    Ok(vec![table])
}
