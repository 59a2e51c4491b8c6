//! Admins on machines of their own, with nothing but their keys and a folder that follows control over HTTP: what they
//! sign is published there, whoever is first, and whatever ends it half way.

mod asked;
mod own_folder;
mod stops;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use sutler_tests::program;
use sutler_tests::running::Running;
use sutler_tests::vendor::origin::Origin;

const PASSPHRASE: &str = "correct horse battery staple";

/// What a test waits for at most. Far more than it takes: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// The exit codes of `sutler --help` that are met here.
mod exit {
    pub(super) const USAGE: i32 = 2;
    pub(super) const REFUSED: i32 = 4;
    pub(super) const UNREACHABLE: i32 = 5;
    pub(super) const FILE: i32 = 10;
}

/// Control with an organisation in `org`, and the admins anna and ben, whose folders are elsewhere. Contents are
/// imported by anna; sites and rings are by two of three, approvals by both of dora and emil, in the scope `one` by dora alone.
struct World {
    folder: tempfile::TempDir,
    control: Option<Running>,
    url: String,
}

impl World {
    fn new() -> Self {
        let mut world =
            Self { folder: tempfile::tempdir().unwrap(), control: None, url: String::new() };
        for name in ["anna", "ben", "cleo", "dora", "emil"] {
            world.done("", &format!("key new --out {name}.key"));
        }
        world.done(
            "",
            "org init org --org acme --preset team --root anna.pub --root ben.pub --root cleo.pub \
             --approver all=dora.pub,emil.pub:2 --approver one=dora.pub:1 --import anna.pub \
             --key anna.key --key cleo.key",
        );
        world.done("", "org issue org --role control --id c1 --out org/identity");
        fs::write(world.path("control.toml"), "[control]\nhttp = '127.0.0.1:0'\n").unwrap();
        world.start();
        for admin in ["anna", "ben"] {
            let root = "org/repository/metadata/1.root.json";
            world.done("", &format!("org follow {admin} --org acme --root {root}"));
        }
        world
    }

