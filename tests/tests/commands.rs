//! The commands as their user meets them: what they print, and with which code they end.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use sutler_cache::{Store, StoreOptions};
use sutler_tests::machine::{Machine, end};

/// The exit codes of `sutler --help`.
mod exit {
    pub(super) const USAGE: i32 = 2;
    pub(super) const UNKNOWN_CONTENT: i32 = 3;
    pub(super) const REFUSED: i32 = 4;
    pub(super) const UNREACHABLE: i32 = 5;
    pub(super) const CORRUPT: i32 = 6;
    pub(super) const NO_SPACE: i32 = 7;
    pub(super) const STORE: i32 = 8;
    pub(super) const FILE: i32 = 10;
}

const UNKNOWN: &str = "1111111111111111111111111111111111111111111111111111111111111111";

// R155
#[test]
fn what_is_added_is_listed_shown_and_known_the_second_time() {
    let machine = Machine::new();
    machine.file("a.deb", 200_000, 1);
    let added = machine.json(["add", "--data", "node", "a.deb"]);
    assert_eq!((&added["bytes"], &added["existed"]), (&200_000.into(), &false.into()));
    let again = machine.json(["add", "--data", "node", "a.deb"]);
    assert_eq!((&again["content"], &again["existed"]), (&added["content"], &true.into()));

    let row = machine.json(["store", "ls", "--data", "node"]);
    assert_eq!((&row["content"], &row["complete"]), (&added["content"], &true.into()));
    assert_eq!(row["name"], "a.deb");
    let status = machine.json(["status", "--data", "node"]);
    assert_eq!((&status["store"]["contents"], &status["service"]), (&1.into(), &().into()));

    let id = added["content"].as_str().expect("an id");
    let of_store = machine.json(["inspect", id, "--data", "node"]);
    let of_file = machine.json(["inspect", "a.deb"]);
    assert_eq!((&of_store["chunks"], &of_store["hashes"]), (&4.into(), &of_file["hashes"]));
}

#[test]
fn records_and_lists_of_a_store_are_shown_for_what_they_are() {
    let machine = Machine::new();
    machine.file("a.deb", 200_000, 1);
    let id = machine.add("node", "a.deb");
    let file = |suffix: &str| format!("node/store/contents/{}/{id}.{suffix}", &id[..2]);
    let record = machine.json(["inspect", &file("rec")]);
    assert_eq!((&record["kind"], &record["content"]), (&"record".into(), &id.clone().into()));
    let list = machine.json(["inspect", &file("list")]);
    assert_eq!((&list["kind"], &list["merges"]), (&"list".into(), &true.into()));
}

#[test]
fn a_store_that_a_node_owns_is_reached_through_its_socket() {
    let machine = Machine::new();
    machine.file("a.deb", 200_000, 1);
    let bytes = machine.file("b.deb", 300_000, 2);
    machine.add("node", "a.deb");
    let node = machine.node(&[]);

    let added = machine.json(["add", "--data", "node", "b.deb"]);
    assert_eq!(added["bytes"], 300_000);
    assert_eq!(machine.ok(["store", "ls", "--data", "node"]).lines().count(), 3);
    let status = machine.json(["status", "--data", "node"]);
    assert_eq!(status["service"]["listen"][0], node.address.to_string());
    assert_eq!(machine.json(["store", "verify", "--data", "node"])["bytes"], 500_000);
    assert_eq!(machine.json(["store", "rebuild-index", "--data", "node"])["contents"], 2);
    let id = added["content"].as_str().expect("an id");
    assert_eq!(machine.json(["inspect", id, "--data", "node"])["bytes"], 300_000);
    // The node streams the bytes back; the command writes the file with its own rights.
    let from = node.address.to_string();
    let fetched =
        machine.json(["fetch", id, "--data", "node", "--from", &from, "--out", "out.deb"]);
    assert_eq!(fetched["bytes_by_source"]["disk"], 300_000);
    assert_eq!(fs::read(machine.path("out.deb")).expect("written"), bytes);
    // What the command refuses to send, the node says nothing about.
    machine.fails(exit::CORRUPT, ["add", "--data", "node", "--sha256", UNKNOWN, "a.deb"]);
    assert!(node.end("TERM").success());
    assert!(!machine.path("node/control.sock").exists());
    assert_eq!(machine.ok(["store", "ls", "--data", "node"]).lines().count(), 3);
}

