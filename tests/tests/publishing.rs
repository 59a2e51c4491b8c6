//! Admins as they work: keys, an organisation, contents, approvals, sites and windows, each by a command; and
//! what any TUF client finds of it over HTTP.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sutler_tests::program;
use sutler_tests::vendor::origin::Origin;

const PASSPHRASE: &str = "correct horse battery staple";

/// The exit codes of `sutler --help` that are met here.
mod exit {
    pub(super) const USAGE: i32 = 2;
    pub(super) const UNKNOWN: i32 = 3;
    pub(super) const REFUSED: i32 = 4;
    pub(super) const FILE: i32 = 10;
}

/// A folder where admins type.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// With an organisation in `org` that one admin alone runs.
    fn solo() -> Self {
        let desk = Self::new();
        desk.done("org init org --org acme --preset solo");
        desk
    }

    /// With an organisation in `org`: root by two of anna, ben and cleo, approvals by both dora and emil.
    fn team() -> Self {
        Self::team_and("")
    }

    /// The same, with more said of it.
    fn team_and(more: &str) -> Self {
        let desk = Self::new();
        for name in ["anna", "ben", "cleo", "dora", "emil"] {
            desk.done(&format!("key new --out {name}.key"));
        }
        desk.done(&format!(
            "org init org --org acme --preset team --root anna.pub --root ben.pub --root cleo.pub \
             --approver all=dora.pub,emil.pub:2 --import anna.pub --key anna.key --key cleo.key {more}",
        ));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &str) -> Output {
        let mut command = Command::new(program::sutler());
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.env("SUTLER_PASSPHRASE", PASSPHRASE).env("SUTLER_ORG_DIR", "org");
        command.env("USER", "tester");
        command.output().unwrap()
    }

    /// Runs what has to succeed, and returns what it printed.
    fn done(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", text(&output));
        assert!(!text(&output).contains(PASSPHRASE));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &str) -> Vec<Value> {
        let said = self.done(&format!("{arguments} --json"));
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs what has to fail, and change nothing of what is published.
    fn refused(&self, arguments: &str, code: i32) -> String {
        let before = self.published();
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {}", text(&output));
        assert_eq!(self.published(), before, "{arguments}");
        assert!(!text(&output).contains(PASSPHRASE));
        text(&output)
    }

    /// Every file that is published, but for bytes of contents that nothing names yet.
    fn published(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let metadata = self.path("org/repository/metadata");
        let Ok(entries) = fs::read_dir(metadata) else { return Vec::new() };
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }
}

/// All that a command printed.
fn text(output: &Output) -> String {
    let parts = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(parts).unwrap()
}

fn content_path(lines: &[Value], name: &str) -> String {
    let line = lines.iter().find(|line| line["name"] == name).unwrap();
    line["path"].as_str().unwrap().to_owned()
}

#[test]
fn one_admin_publishes_and_approves_with_one_prompt_each() {
    let desk = Desk::solo();
    desk.write("tool.run", b"a tool");
    let lines = desk
        .json("publish tool.run --severity high --cve CVE-2026-12345 --key org/keys/laptop.key");
    assert!(content_path(&lines, "tool.run").starts_with("content/2"));
    let said = desk
        .done("approve CVE-2026-12345 --scope all --key org/keys/laptop.key --reason ticket-4711");
    assert!(said.contains("published approvals-all version 1"), "{said}");
    let shown = desk.done("manifest show");
    for expected in
        ["tool.run", "approve CVE-2026-12345", "laptop", "ticket-4711", "\"action\": \"install\""]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    // The sealed copy signs as well, and a denial stands beside the approval and outranks it.
    desk.done("deny tool.run --scope all --key org/keys/sealed.key");
    let diff = desk.done("manifest diff approvals-all 1");
    assert!(diff.lines().any(|line| line.starts_with("+ ") && line.contains("\"deny\"")), "{diff}");
    assert!(
        !diff.lines().any(|line| line.starts_with("- ") && line.contains("\"install\"")),
        "{diff}"
    );
    desk.done("resume tool.run --scope all --key org/keys/laptop.key");
    assert!(!desk.done("manifest show").contains("\"deny\""));
    let said = desk.refused("resume tool.run --scope all --key org/keys/laptop.key", exit::USAGE);
    assert!(said.contains("neither paused nor denied"), "{said}");
}

