//! The real `apt-get` behind real nodes, with archives that the tests make.

use std::fs;
use std::net::SocketAddr;

use sutler_tests::apt_root::{AptRoot, Said};
use sutler_tests::machine::Machine;
use sutler_tests::proxy_node::{ProxyNode, Setup};
use sutler_tests::vendor::archive::architecture;
use sutler_tests::vendor::{Archive, Conduct, Origin, Publication, Signer};
use tempfile::TempDir;

/// A vendor with one archive, and whoever is behind its node.
struct Scene {
    machine: Machine,
    folder: TempDir,
    archive: Archive,
    signer: Signer,
    origin: Origin,
    /// The path of the one package, below the origin's root.
    tool: String,
    tool_bytes: u64,
}

impl Scene {
    fn new(publication: &Publication) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::new(folder.path().join("debian"), "stable", &["main"]);
        let tool = archive.add("main", "tool", "1.0", 300_000);
        let tool_bytes = fs::metadata(archive.path(&tool)).unwrap().len();
        let signer = Signer::new();
        archive.publish(&signer, publication);
        let origin = Origin::serve(folder.path());
        let (machine, tool) = (Machine::new(), format!("debian/{tool}"));
        Self { machine, folder, archive, signer, origin, tool, tool_bytes }
    }

    fn node(&self) -> ProxyNode {
        self.node_at("node", Vec::new())
    }

    /// Starts a node that knows who signs the archive.
    fn node_at(&self, data: &str, upstream: Vec<SocketAddr>) -> ProxyNode {
        let keyring = self.machine.path("vendor.asc");
        fs::write(&keyring, self.signer.public_armored()).unwrap();
        let feeds = vec![(self.origin.url("debian/dists/stable"), keyring)];
        let setup = Setup { upstream, feeds, apt_config: None };
        ProxyNode::start(&self.machine, data, &self.origin, &setup)
    }

    /// Returns a client of a node that follows the archive.
    fn client(&self, node: &ProxyNode) -> AptRoot {
        let apt = node.client();
        apt.follow("house", &self.origin.url("debian"), "stable", &self.signer);
        apt
    }

    fn url(&self, name: &str) -> String {
        self.origin.url(&format!("debian/dists/stable/{name}"))
    }
}

fn packages() -> String {
    format!("main/binary-{}/Packages.xz", architecture())
}

#[track_caller]
fn well(said: &Said) {
    assert!(said.is_ok, "{}", said.text);
}

fn without_by_hash() -> Publication {
    Publication { by_hash: false, ..Publication::default() }
}

#[test]
fn the_house_vendor_satisfies_the_real_apt() {
    let scene = Scene::new(&Publication::default());
    let apt = AptRoot::new();
    apt.follow("house", &scene.origin.url("debian"), "stable", &scene.signer);
    apt.update_well();
    well(&apt.install(&["tool"]));
    assert_eq!(apt.installed("tool").as_deref(), Some("1.0"));
    assert_eq!(scene.origin.asked(&scene.tool).bytes, scene.tool_bytes);
}

// D5, R31
#[test]
fn what_one_apt_installs_comes_to_the_next_without_the_vendor() {
    for publication in [
        Publication::default(),
        without_by_hash(),
        Publication { in_release: false, ..Publication::default() },
        Publication { prefix: "updates/", ..Publication::default() },
        Publication { packed: vec!["gz"], ..Publication::default() },
        Publication { packed: vec!["zst"], ..Publication::default() },
    ] {
        let scene = Scene::new(&publication);
        let node = scene.node();
        let first = scene.client(&node);
        first.update_well();
        well(&first.install(&["tool"]));
        assert_eq!(first.installed("tool").as_deref(), Some("1.0"));
        assert_eq!(scene.origin.asked(&scene.tool).bytes, scene.tool_bytes);

        let before = scene.origin.asked_below("debian/").bytes;
        let second = scene.client(&node);
        second.update_well();
        well(&second.install(&["tool"]));
        well(&second.download(&["tool"]));
        assert_eq!(second.installed("tool").as_deref(), Some("1.0"));
        let deb = fs::read(second.path("downloads/tool_1.0_all.deb")).unwrap();
        assert!(deb == fs::read(scene.folder.path().join(&scene.tool)).unwrap());
        assert_eq!(scene.origin.asked_below("debian/").bytes, before, "{publication:?}");
    }
}