#[test]
fn a_data_folder_with_a_long_path_has_a_socket_too() {
    let machine = Machine::new();
    let deep = format!("{}/{}", "d".repeat(100), "e".repeat(100));
    fs::create_dir_all(machine.path(&deep)).expect("folders");
    fs::rename(machine.path("node"), machine.path(&deep).join("node")).expect("moved");
    let data = format!("{deep}/node");
    let _node = machine.node_at(&data, &[]);
    assert!(machine.json(["status", "--data", &data])["service"].is_object());
}

#[test]
fn a_node_ends_in_order_on_sigterm_and_on_sigint() {
    for signal in ["TERM", "INT"] {
        let machine = Machine::new();
        let node = machine.node(&[]);
        assert_eq!(node.end(signal).code(), Some(0), "SIG{signal}");
    }
}

#[test]
fn a_socket_left_behind_by_a_killed_node_is_in_nobodys_way() {
    let machine = Machine::new();
    machine.file("a.deb", 10, 1);
    machine.node(&[]).end("KILL");
    assert!(machine.path("node/control.sock").exists());
    machine.add("node", "a.deb");
    let node = machine.node(&[]);
    assert!(machine.json(["status", "--data", "node"])["service"].is_object());
    assert!(node.end("TERM").success());
}

#[test]
fn a_store_that_somebody_else_owns_without_a_socket_is_busy() {
    let machine = Machine::new();
    machine.file("a.deb", 10, 1);
    machine.add("node", "a.deb");
    let store = Store::open(&machine.path("node/store"), StoreOptions::default()).expect("ours");
    let error = machine.fails(exit::STORE, ["store", "ls", "--data", "node"]);
    assert_eq!(error["kind"], "store");
    drop(store);
    machine.ok(["store", "ls", "--data", "node"]);
}

// R32
#[test]
fn a_store_that_was_moved_is_found_by_the_same_data_folder() {
    let machine = Machine::new();
    machine.file("a.deb", 200_000, 1);
    machine.add("node", "a.deb");
    machine.ok(["store", "move", "--data", "node", "elsewhere"]);
    assert_eq!(machine.json(["store", "ls", "--data", "node"])["bytes"], 200_000);
    assert_eq!(
        machine.json(["store", "verify", "--data", "node"])["damaged"],
        serde_json::json!([])
    );
    let error = machine.fails(exit::FILE, ["store", "move", "--data", "node", "agent"]);
    assert!(error["help"].is_null(), "{error}");
}

// R38
#[test]
fn a_flipped_bit_is_found_by_verify_and_the_content_is_no_longer_complete() {
    let machine = Machine::new();
    machine.file("a.deb", 200_000, 1);
    let id = machine.add("node", "a.deb");
    let data = machine.path(format!("node/store/contents/{}/{id}.data", &id[..2]));
    let mut bytes = fs::read(&data).expect("the store's file");
    bytes[70_000] ^= 1;
    fs::write(&data, bytes).expect("spoilt");
    let error = machine.fails(exit::CORRUPT, ["store", "verify", "--data", "node"]);
    assert_eq!(error["kind"], "corrupt");
    assert_eq!(machine.json(["store", "ls", "--data", "node"])["complete"], false);
}

#[test]
fn gc_keeps_to_the_bytes_that_it_is_given() {
    let machine = Machine::new();
    for (name, seed) in [("a", 1), ("b", 2)] {
        machine.file(name, 200_000, seed);
        machine.add("node", name);
    }
    let collected = machine.json(["store", "gc", "--data", "node", "--bytes-max", "250kB"]);
    assert_eq!((&collected["contents"], &collected["bytes_left"]), (&1.into(), &200_000.into()));
}

// R155
#[test]
fn what_cannot_be_added_is_named_with_its_own_code() {
    let machine = Machine::new();
    machine.file("a.deb", 10, 1);
    for (code, kind, arguments) in [
        (exit::FILE, "file", vec!["add", "--data", "node", "absent"]),
        (exit::FILE, "file", vec!["add", "--data", "node", "ca"]),
        (exit::CORRUPT, "corrupt", vec!["add", "--data", "node", "--sha256", UNKNOWN, "a.deb"]),
        (exit::USAGE, "usage", vec!["add", "--data", "node", "--sha256", "12", "a.deb"]),
        (exit::FILE, "file", vec!["inspect", "absent"]),
        (exit::USAGE, "usage", vec!["inspect", UNKNOWN]),
        (exit::STORE, "store", vec!["store", "ls", "--data", "absent"]),
        (exit::STORE, "store", vec!["add", "--data", "a.deb", "a.deb"]),
    ] {
        let error = machine.fails(code, &arguments);
        assert_eq!(error["kind"], kind, "{arguments:?}: {error}");
        assert!(!error["message"].as_str().unwrap_or_default().is_empty());
    }
    let unknown = machine.fails(exit::UNKNOWN_CONTENT, ["inspect", UNKNOWN, "--data", "node"]);
    assert_eq!(unknown["kind"], "unknown-content");
}

