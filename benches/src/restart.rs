//! A node that was killed while it held half of a large content: how long until it listens again.

use std::time::Instant;

use sutler_cache::About;
use sutler_protocol::geometry::ChunkIndex;
use sutler_protocol::{Geometry, HashListBuilder};

use crate::ground::{Ground, Noise};
use crate::process::{Finished, Usage};
use crate::program::{Program, node_data};
use crate::role::open_store;
use crate::scale::{Mtu, Scale};
use crate::table::{Contestant, Table};

const CONTENT_BYTES: u64 = 8 << 30;

/// Chunks whose bytes are not yet covered by a checkpoint when the process ends.
const UNSYNCED_CHUNKS: u32 = 64;

/// Starts the node again and again, killing it each time.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let (ground, program) = (Ground::new(scale.disk())?, Program::find()?);
    let node = node_data(&ground, "node", Mtu::Discovered)?;
    half_fill(&node.join("store"))?;
    let start = || {
        let started = Instant::now();
        let (daemon, _) = program.node(&node)?;
        let elapsed_s = started.elapsed().as_secs_f64();
        let Usage { cpu_s, rss_bytes_max } = daemon.usage()?;
        daemon.kill()?;
        Ok(Finished { elapsed_s, usage: Usage { cpu_s, rss_bytes_max } }.into())
    };
    let title = format!("restart: until the node listens, 4 of 8 GiB had, {}", scale.place());
    let contestants = vec![Contestant::new("sutler node", 0, start)];
    let mut table = Table::of(title, scale.runs(), contestants)?;
    table.note("Wanted less than 0.100 s.");
    Ok(vec![table])
}

/// Makes a store with the first half of a content, the end of it without a checkpoint, and leaves it
/// as a process that was killed would.
fn half_fill(dir: &std::path::Path) -> anyhow::Result<()> {
    let geometry = Geometry::of(CONTENT_BYTES)?;
    let mut chunk = vec![0; geometry.chunk_bytes() as usize];
    let mut builder = HashListBuilder::new();
    let mut noise = Noise::new(CONTENT_BYTES);
    for _ in 0..geometry.chunks() {
        noise.fill(&mut chunk);
        builder.update(&chunk);
    }
    let store = open_store(dir)?;
    let content = store.create(builder.finish()?, &About::default())?;
    let half = geometry.chunks() / 2;
    let mut noise = Noise::new(CONTENT_BYTES);
    for index in 0..half {
        noise.fill(&mut chunk);
        content.commit(ChunkIndex(index), &chunk)?;
        if index + UNSYNCED_CHUNKS == half {
            content.checkpoint()?;
        }
    }
    Ok(())
}