    /// Starts control, once more at the same address.
    fn start(&mut self) {
        let mut command =
            self.command("", "control --data org --config control.toml --listen 127.0.0.1:0");
        let control = Running::start(&mut command, &self.path("control"));
        let said = || {
            let printed = control.printed();
            printed.lines().find_map(|line| line.strip_prefix("repository ").map(str::to_owned))
        };
        soon("control listens", || said().is_some());
        self.url = said().unwrap();
        let address = self.url.trim_start_matches("http://");
        let config = format!("[control]\nhttp = '{address}'\n");
        fs::write(self.path("control.toml"), config).unwrap();
        self.control = Some(control);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of an admin in that one's folder.
    fn command(&self, admin: &str, arguments: &str) -> Command {
        let mut command = Command::new(program::sutler());
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.env("SUTLER_PASSPHRASE", PASSPHRASE).env("USER", "tester");
        if !admin.is_empty() {
            command.env("SUTLER_ORG_DIR", admin);
        }
        if !self.url.is_empty() {
            command.env("SUTLER_CONTROL", &self.url);
        }
        command
    }

    fn done(&self, admin: &str, arguments: &str) -> String {
        let output = self.command(admin, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, admin: &str, arguments: &str) -> Vec<Value> {
        let said = self.done(admin, &format!("{arguments} --json"));
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs what has to fail, and change nothing of what is published.
    fn refused(&self, admin: &str, arguments: &str, code: i32) -> String {
        let before = self.published("snapshot");
        let output = self.command(admin, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {}", text(&output));
        assert_eq!(self.published("snapshot"), before, "{arguments}");
        text(&output)
    }

    /// The newest version of a role that lies at control, 0 before the first.
    fn published(&self, role: &str) -> u64 {
        let metadata = fs::read_dir(self.path("org/repository/metadata")).unwrap();
        let names = metadata.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let ending = format!(".{role}.json");
        let versions = names.filter_map(|name| name.strip_suffix(&ending)?.parse().ok());
        versions.max().unwrap_or(0)
    }
}

/// All that a command printed.
fn text(output: &Output) -> String {
    let parts = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(parts).unwrap()
}

/// Looks until something is so.
fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
    }
}

/// The name of the draft that a command says it has kept.
fn draft(lines: &[Value]) -> String {
    lines.iter().find_map(|line| line["draft"].as_str()).unwrap().to_owned()
}

#[test]
fn what_an_admin_signs_elsewhere_is_published_at_control() {
    let world = World::new();
    assert!(!world.path("anna/online").exists());
    let said = world.done("anna", "site add lab --tz Europe/Berlin --key anna.key --key ben.key");
    assert!(said.contains("published sites version 1"), "{said}");
    assert_eq!(world.published("sites"), 1);
    // The other admin's folder follows, and goes on from there.
    assert_eq!(world.json("ben", "site list")[0]["site"], "lab");
    world.done(
        "ben",
        "site add hall --tz Europe/Berlin --key anna.key --key ben.key --reason moved",
    );
    assert_eq!(world.json("anna", "site list").len(), 2);
    let shown = world.done("anna", "manifest show");
    assert!(shown.contains("moved"), "{shown}");
    soon("it is in the audit log", || {
        fs::read_to_string(world.path("org/audit/log")).unwrap().contains("\"moved\"")
    });
    // Control's own keys are not here, and are not made here.
    let said = world.refused("anna", "key rotate timestamp --key anna.key", exit::USAGE);
    assert!(said.contains("where control runs"), "{said}");
    world.done(
        "anna",
        "key rehearse sites --with anna.pub --with ben.pub --key anna.key --key ben.key",
    );
}

// T10
#[test]
fn two_admins_sign_on_two_machines_and_the_second_hands_it_in() {
    let world = World::new();
    fs::write(world.path("rings.json"), "{\"rings\": [{\"name\": \"qa\"}]}").unwrap();
    let draft = draft(&world.json("anna", "ring set rings.json --key anna.key"));
    assert_eq!(world.published("rings"), 0);
    world.done("anna", &format!("order sign {draft} --key anna.key --out carried.json"));
    let said = world.done("ben", "order sign carried.json --key ben.key");
    assert!(said.contains("published rings version 1"), "{said}");
    assert_eq!(world.published("rings"), 1);
    // Whoever hands the same in again learns that it is published.
    world.done("anna", &format!("order sign {draft} --key ben.key"));
    assert!(world.json("anna", "order list").is_empty());
    assert_eq!(world.published("rings"), 1);
}

#[test]
fn of_two_who_collide_the_second_puts_the_orders_on_top() {
    let world = World::new();
    let lines = world.json("anna", "site add lab --tz Europe/Berlin");
    let first = draft(&lines);
    world.done("ben", "site add hall --tz Europe/Berlin --key anna.key --key ben.key");
    let said = world.refused(
        "anna",
        &format!("order sign {first} --key anna.key --key ben.key"),
        exit::REFUSED,
    );
    assert!(said.contains("409") && said.contains("2 comes next"), "{said}");
    assert!(said.contains(&format!("sutler order rebase {first}")), "{said}");
    world.done("anna", &format!("order rebase {first} --key anna.key --key ben.key"));
    let sites = world.json("ben", "site list");
    assert_eq!(sites.len(), 2, "{sites:?}");
    assert!(world.json("anna", "order list").is_empty());
}

impl World {
    /// Starts the only device there is, d1 of the site lab, and waits until it counts.
    fn device(&self) -> Running {
        self.done("", "org issue org --site lab --role agent --id d1 --out device/identity");
        let printed = self.control.as_ref().unwrap().printed();
        let address = printed.lines().find_map(|line| line.strip_prefix("listening ")).unwrap();
        let root = self.path("org/repository/metadata/1.root.json");
        let config = format!("[orders]\nsources = ['{address}']\nroot = '{}'\n", root.display());
        fs::write(self.path("agent.toml"), config).unwrap();
        let agent = "agent --data device --config agent.toml --listen 127.0.0.1:0";
        let agent = Running::start(&mut self.command("", agent), &self.path("agent"));
        soon("the device has reported", || self.path("org/reports/lab/d1.json").is_file());
        // An older count may be good for some seconds yet.
        soon("it is counted", || self.asked("fleet").contains("\"sites\":{\"lab\":1}"));
        agent
    }

    /// The code that control answers with to whoever asks it for a place, once it is free to.
    fn code(&self, place: &str) -> String {
        let (url, mut code) = (format!("{}/{place}", self.url), String::new());
        soon("control is free", || {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--path-as-is", "--write-out", "%{http_code}", "--output"]);
            let output = curl.arg("/dev/null").arg(&url).output().unwrap();
            code = String::from_utf8(output.stdout).unwrap();
            code != "503"
        });
        code
    }

    /// What control answers to whoever asks it for a place.
    fn asked(&self, place: &str) -> String {
        let mut curl = Command::new("curl");
        let output = curl.arg("--silent").arg(format!("{}/{place}", self.url)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes a file of some chunks, and returns its id.
    fn write(&self, name: &str, numbers: u32) -> String {
        let thousand: Vec<u8> = (0..1000_u32).flat_map(u32::to_le_bytes).collect();
        let mut bytes = thousand.repeat(numbers as usize / 1000 + 1);
        bytes.truncate(numbers as usize * 4);
        fs::write(self.path(name), bytes).unwrap();
        let output = Command::new("b3sum").arg("--no-names").arg(self.path(name)).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Every file below control's targets of contents.
    fn at_control(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.path("org/repository/targets/content")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }

    /// What control answers to a file that is put at a place of it, or nothing if it says nothing.
    fn put(&self, place: &str, file: &str, more: &[&str]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--path-as-is", "--write-out", "%{http_code}", "--output"]);
        curl.args(["/dev/null", "--upload-file"]).arg(self.path(file));
        let output = curl.args(more).arg(format!("{}{place}", self.url)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

// R33
#[test]
fn the_bytes_of_what_is_published_elsewhere_come_to_control_and_to_a_device() {
    let world = World::new();
    let id = world.write("numbers.bin", 300_000);
    let lines = world.json("anna", "publish numbers.bin --severity low --key anna.key");
    assert!(lines.iter().any(|line| line["content"] == id.as_str()), "{lines:?}");
    let files = world.at_control();
    assert_eq!(files.len(), 1);
    let bytes = fs::read(world.path("numbers.bin")).unwrap();
    assert_eq!(fs::read(&files[0]).unwrap(), bytes);
    assert!(world.path("org/repository/lists").join(&id).is_file());
    assert!(!world.path("anna/repository/targets/content").exists());
    // A device gets them as it gets everything.
    world.done("", "org issue org --site lab --role agent --out device/identity");
    let printed = world.control.as_ref().unwrap().printed();
    let address = printed.lines().find_map(|line| line.strip_prefix("listening ")).unwrap();
    let fetch = format!("fetch {id} --data device --from {address} --out got.bin");
    soon("the device has them", || world.command("", &fetch).output().unwrap().status.success());
    assert_eq!(fs::read(world.path("got.bin")).unwrap(), bytes);
    // The same again changes nothing, and wants no key.
    let shown = world.done("anna", "manifest show --json");
    world.done("anna", "publish numbers.bin --severity low");
    assert_eq!(world.done("anna", "manifest show --json"), shown);
    assert!(world.json("anna", "order list").is_empty());
}

// R155, and the kill between any two bytes
#[test]
fn an_upload_that_is_killed_is_finished_by_the_same_command() {
    let mut world = World::new();
    world.write("large.bin", 16_000_000);
    let bytes = fs::read(world.path("large.bin")).unwrap();
    let publish = "publish large.bin --key anna.key";
    let is_coming = |world: &World| {
        let files = world.at_control();
        files.iter().any(|file| fs::metadata(file).is_ok_and(|file| file.len() > 0))
    };
    for killed in ["admin", "control"] {
        let admin = Running::start(&mut world.command("anna", publish), &world.path(killed));
        soon("bytes come", || is_coming(&world));
        if killed == "admin" {
            admin.kill();
        } else {
            world.control.take().unwrap().kill();
            // By the kill, or just before it.
            assert!([Some(0), Some(exit::UNREACHABLE)].contains(&admin.end().code));
            world.start();
        }
    }
    let until = Instant::now() + PATIENCE;
    let mut output = world.command("anna", publish).output().unwrap();
    while !output.status.success() {
        // Control has not yet noticed that the first one is gone.
        let code = output.status.code();
        assert_eq!(code, Some(exit::UNREACHABLE), "{}", text(&output));
        assert!(Instant::now() < until, "{}", text(&output));
        output = world.command("anna", publish).output().unwrap();
    }
    let files = world.at_control();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(fs::read(&files[0]).unwrap(), bytes);
    let month = files[0].iter().rev().nth(2).unwrap().to_str().unwrap();
    assert_eq!(world.published(&format!("content-{month}")), 1);
}

// T8, T14, T23
#[test]
fn a_stranger_brings_what_is_named_and_nothing_else() {
    let world = World::new();
    let id = world.write("numbers.bin", 300_000);
    world.write("other.bin", 299_999);
    world.done("anna", "publish numbers.bin --key anna.key");
    let file = world.at_control().remove(0);
    let place = file.strip_prefix(world.path("org/repository")).unwrap().to_str().unwrap();
    let place = format!("/{place}");
    assert_eq!(world.put(&place, "numbers.bin", &[]), "200");
    fs::remove_file(&file).unwrap();
    let mut wrong = fs::read(world.path("numbers.bin")).unwrap();
    wrong[77] ^= 1;
    fs::write(world.path("wrong.bin"), &wrong).unwrap();
    for (place, file, code) in [
        (&place[..], "other.bin", "400"),
        (&place, "wrong.bin", "400"),
        ("/targets/content/2026-11/x/y", "numbers.bin", "404"),
        ("/targets/../metadata/timestamp.json", "numbers.bin", "404"),
        ("/targets/..%2fmetadata%2ftimestamp.json", "numbers.bin", "404"),
        ("/metadata/timestamp.json", "numbers.bin", "405"),
        ("/lists/x", "control.toml", "404"),
        (&format!("/lists/{id}"), "control.toml", "200"),
        (&format!("/lists/{id}"), "other.bin", "413"),
    ] {
        let found = world.put(place, file, &[]);
        let is_fine = found == code || (code == "404" && found == "405");
        assert!(is_fine, "{place} {file}: {found}");
        assert!(world.at_control().is_empty(), "{place} {file}");
    }
    let chunked = ["--header", "Transfer-Encoding: chunked"];
    assert_eq!(world.put(&place, "numbers.bin", &chunked), "411");
    assert_eq!(world.put(&place, "numbers.bin", &[]), "201");
    assert_eq!(fs::read(&file).unwrap(), fs::read(world.path("numbers.bin")).unwrap());
}

#[test]
fn of_what_a_vendor_serves_control_is_brought_the_hash_list() {
    let world = World::new();
    let id = world.write("numbers.bin", 300_000);
    fs::create_dir(world.path("vendor")).unwrap();
    fs::rename(world.path("numbers.bin"), world.path("vendor/numbers.bin")).unwrap();
    let origin = Origin::serve(world.path("vendor"));
    world.done("anna", &format!("publish {} --key anna.key", origin.url("numbers.bin")));
    let list = world.path("org/repository/lists").join(&id);
    assert_eq!(fs::metadata(list).unwrap().len() % 32, 0);
    assert!(world.at_control().is_empty());
}

// R155
#[test]
fn an_order_for_many_devices_wants_their_number() {
    let world = World::new();
    world.write("numbers.bin", 2_000);
    world.done("anna", "publish numbers.bin --key anna.key");
    // Nobody is known yet: nothing is asked.
    let approve = "approve numbers.bin --scope one --key dora.key";
    let output = world.command("anna", approve).output().unwrap();
    assert!(output.status.success() && text(&output).contains("none has reported"));
    world.done("anna", "deny numbers.bin --scope one --key dora.key");

    let _agent = world.device();
    assert!(!world.asked("fleet").contains("d1"), "{}", world.asked("fleet"));

    for (admin, is_told) in [("anna", true), ("org", true), ("org", false)] {
        let mut command = world.command(admin, approve);
        if !is_told {
            // Where control runs, its own folder knows.
            command.env_remove("SUTLER_CONTROL");
        }
        let output = command.output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(exit::REFUSED), "{said}");
        assert!(said.contains("1 of 1 devices, at 1 sites") && said.contains("--yes 1"), "{said}");
    }
    let said = world.refused("anna", &format!("{approve} --yes 2"), exit::REFUSED);
    assert!(said.contains("--yes says another number"), "{said}");
    // What only stops asks nobody, and neither does a proposal.
    let pause = "pause numbers.bin --scope one --key dora.key";
    let output = world.command("anna", pause).output().unwrap();
    assert!(output.status.success() && text(&output).contains("1 of 1 devices"));
    let proposed = draft(&world.json("anna", "approve numbers.bin --scope one"));
    world.refused("anna", &format!("order sign {proposed} --key dora.key"), exit::REFUSED);
    world.done("anna", &format!("order sign {proposed} --key dora.key --yes 1"));
    world.refused("anna", "resume numbers.bin --scope one --key dora.key", exit::REFUSED);
    world.done("anna", "resume numbers.bin --scope one --key dora.key --yes 1");
}

// T1, R96
#[test]
fn a_control_that_is_away_or_another_one_or_set_back_changes_nothing() {
    let mut world = World::new();
    world.done("anna", "site add lab --tz Europe/Berlin --key anna.key --key ben.key");
    let copy = |from: &str, to: &str| {
        let mut copy = Command::new("cp");
        copy.args(["-r", from, to]).current_dir(world.folder.path());
        assert!(copy.status().unwrap().success());
    };
    // Away.
    world.control.take().unwrap().kill();
    let said = world.refused(
        "anna",
        "site add hall --tz UTC --key anna.key --key ben.key",
        exit::UNREACHABLE,
    );
    assert!(said.contains("bring the folder up to date from http://"), "{said}");
    copy("org", "saved");
    world.start();
    world.done("ben", "site add hall --tz UTC --key anna.key --key ben.key");
    // Set back: whoever has seen more does not follow.
    world.control.take().unwrap().kill();
    fs::remove_dir_all(world.path("org")).unwrap();
    fs::rename(world.path("saved"), world.path("org")).unwrap();
    world.start();
    let said =
        world.refused("ben", "site add depot --tz UTC --key anna.key --key ben.key", exit::REFUSED);
    assert!(said.contains("was believed before") || said.contains("was pinned before"), "{said}");
    assert!(said.contains("was it set back"), "{said}");
}

#[test]
fn a_folder_follows_no_control_but_that_of_its_root() {
    let world = World::new();
    let root = "org/repository/metadata/1.root.json";
    let said = world.refused("", &format!("org follow anna --org acme --root {root}"), exit::FILE);
    assert!(said.contains("anna"), "{said}");
    world.done("", "org init other --org other --preset solo");
    let other = "other/repository/metadata/1.root.json";
    let said =
        world.refused("", &format!("org follow new --org acme --root {other}"), exit::REFUSED);
    assert!(said.contains("0 of its role's keys have signed it"), "{said}");
    assert!(!world.path("new").exists());
    for url in ["ftp://127.0.0.1", "control", "http://127.0.0.1:1/?x"] {
        world.refused("anna", &format!("site list --control {url}"), exit::USAGE);
    }
}