#[test]
fn a_quota_that_is_full_is_no_space() {
    let machine = Machine::new();
    machine.file("a.deb", 200_000, 1);
    fs::write(machine.path("node/sutler.toml"), "store.bytes_max = '100kB'\n").expect("a config");
    let error = machine.fails(exit::NO_SPACE, ["add", "--data", "node", "a.deb"]);
    assert_eq!(error["kind"], "no-space");
}

#[test]
fn every_mistake_of_a_config_is_told_at_once() {
    let machine = Machine::new();
    let text = "[store]\nbytes = 1\nkeep = 3\n[http]\nlisten = 'x'\n[transprt]\n";
    fs::write(machine.path("node/sutler.toml"), text).expect("a config");
    let error = machine.fails(exit::USAGE, ["node", "--data", "node", "--listen", "127.0.0.1:0"]);
    let told = error.to_string();
    for path in ["store.bytes", "store.keep", "http.listen", "transprt"] {
        assert!(told.contains(path), "{path}: {told}");
    }
}

#[test]
fn an_address_that_is_in_use_is_named() {
    let machine = Machine::new();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let error = machine.fails(exit::UNREACHABLE, ["node", "--data", "node", "--listen", &address]);
    assert!(error["message"].as_str().is_some_and(|text| text.contains(&address)), "{error}");
}

#[test]
fn a_fetch_says_where_each_byte_came_from() {
    let machine = Machine::new();
    let bytes = machine.file("a.deb", 3_000_000, 1);
    let id = machine.add("node", "a.deb");
    let node = machine.node(&[]);
    let from = node.address.to_string();
    let fetch = ["fetch", &id, "--data", "agent", "--from", &from, "--out", "out.deb"];

    let first = machine.json(fetch);
    assert_eq!(first["bytes_by_source"]["node"], 3_000_000);
    assert_eq!(first["sources"][0]["address"], from);
    assert_eq!((&first["verified"], &first["bytes_again"]), (&true.into(), &0.into()));
    assert_eq!(fs::read(machine.path("out.deb")).expect("written"), bytes);
    let second = machine.json(fetch);
    assert_eq!(second["bytes_by_source"]["disk"], 3_000_000);
}

#[test]
fn a_linked_file_is_the_stores_own_however_often_it_is_fetched() {
    let machine = Machine::new();
    let bytes = machine.file("a.deb", 3_000_000, 1);
    let id = machine.add("node", "a.deb");
    fs::write(machine.path("list"), format!("{id}  a.deb\n")).expect("a list");
    let small = machine.file("b.deb", 3_000, 2);
    let small_id = machine.add("node", "b.deb");
    fs::write(machine.path("small"), format!("{small_id}  b.deb\n")).expect("a list");
    let node = machine.node(&[]);
    let from = node.address.to_string();
    let common = ["--data", "agent", "--from", &from, "--link"];
    for _ in 0..2 {
        for list in ["list", "small"] {
            machine.json(["fetch", "--list", list, "--out-dir", "out"].into_iter().chain(common));
        }
        machine.json(["fetch", &id, "--out", "out/a.deb"].into_iter().chain(common));
        for (name, bytes) in [("a.deb", &bytes), ("b.deb", &small)] {
            let out = machine.path("out").join(name);
            assert_eq!(&fs::read(&out).expect("written"), bytes, "{name}");
            assert_eq!(fs::metadata(&out).expect("written").nlink(), 2, "{name}");
        }
        assert!(fs::read_dir(machine.path("out")).expect("listed").count() <= 2, "no leftovers");
    }
}

