//! Control destroyed, and restored from a backup that is older than what devices have seen (R164, T31).

mod killed;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use sutler_tests::program;
use sutler_tests::vendor::Origin;

use super::{Daemon, Site, b3sum, soon};

/// The exit codes of `sutler --help` that are met here.
const USAGE: i32 = 2;
const UNKNOWN: i32 = 3;
const REFUSED: i32 = 4;
const UNREACHABLE: i32 = 5;
const CORRUPT: i32 = 6;

impl Site {
    pub(super) fn fails(&self, arguments: &str, code: i32) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        said
    }

    /// Takes everything that control has, but for the admin's own keys, which lie elsewhere.
    fn destroy(&self, control: Daemon) {
        fs::create_dir(self.path("safe")).unwrap();
        fs::copy(self.path("org/keys/laptop.key"), self.path("safe/laptop.key")).unwrap();
        control.running.kill();
        fs::remove_dir_all(self.path("org")).unwrap();
    }

    /// Brings a TUF client's folder up to date over HTTP.
    pub(super) fn refresh(&self, url: &str) -> bool {
        let mut command = Command::new(program::sutler_tuf());
        command.args(["--metadata-dir", "client", "--metadata-url"]).arg(format!("{url}/metadata"));
        let output = command.arg("refresh").current_dir(self.folder.path()).output().unwrap();
        output.status.success()
    }

    fn control_with(&self, more: &str, listen: &str) -> Daemon {
        let config = format!("[control]\nhttp = '127.0.0.1:0'\n{more}");
        fs::write(self.path("control.toml"), config).unwrap();
        self.control(listen)
    }
}

