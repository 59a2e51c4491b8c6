//! The real `dnf` behind real nodes, with RPM repositories that the tests make.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use sutler_tests::apt_root::Said;
use sutler_tests::dnf_root::DnfRoot;
use sutler_tests::machine::Machine;
use sutler_tests::proxy_node::{ProxyNode, Setup};
use sutler_tests::skip;
use sutler_tests::vendor::{Conduct, IndexNames, Origin, RpmRepository, Signer};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A vendor with one repository, and a node that knows whose signature counts.
struct Scene {
    machine: Machine,
    folder: TempDir,
    repository: RpmRepository,
    origin: Origin,
    node: ProxyNode,
    /// The path of the one package, below the origin's root.
    tool: String,
}

impl Scene {
    fn new(trusted: &Signer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = RpmRepository::new(folder.path().join("el9"));
        let tool = format!("el9/{}", repository.add("tool", "1.0", 300_000));
        let (origin, machine) = (Origin::serve(folder.path()), Machine::new());
        let keyring = machine.path("vendor.asc");
        fs::write(&keyring, trusted.public_armored()).unwrap();
        let feeds = vec![(origin.url("el9"), keyring)];
        let node =
            ProxyNode::start(&machine, "node", &origin, &Setup { feeds, ..Setup::default() });
        Self { machine, folder, repository, origin, node, tool }
    }

    fn client(&self, signer: Option<&Signer>) -> DnfRoot {
        let dnf = DnfRoot::behind(self.node.proxy);
        dnf.follow("house", &self.origin.url("el9/"), signer);
        dnf
    }

    /// Returns what the node says of its one feed.
    fn feed(&self) -> Value {
        self.node.status(&self.machine)["service"]["proxy"]["feeds"][0].clone()
    }

    /// Returns whether the node's store offers the package to peers, once it has it.
    fn is_offered(&self) -> Value {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let rows = self.machine.ok(["store", "ls", "--data", "node", "--json"]);
            let mut rows = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
            let is_it =
                |row: &Value| row["name"] == "tool-1.0-1.noarch.rpm" && row["complete"] == true;
            if let Some(row) = rows.find(is_it) {
                return row["offered"].clone();
            }
            assert!(Instant::now() < give_up, "the package is not kept");
        }
    }
}

#[track_caller]
fn well(said: &Said) {
    assert!(said.is_ok, "{}", said.text);
}

/// Returns whether a test cannot run here.
fn is_skipped(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip(test, "dnf installs as root alone");
    }
    !is_root
}

// D5, R31
#[test]
fn what_one_dnf_installs_comes_to_the_next_without_the_vendor() {
    if is_skipped("what_one_dnf_installs_comes_to_the_next_without_the_vendor") {
        return;
    }
    for (names, is_signed) in
        [(IndexNames::Unique, true), (IndexNames::Simple, true), (IndexNames::Unique, false)]
    {
        let signer = Signer::new();
        let scene = Scene::new(&signer);
        let signed_by = Some(&signer).filter(|_| is_signed);
        scene.repository.publish(names, signed_by);
        let first = scene.client(signed_by);
        well(&first.install(&["tool"]));
        assert_eq!(first.installed("tool").as_deref(), Some("1.0"));
        let package = fs::read(scene.folder.path().join(&scene.tool)).unwrap();
        assert_eq!(scene.origin.asked(&scene.tool).bytes, package.len() as u64);

        let before = scene.origin.asked_below("el9/").bytes;
        let second = scene.client(signed_by);
        well(&second.install(&["tool"]));
        assert_eq!(second.installed("tool").as_deref(), Some("1.0"));
        assert_eq!(scene.origin.asked_below("el9/").bytes, before, "{names:?}, {is_signed}");
        assert_eq!(scene.feed()["state"], if is_signed { "verified" } else { "unsigned" });
        assert_eq!(scene.is_offered(), is_signed);

        // A new release reaches who asks for it, once.
        let tool = format!("el9/{}", scene.repository.add("tool", "2.0", 300_000));
        scene.repository.publish(names, signed_by);
        well(&first.upgrade());
        assert_eq!(first.installed("tool").as_deref(), Some("2.0"));
        let before = scene.origin.asked_below("el9/").bytes;
        well(&second.upgrade());
        assert_eq!(second.installed("tool").as_deref(), Some("2.0"));
        assert_eq!(scene.origin.asked_below("el9/").bytes, before, "{names:?}, {is_signed}");
        assert_eq!(scene.origin.asked(&tool).requests, 1);
        if is_signed {
            assert_eq!(scene.feed()["packages"], 2);
        }
    }
}

#[test]
fn what_was_fetched_is_installed_by_dnf_while_the_vendor_is_down() {
    if is_skipped("what_was_fetched_is_installed_by_dnf_while_the_vendor_is_down") {
        return;
    }
    let signer = Signer::new();
    let scene = Scene::new(&signer);
    scene.repository.publish(IndexNames::Unique, Some(&signer));
    well(&scene.client(Some(&signer)).install(&["tool"]));
    scene.origin.behave_everywhere(Some(Conduct::Hangs));
    let second = scene.client(Some(&signer));
    well(&second.install(&["tool"]));
    assert_eq!(second.installed("tool").as_deref(), Some("1.0"));
}

// R39, T14
#[test]
fn a_repository_that_somebody_else_signed_is_passed_on_and_vouches_for_nothing() {
    if is_skipped("a_repository_that_somebody_else_signed_is_passed_on_and_vouches_for_nothing") {
        return;
    }
    let (trusted, other) = (Signer::new(), Signer::new());
    let scene = Scene::new(&trusted);
    scene.repository.publish(IndexNames::Unique, Some(&other));
    // dnf judges for itself: it is told of the same key as the node.
    let said = scene.client(Some(&trusted)).make_cache();
    assert!(!said.is_ok, "{}", said.text);
    assert_eq!(
        (&scene.feed()["state"], &scene.feed()["packages"]),
        (&"unknown-key".into(), &0.into())
    );
    let (_, body) = scene.node.curl(&scene.origin.url("el9/repodata/repomd.xml"), &[]);
    assert!(body == fs::read(scene.repository.path("repodata/repomd.xml")).unwrap());
    let (_, body) = scene.node.curl(&scene.origin.url(&scene.tool), &[]);
    assert!(body == fs::read(scene.folder.path().join(&scene.tool)).unwrap());
    assert_eq!(scene.is_offered(), false);
}

// T14, R39
#[test]
fn an_rpm_that_differs_from_its_index_is_not_given_to_its_end() {
    if is_skipped("an_rpm_that_differs_from_its_index_is_not_given_to_its_end") {
        return;
    }
    let signer = Signer::new();
    let scene = Scene::new(&signer);
    scene.repository.publish(IndexNames::Unique, Some(&signer));
    let dnf = scene.client(Some(&signer));
    well(&dnf.make_cache());
    scene.origin.behave(&scene.tool, Conduct::Flips(1000));
    let said = dnf.install(&["tool"]);
    assert!(!said.is_ok && dnf.installed("tool").is_none(), "{}", said.text);
    scene.origin.behave_well();
    let next = scene.client(Some(&signer));
    well(&next.install(&["tool"]));
    assert_eq!(next.installed("tool").as_deref(), Some("1.0"));
}
