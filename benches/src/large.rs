//! One large content, from a node's store to a complete, verified file at the client: the real
//! program, beside nginx with curl and `b3sum`, and beside bare quinn that discards.

use std::fs;
use std::path::Path;

use sutler_protocol::ContentId;

use crate::beside;
use crate::ground::Ground;
use crate::nginx::Nginx;
use crate::process::{Daemon, finish};
use crate::program::{Program, agent_data, forget, node_data};
use crate::role::{Common, Threads};
use crate::scale::{Mtu, Scale};
use crate::table::{Contestant, Sample, Table};

/// The length of the content whose transfer shows that memory does not grow with length.
const HUGE_BYTES: u64 = 8 << 30;

/// Where the client of the huge content keeps it, unless told otherwise: it would not fit in memory
/// beside the server's.
const HUGE_DISK: &str = "/var/tmp";

/// Runs the comparison at each path MTU.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    scale.mtus().into_iter().map(|mtu| compare(scale, mtu)).collect()
}

fn compare(scale: &Scale, mtu: Mtu) -> anyhow::Result<Table> {
    let (ground, program) = (Ground::new(scale.disk())?, Program::find()?);
    let bytes = scale.large_bytes();
    let shared = ground.folder("shared")?;
    let file = ground.file("shared/content", bytes)?;
    let node = node_data(&ground, "node", mtu)?;
    let (_, content) = ground.store_with("node/store", &file)?;
    let agent = agent_data(&ground, "agent", mtu)?;
    let (server, address) = program.node(&node)?;
    let nginx = Nginx::start(&ground, &shared)?;
    let transport = mtu.transport();
    let bare = Common::new(&node.join("identity"), &transport, Threads::One);
    let bare_client = Common::new(&agent.join("identity"), &transport, Threads::One);
    let (bare, bare_address) = Daemon::listening(&mut bare.command("bare-serve")?)?;
    let out = ground.path("out");

    let others = beside::all(scale, &ground, &file)?;
    let mut contestants = vec![
        Contestant::new("sutler --link", bytes, || {
            fetch(&program, &server, &address, content, &agent, &out, Written::Linked)
        }),
        Contestant::new("sutler", bytes, || {
            fetch(&program, &server, &address, content, &agent, &out, Written::Copied)
        }),
        Contestant::new("nginx TLS, curl, b3sum", bytes, || nginx.download(scale, "content", &out)),
        Contestant::new("bare quinn, discarding", bytes, || {
            let mut receive = bare_client.command("bare-receive")?;
            receive.args(["--from", &bare_address, &bytes.to_string()]);
            bare.sample(|| finish(&mut receive))
        }),
    ];
    contestants
        .extend(others.iter().map(|other| Contestant::new(other.name, bytes, || other.sample())));
    let title = format!("large: {} MiB to a verified file, {mtu}, {}", bytes >> 20, scale.place());
    let mut table = Table::of(title, scale.runs(), contestants)?;
    let wanted = match mtu {
        Mtu::Discovered => "at least 1.4 x, aim 1.7 x",
        Mtu::Ethernet => "at least 0.85 x, aim 1.0 x",
    };
    table.compare("sutler --link", "nginx TLS, curl, b3sum", wanted);
    table.compare("sutler --link", "bare quinn, discarding", "at least 0.8 x");
    table.compare("sutler --link", "sendme", "at least 4 x");
    table.compare("sutler --link", "iroh-blobs, moved", "at least 2 x");
    table.compare("sutler", "iroh-blobs, copied", "at least 2 x");
    table.compare("sutler", "nginx TLS, curl, b3sum", wanted);
    table.note("`b3sum` maps the file, so its memory is that of the file.");
    Ok(table)
}

/// Transfers 8 GiB and says what memory both sides held.
pub(crate) fn huge(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let program = Program::find()?;
    let ground = Ground::new(None)?;
    let mtu = Mtu::Discovered;
    let node = node_data(&ground, "node", mtu)?;
    let (_, content) = ground.store_with("node/store", &ground.file("content", HUGE_BYTES)?)?;
    let (server, address) = program.node(&node)?;
    let client = Ground::within(scale.disk().unwrap_or(Path::new(HUGE_DISK)), &ground)?;
    let agent = agent_data(&client, "agent", mtu)?;
    let out = client.path("out");
    let fetch = || fetch(&program, &server, &address, content, &agent, &out, Written::Copied);
    let contestants = vec![Contestant::new("sutler", HUGE_BYTES, fetch)];
    let title = format!("huge: {} GiB, {mtu}, server in memory, client on disk", HUGE_BYTES >> 30);
    let mut table = Table::of(title, 1, contestants)?;
    table.note("For the memory, wanted at most 64 MiB each; the rate is the disk's.");
    Ok(vec![table])
}

/// How the verified content becomes the user's file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Copied,
    Linked,
}

fn fetch(
    program: &Program,
    server: &Daemon,
    address: &str,
    content: ContentId,
    agent: &Path,
    out: &Path,
    written: Written,
) -> anyhow::Result<Sample> {
    let mut fetch = program.command("fetch", agent);
    fetch.args(["--from", address, &content.to_string(), "--out"]).arg(out);
    if written == Written::Linked {
        fetch.arg("--link");
    }
    let sample = server.sample(|| finish(&mut fetch))?;
    forget(agent)?;
    fs::remove_file(out)?;
    Ok(sample)
}