// R164, T31
#[test]
fn what_was_signed_after_the_backup_comes_back_from_a_node_and_no_device_sees_a_rollback() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    let address = control.address();
    let node = site.node(&address);
    soon("the node believes", || site.believed() > 0);
    site.publish("numbers.bin");
    let said = site.done("control backup control.tar --data org --json");
    let said: Value = serde_json::from_str(&said).unwrap();
    let backed_up = said["backup"]["version"].as_u64().unwrap();
    assert_eq!(fs::metadata(site.path("control.tar")).unwrap().permissions().mode() & 0o777, 0o600);

    // What follows is in no backup; a node and a TUF client see it.
    site.done("approve numbers.bin --scope all --key org/keys/laptop.key --reason tested");
    site.done("site add lab --tz Europe/Berlin --key org/keys/laptop.key");
    site.done("key renew root --key org/keys/laptop.key");
    soon("the node believes it", || site.believed() == site.published());
    let root = site.path("org/repository/metadata/1.root.json");
    fs::create_dir(site.path("client")).unwrap();
    let mut init = Command::new(program::sutler_tuf());
    init.args(["--metadata-dir", "client", "init"]).arg(root).current_dir(site.folder.path());
    assert!(init.status().unwrap().success());
    assert!(site.refresh(&control.says("repository ")));
    site.destroy(control);
    let newest = site.believed();
    assert!(newest > backed_up);

    site.done("control restore control.tar --data org");
    let key = fs::metadata(site.path("org/online/timestamp.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    assert!(site.fails("control restore control.tar --data org", USAGE).contains("not empty"));
    // Nothing is signed before it has caught up: neither by control nor by an admin.
    let said = site.fails("deny numbers.bin --scope all --key safe/laptop.key", REFUSED);
    assert!(said.contains("sutler control"), "{said}");
    let start = format!("control --data org --config control.toml --listen {address}");
    let said = site.fails(&start, UNREACHABLE);
    assert!(said.contains("restored from a backup") && said.contains("--above"), "{said}");
    assert_eq!(site.published(), backed_up);

    let control = site.control_with(&format!("sources = ['{}']\n", node.address()), &address);
    assert!(site.published() > newest);
    let shown = site.done("manifest show");
    assert!(shown.contains("\"reason\": \"tested\""), "{shown}");
    assert!(site.done("site list").contains("Europe/Berlin"));
    assert!(site.path("org/repository/metadata/2.root.json").exists());
    soon("the node believes the next one", || site.believed() == site.published());
    assert!(site.refresh(&control.says("repository ")), "the client takes it for no rollback");
    site.done("audit verify org/audit/log");
    let log = site.log();
    assert!(log.contains("catch-up") && log.contains(&format!("above version {newest}")), "{log}");
    // An admin goes on from there, and the next start has nothing to catch up with.
    site.done("deny numbers.bin --scope all --key safe/laptop.key");
    soon("the node believes the denial", || site.believed() == site.published());
    control.running.signal(Signal::TERM);
    assert_eq!(control.running.end().code, Some(0));
    let control = site.control(&address);
    assert_eq!(control.said("caught up "), None);
    assert_eq!(site.log().matches("catch-up").count(), 1);
}

// T31
#[test]
fn without_any_node_an_operator_says_what_to_sign_above() {
    let site = Site::new();
    let control = site.control("127.0.0.1:0");
    site.done("control backup control.tar --data org");
    site.destroy(control);
    site.done("control restore control.tar --data org --from 127.0.0.1:9");
    let start = "control --data org --config control.toml --listen 127.0.0.1:0";
    let said = site.fails(start, UNREACHABLE);
    assert!(said.contains("127.0.0.1:9"), "{said}");
    site.fails(&format!("{start} --above 0"), USAGE);
    let control = site.daemon("control", &format!("{start} --above 4711"));
    assert!(control.says("caught up with nobody: ").ends_with("above 4711"));
    assert!(site.published() > 4711);
    let snapshots = fs::read_dir(site.path("org/repository/metadata")).unwrap();
    let mut snapshots = snapshots.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(snapshots.any(|name| name == "4712.snapshot.json"));
}

/// What `sutler status` says that control lacks of contents, and has back.
fn lost(site: &Site) -> (u64, u64) {
    let status = site.run("status --data org --json");
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    let number = |key: &str| status["service"][key].as_u64().unwrap_or(u64::MAX);
    (number("contents_lacking"), number("contents_returned"))
}

// T31, R164
#[test]
fn contents_that_were_published_after_the_backup_come_back_from_a_node_that_has_them() {
    let site = Site::new();
    site.done("org issue org --site lab --role node --out second/identity");
    let control = site.control("127.0.0.1:0");
    let address = control.address();
    let knows = site.node(&address);
    site.done("control backup control.tar --data org");
    let id = site.publish("numbers.bin");
    fs::create_dir(site.path("vendor")).unwrap();
    fs::write(site.path("vendor/tool.bin"), vec![7; 500_000]).unwrap();
    let vendors = b3sum(&site.path("vendor/tool.bin"));
    let origin = Origin::serve(site.path("vendor"));
    site.done(&format!("publish {} --key org/keys/laptop.key", origin.url("tool.bin")));
    drop(origin);
    soon("the node believes it", || site.believed() == site.published());
    // One node knows of them, and another, which is away at first, has them.
    site.done("add --data second numbers.bin vendor/tool.bin");
    let has = site.daemon("second", "node --data second --listen 127.0.0.1:0");
    let had_at = has.address();
    has.running.kill();
    site.destroy(control);
    let from = format!("--from {} --from {had_at}", knows.address());
    site.done(&format!("control restore control.tar --data org {from}"));

    let start = "[control]\nhttp = '127.0.0.1:0'\n[http]\nlisten = '127.0.0.1:0'\n";
    fs::write(site.path("control.toml"), start).unwrap();
    let control = site.control(&address);
    control.says("caught up with ");
    soon("it says what is lacking", || lost(&site) == (2, 0));
    assert!(site.done("status --data org").contains("2 published contents lacking, 0 back"));
    // Which holds up nothing.
    site.done("approve numbers.bin --scope all --key safe/laptop.key --reason tested");
    soon("the node believes the approval", || site.believed() == site.published());
    control.running.kill();

    // After a kill, and with no node in its config, it still knows whom to ask.
    let has = site.daemon("second", &format!("node --data second --listen {had_at}"));
    let control = site.control(&address);
    soon("both are back", || lost(&site) == (0, 2));
    soon("it is over", || !site.path("org/fetch-back.json").exists());
    let list = fs::metadata(site.path(&format!("org/repository/lists/{vendors}"))).unwrap();
    assert_eq!(list.len(), 32 * 500_000_u64.div_ceil(65_536));
    let metrics = Command::new("curl").arg("--silent").arg(control.says("metrics ")).output();
    let metrics = String::from_utf8(metrics.unwrap().stdout).unwrap();
    assert!(metrics.contains("sutler_lacking_contents 0"), "{metrics}");
    assert!(metrics.contains("sutler_returned_contents_total 2"), "{metrics}");
    has.running.kill();
    knows.running.kill();
    // Nothing more came than the orders name: of what a vendor has, no bytes.
    site.done(&format!("fetch {id} --data device --from {address} --out got.bin"));
    assert_eq!(b3sum(&site.path("got.bin")), id);
    let ours = Command::new("find").arg(site.path("org/repository/targets/content")).output();
    let ours = String::from_utf8(ours.unwrap().stdout).unwrap();
    assert!(ours.contains(&id) && !ours.contains(&vendors), "{ours}");
    site.fails(&format!("fetch {vendors} --data device --from {address} --out no.bin"), UNKNOWN);
}

#[test]
fn a_backup_that_was_cut_or_changed_leaves_no_folder_behind() {
    let site = Site::new();
    site.publish("numbers.bin");
    site.done("control backup control.tar --data org");
    let whole = fs::read(site.path("control.tar")).unwrap();
    let mut changed = whole.clone();
    let key = changed.windows(20).position(|bytes| bytes == b"-----BEGIN PRIVATE K").unwrap();
    changed[key + 60] ^= 1;
    for bytes in [&whole[..whole.len() / 2], &changed] {
        fs::write(site.path("bad.tar"), bytes).unwrap();
        let output = site.run("control restore bad.tar --data new");
        assert!(!output.status.success());
        let left = fs::read_dir(site.folder.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name == "new" || name.to_str().unwrap().starts_with(".s")));
    }
    assert!(site.fails("control restore bad.tar --data new", CORRUPT).contains("manifest says"));
}
