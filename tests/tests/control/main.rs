//! Control, a node and devices in processes of their own: what an admin publishes reaches a device at the
//! site, is written down, and survives what may befall any of them.

mod backup;
mod directorate;
mod expiry;
mod organisations;
mod trust;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sutler_tests::program;
use sutler_tests::running::Running;

const PASSPHRASE: &str = "correct horse battery staple";

/// What a test waits for at most. Far more than it takes: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// An admin's desk with an organisation in `org`, where control runs too.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self::of("acme")
    }

    fn of(organisation: &str) -> Self {
        let site = Self::in_folder();
        site.done(&format!("org init org --org {organisation} --preset solo"));
        site.with_members();
        site
    }

    /// A desk with nothing on it.
    fn in_folder() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Makes control, a node and a device of the organisation.
    fn with_members(&self) {
        self.done("org issue org --role control --id c1 --out org/identity");
        for (role, name) in [("node", "node"), ("agent", "device")] {
            self.done(&format!("org issue org --site lab --role {role} --out {name}/identity"));
        }
        fs::write(self.path("control.toml"), "[control]\nhttp = '127.0.0.1:0'\n").unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(program::sutler());
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.env("SUTLER_PASSPHRASE", PASSPHRASE).env("SUTLER_ORG_DIR", "org");
        command.env("USER", "tester");
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn done(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a daemon, and waits until it says where it listens.
    fn daemon(&self, name: &str, arguments: &str) -> Daemon {
        let running = Running::start(&mut self.command(arguments), &self.path(name));
        let daemon = Daemon { running };
        soon(&format!("{name} listens"), || daemon.said("listening ").is_some());
        daemon
    }

    fn control(&self, listen: &str) -> Daemon {
        self.daemon(
            "control",
            &format!("control --data org --config control.toml --listen {listen}"),
        )
    }

    /// Starts a node that follows what listens at `source`.
    fn node(&self, source: &str) -> Daemon {
        let root = self.path("org/repository/metadata/1.root.json");
        let config = format!("[orders]\nsources = ['{source}']\nroot = '{}'\n", root.display());
        fs::write(self.path("node.toml"), config).unwrap();
        self.daemon("node", "node --data node --config node.toml --listen 127.0.0.1:0")
    }

    /// Starts the device's agent, which follows the node at `source` and tells often.
    fn agent(&self, source: &str) -> Daemon {
        let root = self.path("org/repository/metadata/1.root.json");
        let config = format!(
            "[orders]\nsources = ['{source}']\nroot = '{}'\n\
             [agent]\nobserve_only = false\nreport_minutes = 1\n[[agent.install]]\nkind = 'bin'\n\
             command = ['/bin/true', '{{file}}']\ndetect = ['/bin/false']\n",
            root.display()
        );
        fs::write(self.path("agent.toml"), config).unwrap();
        self.daemon("agent", "agent --data device --config agent.toml --listen 127.0.0.1:0")
    }

    /// The version of the orders that the node believes.
    fn believed(&self) -> u64 {
        self.believed_by("node")
    }

    fn believed_by(&self, name: &str) -> u64 {
        let status = self.done(&format!("status --data {name} --json"));
        let status: Value = serde_json::from_str(&status).unwrap();
        status["service"]["orders"]["version"].as_u64().unwrap_or(0)
    }

    /// The version of what is published.
    fn published(&self) -> u64 {
        let timestamp = fs::read(self.path("org/repository/metadata/timestamp.json")).unwrap();
        let timestamp: Value = serde_json::from_slice(&timestamp).unwrap();
        timestamp["signed"]["version"].as_u64().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("org/audit/log")).unwrap_or_default()
    }

    /// Publishes a file of some chunks, and returns its id.
    fn publish(&self, name: &str) -> String {
        let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(self.path(name), bytes).unwrap();
        self.done(&format!("publish {name} --severity low --key org/keys/laptop.key"));
        b3sum(&self.path(name))
    }
}

struct Daemon {
    running: Running,
}

impl Daemon {
    /// What it printed behind this word.
    fn said(&self, word: &str) -> Option<String> {
        let printed = self.running.printed();
        printed.lines().find_map(|line| line.strip_prefix(word).map(str::to_owned))
    }

    /// Waits until it has printed this word, and returns what stands behind it.
    fn says(&self, word: &str) -> String {
        soon(word, || self.said(word).is_some());
        self.said(word).unwrap()
    }

    fn address(&self) -> String {
        self.says("listening ")
    }
}

/// The id of a file's bytes, as another program says it.
fn b3sum(path: &Path) -> String {
    let output = Command::new("b3sum").arg("--no-names").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Looks until something is so.
fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
    }
}