// R142
#[test]
fn every_order_says_who_when_and_why() {
    let desk = Desk::solo();
    desk.write("tool.run", b"a tool");
    desk.done("publish tool.run --key org/keys/laptop.key --reason imported");
    desk.done("pause tool.run --scope all --key org/keys/laptop.key --reason wait");
    desk.done("site add cologne --tz Europe/Berlin --net 10.1.0.0/16 --key org/keys/laptop.key --reason opened");
    let lines = desk.json("manifest show");
    for (role, reason) in [("content-", "imported"), ("approvals-all", "wait"), ("sites", "opened")]
    {
        let line = lines.iter().find(|line| {
            line["role"].as_str().is_some_and(|name| name.starts_with(role)) && line["version"] == 1
        });
        let line = line.unwrap_or_else(|| panic!("{role}: {lines:?}"));
        assert_eq!((line["by"].as_str(), line["reason"].as_str()), (Some("laptop"), Some(reason)));
    }
}

#[test]
fn orders_that_two_have_to_sign_are_carried_from_one_to_the_other() {
    let desk = Desk::team();
    desk.write("tool.run", b"a tool");
    desk.done("publish tool.run --key anna.key");
    let lines = desk.json("approve tool.run --scope all --key dora.key");
    let draft = lines[0]["draft"].as_str().unwrap().to_owned();
    assert_eq!(lines[0]["lacks"][0]["signatures"], 1);
    assert!(desk.done("order list").contains(&draft));
    assert!(desk.done(&format!("order show {draft}")).contains("\"action\": \"install\""));
    let said = desk.refused(&format!("order submit {draft}"), exit::REFUSED);
    assert!(said.contains("it lacks 1 more signature for approvals-all"), "{said}");
    // A key that signs for nothing of it.
    let said = desk.refused(&format!("order sign {draft} --key ben.key"), exit::REFUSED);
    assert!(said.contains("it signs for nothing in it"), "{said}");
    // Twice by one key is once.
    desk.done(&format!("order sign {draft} --key dora.key"));
    assert!(desk.done("order list").contains(&draft));
    // Signed apart, on a machine of its own, and brought together.
    desk.done(&format!("order sign {draft} --key emil.key --out by-emil.json"));
    desk.done(&format!("order submit {draft} by-emil.json"));
    assert!(!desk.done("order list").contains(&draft));
    assert!(desk.done("manifest show").contains("approvals-all"));
    // The same once more is no longer what comes next.
    let said = desk.refused("order submit by-emil.json", exit::REFUSED);
    assert!(
        said.contains("by-emil") || said.contains("lacks") || said.contains("comes next"),
        "{said}"
    );
}

#[test]
fn a_command_that_fails_says_why_and_changes_nothing() {
    let desk = Desk::solo();
    desk.write("tool.run", b"a tool");
    desk.write("rings.json", b"{\"rings\": [{\"name\": \"qa\", \"rule\": \"no rule (\"}]}");
    desk.write("more.json", b"{\"rings\": [], \"extra\": 1}");
    let key = "--key org/keys/laptop.key";
    for (arguments, code, says) in [
        (format!("approve missing --scope all {key}"), exit::UNKNOWN, "find \"missing\""),
        (format!("publish missing.run {key}"), exit::FILE, "read missing.run"),
        (format!("publish . {key}"), exit::FILE, "not a regular file"),
        (format!("ring set rings.json {key}"), exit::USAGE, "rings.json"),
        (format!("ring set more.json {key}"), exit::USAGE, "extra"),
        (format!("ring set missing.json {key}"), exit::FILE, "missing.json"),
        (format!("site add x --tz +02:00 {key}"), exit::USAGE, "zone"),
        (format!("site remove x {key}"), exit::USAGE, "no site x"),
        ("publish tool.run --key missing.key".to_owned(), exit::FILE, "missing.key"),
        ("order show 123".to_owned(), exit::USAGE, "find the draft 123"),
        ("manifest show --org-dir nowhere".to_owned(), exit::FILE, "no org.json"),
        ("org init org --org other --preset solo".to_owned(), exit::FILE, "org"),
    ] {
        let said = desk.refused(&arguments, code);
        assert!(said.contains(says), "{arguments}: {said}");
    }
    desk.done(&format!("publish tool.run {key}"));
    let said = desk.refused(&format!("approve tool.run --scope elsewhere {key}"), exit::USAGE);
    assert!(said.contains("approvals-elsewhere"), "{said}");
}

