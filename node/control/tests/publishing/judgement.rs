//! What control makes of devices' reports: what they should answer, and how far a stop has got.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};
use sutler_control::State;
use sutler_control::change::ChangeError;
use sutler_control::judgement::Published;
use sutler_control::spread::{Spread, Stop, spread};
use sutler_control::stopping::stop_of;
use sutler_orders::answer::{GateName, State as Progressed};
use sutler_orders::approvals::{Approvals, Item};
use sutler_orders::report::Report;
use sutler_orders::{Answer, Body, Policies, Reason, Rings, Schedules, Sites};
use sutler_protocol::ContentId;
use sutler_protocol::manifest::json::canonical;
use sutler_protocol::manifest::{RoleName, Version};
use sutler_protocol::name::Label;

use crate::house::{House, deny, install, key, later, now};

const A: &[u8] = b"the bytes of a";
const B: &[u8] = b"the bytes of b";

/// Two sites in two zones, a ring of both, and a window from ten at night on; `a` is approved, `b` is not. It is nine
/// in the evening in Cologne, and three in the afternoon in New York.
fn world() -> House {
    let house = House::new(1);
    house.publish("a.deb", A);
    house.publish("b.deb", B);
    let by = |order: Value| {
        let mut order = order;
        order["by"] = json!("dora");
        order["at"] = json!("2026-11-27T19:00:00Z");
        order
    };
    let sites = json!([
        { "name": "cologne", "zone": "Europe/Berlin" },
        { "name": "new-york", "zone": "America/New_York" },
        { "name": "rome", "zone": "Europe/Rome" },
    ]);
    set::<Sites>(&house, &[1, 2], None, json!({ "sites": sites }));
    let rings = json!([{ "name": "lab", "rule": "os == 'debian'" }]);
    set::<Rings>(&house, &[1, 2], None, json!({ "rings": rings }));
    let window =
        json!({ "start": "2026-01-01T22:00:00", "rule": "FREQ=DAILY", "duration_minutes": 120 });
    let nightly = by(json!({ "name": "nightly", "windows": [window] }));
    let lab = "lab".parse().unwrap();
    set::<Schedules>(&house, &[4], Some(&lab), json!({ "schedules": [nightly] }));
    let policy =
        by(json!({ "name": "all", "mode": "download-and-install", "schedule": "nightly" }));
    set::<Policies>(&house, &[4], Some(&lab), json!({ "policies": [policy] }));
    decide(&house, install(A));
    house
}

fn set<B: Body + Default + serde::de::DeserializeOwned>(
    house: &House,
    signers: &[u8],
    scope: Option<&Label>,
    body: Value,
) {
    let body: B = serde_json::from_value(body).unwrap();
    let draft = house.draft(signers, |change| {
        change.order::<B, ChangeError>(scope, |order| {
            *order = body;
            Ok(())
        })
    });
    house.submit(&draft.submission(), now()).unwrap();
}

fn decide(house: &House, item: Item) {
    let lab = "lab".parse().unwrap();
    let draft = house.draft(&[4], |change| {
        change.order::<Approvals, ChangeError>(Some(&lab), |approvals| {
            approvals.items.push(item);
            Ok(())
        })
    });
    house.submit(&draft.submission(), now()).unwrap();
}

fn published(house: &House, denials: &[Vec<u8>]) -> Published {
    Published::of(&house.state(), &house.organisation, denials)
}

fn version(state: &State) -> u64 {
    state.timestamp.version().number()
}

/// A device that knows the orders of `version` and says this of `a`.
fn report(device: &str, version: u64, state: Progressed, reason: Option<Reason>) -> Report {
    let mut answer = json!({ "content": ContentId::of(A).to_string(), "state": state.as_str() });
    if let Some(reason) = reason {
        answer["reason"] = json!(reason.as_str());
    }
    serde_json::from_value(json!({
        "organisation": "acme", "device": device, "number": 1, "written": "2026-11-27T19:59:00Z",
        "program": "sutler 0.1.0", "facts": { "os": "debian" },
        "statement": { "version": version }, "answers": [answer],
    }))
    .unwrap()
}

