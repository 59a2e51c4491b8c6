//! What the caching proxy makes of a vendor's signatures, and the commands that know the proxy.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use sutler_tests::machine::{Machine, end};
use sutler_tests::vendor::{Archive, Conduct, Origin, Publication, Signer};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A vendor with one package, and a machine whose node may ask it.
struct Scene {
    machine: Machine,
    folder: TempDir,
    archive: Archive,
    origin: Origin,
    /// The path of the one package, below the origin's root.
    tool: String,
}

/// A node with its proxy. Killed when dropped.
struct Node {
    child: Child,
    proxy: SocketAddr,
}

impl Scene {
    /// Makes a vendor whose releases `trusted` is to sign.
    fn new(trusted: &Signer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::new(folder.path().join("debian"), "stable", &["main"]);
        let tool = format!("debian/{}", archive.add("main", "tool", "1.0", 300_000));
        let origin = Origin::serve(folder.path());
        let machine = Machine::new();
        fs::write(machine.path("vendor.gpg"), trusted.public()).unwrap();
        let config = format!(
            "store.free_bytes_min = 0\norigin.proxy = 'none'\n[http_proxy]\n\
             listen = '127.0.0.1:0'\napt_sources = false\n\
             allow = [{{ url = '{}', private = true }}]\n\
             feeds = [{{ url = '{}', keyring = '{}' }}]\n",
            origin.url(""),
            origin.url("debian/dists/stable"),
            machine.path("vendor.gpg").display()
        );
        fs::write(machine.path("node/sutler.toml"), config).unwrap();
        Self { machine, folder, archive, origin, tool }
    }

    /// Adds a node that asks the first one before the vendor.
    fn second(&self, first: &str) -> Node {
        let issue = "org issue ca --site here --role node --out second/identity";
        self.machine.ok(issue.split(' '));
        let config = fs::read_to_string(self.machine.path("node/sutler.toml")).unwrap();
        let config = format!("{config}upstream = ['{first}']\n");
        fs::write(self.machine.path("second/sutler.toml"), config).unwrap();
        self.node_in("second")
    }

    fn node(&self) -> Node {
        self.node_in("node")
    }

    fn node_in(&self, data: &str) -> Node {
        let arguments = ["node", "--data", data, "--listen", "127.0.0.1:0"];
        let (child, said) = self.machine.start(&arguments, "proxy ");
        let proxy = said.trim().strip_prefix("proxy http://").unwrap().parse().unwrap();
        Node { child, proxy }
    }

    fn status(&self) -> Value {
        self.status_of("node")
    }

    fn status_of(&self, data: &str) -> Value {
        self.machine.json(["status", "--data", data])["service"].clone()
    }

    /// Returns what the node says of its one feed, once that is so.
    fn feed(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.feed_of("node", what, is_so)
    }

    fn feed_of(&self, data: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let feed = self.status_of(data)["proxy"]["feeds"][0].clone();
            if is_so(&feed) {
                return feed;
            }
            assert!(Instant::now() < give_up, "never {what}: {feed}");
        }
    }

    /// Returns what the node's store has of the package.
    fn row(&self) -> Value {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let text = self.machine.ok(["store", "ls", "--data", "node", "--json"]);
            let mut rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let is_it = |row: &Value| row["name"] == "tool_1.0_all.deb" && row["complete"] == true;
            if let Some(row) = rows.find(is_it) {
                return row;
            }
            assert!(Instant::now() < give_up, "the package is not kept: {text}");
        }
    }

    fn url(&self, name: &str) -> String {
        self.origin.url(&format!("debian/dists/stable/{name}"))
    }

    fn bytes(&self, path: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(path)).unwrap()
    }
}

