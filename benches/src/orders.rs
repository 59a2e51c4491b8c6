//! What orders cost on their way: a device that asks for what is new, and one control that pushes to many.

mod followers;
pub(crate) mod house;
mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;
use sutler_control::decision::Verdict;
use sutler_swarm::Endpoint;
use sutler_swarm::identity::Identity;
use sutler_swarm::orders::{Believer, Board, Place};
use sutler_swarm::peer::Peer;
use tokio::runtime::{Builder, Runtime};

use self::followers::Crowd;
pub(crate) use self::followers::Followers;
use self::house::House;
use self::wire::{Traffic, Wire};
use crate::ground::Ground;
use crate::process::Usage;
use crate::scale::{Mtu, Scale};
use crate::table::{Contestant, Sample, Table};

/// How long control may take to show what was signed on its own machine: it looks twice a second.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);

const KIB: f64 = 1024.0;

/// Runs the measurements: a refresh with so many approvals published for each number asked for, then the crowd
/// with the first of them.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for approvals in scale.approvals() {
        tables.push(refresh(scale, *approvals)?);
    }
    tables.push(crowd(scale, scale.approvals().first().copied().unwrap_or(1))?);
    Ok(tables)
}

/// A device that refreshes by hand, through a line that counts.
struct Device {
    wire: Wire,
    runtime: Runtime,
    believer: Believer,
    board: Board,
    peer: Peer,
    counted: BTreeMap<&'static str, Vec<Traffic>>,
}

fn refresh(scale: &Scale, approvals: usize) -> anyhow::Result<Table> {
    let ground = Ground::new(scale.disk())?;
    let house = House::start(&ground, approvals + scale.runs() + 1, 1)?;
    house.submit(&house.decide(Verdict::Install, 0..approvals)?)?;
    let device = RefCell::new(Device::new(&ground, &house)?);
    device.borrow_mut().refresh("everything, as on its first day")?;
    let mut next = approvals;
    let nothing = || device.borrow_mut().refresh("nothing new");
    let resigned = || {
        let version = house.resign()?;
        device.borrow_mut().wait_for_newer(version)?;
        device.borrow_mut().refresh("a timestamp signed anew")
    };
    let approved = || {
        house.submit(&house.decide(Verdict::Install, next..next + 1)?)?;
        next += 1;
        device.borrow_mut().refresh("one new approval")
    };
    let title = format!("orders: a device refreshes, {approvals} approvals, {}", scale.place());
    let contestants = vec![
        Contestant::new("nothing new", 0, nothing),
        Contestant::new("a timestamp signed anew", 0, resigned),
        Contestant::new("one new approval", 0, approved),
    ];
    let mut table = Table::of(title, scale.runs(), contestants)?;
    for (what, traffic) in &mut device.borrow_mut().counted {
        traffic.sort_unstable();
        let Traffic { bytes, datagrams } = traffic[traffic.len() / 2];
        table.note(format!("On the wire, {what}: {bytes} bytes in {datagrams} datagrams."));
    }
    Ok(table)
}

impl Device {
    fn new(ground: &Ground, house: &House) -> anyhow::Result<Self> {
        let data = ground.path("device");
        house.agents(std::iter::once(data.clone()))?;
        let wire = Wire::to(house.address())?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (endpoint, peer) = connect(&data, &runtime, wire.address())?;
        let (orders, root) = (data.join("orders"), house.root()?);
        let board = Board::new(&orders, endpoint.name().organisation().clone(), None);
        let believer = Believer::open(&orders, Some(&root), board.clone(), endpoint)?;
        Ok(Self { wire, runtime, believer, board, peer, counted: BTreeMap::new() })
    }

    fn refresh(&mut self, what: &'static str) -> anyhow::Result<Sample> {
        let before = self.wire.settled();
        let start = Instant::now();
        self.believer.refresh(self.peer.clone(), self.runtime.handle().clone())?;
        let elapsed_s = start.elapsed().as_secs_f64();
        ensure!(self.board.manifest().borrow().is_some(), "a manifest is believed");
        self.counted.entry(what).or_default().push(self.wire.settled().since(before));
        Ok(Sample { elapsed_s, ..Sample::default() })
    }