// D5, R31
#[test]
fn the_sources_of_a_package_come_once_and_are_vouched_for_file_by_file() {
    let scene = Scene::new(&Publication::default());
    let files = scene.archive.add_source("main", "tool", "1.0", 200_000);
    scene.archive.publish(&scene.signer, &Publication::default());
    let node = scene.node();
    let client = || {
        let apt = node.client();
        apt.follow_sources("house", &scene.origin.url("debian"), "stable", &scene.signer);
        apt.update_well();
        well(&apt.source(&["tool"]));
        apt
    };
    client();
    let before = scene.origin.asked_below("debian/").bytes;
    let second = client();
    assert_eq!(scene.origin.asked_below("debian/").bytes, before);
    let rows = scene.machine.ok(["store", "ls", "--data", "node", "--json"]);
    for path in &files {
        let name = path.rsplit('/').next().unwrap();
        assert!(
            fs::read(second.path("downloads").join(name)).unwrap()
                == fs::read(scene.archive.path(path)).unwrap()
        );
        let row = rows.lines().find(|row| row.contains(name)).unwrap();
        assert!(row.contains("\"offered\":true"), "{row}");
    }
}

#[test]
fn a_new_release_reaches_clients_that_ask_for_it() {
    for publication in [Publication::default(), without_by_hash()] {
        let scene = Scene::new(&publication);
        let node = scene.node();
        let apt = scene.client(&node);
        apt.update_well();
        well(&apt.install(&["tool"]));

        scene.archive.add("main", "tool", "2.0", 300_000);
        scene.archive.publish(&scene.signer, &publication);
        apt.update_well();
        well(&apt.upgrade());
        assert_eq!(apt.installed("tool").as_deref(), Some("2.0"));
    }
}

#[test]
fn a_client_that_has_not_updated_since_installs_what_it_knows_of() {
    let scene = Scene::new(&Publication::default());
    let node = scene.node();
    let (old, new) = (scene.client(&node), scene.client(&node));
    old.update_well();
    well(&old.download(&["tool"]));
    scene.archive.add("main", "tool", "2.0", 300_000);
    // The vendor takes the old one away, and the node still has it.
    scene.archive.remove(scene.tool.strip_prefix("debian/").unwrap());
    scene.archive.publish(&scene.signer, &Publication::default());
    new.update_well();
    well(&new.install(&["tool"]));
    assert_eq!(new.installed("tool").as_deref(), Some("2.0"));
    well(&old.install(&["tool"]));
    assert_eq!(old.installed("tool").as_deref(), Some("1.0"));
}

