//! Whatever ends a publication half way: a client goes on, before or after it, and the next publication works.

use std::sync::Arc;

use serde_json::Map;
use sutler_cache::backend::faulty::{Fault, Faulty};
use sutler_control::Repository;
use sutler_control::online::{self, publication};
use sutler_control::submission::{self, Accepted};

use crate::house::{Client, House, install, later, now, online_keys};

const APPROVALS: &str = "approvals/lab/approvals.json";

fn read(client: &mut Client) -> String {
    let bytes = client.download(APPROVALS, now());
    bytes.map_or_else(String::new, |bytes| String::from_utf8(bytes).unwrap())
}

// T2
#[test]
fn a_publication_cut_short_at_any_step_leaves_a_repository_that_clients_accept() {
    let house = House::new(2);
    house.publish("tool.deb", b"a tool");
    house.submit(&house.approve(install(b"a tool"), &[4, 5]).submission(), now()).unwrap();
    let next = house.approve(install(b"another"), &[4, 5]).submission();
    let state = house.state();
    let accepted = submission::accept(&state, &house.organisation, &next, now()).unwrap();
    let new = publication(&state, &accepted, &online_keys(), &Map::new(), now()).unwrap();
    let start = house.disk.restart(1);
    let steps = {
        let disk = start.restart(1);
        let before = disk.operations();
        Repository::open_on(Arc::new(disk.clone())).unwrap().write(&new).unwrap();
        disk.operations() - before
    };
    assert!(steps > 20, "{steps}");
    let (mut old_seen, mut new_seen) = (0, 0);
    for step in 0..steps {
        for seed in 0..10 {
            let disk = start.restart(1);
            disk.plan(&[Fault::PowerCut(step)]);
            let written = Repository::open_on(Arc::new(disk.clone()))
                .map_err(|_| ())
                .and_then(|repository| repository.write(&new).map_err(|_| ()));
            assert!(written.is_err(), "{step}");
            let disk = disk.restart(seed);
            // A client that was there before, and one that comes anew.
            let mut known = house.client();
            known.refresh(now()).unwrap();
            let mut known = known.at(&disk);
            for client in [&mut known, &mut Client::new(&disk)] {
                client.refresh(now()).unwrap_or_else(|error| panic!("{step} {seed}: {error}"));
                let text = read(client);
                let is_new = text.contains("\"seq\": 2");
                assert!(is_new || text.contains("\"seq\": 1"), "{step} {seed}: {text}");
                *(if is_new { &mut new_seen } else { &mut old_seen }) += 1;
            }
            // What was cut short can be published again, whether it had been or not.
            publish_again(&disk, &house, &next);
            let mut client = Client::new(&disk);
            client.refresh(later(1)).unwrap();
            assert!(read(&mut client).contains("\"seq\": 2"), "{step} {seed}");
        }
    }
    assert!(old_seen > 0 && new_seen > 0, "{old_seen} {new_seen}");
}

fn publish_again(disk: &Faulty, house: &House, next: &submission::Submission) {
    let repository = Repository::open_on(Arc::new(disk.clone())).unwrap();
    let state = repository.read().unwrap();
    let Ok(accepted) = submission::accept(&state, &house.organisation, next, later(1)) else {
        // It is published already.
        return;
    };
    let new = publication(&state, &accepted, &online_keys(), &Map::new(), later(1)).unwrap();
    repository.write(&new).unwrap();
}

#[test]
fn an_hourly_timestamp_changes_nothing_else_and_a_snapshot_is_renewed_in_time() {
    let house = House::new(2);
    let nothing = Accepted::default();
    let mut client = house.client();
    client.refresh(now()).unwrap();
    let resign = |hours| {
        let state = house.state();
        online::publication(&state, &nothing, &online_keys(), &Map::new(), later(hours))
    };
    house.repository.write(&resign(1).unwrap()).unwrap();
    client.refresh(later(1)).unwrap();
    let versions = |client: &Client| {
        let timestamp = client.trusted.timestamp().unwrap();
        let snapshot = client.trusted.snapshot().unwrap();
        (timestamp.version().number(), snapshot.version().number())
    };
    assert_eq!(versions(&client), (2, 1));
    assert_eq!(client.trusted.timestamp().unwrap().issued(), Some(later(1)));
    // The clock goes back: what would be older to every device is not signed.
    let error = resign(0).unwrap_err();
    assert!(error.to_string().contains("the last one was issued at 2026-11-27T21:00:00Z"));
    // A week later the snapshot is old enough, and a client that slept finds both.
    house.repository.write(&resign(24 * 6).unwrap()).unwrap();
    client.refresh(later(24 * 6)).unwrap();
    assert_eq!(versions(&client), (3, 2));
}

// T3
#[test]
fn without_control_orders_are_stale_after_a_week_and_not_before() {
    let house = House::new(2);
    house.client().refresh(later(24 * 7 - 1)).unwrap();
    let error = house.client().refresh(later(24 * 7)).unwrap_err();
    assert!(crate::house::said(&error).contains("it expired at 2026-12-04T20:00:00Z"));
}

#[test]
fn one_process_owns_a_repository() {
    let house = House::new(2);
    let second = Repository::open_on(Arc::new(house.disk.clone()));
    assert!(second.unwrap_err().to_string().contains("another process has it"));
}
