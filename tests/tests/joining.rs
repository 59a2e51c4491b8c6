//! `sutler token`, `sutler join` and `sutler device` as their users meet them: against control's enrolment port, and
//! through a node that passes on to it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sutler_swarm::identity::Identity;
use sutler_tests::running::Running;

/// The exit codes of `sutler --help` that are met here.
mod exit {
    pub(super) const USAGE: i32 = 2;
    pub(super) const REFUSED: i32 = 4;
    pub(super) const UNREACHABLE: i32 = 5;
    pub(super) const FILE: i32 = 10;
}

const PASSPHRASE: &str = "correct horse battery staple";

/// How long a daemon may take to say that it listens, on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);

/// An organisation made by commands in `org`, where its control runs.
struct World {
    control: Option<Running>,
    folder: tempfile::TempDir,
    at: String,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut world = Self { folder, control: None, at: String::new() };
        for arguments in [
            "org init org --org acme --preset solo",
            "org issue org --role control --id c1 --out org/identity",
            "org intermediate org --out org/authority",
        ] {
            world.done(&arguments.split_whitespace().collect::<Vec<_>>());
        }
        let config = "[control]\njoin = '127.0.0.1:0'\n";
        fs::write(world.path("control.toml"), config).expect("written");
        let (control, at) = world.daemon(&["control", "--data", "org", "--config", "control.toml"]);
        (world.control, world.at) = (Some(control), at);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(sutler_tests::sutler());
        command.args(arguments).current_dir(&self.folder).env("SUTLER_PASSPHRASE", PASSPHRASE);
        command
    }

    /// Starts a daemon, and returns it with the address at which machines join.
    fn daemon(&self, arguments: &[&str]) -> (Running, String) {
        let mut command = self.command(&[arguments, &["--listen", "127.0.0.1:0"]].concat());
        let running = Running::start(&mut command, &self.path(arguments[0]));
        let until = Instant::now() + PATIENCE;
        loop {
            let printed = running.printed();
            if let Some(at) = printed.lines().find_map(|line| line.strip_prefix("join ")) {
                return (running, at.to_owned());
            }
            assert!(Instant::now() < until, "{} never listens: {printed}", arguments[0]);
        }
    }

    /// Starts the site's node, which passes on to control, and returns it with where machines ask.
    fn node(&self) -> (Running, String) {
        self.done(&[
            "org",
            "issue",
            "org",
            "--site",
            "leeds",
            "--role",
            "node",
            "--out",
            "node/identity",
        ]);
        let config = format!("[join_relay]\nlisten = '127.0.0.1:0'\ncontrol = '{}'\n", self.at);
        fs::write(self.path("node.toml"), config).expect("written");
        self.daemon(&["node", "--data", "node", "--config", "node.toml"])
    }

    fn sutler(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
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
        self.token_at(&self.at, more)
    }

    fn token_at(&self, at: &str, more: &[&str]) -> String {
        let fixed = ["token", "new", "--org-dir", "org", "--site", "leeds", "--at", at];
        self.done(&[&fixed[..], more].concat()).trim().to_owned()
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
    let root = fs::read(world.path("node/identity/root.json")).expect("a root");
    let published = fs::read(world.path("org/repository/metadata/1.root.json")).expect("a root");
    assert_eq!(root, published);

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

    let listed = world.done(&["device", "list", "--data", "org", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("one object");
    assert_eq!(listed["state"], "held");
    world.done(&["device", "accept", "a1", "--data", "org"]);
    world.refused(&["device", "accept", "a1", "--data", "org"], exit::REFUSED);
    world.done(&waiting);
    assert!(world.done(&["device", "list", "--data", "org"]).contains("member"));

    // R162
    let printed = world.done(&["device", "retire", "a1", "--data", "org"]);
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
    let at_control = ["token", "new", "--org-dir", "org/authority", "--site", "leeds"];
    let rest = ["--role", "agent", "--at", &world.at, "--root-json", "org/org.json"];
    world.refused(&[&at_control[..], &rest].concat(), exit::REFUSED);
}

// An admin's own key makes tokens; what counts is whom the targets name when a machine asks.
#[test]
fn an_admin_lets_machines_join_until_the_admin_is_removed() {
    let world = World::new();
    let by = |key: &str| world.token(&["--role", "agent", "--uses", "1000", "--key", key]);
    let (laptop, sealed) = (by("org/keys/laptop.key"), by("org/keys/sealed.key"));
    // The authority's key need not be where an admin makes tokens.
    fs::rename(world.path("org/ca-key.pem"), world.path("away.pem")).expect("moved");
    let printed = world.done(&["join", &by("org/keys/laptop.key"), "--data", "first"]);
    assert!(printed.contains("joined spiffe://acme/site/leeds/agent/"), "{printed}");
    world.done(&["join", &laptop, "--data", "second"]);

    world.done(&["key", "new", "--out", "eve.key"]);
    let eves = ["token", "new", "--org-dir", "org", "--site", "leeds", "--at", &world.at];
    let eves = [&eves[..], &["--role", "agent", "--key", "eve.key"]].concat();
    let printed = world.refused(&eves, exit::REFUSED);
    assert!(printed.contains("eve.key: it is no admin's key"), "{printed}");

    let sealed_key = "org/keys/sealed.key";
    let remove = ["admin", "remove", "laptop", "--org-dir", "org", "--orders", "keep"];
    world.done(&[&remove[..], &["--key", sealed_key]].concat());
    // Control notices within a moment, and tells a machine no more than any other stranger.
    let until = Instant::now() + PATIENCE;
    let refused = (0..).find_map(|number| {
        let output = world.sutler(&["join", &laptop, "--data", &format!("late{number}")]);
        assert!(Instant::now() < until, "the token is still good");
        (!output.status.success()).then_some(output)
    });
    let refused = refused.expect("found");
    assert_eq!(refused.status.code(), Some(exit::REFUSED), "{}", text(&refused));
    assert!(text(&refused).contains("not one of this organisation"), "{}", text(&refused));
    world.done(&["join", &sealed, "--data", "third"]);
    let laptops = [&eves[..10], &["--key", "org/keys/laptop.key"]].concat();
    let printed = world.refused(&laptops, exit::REFUSED);
    assert!(printed.contains("laptop.key: it is no admin's key"), "{printed}");
}

#[test]
fn a_machine_joins_through_its_sites_node() {
    let world = World::new();
    let (_node, at) = world.node();
    assert_ne!(at, world.at);
    let token = world.token_at(&at, &["--role", "agent", "--id", "a1"]);
    let printed = world.done(&["join", &token, "--data", "first"]);
    assert!(printed.contains("joined spiffe://acme/site/leeds/agent/a1"), "{printed}");
    world.done(&["join", "--renew", "--data", "first"]);

    let held = world.token_at(&at, &["--role", "agent", "--hold", "--id", "b1"]);
    let waiting = ["join", &held, "--data", "held", "--wait", "1s"];
    let printed = world.refused(&waiting, exit::REFUSED);
    assert!(printed.contains("sutler device accept b1"), "{printed}");
    world.done(&["device", "accept", "b1", "--data", "org"]);
    world.done(&waiting);

    // R162
    let again = world.token_at(&at, &["--role", "agent", "--id", "a1"]);
    let printed = world.refused(&["join", &again, "--data", "second"], exit::REFUSED);
    assert!(printed.contains("--replace"), "{printed}");
    world.done(&["join", &again, "--data", "second", "--replace"]);
    let printed = world.refused(&["join", "--renew", "--data", "first"], exit::REFUSED);
    assert!(printed.contains("retired"), "{printed}");
}

#[test]
fn a_node_whose_control_is_away_lets_nobody_join_and_says_where_to_look() {
    let mut world = World::new();
    let (_node, at) = world.node();
    let token = world.token_at(&at, &["--role", "agent"]);
    world.control.take().expect("it runs").kill();
    let printed = world.refused(&["join", &token, "--data", "new"], exit::UNREACHABLE);
    assert!(printed.contains(&at) && printed.contains("[join_relay]"), "{printed}");
    assert!(!world.path("new/identity").exists());
    // The key that was made is kept, and used when control is back.
    assert!(world.path("new/joining/key.pem").exists());
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
