//! One large content from a store to a store by the swarm alone, beside bare quinn with the same
//! settings: what storing and verifying cost, and whether a runtime with more threads helps.

use std::fs;

use crate::ground::Ground;
use crate::process::{Daemon, finish};
use crate::role::{Common, Threads};
use crate::scale::Scale;
use crate::table::{Contestant, Table};

/// Runs the comparison at each path MTU.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let ground = Ground::new(scale.disk())?;
    let (node, agent) = (ground.node("node")?, ground.agent("agent")?);
    let bytes = scale.large_bytes();
    let (store, content) = ground.store_with("store", &ground.file("content", bytes)?)?;
    let mut tables = Vec::new();
    for mtu in scale.mtus() {
        let transport = mtu.transport();
        for threads in scale.threads() {
            let server = Common::new(&node, &transport, threads);
            let client = Common::new(&agent, &transport, threads);
            let (ours, address) =
                Daemon::listening(server.command("serve")?.arg("--store").arg(&store))?;
            let (bare, bare_address) = Daemon::listening(&mut server.command("bare-serve")?)?;
            let fetch = || {
                let into = ground.path("fetched");
                let mut command = client.command("fetch")?;
                command.args(["--from", &address, &content.to_string()]).arg("--store").arg(&into);
                let sample = ours.sample(|| finish(&mut command))?;
                fs::remove_dir_all(into)?;
                Ok(sample)
            };
            let receive = || {
                let mut command = client.command("bare-receive")?;
                command.args(["--from", &bare_address, &bytes.to_string()]);
                bare.sample(|| finish(&mut command))
            };
            let title = format!(
                "swarm-large: {} MiB store to store, {mtu}, {}",
                bytes >> 20,
                if threads == Threads::One { "one thread" } else { "many threads" },
            );
            let mut table = Table::of(
                title,
                scale.runs(),
                vec![
                    Contestant::new("swarm", bytes, fetch),
                    Contestant::new("bare quinn", bytes, receive),
                ],
            )?;
            table.compare("swarm", "bare quinn", "at least 0.8 x");
            tables.push(table);
        }
    }
    Ok(tables)
}
