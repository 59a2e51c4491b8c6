//! What is wrong with files, folders, disks and stores: a clear error, and nothing lost.
//!
//! Each test does to the program what a user, a disk or another program could do, and then checks
//! the exit code, the one line that says what failed on what, and that the store is as it was.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use sutler_protocol::ContentId;
use sutler_tests::machine::Machine;
use sutler_tests::running::Ended;
use sutler_tests::skip;

/// The exit codes of `sutler --help`.
mod exit {
    pub(super) const FILE: i32 = 10;
    pub(super) const CORRUPT: i32 = 6;
    pub(super) const NO_SPACE: i32 = 7;
    pub(super) const STORE: i32 = 8;
}

/// A machine whose node has a content of several chunks and a small one.
struct Stocked {
    machine: Machine,
    large: String,
}

/// Files of a store that are its truth, with the hash of each.
type Truth = BTreeMap<PathBuf, ContentId>;

impl Stocked {
    fn new() -> Self {
        let machine = Machine::new();
        machine.file("large.deb", 300_000, 1);
        machine.file("small.deb", 1_000, 2);
        let large = machine.add("node", "large.deb");
        machine.add("node", "small.deb");
        Self { machine, large }
    }

    /// Returns a file of the large content.
    fn file(&self, kind: &str) -> PathBuf {
        let folder = format!("node/store/contents/{}", &self.large[..2]);
        self.machine.path(folder).join(format!("{}.{kind}", self.large))
    }

