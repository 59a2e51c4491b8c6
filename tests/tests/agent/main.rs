//! A device's daemon behind its site's node, both as processes, under orders that the test signs.

mod control;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::{Value, json};
use sutler_orders::report::{PURPOSE, SignedReport};
use sutler_swarm::identity::{
    Attested, Authority, Expect, Identity, LEAF_LIFETIME, Member, PeerVerifier, Role, Validity,
};
use sutler_swarm::{Endpoint, TransportConfig};
use sutler_tests::machine::{Machine, NodeProcess, end};

use self::control::Control;

const PATIENCE: Duration = Duration::from_mins(2);

/// A site: control, a node that holds a content, and a device whose commands write down what they are told.
struct Site {
    machine: Machine,
    control: Control,
    node: NodeProcess,
    item: Value,
}

/// An agent's process. Killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Site {
    fn new() -> Self {
        let machine = Machine::new();
        let bytes = machine.file("patch.bin", 200_000, 7);
        let mut control = Control::start(&machine.path("ca"));
        let item = control.content("patch.bin", &bytes);
        control.set(
            "sites",
            "sites/sites.json",
            "sites",
            &json!({
                "sites": [{ "name": "here", "zone": "Europe/Berlin" }],
            }),
        );
        control.set("halts", "halts/halts.json", "halts", &json!({ "halts": [] }));
        control.set(
            "schedules-qa",
            "schedules/qa/policies.json",
            "policies",
            &json!({
                "policies": [{
                    "name": "all", "by": "Anna", "at": control::now(),
                    "mode": "download-and-install", "schedule": "nightly",
                }],
            }),
        );
        machine.add("node", "patch.bin");
        let root = control.dir.path().join("root.json");
        let orders =
            |address| format!("[orders]\nsources = ['{address}']\nroot = '{}'\n", root.display());
        fs::write(machine.path("node.toml"), orders(control.address)).unwrap();
        let node = machine.node(&["--config", "node.toml"]);
        let script = |name: &str, text: String| {
            fs::write(machine.path(name), text).unwrap();
            machine.path(name).display().to_string()
        };
        let done = machine.path("done");
        fs::create_dir(&done).unwrap();
        let done = done.display();
        let install =
            script("install.sh", format!("cp \"$1\" '{done}'/\"$2\"; echo run >> '{done}'/log"));
        let detect = script("detect.sh", format!("test -e '{done}'/\"$1\""));
        let agent = format!(
            "{}[agent]\nobserve_only = false\n[[agent.install]]\nkind = 'demo'\n\
             command = ['/bin/sh', '{install}', '{{file}}', '{{content}}']\n\
             detect = ['/bin/sh', '{detect}', '{{content}}']\n",
            orders(node.address)
        );
        fs::write(machine.path("agent.toml"), agent).unwrap();
        let mut site = Self { machine, control, node, item };
        site.approve();
        site
    }

    fn approve(&mut self) {
        let items = json!({ "items": [self.item] });
        self.control.set("approvals-qa", "approvals/qa/approvals.json", "approvals", &items);
    }

    /// Publishes a window that is open, or one that comes on a Christmas Eve.
    fn window(&mut self, is_open: bool) {
        let (start, rule) = if is_open {
            ("2026-01-01T00:00:00", "FREQ=DAILY")
        } else {
            ("2026-12-24T20:00:00", "FREQ=YEARLY")
        };
        self.control.set(
            "schedules-qa",
            "schedules/qa/schedules.json",
            "schedules",
            &json!({
                "schedules": [{
                    "name": "nightly", "by": "Anna", "at": control::now(),
                    "windows": [{ "start": start, "rule": rule, "duration_minutes": 2_880 }],
                }],
            }),
        );
        self.control.publish();
    }

    fn agent(&self) -> Agent {
        let agent =
            ["agent", "--data", "agent", "--config", "agent.toml", "--listen", "127.0.0.1:0"];
        Agent(self.machine.start(&agent, "listening ").0)
    }

    /// What `explain` says of the content, once `is_it` holds.
    async fn explains(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let output = self.machine.run(["explain", "patch.bin", "--data", "agent", "--json"]);
            let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if output.status.success() && is_it(&said[0]) {
                return said[0].clone();
            }
            assert!(Instant::now() < until, "never {what}: {said:#}");
            tokio::task::yield_now().await;
        }
    }

    fn content(&self) -> String {
        self.item["blake3"].as_str().unwrap().to_owned()
    }

    fn runs(&self) -> usize {
        let log = fs::read_to_string(self.machine.path("done/log")).unwrap_or_default();
        log.lines().count()
    }
}

