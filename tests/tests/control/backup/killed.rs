//! Control killed at every step of catching up: it goes on from there, has everything in the end, signs above what nodes
//! hold, and serves nothing older (R164, T31).

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use sutler_tests::running::Running;

use crate::{Daemon, Site, soon};

/// How long a start may take that is watched for a step.
const PATIENCE: Duration = Duration::from_mins(1);

/// How control came to be behind what devices have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// `sutler control restore` put it back, and wrote so down.
    Restored,
    /// Somebody put the machine back: nothing says so.
    PutBack,
}

/// What of catching up has happened.
#[derive(Clone, Copy, Debug)]
enum Step {
    Started,
    OrderFile,
    Role,
    Timestamp,
    Root,
    WrittenDown,
    SignedAbove,
    Done,
}

const STEPS: [Step; 8] = [
    Step::Started,
    Step::OrderFile,
    Step::Role,
    Step::Timestamp,
    Step::Root,
    Step::WrittenDown,
    Step::SignedAbove,
    Step::Done,
];

/// A control that was lost, and a node that has seen more.
struct World {
    site: Site,
    node: Daemon,
    /// Where control listens, whichever it is.
    address: String,
    /// The control that goes on until it is lost the next time.
    control: Option<Daemon>,
}

impl World {
    fn new() -> Self {
        let site = Site::new();
        let control = site.control("127.0.0.1:0");
        let address = control.address();
        let node = site.node(&address);
        soon("the node believes", || site.believed() > 0);
        site.publish("numbers.bin");
        site.done("control backup control.tar --data org");
        let world = Self { site, node, address, control: Some(control) };
        world.copy("org", "saved");
        let site = &world.site;
        fs::create_dir(site.path("safe")).unwrap();
        fs::copy(site.path("org/keys/laptop.key"), site.path("safe/laptop.key")).unwrap();
        // What follows is in no backup.
        site.done("approve numbers.bin --scope all --key safe/laptop.key --reason tested");
        site.done("site add lab --tz Europe/Berlin --key safe/laptop.key");
        site.done("key renew root --key safe/laptop.key");
        soon("the node believes it", || site.believed() == site.published());
        fs::create_dir(site.path("client")).unwrap();
        let root = site.path("org/repository/metadata/1.root.json");
        let mut init = Command::new(sutler_tests::program::sutler_tuf());
        init.args(["--metadata-dir", "client", "init"]).arg(root);
        assert!(init.current_dir(site.folder.path()).status().unwrap().success());
        world
    }

    fn copy(&self, from: &str, to: &str) {
        let mut copy = Command::new("cp");
        copy.args(["-a", from, to]).current_dir(self.site.folder.path());
        assert!(copy.status().unwrap().success());
    }

    /// Takes control away and puts its older self in its place.
    fn lose(&mut self, lost: Lost) {
        let control = self.control.take().unwrap();
        soon("the node believes all", || self.site.believed() == self.site.published());
        control.running.kill();
        fs::remove_dir_all(self.site.path("org")).unwrap();
        match lost {
            Lost::Restored => drop(self.site.done("control restore control.tar --data org")),
            Lost::PutBack => self.copy("saved", "org"),
        }
        let sources =
            format!("[control]\nhttp = '127.0.0.1:0'\nsources = ['{}']\n", self.node.address());
        fs::write(self.site.path("control.toml"), sources).unwrap();
    }

    fn start(&self, name: &str) -> Running {
        let start = "control --data org --config control.toml --listen";
        let mut command = self.site.command(&format!("{start} {}", self.address));
        Running::start(&mut command, &self.site.path(name))
    }