impl Node {
    /// Asks for a URL as apt does, and returns what answers.
    fn ask(&self, url: &str) -> TcpStream {
        let host = url.split('/').nth(2).unwrap();
        let mut stream = TcpStream::connect(self.proxy).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "GET {url} HTTP/1.1\r\nHost: {host}\r\nCache-Control: max-age=0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// Asks for a URL, and returns the status and the body as far as it came.
    fn get(&self, url: &str) -> (u16, Vec<u8>) {
        let mut reply = Vec::new();
        // A body that is broken off ends like this.
        drop(self.ask(url).read_to_end(&mut reply));
        let head = reply.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let status = String::from_utf8_lossy(&reply[9..12]).parse().unwrap();
        (status, reply[head..].to_vec())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn packages() -> String {
    format!("main/binary-{}/Packages.xz", sutler_tests::vendor::archive::architecture())
}

// R39, R40, R31
#[test]
fn what_a_verified_feed_names_is_for_peers_and_the_rest_is_not() {
    let signer = Signer::new();
    let scene = Scene::new(&signer);
    scene.archive.publish(&signer, &Publication::default());
    let mut node = scene.node();
    assert_eq!(node.get(&scene.url("InRelease")).0, 200);
    assert_eq!(node.get(&scene.url(&packages())).0, 200);
    let feed = scene.feed("an index is read", |feed| feed["packages"] == 1);
    assert_eq!((&feed["state"], &feed["owner"]), (&"verified".into(), &"Throw Away".into()));
    assert_eq!(feed["suite"], "stable");
    assert!(feed["age_seconds"].as_u64().unwrap() < 60, "{feed}");

    let tool = scene.bytes(&scene.tool);
    assert!(node.get(&scene.origin.url(&scene.tool)) == (200, tool.clone()));
    let row = scene.row();
    assert_eq!(row["offered"], true);
    let listed = |host: &str| {
        let ls = ["store", "ls", "--data", "node", "--origin", host, "--json"];
        scene.machine.ok(ls).lines().count()
    };
    assert_eq!((listed("127.0.0.1"), listed(&scene.origin.address.to_string())), (3, 3));
    assert_eq!(listed("deb.debian.org"), 0);

    let (id, at) = (row["content"].as_str().unwrap(), scene.status()["listen"][0].clone());
    let fetch = ["fetch", id, "--data", "agent", "--from", at.as_str().unwrap(), "--out", "got"];
    scene.machine.ok(fetch);
    assert!(fs::read(scene.machine.path("got")).unwrap() == tool);
    let rows = scene.machine.ok(["store", "ls", "--data", "node", "--json"]);
    let release = rows.lines().find(|row| row.contains("\"InRelease\"")).unwrap();
    let release: Value = serde_json::from_str(release).unwrap();
    assert_eq!(release["offered"], false);
    let id = release["content"].as_str().unwrap();
    let fetch = ["fetch", id, "--data", "agent", "--from", at.as_str().unwrap(), "--out", "no"];
    scene.machine.fails(3, fetch);

    // After a restart it vouches again, and nobody was asked.
    let asked = scene.origin.asked_below("debian").requests;
    assert!(end(&mut node.child, "TERM").success());
    let _node = scene.node();
    let feed = scene.feed("it is read again", |feed| feed["packages"] == 1);
    assert_eq!(feed["state"], "verified");
    assert_eq!(scene.origin.asked_below("debian").requests, asked);
}

// R39, R41
#[test]
fn a_feed_that_does_not_verify_is_passed_on_as_it_is_and_vouches_for_nothing() {
    let (trusted, other) = (Signer::new(), Signer::new());
    let now = SystemTime::now();
    let (hour, day) = (Duration::from_hours(1), Duration::from_hours(24));
    let old = Publication { at: now - 2 * day, valid_for: Some(hour), ..Publication::default() };
    let future = Publication { at: now + day, ..Publication::default() };
    let detached = Publication { in_release: false, ..Publication::default() };
    let plain = Publication::default();
    for (state, signer, publication) in [
        ("unknown-key", &other, &plain),
        ("expired-index", &trusted, &old),
        ("clock", &trusted, &future),
        ("bad-signature", &trusted, &plain),
        ("unsigned", &trusted, &detached),
    ] {
        let scene = Scene::new(&trusted);
        scene.archive.publish(signer, publication);
        let suite = scene.archive.path(scene.archive.suite_folder());
        let name = if publication.in_release { "InRelease" } else { "Release" };
        if state == "bad-signature" {
            let text = fs::read_to_string(suite.join(name)).unwrap();
            fs::write(suite.join(name), text.replace("Throw Away", "Throw Them")).unwrap();
        }
        if state == "unsigned" {
            fs::remove_file(suite.join("Release.gpg")).unwrap();
        }
        let node = scene.node();
        let (status, body) = node.get(&scene.url(name));
        assert_eq!(status, 200, "{state}");
        assert!(body == fs::read(suite.join(name)).unwrap(), "{state}: not as it is");
        assert_eq!(node.get(&scene.url(&packages())).0, 200, "{state}");
        let feed = scene.feed("it is judged", |feed| !feed.is_null());
        assert_eq!((&feed["state"], &feed["packages"]), (&state.into(), &0.into()), "{feed}");
        let told = scene.machine.ok(["status", "--data", "node"]);
        assert!(
            told.lines().any(|line| line.starts_with("feed") && line.contains(state)),
            "{told}"
        );
        // Clients get the package all the same, and peers do not.
        assert!(node.get(&scene.origin.url(&scene.tool)) == (200, scene.bytes(&scene.tool)));
        assert_eq!(scene.row()["offered"], false, "{state}");
    }
}

// R39, T7
#[test]
fn an_index_or_a_package_that_its_release_does_not_name_is_not_given_to_the_end() {
    let signer = Signer::new();
    let scene = Scene::new(&signer);
    let publication = Publication { by_hash: false, ..Publication::default() };
    scene.archive.publish(&signer, &publication);
    let node = scene.node();
    assert_eq!(node.get(&scene.url("InRelease")).0, 200);
    let index = format!("debian/dists/stable/{}", packages());
    scene.origin.behave(&index, Conduct::Flips(10));
    let (status, body) = node.get(&scene.url(&packages()));
    assert!(status == 502 || body.len() < scene.bytes(&index).len(), "{status}");
    scene.origin.behave_well();
    assert!(node.get(&scene.url(&packages())) == (200, scene.bytes(&index)));
    scene.feed("an index is read", |feed| feed["packages"] == 1);

    let (url, tool) = (scene.origin.url(&scene.tool), scene.bytes(&scene.tool));
    scene.origin.behave(&scene.tool, Conduct::Flips(200_000));
    let (_, body) = node.get(&url);
    assert!(body.len() < tool.len(), "its end was given out");
    scene.origin.behave_well();
    assert!(node.get(&url) == (200, tool));
}

// R39, T14, T5
#[test]
fn an_index_that_is_signed_and_makes_no_sense_is_passed_on_and_vouches_for_nothing() {
    let signer = Signer::new();
    let plain = Publication { packed: vec!["xz"], ..Publication::default() };
    let scene = Scene::new(&signer);
    scene.archive.publish(&signer, &plain);
    let index = scene.archive.path(format!("dists/stable/{}", packages()));
    let good = fs::read_to_string(index.with_extension("")).unwrap();
    let (path, text) = ("Filename: pool/main/tool", "Description: nothing");
    assert!(good.contains(path) && good.contains(text));
    let tool = scene.bytes(&scene.tool);
    let node = scene.node();
    for (what, reason, plain_index) in [
        ("a path that leads out", "malformed", good.replace(path, "Filename: ../../etc/tool")),
        ("a line of 50 MB", "too-large", good.replace(text, &"x".repeat(50_000_000))),
        ("a truncated xz", "malformed", good.clone()),
    ] {
        fs::write(index.with_extension(""), plain_index).unwrap();
        let xz = Command::new("xz").args(["-1", "--stdout"]).arg(index.with_extension("")).output();
        let mut packed = xz.unwrap().stdout;
        if what == "a truncated xz" {
            packed.truncate(packed.len() / 2);
        }
        fs::write(&index, &packed).unwrap();
        scene.archive.sign(&signer, &plain);
        assert_eq!(node.get(&scene.url("InRelease")).0, 200, "{what}");
        assert!(node.get(&scene.url(&packages())) == (200, packed), "{what}: not as it is");
        let feed = scene.feed(what, |feed| feed["unread"][packages()] == reason);
        assert_eq!((&feed["packages"], &feed["state"]), (&0.into(), &"verified".into()), "{what}");
        assert!(node.get(&scene.origin.url(&scene.tool)) == (200, tool.clone()), "{what}");
        assert_eq!(scene.row()["offered"], false, "{what}");
    }
}

// R34
#[test]
fn a_node_that_is_killed_half_way_fetches_little_again() {
    const SOME: usize = 200_000;
    let signer = Signer::new();
    let scene = Scene::new(&signer);
    scene.archive.publish(&signer, &Publication::default());
    let mut node = scene.node();
    let (url, tool) = (scene.origin.url(&scene.tool), scene.bytes(&scene.tool));
    scene.origin.behave(&scene.tool, Conduct::Stalls(SOME as u64));
    // A client is given what the node has written, so this much it has.
    node.ask(&url).read_exact(&mut vec![0; SOME]).unwrap();
    end(&mut node.child, "KILL");
    scene.origin.behave_well();
    let node = scene.node();
    assert!(node.get(&url) == (200, tool.clone()));
    // A chunk, and what the vendor sent into the broken connection before it saw that.
    let again = 65_536 + 2 * 16_384;
    assert!(scene.origin.asked(&scene.tool).bytes <= (tool.len() + again) as u64);
}

#[test]
fn apt_is_told_of_the_first_node_that_answers_and_quickly_of_none() {
    let scene = Scene::new(&Signer::new());
    let node = scene.node();
    let url = format!("http://{}", node.proxy);
    // One that takes connections and says nothing, and one that is no proxy of ours.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let vendor = scene.origin.url("");
    let ask = |nodes: &[&str]| {
        let mut arguments = vec!["apt-proxy"];
        for node in nodes {
            arguments.extend(["--node", node]);
        }
        arguments.push("http://deb.debian.org/debian");
        scene.machine.ok(arguments).trim().to_owned()
    };
    assert_eq!(ask(&[&url]), url);
    assert_eq!(ask(&[&silent, &vendor, &url]), url);
    assert_eq!(ask(&[&silent, &vendor]), "DIRECT");
    fs::write(scene.machine.path("nodes"), format!("# ours\nnonsense\n\n{url}\n")).unwrap();
    assert_eq!(scene.machine.ok(["apt-proxy", "--list", "nodes"]).trim(), url);
    assert_eq!(scene.machine.ok(["apt-proxy", "--list", "absent"]).trim(), "DIRECT");
    scene.machine.fails(2, ["apt-proxy", "--node", "ftp://x"]);
    // By the name that apt can call.
    let link = scene.machine.path("sutler-apt-proxy");
    std::os::unix::fs::symlink(sutler_tests::sutler(), &link).unwrap();
    let mut called = scene.machine.other(&link, ["http://deb.debian.org/", "--node", &url]);
    let said = called.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), url);
}

#[test]
fn clients_are_told_what_to_write_into_their_apt_config() {
    let machine = Machine::new();
    let config = |text: &str| fs::write(machine.path("node/sutler.toml"), text).unwrap();
    let print = ["node", "--data", "node", "--print-apt-config"];
    config("http_proxy.listen = '10.1.2.3:3142'\n");
    assert_eq!(machine.ok(print).trim(), "Acquire::http::Proxy \"http://10.1.2.3:3142\";");
    config("http_proxy.listen = '[::]:3142'\n");
    let said = machine.ok(print);
    assert!(said.contains(":3142") && !said.contains("[::]"), "{said}");
    config("");
    machine.fails(2, print);
}

// R33, D6
#[test]
fn a_second_node_gives_out_what_the_first_has_while_it_comes_and_does_without_it() {
    let signer = Signer::new();
    let scene = Scene::new(&signer);
    let large = format!("debian/{}", scene.archive.add("main", "large", "1.0", 20_000_000));
    scene.archive.publish(&signer, &Publication::default());
    let mut first = scene.node();
    let listed = |node: &Node| {
        assert_eq!(node.get(&scene.url("InRelease")).0, 200);
        assert_eq!(node.get(&scene.url(&packages())).0, 200);
    };
    listed(&first);
    scene.feed("an index is read", |feed| feed["packages"] == 2);
    let url = scene.origin.url(&large);
    assert!(first.get(&url) == (200, scene.bytes(&large)));
    let sent = scene.origin.asked(&large).bytes;

    let at = scene.status()["listen"][0].as_str().unwrap().to_owned();
    let second = scene.second(&at);
    listed(&second);
    // What nothing vouches for yet is not asked of peers.
    scene.feed_of("second", "the second has read it, too", |feed| feed["packages"] == 2);
    assert!(second.get(&url) == (200, scene.bytes(&large)));
    assert_eq!(scene.origin.asked(&large).bytes, sent, "the vendor sent it again");
    let status = scene.machine.json(["status", "--data", "second"]);
    let host = scene.origin.address.to_string();
    let of = status["service"]["proxy"]["origins"][&host].clone();
    assert!(of["bytes_from_nodes"].as_u64().unwrap() >= sent, "{of}");

    assert!(end(&mut first.child, "TERM").success());
    assert!(second.get(&scene.origin.url(&scene.tool)) == (200, scene.bytes(&scene.tool)));
}