fn is_staged(said: &Value) -> bool {
    said["state"] == "staged" && said["reason"] == "outside-window"
}

// R1, R52, R96
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_approved_is_staged_survives_a_kill_and_is_installed_in_its_window() {
    let mut site = Site::new();
    site.window(false);
    let mut agent = site.agent();
    let said = site.explains("staged", is_staged).await;
    let last = said["gates"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["gate"], &last["verdict"]), (&json!("window"), &json!("blocked")));
    assert_eq!(site.runs(), 0);

    assert!(!end(&mut agent.0, "KILL").success());
    // It says so while no agent runs.
    site.explains("staged", is_staged).await;
    site.window(true);
    let mut agent = site.agent();
    site.explains("installed", |said| said["state"] == "installed").await;
    assert_eq!(site.runs(), 1);
    let installed = fs::read(site.machine.path("done").join(site.content())).unwrap();
    assert_eq!(installed, fs::read(site.machine.path("patch.bin")).unwrap());

    let status = site.machine.json(["status", "--data", "agent"]);
    assert_eq!(status["agent"]["statement"]["stale"], false);
    // R90, R91: what a device without a screen shows of itself.
    assert!(status["agent"]["last_contact"].is_string(), "{status:#}");
    let shown = site.machine.ok(["status", "--data", "agent"]);
    for said in ["contact   20", ", fresh, good until 20", "answers   1 installed"] {
        assert!(shown.contains(said), "{shown}");
    }
    assert!(status["agent"]["windows"][0]["local"].as_str().unwrap().contains("CE"));
    let policies = site.machine.json(["policy", "effective", "--data", "agent"]);
    assert_eq!(policies[0]["settings"][0]["source"], "policy all");
    reports_say_installed(&site).await;
    assert!(end(&mut agent.0, "TERM").success());
    assert_eq!(site.runs(), 1, "once, whatever was killed");
}

/// Waits for a report that says so, and checks it with the organisation's roots alone.
async fn reports_say_installed(site: &Site) {
    let folder = site.machine.path("node/identity");
    let roots = Identity::load(&folder).unwrap();
    let expect = Expect::new("acme".parse().unwrap(), [Role::Agent]);
    let verifier = PeerVerifier::new(roots.roots(), expect).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let mut known = None;
        for report in site.control.reports.all() {
            let signed = SignedReport::parse(&report).unwrap();
            let attested =
                Attested { chain: signed.chain.clone(), signature: signed.signature.clone() };
            let now = rustls::pki_types::UnixTime::now();
            let signer =
                verifier.verify_attested(PURPOSE, signed.message(), &attested, now).unwrap();
            let report = signed.of(&signer, known).unwrap();
            known = Some(report.number);
            if report.answers.iter().any(|answer| answer.state.as_str() == "installed") {
                return;
            }
        }
        assert!(Instant::now() < until, "no report says installed");
        tokio::task::yield_now().await;
    }
}

// N2, T29
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_that_only_a_neighbour_brings_stops_it() {
    let mut site = Site::new();
    site.window(false);
    let _agent = site.agent();
    site.explains("staged", is_staged).await;
    neighbour_denies(&site).await;
    site.explains("denied", |said| said["reason"] == "denied").await;
    site.window(true);
    let said = site.explains("denied", |said| said["reason"] == "denied").await;
    assert_eq!(said["state"], "staged");
    assert_eq!(site.runs(), 0);
}