    /// Waits until control shows a timestamp that is newer than this version.
    fn wait_for_newer(&self, version: u64) -> anyhow::Result<()> {
        let place = Place::parse("metadata/timestamp.json").expect("it is a place");
        let until = Instant::now() + SHOWN_WITHIN;
        loop {
            let shown = self.runtime.block_on(self.peer.document(&place, u32::MAX))?;
            let shown: Value = serde_json::from_slice(&shown.unwrap_or_default())?;
            if shown["signed"]["version"].as_u64() > Some(version) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "control does not show version {version}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Connects as the agent whose data is in a folder.
fn connect(
    data: &std::path::Path,
    runtime: &Runtime,
    to: std::net::SocketAddr,
) -> anyhow::Result<(Endpoint, Peer)> {
    let _entered = runtime.enter();
    let identity = Identity::load(&data.join("identity"))?;
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let endpoint = Endpoint::bind(any, &identity, Mtu::Ethernet.transport())?;
    let peer = runtime.block_on(endpoint.connect(to))?;
    Ok((endpoint, peer))
}

/// One control and many agents, while orders are published.
struct Fleet<'a> {
    house: &'a House,
    crowd: Crowd,
    denials: u64,
}

fn crowd(scale: &Scale, approvals: usize) -> anyhow::Result<Table> {
    let (ground, agents) = (Ground::new(scale.disk())?, scale.agents());
    let house = House::start(&ground, approvals + scale.runs() + 1, agents)?;
    let published = house.submit(&house.decide(Verdict::Install, 0..approvals)?)?;
    let (folder, root) = (ground.folder("agents")?, ground.path("root.json"));
    // One more, which brings denials.
    house.agents((0..=agents).map(|number| folder.join(number.to_string())))?;
    fs::write(&root, house.root()?)?;
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let approver = connect(&folder.join(agents.to_string()), &runtime, house.address())?;
    let idle = house.control().usage()?;
    let start = Instant::now();
    let mut crowd = Crowd::start(&folder, &root, house.address(), agents)?;
    crowd.wait_for_version(published)?;
    let (joined, connected) = (start.elapsed(), house.control().usage()?);
    let fleet = RefCell::new(Fleet { house: &house, crowd, denials: 0 });
    let (mut approved, mut denied) = (approvals, approvals);
    let approval = || {
        approved += 1;
        fleet.borrow_mut().publish(Verdict::Install, approved - 1)
    };
    let denial = || {
        denied += 1;
        fleet.borrow_mut().publish(Verdict::Deny, denied - 1)
    };
    let by_itself = || fleet.borrow_mut().deny(&runtime, &approver.1);
    let title = format!(
        "orders: from submission to the last of {agents} agents, {approvals} approvals, {}",
        scale.place()
    );
    let contestants = vec![
        Contestant::new("an approval", 0, approval),
        Contestant::new("a denial, by order", 0, denial),
        Contestant::new("a denial that travels by itself", 0, by_itself),
    ];
    let mut table = Table::of(title, scale.runs(), contestants)?;
    let each = |now: Usage| {
        now.rss_bytes_max.saturating_sub(idle.rss_bytes_max) as f64 / agents as f64 / KIB
    };
    table.note(format!(
        "Memory of control a connection: {:.1} KiB once all were connected, {:.1} KiB at the most; {:.1} MiB \
         with none.",
        each(connected),
        each(house.control().usage()?),
        idle.rss_bytes_max as f64 / KIB / KIB,
    ));
    let joined_s = joined.as_secs_f64();
    table.note(format!("All agents were started, connected and up to date after {joined_s:.1} s."));
    table.note_cpu();
    Ok(table)
}

impl Fleet<'_> {
    /// Hands an order about one content in, and waits for the last agent.
    fn publish(&mut self, verdict: Verdict, content: usize) -> anyhow::Result<Sample> {
        let body = self.house.decide(verdict, content..content + 1)?;
        self.sample(|fleet| {
            let version = fleet.house.submit(&body)?;
            fleet.crowd.wait_for_version(version)
        })
    }

    /// Brings a denial to control as a neighbour would, and waits for the last agent.
    fn deny(&mut self, runtime: &Runtime, approver: &Peer) -> anyhow::Result<Sample> {
        let denial = self.house.denial(0)?;
        self.denials += 1;
        let denials = self.denials;
        self.sample(|fleet| {
            runtime.block_on(approver.deny(&denial))?;
            fleet.crowd.wait_for_denials(denials)
        })
    }

    fn sample(
        &mut self,
        work: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Sample> {
        let before = (self.crowd.usage()?, self.house.control().usage()?);
        let start = Instant::now();
        work(self)?;
        let elapsed_s = start.elapsed().as_secs_f64();
        let after = (self.crowd.usage()?, self.house.control().usage()?);
        Ok(Sample {
            elapsed_s,
            client_cpu_s: after.0.cpu_s - before.0.cpu_s,
            server_cpu_s: after.1.cpu_s - before.1.cpu_s,
            client_rss_bytes: after.0.rss_bytes_max,
            server_rss_bytes: after.1.rss_bytes_max,
        })
    }
}
