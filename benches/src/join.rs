//! Machines that join at control's enrolment port: keys are made and requests are written before the clock starts,
//! and what is measured ends with certificates that were checked against the token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use sutler_swarm::enrol::Token;
use sutler_swarm::enrol::client::{self, Joined};
use sutler_swarm::enrol::device::{Begun, Existing, Joiner};
use sutler_swarm::identity::KeyHash;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::ground::Ground;
use crate::orders::house::House;
use crate::program::Program;
use crate::scale::Scale;
use crate::table::{Contestant, Sample, Table};

/// Machines that ask at a time: the port lets 64 connections of one address in.
const AT_A_TIME: usize = 60;

/// Uses of a token, at most.
const USES: &str = "10000";

/// Runs the measurement.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let (ground, agents) = (Ground::new(scale.disk())?, scale.agents());
    let house = House::start(&ground, 1, 1)?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let mut round = 0;
    let join = || {
        round += 1;
        let token = token(&house)?;
        let asking = requests(&ground, &token, round, agents)?;
        let before = house.control().usage()?;
        let start = Instant::now();
        runtime.block_on(join_all(house.join_address(), &Arc::new(token), asking))?;
        let elapsed_s = start.elapsed().as_secs_f64();
        let after = house.control().usage()?;
        Ok(Sample {
            elapsed_s,
            server_cpu_s: after.cpu_s - before.cpu_s,
            server_rss_bytes: after.rss_bytes_max,
            ..Sample::default()
        })
    };
    let title = format!("join: {agents} machines, {AT_A_TIME} at a time, {}", scale.place());
    let contestants = vec![Contestant::new("sutler control", 0, join)];
    let mut table = Table::of(title, scale.runs(), contestants)?;
    let row = table.row("sutler control").context("it ran")?;
    let machines = agents as f64;
    let rate = machines / row.median(|sample| sample.elapsed_s);
    let cpu_ms = row.median(|sample| sample.server_cpu_s) * 1_000.0 / machines;
    table.note(format!(
        "{rate:.0} joins a second; control takes {cpu_ms:.2} CPU-ms for one. The port begins at most 500 handshakes a \
         second, over a burst of as many."
    ));
    Ok(vec![table])
}

/// Has an admin make a token for as many machines as one may be for.
fn token(house: &House) -> anyhow::Result<Token> {
    let address = house.join_address().to_string();
    let mut command = Program::find()?.plain();
    command.args(["token", "new", "--site", "here", "--role", "agent", "--uses", USES]);
    command.args(["--at", &address, "--org-dir"]).arg(house.folder());
    let output = command.output().context("start sutler token")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(Token::parse(str::from_utf8(&output.stdout)?)?)
}

/// Makes the machines' keys, and what they ask with.
fn requests(
    ground: &Ground,
    token: &Token,
    round: usize,
    agents: usize,
) -> anyhow::Result<Vec<(Vec<u8>, KeyHash)>> {
    let of = |number: usize| -> anyhow::Result<(Vec<u8>, KeyHash)> {
        let data = ground.path(&format!("joiners/{round}/{number}"));
        std::fs::create_dir_all(&data)?;
        let Begun::Joiner(joiner) = Joiner::begin(&data, &token.id(), Existing::Keep)? else {
            bail!("a machine that is new has not joined");
        };
        Ok((joiner.csr()?, joiner.key_hash()))
    };
    (0..agents).map(of).collect()
}

async fn join_all(
    address: SocketAddr,
    token: &Arc<Token>,
    asking: Vec<(Vec<u8>, KeyHash)>,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut joining = JoinSet::new();
    for (csr, key) in asking {
        let place = places.clone().acquire_owned().await?;
        let token = token.clone();
        joining.spawn(async move {
            let joined = client::join(address, &token, &csr, key, false).await;
            drop(place);
            match joined? {
                Joined::Granted(_) => anyhow::Ok(()),
                Joined::Held { id, .. } => bail!("{id} is held"),
            }
        });
    }
    while let Some(joined) = joining.join_next().await {
        joined??;
    }
    Ok(())
}