// T28
#[test]
fn keys_are_refused_with_a_wrong_passphrase_or_when_others_may_read_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::solo();
    desk.write("tool.run", b"a tool");
    desk.write("wrong", b"not the passphrase\n");
    let set = |name: &str, mode| {
        fs::set_permissions(desk.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let arguments = "publish tool.run --key org/keys/laptop.key --passphrase-file wrong";
    assert!(desk.refused(arguments, exit::REFUSED).contains("others may read it"));
    set("wrong", 0o600);
    assert!(desk.refused(arguments, exit::REFUSED).contains("with this passphrase"));
    set("org/keys/laptop.key", 0o640);
    let said = desk.refused("publish tool.run --key org/keys/laptop.key", exit::REFUSED);
    assert!(said.contains("chmod 600"), "{said}");
    for line in fs::read_to_string(desk.path("org/keys/laptop.key")).unwrap().lines() {
        assert!(line.starts_with("-----") || !said.contains(line));
    }
}

#[test]
fn presets_want_their_keys_and_an_organisation_that_lacks_signatures_waits() {
    let desk = Desk::new();
    for name in ["anna", "ben", "cleo"] {
        desk.done(&format!("key new --out {name}.key"));
    }
    let team = "org init org --org acme --preset team --root anna.pub --root ben.pub";
    assert!(desk.refused(team, exit::USAGE).contains("3 different root keys, not 2"));
    let said = desk.refused(&format!("{team} --root ben.pub"), exit::USAGE);
    assert!(said.contains("3 different root keys, not 2"), "{said}");
    let said =
        desk.refused(&format!("{team} --root cleo.pub --approver all=anna.pub:2"), exit::USAGE);
    assert!(said.contains("2 of 1 different keys"), "{said}");
    assert!(!desk.path("org").exists());
    assert_eq!(fs::read_dir(desk.folder.path()).unwrap().count(), 6, "nothing is left behind");

    let said = desk.done(&format!("{team} --root cleo.pub"));
    assert!(said.contains("waits for signatures") && said.contains("lose two"), "{said}");
    let list = desk.json("order list");
    let draft = list[0]["draft"].as_str().unwrap().to_owned();
    let said = desk.refused("manifest show", 8);
    assert!(said.contains("order list"), "{said}");
    desk.done(&format!("order sign {draft} --key anna.key"));
    let said = desk.done(&format!("order sign {draft} --key cleo.key"));
    assert!(said.contains("published root version 1"), "{said}");
    assert!(desk.done("key status").contains("2 of anna, ben, cleo"));
}

#[test]
fn windows_rings_and_sites_are_set_from_files_that_a_person_wrote() {
    let desk = Desk::solo();
    let key = "--key org/keys/laptop.key";
    desk.write(
        "rings.json",
        b"{\"rings\": [{\"name\": \"qa\", \"pins\": [\"cologne/anna-1\"]}, {\"name\": \"prod\"}]}",
    );
    desk.done(&format!("ring set rings.json {key}"));
    desk.done(&format!(
        "site add cologne --tz Europe/Berlin --net 10.1.0.0/16 --node 10.1.0.2:7447 {key}"
    ));
    desk.done(&format!("site add cologne --tz Europe/Berlin --net 10.2.0.0/16 {key}"));
    let sites = desk.json("site list");
    assert_eq!((sites.len(), sites[0]["networks"][0].as_str()), (1, Some("10.2.0.0/16")));
    desk.done(&format!("site remove cologne {key}"));
    assert!(desk.json("site list").is_empty());
    desk.done("halt --reason fire");
    assert!(desk.done("manifest show").contains("\"reason\": \"fire\""));
    desk.done(&format!("device revoke spiffe://acme/site/cologne/agent/l7 {key} --reason stolen"));
    assert!(desk.done("manifest show").contains("spiffe://acme/site/cologne/agent/l7"));
    let lines = desk.json("manifest show");
    let seqs: Vec<_> = lines.iter().filter_map(|line| line["order"]["seq"].as_u64()).collect();
    assert!(seqs.contains(&3), "{seqs:?}");
}

// T30
#[test]
fn an_approver_countersigns_a_halt_or_outranks_it() {
    let desk = Desk::solo();
    let key = "--scope all --key org/keys/laptop.key";
    let said = desk.done("halt --reason fire");
    let halt = said.split_whitespace().nth(1).unwrap().trim_end_matches(',');
    let said = desk.refused(&format!("halt --confirm halt-0 {key}"), exit::USAGE);
    assert!(said.contains(&format!("there are {halt}")), "{said}");
    desk.refused(&format!("halt --confirm {halt} --key org/keys/laptop.key"), exit::USAGE);
    desk.done(&format!("halt --confirm {halt} {key} --reason burning"));
    desk.refused(&format!("resume --until 2020-01-01T00:00:00Z {key}"), exit::USAGE);
    desk.refused(&format!("resume {key}"), exit::USAGE);
    desk.done(&format!("resume --until 2099-01-01T00:00:00Z {key} --reason out"));
    let lines = desk.json("manifest show");
    let approvals = lines.iter().find(|line| line["path"] == "approvals/all/approvals.json");
    let order = &approvals.unwrap()["order"];
    assert_eq!(order["countersigned"][0]["halt"], halt);
    assert_eq!(order["countersigned"][0]["reason"], "burning");
    assert_eq!(order["resumed"][0]["until"], "2099-01-01T00:00:00Z");
    assert!(order["resumed"][0].get("contents").is_none());
}

// R164
#[test]
fn roles_are_renewed_before_they_expire() {
    let desk = Desk::solo();
    desk.write("tool.run", b"a tool");
    desk.done("publish tool.run --key org/keys/laptop.key");
    desk.done("approve tool.run --scope all --key org/keys/laptop.key");
    let said = desk.done("key renew root targets approvals-all --key org/keys/laptop.key");
    for says in ["root version 2", "targets version 2", "approvals-all version 2"] {
        assert!(said.contains(says), "{said}");
    }
    assert!(desk.done("manifest show").contains("\"action\": \"install\""));
    assert!(desk.done("key renew --due --key org/keys/laptop.key").contains("nothing expires"));
    desk.done("halt");
    desk.done("key renew halts");
    let said = desk.refused("key renew timestamp --key org/keys/laptop.key", exit::USAGE);
    assert!(said.contains("control does"), "{said}");
    desk.refused("key renew approvals-moon --key org/keys/laptop.key", exit::USAGE);
    desk.refused("key renew", exit::USAGE);
}

// N3, R54, R56
#[test]
fn a_schedule_is_previewed_at_each_site_before_anybody_signs_it() {
    let desk = Desk::solo();
    let window = |more: &str| {
        format!(
            "{{\"schedules\": [{{\"name\": \"night\", \"by\": \"Anna\", \"at\": \"2026-01-01T00:00:00Z\", \
             \"windows\": [{{\"duration_minutes\": 240, {more}}}]}}]}}"
        )
    };
    let second = window("\"start\": \"2026-01-01T22:00:00\", \"rule\": \"FREQ=MONTHLY;BYDAY=2SA\"");
    desk.write("windows.json", second.as_bytes());
    let preview = "window preview windows.json --from 2026-03-01T00:00:00Z";
    let said = desk.refused(preview, exit::USAGE);
    assert!(said.contains("--tz ZONE"), "{said}");
    for (site, zone) in [("cologne", "Europe/Berlin"), ("new-york", "America/New_York")] {
        desk.done(&format!("site add {site} --tz {zone} --key org/keys/laptop.key"));
    }
    let lines = desk.json(&format!("{preview} --next 2"));
    let begins = |site: &str| -> Vec<String> {
        let of_site = lines.iter().filter(|line| line["site"] == site);
        of_site.map(|line| line["begin"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(begins("cologne"), ["2026-03-14T21:00:00Z", "2026-04-11T20:00:00Z"]);
    assert_eq!(begins("new-york"), ["2026-03-15T02:00:00Z", "2026-04-12T02:00:00Z"]);
    // The 11th of April is before the month's Patch Tuesday, the 14th of March is not.
    let warned: Vec<_> = lines.iter().map(|line| line["warnings"][0]["kind"].clone()).collect();
    assert_eq!(
        warned,
        ["", "before-patch-tuesday", "", "before-patch-tuesday"]
            .map(|kind| { if kind.is_empty() { Value::Null } else { kind.into() } })
    );
    let said = desk.done(&format!("{preview} --next 2 --site new-york"));
    assert!(said.contains("Sat 2026-03-14 22:00 EDT") && !said.contains("cologne"), "{said}");
    assert!(said.contains("Patch Tuesday comes later, on 2026-04-14"), "{said}");
    assert!(desk.refused(&format!("{preview} --site moon"), exit::USAGE).contains("site list"));

    let edge = window("\"start\": \"2026-01-01T02:30:00\", \"rule\": \"FREQ=DAILY\"");
    desk.write("edge.json", edge.as_bytes());
    let lines = desk
        .json("window preview edge.json --tz Europe/Berlin --from 2026-03-28T23:00:00Z --next 1");
    assert_eq!(lines[0]["warnings"][0]["kind"], "gap");
    assert_eq!(lines[0]["said"], "2026-03-29T02:30:00");
    assert_eq!(lines[0]["local"], "2026-03-29T03:30:00");
    for (more, says) in [
        ("\"start\": \"2026-01-01T02:30:00\"", "schedules[0].windows[0].rule"),
        (
            "\"start\": \"2026-01-01T02:30:00\", \"rule\": \"FREQ=DAILY\", \"zone\": \"Europe/Atlantis\"",
            "Europe/Atlantis",
        ),
    ] {
        desk.write("wrong.json", window(more).as_bytes());
        let said = desk.refused("window preview wrong.json --tz UTC", exit::USAGE);
        assert!(said.contains(says), "{said}");
    }
}

/// What the admins publish for the clients of the next two tests: in a scope of their own, and in one that was left to a
/// directorate.
fn published_over_http() -> (Desk, Origin, Vec<(String, Vec<u8>)>) {
    let desk = Desk::team_and("--directorate lab=cleo.pub --approver lab=dora.pub");
    let big: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    desk.write("tool.run", b"a tool");
    desk.write("big+1.deb", &big);
    let lines = desk.json("publish tool.run big+1.deb --key anna.key");
    let draft = desk.json("approve tool.run --scope all --key dora.key")[0]["draft"].clone();
    desk.done(&format!("order sign {} --key emil.key", draft.as_str().unwrap()));
    desk.done("approve tool.run --scope lab --key dora.key");
    let mut wanted = vec![
        (content_path(&lines, "tool.run"), b"a tool".to_vec()),
        (content_path(&lines, "big+1.deb"), big),
    ];
    let state = desk.json("manifest show");
    for scope in ["all", "lab"] {
        let approvals = format!("approvals/{scope}/approvals.json");
        assert!(state.iter().any(|line| line["path"] == approvals.as_str()));
        let targets = desk.path(&format!("org/repository/targets/approvals/{scope}"));
        let order = fs::read_dir(targets).unwrap().next().unwrap().unwrap().path();
        wanted.push((approvals, fs::read(order).unwrap()));
    }
    let origin = Origin::serve(desk.path("org/repository"));
    (desk, origin, wanted)
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn what_was_published_is_downloaded_by_our_own_client_over_http() {
    let (desk, origin, wanted) = published_over_http();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(program::sutler_tuf());
        command.arg("--metadata-dir").arg(desk.path("client")).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    let root = desk.path("org/repository/metadata/1.root.json");
    run(&["init", root.to_str().unwrap()]);
    fs::create_dir(desk.path("downloads")).unwrap();
    let (metadata, targets) = (origin.url("metadata"), origin.url("targets"));
    let folder = desk.path("downloads");
    let mut arguments = vec!["--metadata-url", &metadata, "--target-base-url", &targets];
    arguments.extend(["--target-dir", folder.to_str().unwrap()]);
    arguments.extend(wanted.iter().flat_map(|(path, _)| ["--target-name", path]));
    arguments.push("download");
    run(&arguments);
    let downloaded = files(&folder);
    assert!(wanted.iter().all(|(_, bytes)| downloaded.contains(bytes)));
    // The content of several chunks has its hash list beside it.
    assert_eq!(files(&desk.path("org/repository/lists")).len(), 1);
}

#[test]
fn what_was_published_is_verified_and_downloaded_by_python_tuf() {
    let Some(python) = program::python() else {
        let test = "what_was_published_is_verified_and_downloaded_by_python_tuf";
        return sutler_tests::skip(test, "cargo xtask test has not set up python-tuf");
    };
    let (desk, origin, wanted) = published_over_http();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/read_repository.py");
    let mut command = Command::new(python);
    command.arg(script).arg(desk.path("org/repository/metadata/1.root.json"));
    command.arg(origin.url("metadata/")).arg(origin.url("targets/")).arg(desk.path("python"));
    command.args(wanted.iter().map(|(path, _)| path));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let downloaded = files(&desk.path("python/downloads"));
    assert!(wanted.iter().all(|(_, bytes)| downloaded.contains(bytes)));
}