// R33: a device with no way to the vendor nor to control gets what was published from its site's node.
#[test]
fn what_an_admin_publishes_reaches_a_device_through_its_sites_node() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    let node = site.node(&control.address());
    soon("the node believes", || site.believed() > 0);

    let id = site.publish("numbers.bin");
    site.done("approve numbers.bin --scope all --key org/keys/laptop.key --reason tested");
    // Control notices what was published beside it, writes it down and pushes it.
    soon("the approval is written down", || site.log().contains("approvals-all 1"));
    soon("the node believes it", || site.believed() == site.published());
    assert!(site.log().contains("\"reason\":\"tested\""), "{}", site.log()); // R142

    site.done(&format!("fetch {id} --data device --from {} --out got.bin", node.address()));
    assert_eq!(
        fs::read(site.path("got.bin")).unwrap(),
        fs::read(site.path("numbers.bin")).unwrap()
    );
}

// R161, N6: any TUF client reads it over HTTP, contents and order files alike.
#[test]
fn the_repository_is_served_to_any_tuf_client() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    let id = site.publish("numbers.bin");
    let before = site.published();
    soon("it is noticed", || site.published() > before);
    let url = control.says("repository ");
    let root = site.path("org/repository/metadata/1.root.json");
    let tuf = |arguments: &[&str]| {
        let mut command = Command::new(program::sutler_tuf());
        command.args(["--metadata-dir", "trusted"]).args(arguments);
        let output = command.current_dir(site.folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for folder in ["trusted", "targets"] {
        fs::create_dir(site.path(folder)).unwrap();
    }
    tuf(&["init", root.to_str().unwrap()]);
    let month = fs::read_dir(site.path("org/repository/targets/content")).unwrap();
    let month = month.map(|entry| entry.unwrap().file_name()).next().unwrap();
    let name = format!("content/{}/{id}/numbers.bin", month.to_str().unwrap());
    let (metadata, targets) = (format!("{url}/metadata"), format!("{url}/targets"));
    tuf(&[
        "--metadata-url",
        &metadata,
        "--target-base-url",
        &targets,
        "--target-dir",
        "targets",
        "--target-name",
        &name,
        "download",
    ]);
    let got = fs::read_dir(site.path("targets")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(b3sum(&got), id);
}

// T23, T14
#[test]
fn nothing_else_lies_behind_the_door_and_nothing_goes_in_that_nobody_signed() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    let url = control.says("repository ");
    let get = |place: &str, more: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--path-as-is",
            "--write-out",
            "%{http_code}",
            "--output",
            "/dev/null",
        ]);
        let output = curl.args(more).arg(format!("{url}{place}")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for place in [
        "/",
        "/org.json",
        "/online/timestamp.key",
        "/metadata/../online/timestamp.key",
        "/metadata/..%2fonline%2ftimestamp.key",
        "/targets/../../org.json",
        "/metadata/",
        "/orders",
    ] {
        let code = get(place, &[]);
        assert!(["404", "405", "400"].contains(&code.as_str()), "{place}: {code}");
    }
    let published = site.published();
    assert_eq!(get("/orders", &["--data", "{}"]), "400");
    assert_eq!(
        get("/orders", &["--data", "{\"format\":1,\"documents\":{\"timestamp\":\"{}\"}}"]),
        "409"
    );
    assert_eq!(site.published(), published);
}

// R96, and the kill -9 between any two lines: nothing that was published is lost with a process.
#[test]
fn a_node_goes_on_without_control_and_control_after_a_kill() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    let address = control.address();
    let node = site.node(&address);
    let id = site.publish("numbers.bin");
    soon("the node believes", || site.believed() > 0 && site.believed() == site.published());
    let believed = site.believed();
    control.running.kill();
    node.running.kill();

    // The line is down: what the node believed last is what it believes.
    let node = site.node(&address);
    assert_eq!(site.believed(), believed);
    let control = site.control(&address);
    soon("the node believes what control signed after its kill", || site.believed() > believed);
    site.done(&format!("fetch {id} --data device --from {} --out got.bin", node.address()));
    control.running.signal(Signal::TERM);
    assert_eq!(control.running.end().code, Some(0));
}

// T27
#[test]
fn control_does_not_start_on_an_audit_log_that_was_changed() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    site.publish("numbers.bin");
    soon("it is written down", || site.log().contains("content-"));
    let head = format!("{}", site.log().lines().count());
    soon("the log's head is signed", || {
        let timestamp = fs::read_to_string(site.path("org/repository/metadata/timestamp.json"));
        timestamp.unwrap().contains(&format!("\"seq\":{head}"))
    });
    // R102: whoever kept a timestamp can check the log without us.
    let timestamp = "org/repository/metadata/timestamp.json";
    site.done(&format!("audit verify org/audit/log --timestamp {timestamp}"));
    assert!(site.done("audit export org/audit/log").contains("content-"));
    control.running.kill();
    let path: &Path = &site.path("org/audit/log");
    let changed =
        site.log().replace("\"publish\"", "\"removed\"").replace("\"noticed\"", "\"removed\"");
    fs::write(path, changed).unwrap();
    assert_eq!(site.run("audit verify org/audit/log").status.code(), Some(6));
    let output = site.run("control --data org --config control.toml --listen 127.0.0.1:0");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains("line 1 of the audit log does not follow"), "{said}");
}

