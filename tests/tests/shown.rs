//! The commands that show what is published and reported, as scripts rely on them: keys, exit codes, examples.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use sutler_tests::program;

/// An organisation in `org`, with a site, a content and an approval.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        desk.done("org init org --org acme --preset solo");
        desk.write("tool.run", b"a tool");
        desk.done("publish tool.run --org-dir org --key org/keys/laptop.key");
        desk.done("approve tool.run --scope all --org-dir org --key org/keys/laptop.key");
        desk.done("site add lab --tz Europe/Berlin --org-dir org --key org/keys/laptop.key");
        desk
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn run(&self, arguments: &str) -> Output {
        let mut command = Command::new(program::sutler());
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.env("SUTLER_PASSPHRASE", "a passphrase").env("USER", "tester");
        command.output().unwrap()
    }

    fn done(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &str) -> Vec<Value> {
        let said = self.done(&format!("{arguments} --json"));
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Checks that a command fails by this code, and says so to scripts as well.
    fn fails(&self, arguments: &str, code: i32, kind: &str) {
        let output = self.run(&format!("{arguments} --json"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        let last: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap();
        assert_eq!(last["error"]["kind"], kind, "{arguments}: {last}");
        assert_eq!(last["error"]["exit_code"], code, "{arguments}: {last}");
    }
}

/// Checks that some line has all of these keys.
fn has(lines: &[Value], keys: &str) {
    let is_it = |line: &&Value| keys.split_whitespace().all(|key| line.get(key).is_some());
    assert!(lines.iter().any(|line| is_it(&line)), "{keys}: {lines:?}");
}

// R155
#[test]
fn what_is_published_is_shown_with_the_keys_that_scripts_know() {
    let desk = Desk::new();
    let shown = desk.json("manifest show --org-dir org");
    assert_eq!(shown[0]["organisation"], "acme");
    assert!(shown[0]["orders"].as_u64().unwrap() > 0, "{shown:?}");
    has(&shown, "organisation orders issued until");
    has(&shown, "role version expires by what reason");
    has(&shown, "content bytes name severity path");
    has(&shown, "path order");
    has(&desk.json("manifest diff approvals-all 1 --org-dir org"), "role gone new");
    desk.fails("manifest show --org-dir nowhere", 10, "file");
    desk.fails("manifest diff nobody 1 --org-dir org", 2, "usage");
    desk.fails("manifest diff approvals-all 7 --org-dir org", 2, "usage");
    desk.fails("manifest diff approvals-all x --org-dir org", 2, "usage");
}

// R155
#[test]
fn windows_are_previewed_for_scripts_also_where_they_never_open() {
    let desk = Desk::new();
    let window =
        json!({ "start": "2026-01-01T22:00:00", "rule": "FREQ=DAILY", "duration_minutes": 60 });
    let over = json!({
        "start": "2026-01-01T22:00:00", "rule": "FREQ=DAILY;COUNT=2", "duration_minutes": 60,
    });
    let schedule = json!({ "schedules": [{
        "name": "nightly", "windows": [window, over], "by": "anna", "at": "2026-01-01T00:00:00Z",
    }] });
    desk.write("windows.json", schedule.to_string().as_bytes());
    let preview = "window preview windows.json --org-dir org --next 3 --from 2026-06-01T00:00:00Z";
    let lines = desk.json(preview);
    has(&lines, "schedule window site site_zone zone said local local_end begin end warnings");
    let (open, never): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|line| line["window"] == 0);
    assert_eq!((open.len(), never.len()), (3, 1), "{lines:?}");
    assert_eq!(open[0]["begin"], "2026-06-01T20:00:00Z");
    assert_eq!((&never[0]["begin"], &never[0]["end"]), (&Value::Null, &Value::Null));
    assert!(desk.done(preview).contains("never opens again"));

    desk.write("bad.json", b"{");
    desk.fails("window preview none.json --org-dir org", 10, "file");
    desk.fails("window preview bad.json --org-dir org", 2, "usage");
    desk.fails("window preview windows.json --org-dir org --site none", 2, "usage");
    desk.fails("window preview windows.json --tz Mars/Olympus", 2, "usage");
    desk.fails("window preview windows.json --org-dir nowhere", 10, "file");
    desk.fails("window preview windows.json --org-dir org --next 0", 2, "usage");
}

// R155
#[test]
fn reports_and_status_fail_by_the_documented_codes() {
    let desk = Desk::new();
    for by in ["patch", "device", "site"] {
        assert!(desk.json(&format!("report {by} --data org")).is_empty(), "nobody has reported");
        desk.fails(&format!("report {by} --data nowhere"), 10, "file");
    }
    let columns =
        "site,devices,silent,needed,staged,installing,installed,failed,not applicable,unknown\n";
    assert_eq!(desk.done("report site --data org --csv"), columns);
    // A script gets one form or the other.
    desk.fails("report site --data org --csv", 2, "usage");
    desk.fails("report weather --data org", 2, "usage");
    desk.fails("report site --data org --silent-days 0", 2, "usage");
    fs::create_dir_all(desk.folder.path().join("org/reports/lab")).unwrap();
    desk.write("org/reports/lab/d1.json", b"rubbish");
    desk.fails("report device --data org", 6, "corrupt");
    desk.fails("status --data nowhere", 8, "store");
    desk.fails("status", 2, "usage");
}

// R155
#[test]
fn each_of_them_has_examples_and_says_that_there_is_json() {
    let desk = Desk::new();
    for command in
        ["manifest show", "manifest diff", "window preview", "report", "status", "explain"]
    {
        let help = desk.done(&format!("{command} --help"));
        assert!(help.contains("Examples:\n  sutler "), "{help}");
        assert!(help.contains("--json"), "{help}");
    }
    let help = desk.done("--help");
    assert!(help.contains("Exit codes") && help.contains("unknown-content"), "{help}");
}