#[test]
fn a_list_is_fetched_whole_and_what_is_unknown_is_told() {
    let machine = Machine::new();
    let line = |seed: u8| {
        let name = format!("f{seed}");
        machine.file(&name, 1_000 * usize::from(seed), seed);
        machine.add("node", &name) + "  " + &name + "\n"
    };
    let list: String = (0..20).map(line).collect();
    fs::write(machine.path("list"), &list).expect("a list");
    let node = machine.node(&[]);
    let from = node.address.to_string();
    let fetch = ["fetch", "--list", "list", "--data", "agent", "--from", &from, "--out-dir", "out"];
    let done = machine.json(fetch);
    assert_eq!((&done["contents"], &done["verified"]), (&20.into(), &true.into()));
    for seed in 0..20 {
        let name = format!("f{seed}");
        let (there, here) = (machine.path(&name), machine.path("out").join(&name));
        assert_eq!(fs::read(there).expect("there"), fs::read(here).expect("here"), "{name}");
    }

    fs::write(machine.path("list"), list + UNKNOWN + "  unknown\n").expect("a list");
    let error = machine.fails(exit::UNKNOWN_CONTENT, fetch);
    assert_eq!(error["kind"], "unknown-content");
    // T14
    fs::write(machine.path("list"), UNKNOWN.to_owned() + "  ../evil\n").expect("a list");
    machine.fails(exit::USAGE, fetch);
}

#[test]
fn what_cannot_be_fetched_is_named_with_its_own_code() {
    let machine = Machine::new();
    let node = machine.node(&[]);
    let from = node.address.to_string();
    let fetch = |id: &str, from: &str, code: i32| {
        machine.fails(code, ["fetch", id, "--data", "agent", "--from", from, "--out", "out"])
    };
    assert_eq!(fetch(UNKNOWN, &from, exit::UNKNOWN_CONTENT)["kind"], "unknown-content");
    assert_eq!(fetch(&UNKNOWN[1..], &from, exit::USAGE)["kind"], "usage");
    assert_eq!(fetch(UNKNOWN, "nonsense", exit::USAGE)["kind"], "usage");

    // UDP that nobody answers, as where it is blocked.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let started = Instant::now();
    let error = fetch(UNKNOWN, &format!("127.0.0.1:{port}"), exit::UNREACHABLE);
    // Within 3 s on a machine that does nothing else.
    assert!(started.elapsed() < Duration::from_secs(6));
    assert!(error.to_string().contains(&format!("UDP port {port}")), "{error}");
    drop(silent);
    let error = fetch(UNKNOWN, &format!("127.0.0.1:{port}"), exit::UNREACHABLE);
    assert!(error.to_string().contains(&format!("nothing listens on UDP port {port}")), "{error}");

    machine.ok(["org", "init", "other", "--org", "other"]);
    let out = ["--site", "here", "--role", "agent", "--out", "stranger/identity"];
    machine.ok(["org", "issue", "other"].into_iter().chain(out));
    let stranger = ["fetch", UNKNOWN, "--data", "stranger", "--from", &from, "--out", "out"];
    assert_eq!(machine.fails(exit::REFUSED, stranger)["kind"], "refused");
    let nobody = ["fetch", UNKNOWN, "--data", "nobody", "--from", &from, "--out", "out"];
    let error = machine.fails(exit::REFUSED, nobody);
    assert!(error["help"].as_str().is_some_and(|help| help.contains("sutler org issue")));
    assert!(!machine.path("out").exists());
}

// T23
#[test]
fn metrics_and_health_are_off_unless_an_address_is_given() {
    let machine = Machine::new();
    let node = machine.node(&[]);
    assert!(machine.json(["status", "--data", "node"])["service"].is_object());
    assert!(node.end("TERM").success());

    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("bound");
    drop(free);
    fs::write(machine.path("node/sutler.toml"), format!("http.listen = '{address}'\n"))
        .expect("a config");
    let _node = machine.node(&[]);
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("text");
        reply
    };
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics");
    for name in ["sutler_served_bytes_total 0", "sutler_fetched_bytes_total{source=\"vendor\"} 0"] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    assert!(get("/").starts_with("HTTP/1.1 404"));
}