// R96, R99, R100, T26: what a device says of itself reaches control through its node, and is counted once.
#[test]
fn a_devices_answer_is_in_controls_report() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    let node = site.node(&control.address());
    let id = site.publish("numbers.bin");
    site.done("approve numbers.bin --scope all --key org/keys/laptop.key");
    let _agent = site.agent(&node.address());
    let rows = |by: &str| -> Vec<Value> {
        let said = site.done(&format!("report {by} --data org --json"));
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    soon("the device has told that it has the bytes", || {
        let rows = rows("patch");
        let row = rows.iter().find(|row| row["content"] == id.as_str());
        row.is_some_and(|row| row["name"] == "numbers.bin" && row["devices"]["staged"] == 1)
    });
    let device = &rows("device")[0];
    assert_eq!((&device["unknown"], &device["stale"]), (&false.into(), &false.into()), "{device}");
    assert_eq!(rows("site")[0]["devices"], 1);
    let csv = site.done("report site --data org --csv");
    assert!(csv.starts_with("site,devices,silent,needed") && csv.contains("\nlab,1,0,"), "{csv}");

    // N4: why, as the device said it, and as control finds it.
    let device = device["device"].as_str().unwrap();
    let explain = |what: &str| -> Value {
        serde_json::from_str(&site.done(&format!("explain {what} --data org --json"))).unwrap()
    };
    let said = &explain(&format!("{device} numbers.bin"))[0];
    assert_eq!(
        (&said["told"]["state"], &said["told"]["reason"]),
        (&"staged".into(), &"held".into())
    );
    assert_eq!((&said["state"], &said["reason"]), (&"staged".into(), &"held".into()), "{said}");
    let last = said["gates"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["gate"], &last["verdict"]), (&"mode".into(), &"blocked".into()), "{last}");
    // Wherever the device stands, before or behind the content and the options.
    for order in [
        format!("{device} --data org numbers.bin"),
        format!("--data org {device} numbers.bin"),
        format!("numbers.bin {device} --data org"),
        format!("numbers.bin --data org {device}"),
        format!("--data org numbers.bin {device}"),
    ] {
        let again = site.done(&format!("explain {order} --json"));
        let again: Value = serde_json::from_str(&again).unwrap();
        assert_eq!(again[0]["device"], said["device"], "{order}");
        assert_eq!(again[0]["content"], said["content"], "{order}");
    }
    assert_eq!(site.run("explain lab/nobody numbers.bin --data org").status.code(), Some(2));
    assert_eq!(site.run("explain other numbers.bin --data org").status.code(), Some(2));
    assert_eq!(site.run(&format!("explain {device} other --data org")).status.code(), Some(3));

    // Who stops something sees it arrive.
    let deny = "deny numbers.bin --scope all --key org/keys/laptop.key --watch";
    let spread = site.done(deny);
    let last = spread.lines().last().unwrap();
    assert_eq!(last, "1 of 1 sites have it; no device could still install");
    let said = &explain(&format!("{device} {}", &id[..8]))[0];
    assert_eq!((&said["told"]["reason"], &said["reason"]), (&"denied".into(), &"denied".into()));
}

// R162: a machine joins control itself, and is a member at once.
#[test]
fn a_machine_joins_at_control_and_follows_it() {
    let site = Site::new();
    site.done("org intermediate org --out org/authority");
    let config = "[control]\nhttp = '127.0.0.1:0'\njoin = '127.0.0.1:0'\n";
    fs::write(site.path("control.toml"), config).unwrap();
    let control = site.control("127.0.0.1:0");
    let at = control.says("join ");
    let token = site.done(&format!("token new --org-dir org --site lab --role node --at {at}"));
    site.done(&format!("join {} --data joined", token.trim()));
    // What it needs to follow came with its certificate.
    let config = format!("[orders]\nsources = ['{}']\n", control.address());
    fs::write(site.path("joined.toml"), config).unwrap();
    let start = "node --data joined --config joined.toml --listen 127.0.0.1:0";
    let _node = site.daemon("joined-node", start);
    soon("it believes what control signs", || site.believed_by("joined") == site.published());
    // Used once, it lets nobody else in.
    assert_eq!(site.run(&format!("join {} --data other", token.trim())).status.code(), Some(4));
}

// T32: a machine whose disk was cloned is noticed where both hold on to the same control.
#[test]
fn two_machines_with_one_identity_are_noticed() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    let address = control.address();
    let mut copy = Command::new("cp");
    copy.args(["-r", "node", "clone"]).current_dir(site.folder.path());
    assert!(copy.status().unwrap().success());
    let node = site.node(&address);
    let start = "node --data clone --config node.toml --listen 127.0.0.1:0";
    soon("the node has greeted", || site.believed() > 0);
    let clone = site.daemon("clone", start);
    soon("the clone has greeted", || site.believed_by("clone") > 0);
    let said = |daemon: &str| {
        let log = fs::read_to_string(site.path(daemon).with_extension("err"));
        log.unwrap_or_default().contains("duplicate-identity")
    };
    // Who comes second is taken for the same machine, installed anew; who comes again is not.
    clone.running.kill();
    node.running.kill();
    let _node = site.node(&address);
    let _clone = site.daemon("clone", start);
    soon("it is noticed", || said("control"));
}
