//! `sutler org` as its user meets it: what it makes, what it refuses, and what it never prints.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use sutler_swarm::identity::{Identity, Role};

/// The exit codes of `sutler --help` that are met here.
mod exit {
    pub(super) const USAGE: i32 = 2;
    pub(super) const REFUSED: i32 = 4;
    pub(super) const FILE: i32 = 10;
}

/// Runs `sutler org …` in `folder`.
fn org(folder: &Path, arguments: &str) -> Output {
    let arguments = arguments.split_whitespace();
    let mut command = Command::new(sutler_tests::sutler());
    command.arg("org").args(arguments).current_dir(folder);
    command.output().expect("the program runs")
}

fn made(folder: &Path, arguments: &str) -> Output {
    let output = org(folder, arguments);
    assert!(output.status.success(), "{arguments}: {}", text(&output));
    output
}

/// Runs what must fail, checks its exit code, and returns what it printed.
fn refused(folder: &Path, arguments: &str, code: i32) -> String {
    let output = org(folder, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {}", text(&output));
    text(&output)
}

/// All that a command printed.
fn text(output: &Output) -> String {
    let parts = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(parts).expect("text")
}

fn folder_with_authority() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    made(folder.path(), "init ca --org acme");
    folder
}

#[test]
fn an_issued_identity_is_ready_to_use_and_named_as_told() {
    let folder = folder_with_authority();
    let folder = folder.path();
    let printed = made(folder, "issue ca --site leeds --role node --id n1 --out node/identity");
    assert!(text(&printed).contains("spiffe://acme/site/leeds/node/n1"));
    let node = Identity::load(&folder.join("node/identity")).expect("an identity");
    assert_eq!(node.name().to_string(), "spiffe://acme/site/leeds/node/n1");

    let printed = made(folder, "issue ca --site leeds --role agent --out agent/identity --json");
    let json: serde_json::Value = serde_json::from_slice(&printed.stdout).expect("one object");
    let agent = Identity::load(&folder.join("agent/identity")).expect("an identity");
    assert_eq!(agent.name().role(), Role::Agent);
    assert_eq!(json["name"], agent.name().to_string());
    assert_eq!(agent.roots(), node.roots());
}

#[test]
fn control_has_an_identity_of_its_own_and_an_authority_for_the_others() {
    let folder = folder_with_authority();
    let folder = folder.path();
    let printed = made(folder, "issue ca --role control --id c1 --out control/identity");
    assert!(text(&printed).contains("spiffe://acme/control/c1"));
    let control = Identity::load(&folder.join("control/identity")).expect("an identity");
    assert_eq!(control.name().role(), Role::Control);

    let printed = made(folder, "intermediate ca --id c1 --out control/authority --json");
    let json: serde_json::Value = serde_json::from_slice(&printed.stdout).expect("one object");
    assert_eq!((&json["id"], &json["days"]), (&"c1".into(), &395.into()));
    made(folder, "issue control/authority --site leeds --role agent --out agent --days 30");
    let agent = Identity::load(&folder.join("agent")).expect("an identity");
    assert_eq!((agent.roots(), agent.chain().len()), (control.roots(), 2));

    let printed =
        refused(folder, "issue control/authority --role control --id c2 --out new", exit::REFUSED);
    assert!(printed.contains("nodes and agents alone"), "{printed}");
    refused(folder, "intermediate control/authority --out new", exit::REFUSED);
    refused(folder, "intermediate ca --out control/authority", exit::FILE);
    assert!(!folder.join("new").exists());
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let folder = folder_with_authority();
    let folder = folder.path();
    made(folder, "issue ca --site leeds --role node --out identity");
    let files = ["ca/ca-key.pem", "ca/ca.pem", "identity/key.pem", "identity/chain.pem"];
    let before = files.map(|file| fs::read(folder.join(file)).expect("a file"));
    for arguments in ["init ca --org acme", "issue ca --site leeds --role node --out identity"] {
        assert!(refused(folder, arguments, exit::FILE).contains("exists"));
    }
    assert_eq!(before, files.map(|file| fs::read(folder.join(file)).expect("a file")));
}

// T20, T24: a name is taken as it is or not at all; none can say more than one name.
#[test]
fn a_name_that_could_mean_two_things_is_refused_before_anything_is_made() {
    let folder = folder_with_authority();
    let folder = folder.path();
    for site in ["../leeds", "leeds/node/x", "le%64s", "léeds", "", ".", "-leeds", "leeds,URI:x"] {
        let output = Command::new(sutler_tests::sutler())
            .args(["org", "issue", "ca", "--role", "node", "--out", "new", "--site", site])
            .current_dir(folder)
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(exit::USAGE), "{site:?}: {}", text(&output));
    }
    for arguments in [
        "init new --org ACME",
        "init new --org acme/evil",
        "issue ca --site leeds --role control --out new",
        "issue ca --site leeds --role node --id a/b --out new",
        "issue ca --site leeds --role node --days 0 --out new",
        "issue ca --site leeds --out new",
    ] {
        refused(folder, arguments, exit::USAGE);
    }
    assert!(!folder.join("new").exists());
}

#[test]
fn an_authority_that_is_absent_or_damaged_is_named() {
    let folder = folder_with_authority();
    let folder = folder.path();
    let printed = refused(folder, "issue none --site s --role node --out new", exit::FILE);
    assert!(printed.contains("none/org.json") && printed.contains("sutler org init"), "{printed}");
    fs::write(folder.join("ca/org.json"), "{").expect("written");
    let printed = refused(folder, "issue ca --site s --role node --out new", exit::FILE);
    assert!(printed.contains("ca/org.json"), "{printed}");
    assert!(!folder.join("new").exists());
}

#[cfg(unix)]
#[test]
fn an_authority_whose_key_others_may_read_issues_nothing() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder_with_authority();
    let folder = folder.path();
    let key = folder.join("ca/ca-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("changed");
    let printed = refused(folder, "issue ca --site s --role node --out new", exit::REFUSED);
    assert!(printed.contains("ca/ca-key.pem") && printed.contains("640"), "{printed}");
    assert!(!folder.join("new").exists());
}

// T28
#[test]
fn no_command_prints_a_key() {
    let folder = folder_with_authority();
    let folder = folder.path();
    let mut printed = String::new();
    for arguments in [
        "issue ca --site s --role node --out a",
        "issue ca --site s --role agent --out b --json --log trace",
        "issue ca --site s --role agent --out b",
    ] {
        printed += &text(&org(folder, arguments));
    }
    fs::write(folder.join("ca/org.json"), "{").expect("written");
    printed += &refused(folder, "issue ca --site s --role node --out c", exit::FILE);
    for key in ["ca/ca-key.pem", "a/key.pem", "b/key.pem"] {
        let pem = fs::read_to_string(folder.join(key)).expect("a key");
        for line in pem.lines().filter(|line| !line.starts_with("-----")) {
            assert!(!printed.contains(line), "{key} was printed");
        }
    }
    assert!(!printed.contains("PRIVATE KEY"));
}