fn answer(published: &Published, report: &Report, bytes: &[u8], at: Timestamp) -> Answer {
    let id = ContentId::of(bytes);
    published.answers(report, &BTreeSet::from([id]), jiff::tz::db(), at).remove(&id).unwrap()
}

// N4
#[test]
fn control_finds_the_gate_that_blocks_a_device_as_the_device_does() {
    let house = world();
    let known = published(&house, &[]);
    let outside = Some(Reason::OutsideWindow);
    let staged = report("cologne/anna", known.version(), Progressed::Staged, outside);
    let found = answer(&known, &staged, A, now());
    assert_eq!((found.state, found.reason), (Progressed::Staged, outside), "{:?}", found.gates);
    let gate = found.blocks().unwrap();
    assert_eq!(gate.name, GateName::Window);
    assert!(gate.input.contains("2026-11-27T21:00:00Z"), "{}", gate.input);
    assert_eq!(answer(&known, &staged, B, now()).reason, Some(Reason::NotApproved));
    // Another system is outside of the ring, and so of the scope.
    let mut other = staged.clone();
    other.facts.os = Some("fedora".parse().unwrap());
    assert_eq!(answer(&known, &other, A, now()).reason, Some(Reason::NotApproved));
    // What only the device knows it has said: that its disk is full, that it only looks.
    let full = report("cologne/anna", 1, Progressed::Needed, Some(Reason::Disk));
    assert_eq!(answer(&known, &full, A, now()).reason, Some(Reason::Disk));
    let observes = Report { observes: true, ..staged.clone() };
    assert_eq!(answer(&known, &observes, A, now()).blocks().unwrap().name, GateName::ObserveOnly);
    let done = report("cologne/anna", 1, Progressed::Installed, None);
    assert_eq!(answer(&known, &done, A, now()).state, Progressed::Installed);

    decide(&house, deny(A));
    assert_eq!(answer(&published(&house, &[]), &staged, A, now()).reason, Some(Reason::Denied));
}

// T29
#[test]
fn a_denial_that_passed_by_counts_if_an_approver_signed_it() {
    let house = world();
    let denial = |signer: u8| {
        let denial = json!({
            "_type": "denial", "format": 1, "organisation": "acme", "scope": "lab", "id": "d1",
            "issued": "2026-11-27T20:00:00Z", "contents": [ContentId::of(A).to_string()],
            "by": "dora",
        });
        let signature = key(signer).sign(&canonical(&denial).unwrap());
        let signature = json!({ "keyid": signature.keyid.as_str(), "sig": signature.sig });
        json!({ "signatures": [signature], "signed": denial }).to_string().into_bytes()
    };
    let staged = report("cologne/anna", 1, Progressed::Staged, Some(Reason::OutsideWindow));
    for (signer, reason) in [(4, Reason::Denied), (6, Reason::OutsideWindow)] {
        let known = published(&house, &[denial(signer), b"rubbish".to_vec()]);
        assert_eq!(answer(&known, &staged, A, now()).reason, Some(reason), "{signer}");
    }
}

