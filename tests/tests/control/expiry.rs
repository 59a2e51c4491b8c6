//! What expires is said before it does: in the status, in a metric, and in the log.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{Site, soon};

/// The numbers of a running daemon.
fn metrics(url: &str) -> String {
    let output = Command::new("curl").args(["--silent", url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The seconds that a metric has for a role.
fn left(metrics: &str, role: &str) -> i64 {
    let begins = format!("sutler_metadata_expires_seconds{{role=\"{role}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&begins));
    line.unwrap_or_else(|| panic!("{role}: {metrics}")).parse().unwrap()
}

// R164
#[test]
fn what_expires_is_said_in_status_metric_and_log() {
    const DAY: i64 = 24 * 60 * 60;
    let site = Site::new();
    fs::remove_dir_all(site.path("node/identity")).unwrap();
    site.done("org issue org --site lab --role node --out node/identity --days 5");
    let config = "[control]\n[http]\nlisten = '127.0.0.1:0'\n";
    fs::write(site.path("control.toml"), config).unwrap();
    let control = site.control("127.0.0.1:0");
    // Control knows its own certificate, and every role.
    let said = metrics(&control.says("metrics "));
    assert!((50 * DAY..=90 * DAY).contains(&left(&said, "certificate")));
    for role in ["root", "targets", "timestamp"] {
        assert!(left(&said, role) > 0);
    }
    assert!(left(&said, "root") > 390 * DAY);

    let node = site.node(&control.address());
    soon("the node believes", || site.believed() > 0);
    let status: Value = serde_json::from_str(&site.done("status --data node --json")).unwrap();
    let expiring = status["service"]["expiring"].as_array().unwrap().clone();
    let of = |what: &str| expiring.iter().find(|one| one["what"] == what).unwrap();
    assert_eq!(of("certificate")["warning"], "within 7 days");
    assert_eq!(of("targets")["warning"], "");
    assert!(of("targets")["left_days"].as_i64() > Some(180));
    assert!(site.done("status --data node").contains("expires   certificate within 7 days"));
    let log = fs::read_to_string(site.path("node.err")).unwrap();
    let line = log.lines().find(|line| line.contains("expires") && line.contains("certificate"));
    assert!(line.is_some_and(|line| line.contains("ERROR")), "{log}");
    drop(node);
}
