//! What scripts rely on: JSON with stable keys, exit codes, quiet pipes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;
use sutler_tests::machine::Machine;
use sutler_tests::running::Ended;

const UNKNOWN: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// Returns the keys of an object in their order, with those of the objects in it.
fn keys(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Value::Object(fields) = value {
        for (key, field) in fields {
            found.push(key.clone());
            found.extend(keys(field).into_iter().map(|inner| format!("{key}.{inner}")));
        }
    }
    found.sort();
    found
}

/// Checks that a value has these keys, separated by blanks. More may come; none may go.
fn has(value: &Value, expected: &str) {
    let found = keys(value);
    for key in expected.split_whitespace() {
        assert!(found.iter().any(|found| found == key), "{key} is missing: {value}");
    }
}

// R155, D6: these keys are the interface.
#[test]
fn every_command_has_json_with_the_keys_that_scripts_know() {
    let machine = Machine::new();
    machine.file("a.deb", 200_000, 1);
    let added = machine.json(["add", "--data", "node", "a.deb"]);
    has(&added, "content bytes name existed");
    let id = added["content"].as_str().expect("an id");

    let json = |arguments: &[&str]| machine.json(arguments);
    has(&json(&["org", "init", "other", "--org", "other"]), "organisation");
    let issue = ["org", "issue", "other", "--site", "s", "--role", "node", "--out", "other/n"];
    has(&json(&issue), "name folder days");
    has(
        &json(&["store", "ls", "--data", "node"]),
        "content bytes bytes_had complete name sha256 origins",
    );
    has(&json(&["store", "verify", "--data", "node"]), "contents bytes damaged");
    has(&json(&["store", "gc", "--data", "node"]), "contents bytes bytes_left bytes_excess");
    has(&json(&["store", "rebuild-index", "--data", "node"]), "contents");
    has(&json(&["store", "move", "--data", "node", "moved"]), "to files bytes");
    let inspected = "content bytes chunk_bytes chunks had complete name sha256 origins hashes";
    has(&json(&["inspect", id, "--data", "node"]), inspected);
    has(&json(&["inspect", "a.deb"]), inspected);
    let store = "data store store.contents store.contents_complete store.bytes store.bytes_max \
                 store.free_bytes store.free_bytes_min service";
    has(&json(&["status", "--data", "node"]), store);

    let node = machine.node(&[]);
    let from = node.address.to_string();
    let service = "service.pid service.version service.identity service.listen service.uptime_ms \
                   service.connections service.bytes_served service.bytes_by_source.vendor";
    has(&json(&["status", "--data", "node"]), service);
    let fetched = "content sha256 name bytes elapsed_ms bytes_by_source bytes_by_source.disk \
                   bytes_by_source.peer bytes_by_source.node bytes_by_source.vendor sources \
                   dropped bytes_again verified";
    let fetch = ["fetch", id, "--data", "agent", "--from", &from, "--out", "out"];
    let report = json(&fetch);
    has(&report, fetched);
    has(&report["sources"][0], "kind address bytes");
    std::fs::write(machine.path("list"), format!("{id}  a.deb\n")).expect("a list");
    let list = ["fetch", "--list", "list", "--data", "agent", "--from", &from, "--out-dir", "all"];
    let total = "contents bytes elapsed_ms bytes_by_source bytes_again verified failed";
    has(&json(&list), total);
    let dev = json(&["dev", "--once", "--share", "a.deb"]);
    has(&dev, "bytes verified files report");
}

// R155
#[test]
fn every_error_has_the_same_keys_whoever_finds_it() {
    let machine = Machine::new();
    for arguments in [
        vec!["add", "--data", "node", "absent", "--json"],
        vec!["fetch", "abc", "--data", "agent", "--from", "x", "--out", "out", "--json"],
        vec!["store", "nonsense", "--json"],
        vec!["status", "--data", "absent", "--json"],
        vec!["inspect", UNKNOWN, "--data", "node", "--json"],
        vec!["fetch", UNKNOWN, "--data", "agent", "--from", "nonsense", "--out", "out", "--json"],
    ] {
        let ended = Ended::of(&mut machine.command(&arguments));
        let last = ended.stdout.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {ended:?}"));
        has(&value, "error error.kind error.exit_code error.message error.causes error.help");
        assert_eq!(value["error"]["exit_code"].as_i64(), ended.code.map(i64::from), "{ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    }
}

#[test]
fn a_reader_that_has_enough_ends_a_command_quietly() {
    let machine = Machine::new();
    let names: Vec<String> = (0..100).map(|number| format!("f{number}")).collect();
    for (seed, name) in (0..).zip(&names) {
        machine.file(name, 10 + usize::from(seed), seed);
    }
    machine.ok(["add", "--data", "node"].into_iter().chain(names.iter().map(String::as_str)));
    for more in [&["--json"][..], &[]] {
        let mut command = machine.command(["store", "ls", "--data", "node"]);
        let mut listing = command
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut line = String::new();
        let mut stdout = BufReader::with_capacity(16, listing.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("text");
        drop(stdout);
        let output = listing.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_bar_is_drawn_for_a_person_and_not_for_a_pipe() {
    let machine = Machine::new();
    machine.file("large", 30_000_000, 1);
    let id = machine.add("node", "large");
    let node = machine.node(&[]);
    let from = node.address.to_string();
    let fetch = ["fetch", &id, "--data", "agent", "--from", &from, "--out", "out"];
    let ended = Ended::of(&mut machine.command(fetch));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
    assert!(!ended.stdout.contains('\u{1b}') && !ended.stdout.contains('\r'), "{ended:?}");

    std::fs::remove_dir_all(machine.path("agent/store")).expect("removed");
    let sutler = sutler_tests::sutler();
    let line = format!("{} {}", sutler.display(), fetch.join(" "));
    // `script` gives the command a terminal.
    let mut command = machine.other("script", ["--quiet", "--return", "--command", &line]);
    let ended = Ended::of(command.arg("/dev/null").env("TERM", "xterm"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains('\u{1b}'), "no bar: {ended:?}");
}