#[test]
fn how_far_a_denial_has_got_is_what_devices_have_confirmed() {
    let house = world();
    let before = published(&house, &[]);
    decide(&house, deny(A));
    let new = version(&house.state());
    let outside = Some(Reason::OutsideWindow);
    let (staged, denied) = (Progressed::Staged, Some(Reason::Denied));
    let mut unheard = report("rome/mute", 1, staged, outside);
    unheard.statement = None;
    let mut reports = vec![
        report("cologne/anna", new, staged, denied),
        report("cologne/ben", new - 1, staged, outside),
        report("new-york/cleo", new - 1, Progressed::Needed, None),
        report("new-york/dora", new - 1, Progressed::Installed, None),
        report("new-york/emil", new - 1, staged, Some(Reason::Held)),
        Report { observes: true, ..report("new-york/fay", new - 1, staged, outside) },
        report("rome/gus", new + 1, staged, denied),
    ];
    // One that knows the version, and cannot believe the role that denies.
    let deaf = report("rome/hal", new, staged, outside);
    let stop = Stop {
        contents: [ContentId::of(A)].into(),
        scope: Some("lab".parse().unwrap()),
        audience: sutler_orders::audience::Audience::default(),
        version: new,
    };
    let look = |reports: &[Report], at| spread(reports, &stop, &before, jiff::tz::db(), at);
    let at = |text: &str| Some(text.parse().unwrap());
    let first = Spread {
        sites_done: 1,
        sites: 3,
        devices_done: 2,
        devices: 7,
        could_install: 2,
        earliest: at("2026-11-27T21:00:00Z"),
    };
    assert_eq!(look(&reports, now()), first);
    // Once a window is open, at once; where it is over, with the next one.
    let open = look(&reports, later(1));
    assert_eq!((open.could_install, open.earliest), (2, at("2026-11-27T21:00:00Z")));
    reports.push(deaf);
    let with_deaf = look(&reports, now());
    assert_eq!((with_deaf.sites_done, with_deaf.could_install), (0, 3));
    reports.pop();
    reports.remove(1);
    let left = look(&reports, now());
    assert_eq!((left.sites_done, left.could_install), (2, 1));
    assert_eq!(left.earliest, at("2026-11-28T03:00:00Z"));
    // Whoever has never heard of any orders has never heard of this one.
    reports.push(unheard);
    assert_eq!(look(&reports, now()).sites_done, 1);
    let all = reports.iter().map(|one| report(&one.device.to_string(), new, staged, denied));
    let done = look(&all.collect::<Vec<_>>(), now());
    assert!(done.is_done() && done.could_install == 0 && done.earliest.is_none(), "{done:?}");
}

#[test]
fn a_halt_of_everything_is_about_what_devices_have_open() {
    let house = world();
    let before = published(&house, &[]);
    let outside = Some(Reason::OutsideWindow);
    let reports = [
        report("cologne/anna", 1, Progressed::Staged, outside),
        report("cologne/ben", 1, Progressed::Installed, None),
    ];
    let stop = |audience: Value| Stop {
        contents: BTreeSet::new(),
        scope: None,
        audience: serde_json::from_value(audience).unwrap(),
        version: before.version() + 1,
    };
    let look = |stop: &Stop| spread(&reports, stop, &before, jiff::tz::db(), now());
    let all = look(&stop(json!({})));
    assert_eq!((all.devices, all.could_install, all.sites_done), (2, 1, 0));
    let elsewhere = look(&stop(json!({ "sites": ["rome"] })));
    assert_eq!((elsewhere.devices, elsewhere.is_done()), (0, true));
}

#[test]
fn a_stop_is_found_again_by_the_version_that_brought_it_and_nothing_else_is() {
    let house = world();
    let lab: Label = "lab".parse().unwrap();
    let role = RoleName::delegated("approvals-lab").unwrap();
    let approved = house.state().roles[&role].version();
    let before = published(&house, &[]);
    decide(&house, deny(A));
    let (denied, orders) = (approved.next().unwrap(), version(&house.state()));
    let find = |scope: &Label, at: Version| {
        stop_of(&house.repository, &house.state(), scope, at, orders).unwrap()
    };
    let reports = [
        report("cologne/anna", orders, Progressed::Staged, Some(Reason::Denied)),
        report("rome/ben", orders - 1, Progressed::Staged, Some(Reason::OutsideWindow)),
    ];
    let look =
        |stop: &Stop, before: &Published| spread(&reports, stop, before, jiff::tz::db(), now());
    // What is published later changes nothing of it.
    for _ in 0..2 {
        let (stop, state) = find(&lab, denied).unwrap();
        assert_eq!(stop.contents, [ContentId::of(A)].into());
        assert_eq!((&stop.scope, stop.version), (&Some(lab.clone()), orders));
        assert!(stop.audience.is_everybody());
        let again = Published::of(&state, &house.organisation, &[]);
        assert_eq!(look(&stop, &again), look(&stop, &before));
        assert_eq!(look(&stop, &again).could_install, 1);
        decide(&house, install(B));
    }
    // What only approves, what is not published, and another scope.
    for (scope, at) in [("lab", approved.number()), ("lab", 99), ("other", 1)] {
        let (scope, at) = (scope.parse().unwrap(), Version::new(at).unwrap());
        assert!(find(&scope, at).is_none(), "{scope} {at}");
    }
}
