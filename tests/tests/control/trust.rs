//! What a machine believes, put back to an older state or damaged: it refuses, and an admin recovers it.

use std::fs;

use rustix::process::Signal;

use super::{Site, soon};

/// The exit codes of `sutler --help` that are met here.
const USAGE: i32 = 2;
const REFUSED: i32 = 4;
const STORE: i32 = 8;

// T2
#[test]
fn a_trust_store_that_refuses_is_recovered_by_an_admin_and_goes_on_from_its_root() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    let node = site.node(&control.address());
    soon("the node believes", || site.believed() > 0);
    let timestamp = site.path("node/orders/trust/timestamp.json");
    let old = fs::read(&timestamp).unwrap();
    site.publish("numbers.bin");
    soon("the node believes what is published", || {
        site.published() > 1 && site.believed() == site.published()
    });
    let fails = |arguments: &str, code: i32| {
        let output = site.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        said
    };
    fails("trust show --data node", STORE);
    fails("trust recover --data node --reason impatience", STORE);
    node.running.signal(Signal::TERM);
    assert_eq!(node.running.end().code, Some(0));

    // An older statement, which its key has signed, is put back: nothing is believed then.
    fs::write(&timestamp, &old).unwrap();
    let start = "node --data node --config node.toml --listen 127.0.0.1:0";
    let said = fails(start, REFUSED);
    assert!(said.contains("timestamp.json"), "{said}");
    assert!(said.contains("sutler trust recover --data node --reason"), "{said}");
    assert!(fails("trust show --data node", REFUSED).contains("trust recover"));
    fails("trust recover --data node", USAGE);
    fails("trust recover --data nowhere --reason x", STORE);

    let said = site.done("trust recover --data node --reason ticket-4711 --json");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["recovered"][0]["outcome"], "kept");
    assert_eq!(said["recovered"][1]["outcome"], "lost");
    let audit = fs::read_to_string(site.path("node/orders/trust/audit")).unwrap();
    assert_eq!(audit.lines().count(), 1);
    assert!(audit.contains("recover by \"tester\" because \"ticket-4711\""), "{audit}");
    // What was put back is not believed either: its version is below the one that was lost.
    let shown = site.done("trust show --data node --json");
    let lines = shown.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let timestamp = lines.into_iter().find(|line| line["role"] == "timestamp").unwrap();
    assert!(timestamp["version"].is_null() && timestamp["not_below"].as_u64() > Some(1));
    let node = site.daemon("node", start);
    soon("the node believes again", || site.believed() == site.published());
    drop(node);
}

// T2
#[test]
fn control_names_the_way_out_as_well() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    control.running.signal(Signal::TERM);
    assert_eq!(control.running.end().code, Some(0));
    fs::write(site.path("org/orders/trust/marks"), "damaged").unwrap();
    let start = "control --data org --config control.toml --listen 127.0.0.1:0";
    let output = site.run(start);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(REFUSED), "{said}");
    assert!(said.contains("sutler trust recover --data org --reason"), "{said}");
    site.done("trust recover --data org --reason ticket-4712");
    site.control("127.0.0.1:0");
}