    /// Returns the bytes of every content.
    fn truth(&self) -> Truth {
        let mut truth = BTreeMap::new();
        let mut folders = vec![self.machine.path("node/store/contents")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let hash = blake3::hash(&fs::read(&path).expect("a file"));
                    truth.insert(path, ContentId::from_bytes(*hash.as_bytes()));
                }
            }
        }
        truth
    }

    /// Returns how many contents are listed, and how many of them as complete.
    fn listed(&self) -> (usize, usize) {
        let rows = self.machine.ok(["store", "ls", "--data", "node", "--json"]);
        (
            rows.lines().count(),
            rows.lines().filter(|row| row.contains(r#""complete":true"#)).count(),
        )
    }

    /// Runs a command that must fail with `code`, name each of `parts`, and change nothing.
    fn refuses(&self, command: &mut Command, code: i32, parts: &[&str]) {
        let before = (self.truth(), self.listed());
        let ended = Ended::of(command);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let errors = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "one line says what failed: {ended:?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "{part:?} is not said: {ended:?}");
        }
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        assert_eq!(before, (self.truth(), self.listed()), "{ended:?}");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_not_added() {
    let stocked = Stocked::new();
    let secret = stocked.machine.path("secret");
    fs::write(&secret, "x").expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("changed");
    let mut add = stocked.machine.powerless(["add", "--data", "node", "secret"]);
    stocked.refuses(&mut add, exit::FILE, &["read secret", "Permission denied"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_fails_while_it_is_read_is_not_added() {
    let stocked = Stocked::new();
    // It opens, and its first byte cannot be read.
    let mut add = stocked.machine.command(["add", "--data", "node", "/proc/self/mem"]);
    stocked.refuses(&mut add, exit::FILE, &["read /proc/self/mem"]);
}

#[test]
fn what_is_no_file_is_not_added_and_not_waited_for() {
    let stocked = Stocked::new();
    let made = Command::new("mkfifo").arg(stocked.machine.path("pipe")).status();
    assert!(made.expect("mkfifo runs").success());
    for what in ["pipe", "node", "/dev/zero"] {
        let mut add = stocked.machine.command(["add", "--data", "node", what]);
        stocked.refuses(&mut add, exit::FILE, &[what, "not a regular file"]);
    }
}

#[test]
fn of_several_files_the_good_ones_before_a_bad_one_are_kept_and_told() {
    let stocked = Stocked::new();
    stocked.machine.file("new.deb", 500, 3);
    let ended = Ended::of(
        &mut stocked.machine.command(["add", "--data", "node", "new.deb", "vanished", "--json"]),
    );
    assert_eq!(ended.code, Some(exit::FILE), "{ended:?}");
    assert!(ended.stderr.contains("read vanished"), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 2, "one added, one error: {ended:?}");
    assert_eq!(stocked.listed(), (3, 3));
}

#[test]
fn a_file_that_grows_while_it_is_added_is_whole_or_refused() {
    let stocked = Stocked::new();
    let path = stocked.machine.path("growing");
    fs::write(&path, vec![1; 40_000_000]).expect("written");
    let add = stocked.machine.spawn("add", ["add", "--data", "node", "--how", "copy", "growing"]);
    let mut file = fs::File::options().append(true).open(&path).expect("it is there");
    let mut add = Some(add);
    let mut grown = 0;
    let ended = loop {
        // Bounded: the file would be far longer than any disk could copy meanwhile.
        file.write_all(&[2; 4096]).expect("written");
        grown += 1;
        let mut running = add.take().expect("it runs");
        if running.ended_by(std::time::Instant::now()).is_some() || grown > 100_000 {
            break running.end();
        }
        add = Some(running);
    };
    match ended.code {
        // It was read before it grew, or between two moments of it; then the bytes have that hash.
        Some(0) => assert_eq!(stocked.listed(), (3, 3), "{ended:?}"),
        Some(exit::FILE) => {
            assert!(ended.stderr.contains("growing"), "{ended:?}");
            assert_eq!(stocked.listed(), (2, 2), "{ended:?}");
        }
        _ => panic!("{ended:?}"),
    }
    stocked.machine.ok(["store", "verify", "--data", "node"]);
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    let stocked = Stocked::new();
    let machine = &stocked.machine;
    fs::create_dir(machine.path("bare")).expect("a folder");
    fs::set_permissions(machine.path("bare"), fs::Permissions::from_mode(0o555)).expect("changed");
    for arguments in
        [["add", "--data", "bare", "small.deb"], ["status", "--data", "node", "--json"]]
    {
        let data = arguments[2];
        if data == "node" {
            let made = Command::new("chmod").args(["-R", "a-w"]).arg(machine.path("node")).status();
            assert!(made.expect("chmod runs").success());
        }
        let before = stocked.truth();
        let ended = Ended::of(&mut machine.powerless(arguments));
        assert_eq!(ended.code, Some(exit::STORE), "{ended:?}");
        assert!(ended.stderr.contains("Permission denied"), "{ended:?}");
        assert_eq!(before, stocked.truth());
    }
    let made = Command::new("chmod").args(["-R", "u+w"]).arg(machine.path("node")).status();
    assert!(made.expect("chmod runs").success());
    assert_eq!(stocked.listed(), (2, 2));
}

#[test]
fn a_target_that_cannot_be_written_is_named_and_nothing_is_left_there() {
    let stocked = Stocked::new();
    let machine = &stocked.machine;
    fs::create_dir(machine.path("bare")).expect("a folder");
    fs::set_permissions(machine.path("bare"), fs::Permissions::from_mode(0o555)).expect("changed");
    let from = "127.0.0.1:9";
    for out in ["bare/out", "absent/out", "bare"] {
        let fetch = ["fetch", &stocked.large, "--data", "node", "--from", from, "--out", out];
        stocked.refuses(&mut machine.powerless(fetch), exit::FILE, &[out]);
    }
    assert_eq!(fs::read_dir(machine.path("bare")).expect("a folder").count(), 0);
}

// R39: a store of another program is refused with a distinct reason, and not taken for empty.
#[test]
fn a_store_of_a_newer_or_unknown_format_is_left_alone() {
    for (format, said) in [("sutler store 2\n", "format 2"), ("?", "damaged")] {
        let stocked = Stocked::new();
        let path = stocked.machine.path("node/store/format");
        fs::write(&path, format).expect("written");
        let before = stocked.truth();
        for arguments in [
            vec!["store", "ls", "--data", "node"],
            vec!["add", "--data", "node", "small.deb"],
            vec!["store", "verify", "--data", "node"],
            vec!["node", "--data", "node", "--listen", "127.0.0.1:0"],
        ] {
            let ended = Ended::of(&mut stocked.machine.command(arguments));
            assert_eq!(ended.code, Some(exit::STORE), "{ended:?}");
            assert!(ended.stderr.contains(said), "{ended:?}");
        }
        assert_eq!(fs::read_to_string(path).expect("text"), format);
        assert_eq!(before, stocked.truth());
    }
}

// R38, T8: whatever is wrong with a file of a content, no byte of it is lost that need not be, and
// none is given out that is not right.
#[test]
fn a_damaged_record_or_list_is_made_anew_from_what_is_left() {
    for kind in ["rec", "list"] {
        for (how, spoil) in [("spoil", spoil_all as fn(&PathBuf)), ("cut", cut), ("remove", remove)]
        {
            eprintln!("{kind} {how}");
            let stocked = Stocked::new();
            spoil(&stocked.file(kind));
            let machine = &stocked.machine;
            machine.run(["store", "verify", "--data", "node"]);
            // Over the network, so that what was rebuilt serves as before.
            let node = machine.node(&[]);
            let from = node.address.to_string();
            let fetch = ["fetch", &stocked.large, "--data", "agent", "--from", &from];
            let fetch = fetch.into_iter().chain(["--out", "out"]);
            // What is left is hashed after the start, and until then the node does not know it.
            let served = (0..20).any(|_| machine.run(fetch.clone()).status.success());
            assert!(served, "{kind}");
            let there = fs::read(machine.path("large.deb")).expect("a file");
            assert!(there == fs::read(machine.path("out")).expect("a file"), "{kind}");
        }
    }
}

#[test]
fn damaged_data_is_found_never_given_out_and_fetched_again() {
    for spoil in [flip, spoil_all, cut, remove] {
        let stocked = Stocked::new();
        let machine = &stocked.machine;
        // The agent has what the node is about to lose.
        let node = machine.node(&[]);
        let from = node.address.to_string();
        let fetch = |data: &'static str, from: &str, out: &'static str| {
            let fetch = ["fetch", &stocked.large, "--data", data, "--from", from, "--out", out];
            Ended::of(&mut machine.command(fetch))
        };
        assert_eq!(fetch("agent", &from, "out").code, Some(0));
        assert!(node.end("TERM").success());

        spoil(&stocked.file("data"));
        let found = machine.fails(exit::CORRUPT, ["store", "verify", "--data", "node"]);
        assert!(found["help"].as_str().is_some_and(|help| help.contains("again")), "{found}");
        let alone = fetch("node", "127.0.0.1:9", "alone");
        assert_ne!(alone.code, Some(0), "{alone:?}");
        assert!(!machine.path("alone").exists());

        let agent = machine.node_at("agent", &[]);
        let healed = fetch("node", &agent.address.to_string(), "healed");
        assert_eq!(healed.code, Some(0), "{healed:?}");
        let there = fs::read(machine.path("large.deb")).expect("a file");
        assert!(there == fs::read(machine.path("healed")).expect("a file"));
        assert_eq!(stocked.listed(), (2, 2));
        machine.ok(["store", "verify", "--data", "node"]);
    }
}

#[test]
fn a_damaged_index_is_made_anew_and_says_the_same() {
    let stocked = Stocked::new();
    let before = stocked.machine.ok(["store", "ls", "--data", "node", "--json"]);
    let index = stocked.machine.path("node/store/index");
    for entry in fs::read_dir(&index).expect("an index") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            spoil_all(&path);
        }
    }
    assert_eq!(stocked.machine.ok(["store", "ls", "--data", "node", "--json"]), before);
    fs::remove_dir_all(index).expect("removed");
    assert_eq!(stocked.machine.ok(["store", "ls", "--data", "node", "--json"]), before);
}

#[test]
fn a_second_node_on_the_same_store_is_refused_and_the_first_goes_on() {
    let stocked = Stocked::new();
    let machine = &stocked.machine;
    let node = machine.node(&[]);
    let second = ["node", "--data", "node", "--listen", "127.0.0.1:0"];
    stocked.refuses(&mut machine.command(second), exit::STORE, &["in use"]);
    let from = node.address.to_string();
    let fetch = ["fetch", &stocked.large, "--data", "agent", "--from", &from, "--out", "out"];
    machine.ok(fetch);
    assert!(node.end("TERM").success());
}

#[test]
fn a_disk_that_is_full_is_no_space_and_what_was_there_stays() {
    let machine = Machine::new();
    machine.file("small", 1_000, 1);
    machine.file("large", 20_000_000, 2);
    // A disk of its own for one command, which goes with it.
    let script = r#"
        mkdir disk && mount -t tmpfs -o size=8m none disk || exit 99
        echo 'store.free_bytes_min = 0' > disk/sutler.toml
        "$0" add --data disk small || exit 98
        "$0" add --data disk large --json; echo "code $?"
        "$0" store verify --data disk && "$0" store ls --data disk --json"#;
    let sutler = sutler_tests::sutler();
    let mut command = machine.other("unshare", ["--mount", "--map-root-user", "sh", "-c", script]);
    let ended = Ended::of(command.arg(sutler));
    if ended.code == Some(99) || ended.stderr.contains("unshare") {
        return skip("a_disk_that_is_full_is_no_space_and_what_was_there_stays", &ended.stderr);
    }
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(&format!("code {}", exit::NO_SPACE)), "{ended:?}");
    assert!(ended.stdout.contains(r#""kind":"no-space""#), "{ended:?}");
    let rows: Vec<&str> = ended.stdout.lines().filter(|line| line.contains("bytes_had")).collect();
    assert_eq!(rows.len(), 1, "{ended:?}");
    assert!(rows[0].contains(r#""complete":true"#), "{ended:?}");
}

#[test]
fn a_fetch_into_a_quota_that_is_too_small_says_so_before_it_begins() {
    let stocked = Stocked::new();
    let machine = &stocked.machine;
    fs::write(machine.path("agent/sutler.toml"), "store.bytes_max = '100kB'\n").expect("a config");
    let node = machine.node(&[]);
    let from = node.address.to_string();
    let fetch = ["fetch", &stocked.large, "--data", "agent", "--from", &from, "--out", "out"];
    let error = machine.fails(exit::NO_SPACE, fetch);
    assert!(error["help"].as_str().is_some_and(|help| help.contains("bytes_max")), "{error}");
    assert!(!machine.path("out").exists());
    let status = machine.json(["status", "--data", "agent"]);
    assert_eq!(status["store"]["bytes"], json!(0));
}

fn flip(path: &PathBuf) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[70_000] ^= 1;
    fs::write(path, bytes).expect("spoilt");
}

fn spoil_all(path: &PathBuf) {
    let len = fs::metadata(path).expect("a file").len() as usize;
    fs::write(path, vec![0x5a; len]).expect("spoilt");
}

fn cut(path: &PathBuf) {
    let file = fs::File::options().write(true).open(path).expect("a file");
    let len = file.metadata().expect("a file").len();
    file.set_len(len / 2).expect("cut");
}

fn remove(path: &PathBuf) {
    fs::remove_file(path).expect("removed");
}