#[test]
fn a_release_that_comes_in_the_middle_of_an_update_is_not_mixed_with_the_old() {
    for publication in [Publication::default(), without_by_hash()] {
        let scene = Scene::new(&publication);
        let other = Archive::new(scene.folder.path().join("other"), "stable", &["main"]);
        other.add("main", "other", "1.0", 10);
        other.publish(&scene.signer, &publication);
        let node = scene.node();
        scene.client(&node).update_well();

        // apt has the first archive's InRelease, and waits for the second's before it goes on.
        let apt = scene.client(&node);
        apt.follow("other", &scene.origin.url("other"), "stable", &scene.signer);
        let second = "other/dists/stable/InRelease";
        scene.origin.behave(second, Conduct::Stalls(1));
        let updating = apt.start(&["update"]);
        scene.origin.wait_for(second, 1);

        scene.archive.add("main", "tool", "2.0", 300_000);
        scene.archive.publish(&scene.signer, &publication);
        // Another machine sees the new release, and all that belongs to it.
        let elsewhere = ["--interface", "127.0.0.2", "--header", "Cache-Control: max-age=0"];
        let (_, release) = node.curl(&scene.url("InRelease"), &elsewhere);
        assert!(release == fs::read(scene.archive.path("dists/stable/InRelease")).unwrap());
        let (_, index) = node.curl(&scene.url(&packages()), &elsewhere);
        assert!(
            index == fs::read(scene.archive.path(format!("dists/stable/{}", packages()))).unwrap()
        );

        scene.origin.behave_well();
        let said = Said::of(updating.wait_with_output().unwrap());
        assert!(said.is_ok && !said.text.contains("Hash Sum mismatch"), "{}", said.text);
        well(&apt.install(&["tool", "other"]));
        assert_eq!(apt.installed("tool").as_deref(), Some("1.0"), "the release that it has seen");
        apt.update_well();
        well(&apt.upgrade());
        assert_eq!(apt.installed("tool").as_deref(), Some("2.0"));
    }
}

#[test]
fn what_was_fetched_is_installed_while_the_vendor_is_down() {
    let scene = Scene::new(&Publication::default());
    let node = scene.node();
    let first = scene.client(&node);
    first.update_well();
    well(&first.download(&["tool"]));

    scene.origin.behave_everywhere(Some(Conduct::Hangs));
    let second = scene.client(&node);
    second.update_well();
    well(&second.install(&["tool"]));
    assert_eq!(second.installed("tool").as_deref(), Some("1.0"));
    let (head, _) = node.curl(&scene.url("InRelease"), &["--header", "Cache-Control: no-cache"]);
    assert!(head.contains("warning: 110") || head.contains("warning: 111"), "{head}");
}

// R33, D6
#[test]
fn a_second_node_fills_from_the_first_and_not_from_the_vendor() {
    let scene = Scene::new(&Publication::default());
    let first = scene.node();
    let client = scene.client(&first);
    client.update_well();
    well(&client.install(&["tool"]));
    assert_eq!(scene.origin.asked(&scene.tool).bytes, scene.tool_bytes);

    let second = scene.node_at("second", vec![first.address]);
    let client = scene.client(&second);
    client.update_well();
    well(&client.install(&["tool"]));
    assert_eq!(client.installed("tool").as_deref(), Some("1.0"));
    assert_eq!(scene.origin.asked(&scene.tool).bytes, scene.tool_bytes, "the vendor sent it once");
}

// T14, R39
#[test]
fn a_package_that_differs_from_its_index_is_refused_by_apt_and_not_kept() {
    let scene = Scene::new(&Publication::default());
    let node = scene.node();
    let apt = scene.client(&node);
    apt.update_well();
    scene.origin.behave(&scene.tool, Conduct::Flips(1000));
    let said = apt.install(&["tool"]);
    assert!(!said.is_ok, "{}", said.text);
    assert_eq!(apt.installed("tool"), None);

    scene.origin.behave_well();
    let next = scene.client(&node);
    next.update_well();
    well(&next.install(&["tool"]));
    assert_eq!(next.installed("tool").as_deref(), Some("1.0"));
    // The first apt kept what it had been given, and would go on from there.
    apt.clean();
    well(&apt.install(&["tool"]));
}

#[test]
fn a_node_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let scene = Scene::new(&Publication::default());
    let node = scene.node();
    let apt = scene.client(&node);
    apt.update_well();
    scene.origin.behave(&scene.tool, Conduct::Stalls(200_000));
    let downloading = apt.start(&["download", "tool"]);
    scene.origin.wait_for(&scene.tool, 190_000);
    node.kill();
    assert!(!Said::of(downloading.wait_with_output().unwrap()).is_ok);

    scene.origin.behave_well();
    let node = scene.node();
    apt.configure(Some(node.proxy));
    well(&apt.install(&["tool"]));
    assert_eq!(apt.installed("tool").as_deref(), Some("1.0"));
}
