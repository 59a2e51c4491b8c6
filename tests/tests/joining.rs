//! `sutler token`, `sutler join` and `sutler device` as their users meet them, against control's
//! enrolment port.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use sutler_control::Members;
use sutler_control::members::{MEMBER_LIFETIME, Powers, RootFolder};
use sutler_swarm::enrol::{EnrolLimits, Enrolment, TokenKeys};
use sutler_swarm::identity::{Authority, Identity, Revocations, TrustedClock};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The exit codes of `sutler --help` that are met here.
mod exit {
    pub(super) const USAGE: i32 = 2;
    pub(super) const REFUSED: i32 = 4;
    pub(super) const UNREACHABLE: i32 = 5;
    pub(super) const FILE: i32 = 10;
}

const ROOT_JSON: &str = r#"{"signed": {"_type": "root", "version": 1}}"#;

/// An organisation made by commands, and its control's port.
struct World {
    folder: tempfile::TempDir,
    at: String,
    stop: CancellationToken,
    /// Dropped last: the port lives in it.
    _runtime: Runtime,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let runtime = Runtime::new().expect("a runtime");
        for arguments in [
            "org init org --org acme",
            "org issue org --role control --id c1 --out control/identity",
            "org intermediate org --out control/authority",
        ] {
            let output = Command::new(sutler_tests::sutler())
                .args(arguments.split_whitespace())
                .current_dir(&folder)
                .output()
                .expect("the program runs");
            assert!(output.status.success(), "{arguments}: {}", text(&output));
        }
        fs::create_dir_all(path("org/repository/metadata")).expect("made");
        fs::write(path("org/repository/metadata/1.root.json"), ROOT_JSON).expect("written");
        let control = Identity::load(&path("control/identity")).expect("an identity");
        let powers = Powers {
            authority: Authority::open(&path("control/authority")).expect("an authority"),
            token_keys: TokenKeys::of_roots(control.roots()),
            root_files: RootFolder::new(path("org/repository/metadata")),
            revocations: Revocations::default(),
            lifetime: MEMBER_LIFETIME,
        };
        let members = Members::open(&path("control/members"), powers).expect("records");
        let entered = runtime.enter();
        let enrolment = Enrolment::bind(
            (Ipv4Addr::LOCALHOST, 0).into(),
            &control,
            Revocations::default(),
            TrustedClock::default(),
            EnrolLimits::default(),
            Arc::new(members),
        )
        .expect("a port");
        let at = enrolment.local_address().expect("an address").to_string();
        let stop = CancellationToken::new();
        runtime.spawn(enrolment.run(stop.clone()));
        drop(entered);
        Self { folder, at, stop, _runtime: runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sutler(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(sutler_tests::sutler());
        command.args(arguments).current_dir(&self.folder).output().expect("the program runs")
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.sutler(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.sutler(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    fn token(&self, more: &[&str]) -> String {
        let fixed = ["token", "new", "--org-dir", "org", "--site", "leeds", "--at", &self.at];
        self.done(&[&fixed[..], more].concat()).trim().to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// All that a command printed.
fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).expect("text")
}

#[test]
fn a_machine_joins_by_a_token_and_is_ready_to_use() {
    let world = World::new();
    let token = world.token(&["--role", "node", "--id", "n1"]);
    let printed = world.done(&["join", &token, "--data", "node"]);
    assert!(printed.contains("joined spiffe://acme/site/leeds/node/n1"), "{printed}");
    let node = Identity::load(&world.path("node/identity")).expect("an identity");
    assert_eq!(node.name().to_string(), "spiffe://acme/site/leeds/node/n1");
    let root = fs::read_to_string(world.path("node/identity/root.json")).expect("a root");
    assert_eq!(root, ROOT_JSON);

    let renewed = world.done(&["join", "--renew", "--data", "node", "--json"]);
    let renewed: serde_json::Value = serde_json::from_str(&renewed).expect("one object");
    assert_eq!(
        (&renewed["state"], &renewed["name"]),
        (&"renewed".into(), &node.name().to_string().into())
    );

    let printed = world.refused(&["join", &token, "--data", "node"], exit::FILE);
    assert!(printed.contains("--replace"), "{printed}");
    let printed = world.refused(&["join", &token, "--data", "other"], exit::REFUSED);
    assert!(printed.contains("used up") && printed.contains("sutler token new"), "{printed}");
    assert!(!world.path("other/identity").exists());
}

#[test]
fn a_held_machine_is_accepted_by_hand_and_listed() {
    let world = World::new();
    let token = world.token(&["--role", "agent", "--hold", "--id", "a1"]);
    let waiting = ["join", &token, "--data", "agent", "--wait", "1s"];
    let printed = world.refused(&waiting, exit::REFUSED);
    assert!(printed.contains("sutler device accept a1"), "{printed}");

    let listed = world.done(&["device", "list", "--data", "control", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("one object");
    assert_eq!(listed["state"], "held");
    world.done(&["device", "accept", "a1", "--data", "control"]);
    world.refused(&["device", "accept", "a1", "--data", "control"], exit::REFUSED);
    world.done(&waiting);
    assert!(world.done(&["device", "list", "--data", "control"]).contains("member"));

    // R162
    let printed = world.done(&["device", "retire", "a1", "--data", "control"]);
    assert!(printed.contains("revoke"), "{printed}");
    let printed = world.refused(&["join", "--renew", "--data", "agent"], exit::REFUSED);
    assert!(printed.contains("retired"), "{printed}");
    world.refused(&["device", "list", "--data", "nowhere"], exit::FILE);
    assert!(!world.path("nowhere").exists());
}

// R162
#[test]
fn a_reimaged_machine_replaces_itself() {
    let world = World::new();
    let named = || world.token(&["--role", "agent", "--id", "laptop7"]);
    world.done(&["join", &named(), "--data", "old"]);
    let token = named();
    let printed = world.refused(&["join", &token, "--data", "new"], exit::REFUSED);
    assert!(printed.contains("--replace"), "{printed}");
    world.done(&["join", &token, "--data", "new", "--replace"]);
    world.refused(&["join", "--renew", "--data", "old"], exit::REFUSED);
}

#[test]
fn a_token_that_is_wrong_is_said_to_be_so_before_anything_is_made() {
    let world = World::new();
    let token = world.token(&["--role", "agent"]);
    let printed = world.refused(&["join", &token[..token.len() - 3], "--data", "new"], exit::USAGE);
    assert!(printed.contains("not copied whole"), "{printed}");
    world.refused(&["join", "hello", "--data", "new"], exit::USAGE);
    assert!(!world.path("new").exists());

    let nobody = ["join", &token, "--data", "new", "--at", "127.0.0.1:9"];
    world.refused(&nobody, exit::UNREACHABLE);
    assert!(!world.path("new/identity").exists());

    let wrong: [&[&str]; 5] = [
        &["--role", "control"],
        &["--role", "agent", "--ttl", "31d"],
        &["--role", "agent", "--net", "10.0.0.0/99"],
        &["--role", "agent", "--uses", "0"],
        &["--role", "agent", "--id", "a1", "--uses", "2"],
    ];
    for more in wrong {
        let fixed = ["token", "new", "--org-dir", "org", "--site", "leeds", "--at", &world.at];
        world.refused(&[&fixed[..], more].concat(), exit::USAGE);
    }
    // What lies at control makes no tokens.
    let at_control = ["token", "new", "--org-dir", "control/authority", "--site", "leeds"];
    let rest = ["--role", "agent", "--at", &world.at, "--root-json", "org/org.json"];
    world.refused(&[&at_control[..], &rest].concat(), exit::REFUSED);
}

// T28
#[test]
fn joining_prints_neither_key_nor_secret() {
    let world = World::new();
    let token = world.token(&["--role", "agent"]);
    let secret = token.rsplit('.').next().expect("a part");
    let printed = world.done(&["join", &token, "--data", "agent", "--log", "trace"]);
    let again = world.refused(&["join", &token, "--data", "b", "--log", "trace"], exit::REFUSED);
    assert!(!printed.contains(secret) && !again.contains(secret));
    let key = fs::read_to_string(world.path("agent/identity/key.pem")).expect("a key");
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!printed.contains(line), "the key was printed");
    }
}