    /// Returns whether a step has been done, beside what lay there before.
    fn is_at(&self, step: Step, before: &Before) -> bool {
        let path = |name: &str| self.site.path("org/repository").join(name);
        match step {
            Step::Started => true,
            Step::OrderFile => path("targets/approvals/all").exists(),
            Step::Role => path("metadata/1.approvals-all.json").exists(),
            Step::Timestamp => self.site.published() != before.published,
            Step::Root => path("metadata/2.root.json").exists(),
            Step::WrittenDown => self.site.log().contains("catch-up"),
            Step::SignedAbove => {
                path(&format!("metadata/{}.snapshot.json", before.believed + 1)).exists()
            }
            Step::Done => {
                let marked = self.site.path("org/restored.json").exists();
                !marked && self.site.published() > before.believed
            }
        }
    }
}

/// What was there before control caught up.
struct Before {
    /// The version that lies in the folder.
    published: u64,
    /// The version that the node believes.
    believed: u64,
}

fn said_listening(running: &Running) -> bool {
    running.printed().contains("listening ")
}

/// Kills control at a step of catching up, several times over, and then lets it go on.
fn kill_at(world: &mut World, step: Step, lost: Lost) {
    world.lose(lost);
    let before = Before { published: world.site.published(), believed: world.site.believed() };
    assert!(before.believed > before.published, "{step:?}");
    for turn in 0..2 {
        let mut running = world.start(&format!("killed-{turn}"));
        let until = Instant::now() + PATIENCE;
        while !world.is_at(step, &before) && !said_listening(&running) {
            assert!(Instant::now() < until, "{step:?} {lost:?} is never reached");
            assert!(
                running.ended_by(Instant::now()).is_none(),
                "{step:?} {lost:?}: {:?}",
                running.end()
            );
        }
        let served = running.kill();
        // Whoever was answered at all was answered with what is above.
        let is_above = world.site.published() > before.believed;
        assert!(!served.stdout.contains("listening ") || is_above, "{step:?} {lost:?}");
        let is_marked = world.site.path("org/restored.json").exists();
        if is_marked {
            let said = world
                .site
                .fails("deny numbers.bin --scope all --key safe/laptop.key", super::REFUSED);
            assert!(said.contains("sutler control"), "{step:?} {lost:?}: {said}");
        } else if lost == Lost::Restored {
            assert!(is_above, "{step:?}: it is over before it is");
        }
    }
    let listen = format!("control --data org --config control.toml --listen {}", world.address);
    let control = world.site.daemon("control", &listen);
    let site = &world.site;
    assert!(site.published() > before.believed, "{step:?} {lost:?}");
    let shown = site.done("manifest show");
    assert!(shown.contains("\"reason\": \"tested\""), "{step:?} {lost:?}: {shown}");
    assert!(site.done("site list").contains("Europe/Berlin"), "{step:?} {lost:?}");
    assert!(site.path("org/repository/metadata/2.root.json").exists(), "{step:?} {lost:?}");
    assert!(!site.path("org/restored.json").exists(), "{step:?} {lost:?}");
    soon("the node believes the next one", || site.believed() == site.published());
    assert!(site.refresh(&control.says("repository ")), "{step:?} {lost:?}: a rollback");
    site.done("audit verify org/audit/log");
    assert!(site.log().contains("catch-up"), "{step:?} {lost:?}");
    world.control = Some(control);
}

// R164, T31
#[test]
fn a_restored_control_that_is_killed_while_it_catches_up_has_everything_in_the_end() {
    let mut world = World::new();
    for step in STEPS {
        kill_at(&mut world, step, Lost::Restored);
    }
    // An admin goes on from there.
    world.site.done("deny numbers.bin --scope all --key safe/laptop.key");
    soon("the node believes the denial", || world.site.believed() == world.site.published());
}

// R164, T31
#[test]
fn a_control_that_was_put_back_and_is_killed_while_it_catches_up_starts_again() {
    let mut world = World::new();
    for step in [Step::Timestamp, Step::Root, Step::WrittenDown, Step::SignedAbove] {
        kill_at(&mut world, step, Lost::PutBack);
    }
}