async fn neighbour_denies(site: &Site) {
    let folder = site.machine.path("neighbour");
    let authority = Authority::open(&site.machine.path("ca")).unwrap();
    let member = Member::Agent { site: "here".parse().unwrap(), id: "ben".parse().unwrap() };
    authority.issue(member, Validity::from_now(LEAF_LIFETIME), &folder).unwrap();
    let identity = Identity::load(&folder).unwrap();
    let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let endpoint = Endpoint::bind(any, &identity, TransportConfig::default()).unwrap();
    let node = endpoint.connect(site.node.address).await.unwrap();
    node.deny(&site.control.denial(&site.item["blake3"])).await.unwrap();
}

// N2, R49: what silence may approve depends on what a program of the config lists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_counts_only_where_the_device_has_a_lower_version() {
    let mut site = Site::new();
    let list = site.machine.path("list.sh");
    let mut config = fs::read_to_string(site.machine.path("agent.toml")).unwrap();
    writeln!(config, "[agent.versions]\ndemo = ['/bin/sh', '{}']", list.display()).unwrap();
    write(&site.machine.path("agent.toml"), &config);
    let nothing = json!({ "items": [] });
    site.control.set("approvals-qa", "approvals/qa/approvals.json", "approvals", &nothing);
    let policy = json!({ "name": "silent", "veto_hours": 1, "by": "Anna", "at": control::now() });
    let standing = json!({ "policies": [policy] });
    site.control.set("approvals-qa", "approvals/qa/standing.json", "standing", &standing);
    site.window(true);
    for (lists, reason) in [("tool 1.9-3 installed", "veto-open"), ("tool 2.0-1", "not-approved")] {
        write(&list, &format!("echo {lists}\n"));
        let mut agent = site.agent();
        site.explains(reason, |said| said["reason"] == reason).await;
        assert!(end(&mut agent.0, "TERM").success());
    }
    assert_eq!(site.runs(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_are_stale_start_nothing_new_and_are_called_so() {
    let mut site = Site::new();
    // Nothing is staged yet when it ends.
    site.control.lifetime(SignedDuration::from_secs(8));
    let approved = std::mem::replace(&mut site.item, Value::Null);
    site.control.set(
        "approvals-qa",
        "approvals/qa/approvals.json",
        "approvals",
        &json!({ "items": [] }),
    );
    site.window(true);
    let mut agent = site.agent();
    site.explains("not approved", |said| said["reason"] == "not-approved").await;
    let until = Instant::now() + PATIENCE;
    loop {
        let shown = site.machine.ok(["status", "--data", "agent"]);
        if shown.contains("STALE") {
            break;
        }
        assert!(Instant::now() < until, "{shown}");
        tokio::task::yield_now().await;
    }
    assert_eq!(site.runs(), 0);
    site.item = approved;
    site.approve();
    site.control.lifetime(SignedDuration::from_hours(24));
    site.window(true);
    site.explains("installed", |said| said["state"] == "installed").await;
    assert!(end(&mut agent.0, "TERM").success());
}

#[test]
fn what_cannot_be_explained_is_said() {
    let machine = Machine::new();
    let error = machine.fails(10, ["explain", "x", "--data", "agent"]);
    assert!(error["message"].as_str().unwrap().contains("no agent has run"), "{error}");
    let error = machine.fails(2, ["agent", "--data", "agent", "--listen", "127.0.0.1:0"]);
    assert!(error["help"].as_str().unwrap().contains("[orders]"), "{error}");
    write(
        &machine.path("bad.toml"),
        "[agent]\nobserve = true\n[[agent.install]]\nkind = 'a b'\ncommand = []\ndetect = ['/x']\n",
    );
    let agent = ["agent", "--data", "agent", "--config", "bad.toml"];
    let said = machine.fails(2, agent)["causes"].to_string();
    for wrong in ["agent.observe", "agent.install[0]"] {
        assert!(said.contains(wrong), "{said}");
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}