// D6
#[test]
fn dev_moves_shared_files_through_a_node_to_two_agents() {
    let machine = Machine::new();
    fs::create_dir(machine.path("share")).expect("a folder");
    machine.file("share/large", 3_000_000, 1);
    machine.file("share/small", 5, 2);
    let summary = machine.json(["dev", "--once", "--share", "share"]);
    assert_eq!((&summary["bytes"], &summary["verified"]), (&3_000_005.into(), &true.into()));
    for file in summary["files"].as_array().expect("a row for each file") {
        assert_eq!(file["agent_a"]["bytes_by_source"]["node"], file["bytes"]);
        let of_b = &file["agent_b"]["bytes_by_source"];
        let bytes = |kind: &str| of_b[kind].as_u64().expect("a number");
        assert_eq!(bytes("peer") + bytes("node"), file["bytes"].as_u64().expect("a number"));
    }
    // R1, R96: what was moved is ordered, and both agents report that they did what their command is for.
    let report = summary["report"].as_array().expect("a row for each content");
    assert_eq!(report.len(), 2, "{report:?}");
    for row in report {
        assert_eq!(row["devices"]["installed"], 2, "{row}");
    }
}

// R162
#[test]
fn dev_finds_what_it_kept_and_gives_the_orders_again() {
    let machine = Machine::new();
    machine.file("one", 100_000, 1);
    machine.file("two", 70_000, 2);
    let dev = |file: &str| machine.json(["dev", "--once", "--data", "kept", "--share", file]);
    assert_eq!(dev("one")["report"].as_array().expect("rows").len(), 1);
    let again = dev("two");
    let rows = again["report"].as_array().expect("rows");
    assert_eq!(rows.len(), 2, "what was ordered before is still");
    assert!(rows.iter().all(|row| row["devices"]["installed"] == 2), "{again}");
    let recorded = fs::read_dir(machine.path("kept/agent-b/recorded")).expect("a folder");
    assert_eq!(recorded.count(), 2);
    // Without a process: control's data says it, and the agent's why.
    let table = machine.ok(["report", "patch", "--data", "kept/org"]);
    assert!(table.contains("one") && table.contains("two"), "{table}");
    let explained = machine.json(["explain", "one", "--data", "kept/agent-a"]);
    assert_eq!(explained[0]["state"], "installed");
}

#[test]
fn what_was_added_before_a_failure_is_kept_and_told() {
    let machine = Machine::new();
    machine.file("a", 10, 1);
    machine.file("b", 200_000, 2);
    let output = machine.run(["add", "--data", "node", "a", "b", "absent", "a"]);
    assert_eq!(output.status.code(), Some(exit::FILE));
    let told = String::from_utf8(output.stdout).expect("text");
    assert_eq!(told.lines().count(), 2, "{told}");
    assert_eq!(machine.ok(["store", "ls", "--data", "node"]).lines().count(), 3);
}

#[test]
fn frames_are_shown_in_words_and_rubbish_is_refused() {
    let machine = Machine::new();
    let content = UNKNOWN.parse().expect("an id");
    let chunk = sutler_protocol::frame::Mismatch { content, chunk: 7 };
    let request = sutler_protocol::frame::Request::Mismatch(chunk);
    let answer = sutler_protocol::frame::Answer::Chunks { bytes: 65_536 };
    let mut wire = sutler_protocol::frame::encode(&request);
    wire.extend(sutler_protocol::frame::encode(&answer));
    fs::write(machine.path("wire"), &wire).expect("a file");
    let shown = machine.ok(["inspect", "--as", "frames", "wire"]);
    assert!(shown.contains("Mismatch") && shown.contains("65536"), "{shown}");
    fs::write(machine.path("wire"), &wire[..wire.len() - 1]).expect("a file");
    machine.fails(exit::CORRUPT, ["inspect", "--as", "frames", "wire"]);
}

#[test]
fn dev_serves_until_it_is_told_to_stop_and_what_it_says_can_be_typed() {
    let machine = Machine::new();
    let bytes = machine.file("large", 1_000_000, 1);
    let (mut dev, line) = machine.start(&["dev", "--share", "large"], "  sutler fetch ");
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    machine.ok(&words);
    assert_eq!(fs::read(machine.path("fetched")).expect("written"), bytes);
    let root = Path::new(words[3]).parent().expect("the folder of them all");
    let (organisation, agent) = (root.join("org"), root.join("agent-a"));
    let args = |args: &[&str], data: &Path| -> Vec<std::ffi::OsString> {
        args.iter().map(Into::into).chain(["--data".into(), data.into()]).collect()
    };
    let report = machine.json(args(&["report", "patch"], &organisation));
    assert_eq!(report["devices"]["installed"], 2, "{report}");
    assert_eq!(machine.json(args(&["explain", words[1]], &agent))[0]["state"], "installed");
    assert_eq!(end(&mut dev, "INT").code(), Some(0));
}
