//! What a device spends on its orders: 1,000 approvals read, and evaluated.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use serde_json::{Value, json};
use sutler_orders::answer::Step;
use sutler_orders::audience::Reached;
use sutler_orders::content::{About, Bytes};
use sutler_orders::evaluate::{Device, Local, Now, Progress};
use sutler_orders::windows::Zones;
use sutler_orders::{
    Approvals, Body, Content, Facts, Order, Orders, Policies, Schedules, Scope, Sites, Statement,
    Vouched, evaluate,
};
use sutler_protocol::{ContentId, Sha256Digest};

use crate::scale::Scale;
use crate::table::{Contestant, Sample, Table};

/// Approvals of the scope, each about a content of its own.
const APPROVALS: u64 = 1_000;

const WRITTEN: &str = "2026-03-02T00:00:00Z";
const NOW: &str = "2026-03-09T09:00:00Z";
const EXPIRES: &str = "2026-09-01T00:00:00Z";

/// Runs the measurement.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let plain = approvals(&json!({}))?;
    let ruled = approvals(&json!({ "for": { "rule": "os == 'debian' && 'pilot' in tags" } }))?;
    let (plain_orders, ruled_orders) = (orders(&plain)?, orders(&ruled)?);
    let evaluated = |orders| move || timed(|| evaluated(orders));
    let read = || {
        timed(|| {
            black_box(Order::<Approvals>::read(&ruled)?);
            Ok(())
        })
    };
    let contestants = vec![
        Contestant::new("evaluate", 0, evaluated(&plain_orders)),
        Contestant::new("evaluate, each with a rule", 0, evaluated(&ruled_orders)),
        Contestant::new("read the file of the latter", 0, read),
    ];
    let title = format!("evaluate: {APPROVALS} approvals, all of them staged and in a window");
    let mut table = Table::of(title, scale.runs(), contestants)?;
    table.note(format!("In this process. The file has {} bytes.", ruled.len()));
    Ok(vec![table])
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Sample> {
    let start = Instant::now();
    work()?;
    Ok(Sample { elapsed_s: start.elapsed().as_secs_f64(), ..Sample::default() })
}

fn evaluated(orders: &Orders) -> anyhow::Result<()> {
    let database = TimeZoneDatabase::bundled();
    let facts = facts()?;
    let staged = Local { progress: Progress::Staged, ..Local::default() };
    let ids = (0..APPROVALS).map(|number| (bytes(number).blake3, staged.clone()));
    let device = Device { contents: ids.collect(), ..Device::default() };
    let statement = Statement { issued: NOW.parse()?, expires: EXPIRES.parse()? };
    let zones = Zones::of(orders.sites(), &facts.device.site, None, &database);
    let now = Now { clock: NOW.parse()?, is_confirmed: true, zones };
    let answers = evaluate(orders, &facts, &device, Some(statement), &now);
    let mut answers = answers.values();
    ensure!(answers.all(|answer| matches!(answer.step, Step::Install { .. })), "all may start");
    Ok(())
}

fn facts() -> anyhow::Result<Facts> {
    Ok(Facts {
        organisation: "example".parse()?,
        device: "cologne/anna-3".parse()?,
        os: "debian".to_owned(),
        version: "12".to_owned(),
        architecture: "amd64".to_owned(),
        language: "de-DE".to_owned(),
        host_name: "anna-3".to_owned(),
        tags: ["pilot".to_owned()].into(),
        first_ring: None,
    })
}

fn bytes(number: u64) -> Bytes {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    let (blake3, sha256) = (ContentId::from_bytes(digest), Sha256Digest::from_bytes(digest));
    Bytes { blake3, sha256, length: number }
}

/// Returns a file of approvals that say `more`, beside what each has to say.
fn approvals(more: &Value) -> anyhow::Result<Vec<u8>> {
    let items: Vec<Value> = (0..APPROVALS)
        .map(|number| {
            let digest = bytes(number).blake3.to_string();
            let mut item = json!({
                "action": "install", "blake3": digest, "sha256": digest, "length": number,
                "kind": "deb", "by": "Anna", "at": WRITTEN, "reason": "tested on qa",
            });
            if let (Some(item), Some(more)) = (item.as_object_mut(), more.as_object()) {
                item.extend(more.clone());
            }
            item
        })
        .collect();
    let file = file::<Approvals>(Some("desktops"), &json!({ "items": items }));
    Ok(serde_json::to_vec_pretty(&file)?)
}

fn file<B: Body>(scope: Option<&str>, body: &Value) -> Value {
    let mut file = json!({
        "_type": B::KIND.as_str(), "format": 1, "organisation": "example", "seq": 1,
        "issued": WRITTEN,
    });
    if let (Some(file), Some(body)) = (file.as_object_mut(), body.as_object()) {
        file.extend(scope.map(|scope| ("scope".to_owned(), scope.into())));
        file.extend(body.clone());
    }
    file
}

fn order<B: Body>(scope: Option<&str>, body: &Value) -> anyhow::Result<Vouched<Order<B>>> {
    let order = Order::read(file::<B>(scope, body).to_string().as_bytes())?;
    Ok(Vouched::assumed(order, EXPIRES.parse()?))
}

fn orders(approvals: &[u8]) -> anyhow::Result<Orders> {
    let expires: Timestamp = EXPIRES.parse()?;
    let contents = (0..APPROVALS).map(|number| {
        let bytes = bytes(number);
        let about = json!({
            "format": 1, "blake3": bytes.blake3.to_string(), "name": format!("{number}.deb"),
            "kind": "deb", "published": WRITTEN,
        });
        let about = About::read(&about)?;
        Ok(Vouched::assumed(Content { bytes, about }, expires))
    });
    let signed = json!({ "by": "Anna", "at": WRITTEN });
    let merged = |mut value: Value| {
        if let (Some(value), Some(signed)) = (value.as_object_mut(), signed.as_object()) {
            value.extend(signed.clone());
        }
        value
    };
    let policy =
        merged(json!({ "name": "all", "mode": "download-and-install", "schedule": "daily" }));
    let window = json!({
        "start": "2026-01-01T08:00:00", "rule": "FREQ=DAILY", "duration_minutes": 600,
    });
    let schedule = merged(json!({ "name": "daily", "windows": [window] }));
    let scope = Some("desktops");
    Ok(Orders {
        contents: contents.collect::<anyhow::Result<_>>().context("make the contents")?,
        scopes: vec![Scope {
            name: "desktops".parse()?,
            reach: Reached::default(),
            schedules_reach: Reached::default(),
            approvals: Some(Vouched::assumed(Order::read(approvals)?, expires)),
            standing: None,
            policies: Some(order::<Policies>(scope, &json!({ "policies": [policy] }))?),
            schedules: Some(order::<Schedules>(scope, &json!({ "schedules": [schedule] }))?),
        }],
        sites: Some(order::<Sites>(
            None,
            &json!({ "sites": [{ "name": "cologne", "zone": "Europe/Berlin" }] }),
        )?),
        ..Orders::default()
    })
}
