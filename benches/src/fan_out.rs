//! One content to a crowd of clients that verify and discard it: the node, beside a bare quinn
//! server, and beside nginx with as many curls.

use crate::ground::Ground;
use crate::nginx::Nginx;
use crate::process::{Daemon, finish};
use crate::program::{Program, node_data};
use crate::role::{Common, Threads};
use crate::scale::{Mtu, Scale};
use crate::table::{Contestant, Row, Table};

const CONTENT_BYTES: u64 = 64 << 20;
const MIB: f64 = 1024.0 * 1024.0;

/// Runs the comparison for each crowd at each path MTU.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for mtu in scale.mtus() {
        for clients in scale.crowds() {
            tables.push(compare(scale, mtu, *clients)?);
        }
    }
    Ok(tables)
}

fn compare(scale: &Scale, mtu: Mtu, clients: usize) -> anyhow::Result<Table> {
    let (ground, program) = (Ground::new(scale.disk())?, Program::find()?);
    let shared = ground.folder("shared")?;
    let file = ground.file("shared/content", CONTENT_BYTES)?;
    let node = node_data(&ground, "node", mtu)?;
    let (_, content) = ground.store_with("node/store", &file)?;
    let agent = Common::new(&ground.agent("agent")?, &mtu.transport(), Threads::One);
    let bare = Common::new(&node.join("identity"), &mtu.transport(), Threads::One);
    let crowd = clients.to_string();
    let (server, address) = program.node(&node)?;
    let idle_bytes = server.usage()?.rss_bytes_max;
    let (bare, bare_address) =
        Daemon::listening(bare.command("bare-serve")?.args(["--clients", &crowd]))?;
    let nginx = Nginx::start(&ground, &shared)?;

    let fetch = || {
        let mut fetch = agent.command("crowd")?;
        fetch.args(["--from", &address, "--clients", &crowd, &content.to_string()]);
        server.sample(|| finish(&mut fetch))
    };
    let receive = || {
        let mut receive = agent.command("bare-receive")?;
        receive.args(["--from", &bare_address, "--clients", &crowd, &CONTENT_BYTES.to_string()]);
        bare.sample(|| finish(&mut receive))
    };
    let bytes = CONTENT_BYTES * clients as u64;
    let title = format!("fan-out: 64 MiB to {clients} clients, {mtu}, {}", scale.place());
    let mut table = Table::of(
        title,
        scale.runs(),
        vec![
            Contestant::new("sutler node, verifying", bytes, fetch),
            Contestant::new("bare quinn, discarding", bytes, receive),
            Contestant::new("nginx TLS, curl", bytes, || nginx.crowd("content", clients)),
        ],
    )?;
    let (to_bare, to_nginx) = match mtu {
        Mtu::Discovered => ("reported", "aim 1.0 x"),
        Mtu::Ethernet => ("at least 0.8 x", "aim 0.8 x"),
    };
    table.compare("sutler node, verifying", "bare quinn, discarding", to_bare);
    table.compare("sutler node, verifying", "nginx TLS, curl", to_nginx);
    let row = table.row("sutler node, verifying").map_or(0, Row::server_rss_bytes);
    let each = row.saturating_sub(idle_bytes) as f64 / clients as f64 / MIB;
    table.note(format!("Memory of the node a client: {each:.2} MiB; wanted at most 1."));
    Ok(table)
}
