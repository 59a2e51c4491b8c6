//! Windows beside python-dateutil: an expansion that shares nothing with ours, over ten years.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use serde_json::{Value, json};
use sutler_orders::schedules::Schedule;
use sutler_orders::windows::{Zones, next_windows};
use sutler_tests::program;

const FROM: &str = "2022-01-01T00:00:00Z";
const TO: &str = "2032-01-01T00:00:00Z";

/// Both hemispheres, a change by half an hour, none at all, and one that comes at midnight.
const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Asia/Kolkata",
    "Africa/Casablanca",
    "UTC",
];

/// Times in gaps and folds of those zones, and plain ones.
const TIMES: [&str; 6] = ["22:00:00", "02:30:00", "00:00:00", "01:59:59", "02:00:00", "03:00:00"];

const RULES: [&str; 26] = [
    "FREQ=MONTHLY;BYDAY=2SA",
    "FREQ=MONTHLY;BYDAY=-1SU",
    "FREQ=MONTHLY;BYDAY=1MO,3MO",
    "FREQ=MONTHLY;BYDAY=5FR",
    "FREQ=MONTHLY;BYMONTHDAY=31",
    "FREQ=MONTHLY;BYMONTHDAY=-1",
    "FREQ=MONTHLY;BYMONTHDAY=13;BYDAY=FR",
    "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
    "FREQ=MONTHLY;BYDAY=SA,SU;BYSETPOS=1,3",
    "FREQ=MONTHLY;INTERVAL=3;BYDAY=2SA",
    "FREQ=MONTHLY;COUNT=30;BYDAY=2SA",
    "FREQ=MONTHLY",
    "FREQ=WEEKLY",
    "FREQ=WEEKLY;BYDAY=SA,SU",
    "FREQ=WEEKLY;INTERVAL=2;BYDAY=SU,MO;WKST=MO",
    "FREQ=WEEKLY;INTERVAL=2;BYDAY=SU,MO;WKST=SU",
    "FREQ=WEEKLY;UNTIL=20250330T023000;BYDAY=SU",
    "FREQ=DAILY",
    "FREQ=DAILY;INTERVAL=10",
    "FREQ=DAILY;BYMONTH=3,10;BYDAY=SU",
    "FREQ=DAILY;COUNT=500",
    "FREQ=YEARLY",
    "FREQ=YEARLY;BYMONTH=3,10;BYDAY=-1SU",
    "FREQ=YEARLY;BYDAY=20MO",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
    "FREQ=YEARLY;INTERVAL=2;BYMONTH=1;BYMONTHDAY=1,-1",
];

/// Starts: before the ten years, within them, and on a day that most months lack.
const STARTS: [&str; 3] = ["2021-06-15", "2023-11-05", "2024-01-31"];

/// Every rule in every zone, at two of the times and from one of the starts, so that each meets each.
fn cases() -> Vec<Value> {
    let mut cases = Vec::new();
    for (number, zone) in ZONES.iter().enumerate() {
        let at = |position: usize| {
            let (start, time) = (STARTS[position % STARTS.len()], TIMES[position % TIMES.len()]);
            format!("{start}T{time}")
        };
        for (position, rule) in RULES.iter().enumerate() {
            for turn in [position + number, position + number + 3] {
                cases.push(json!({ "start": at(turn), "rule": rule, "zone": zone }));
            }
        }
        for days in [0, 4, 27] {
            for turn in 0..TIMES.len() {
                cases.push(json!({ "start": at(turn + number), "days": days, "zone": zone }));
            }
        }
    }
    cases
}

/// The instants at which a case opens in the ten years.
fn ours(case: &Value, zones: &Zones<'_>) -> Vec<String> {
    let mut window = json!({ "start": case["start"], "zone": case["zone"], "duration_minutes": 1 });
    match case.get("rule") {
        Some(rule) => window["rule"] = rule.clone(),
        None => window["patch_tuesday_plus_days"] = case["days"].clone(),
    }
    let schedule: Schedule = serde_json::from_value(json!({
        "name": "s", "windows": [window], "by": "Anna", "at": FROM,
    }))
    .unwrap();
    let (mut at, end): (Timestamp, Timestamp) = (FROM.parse().unwrap(), TO.parse().unwrap());
    let mut begins = Vec::new();
    loop {
        let openings = next_windows(&schedule, zones, at, 1_000).unwrap();
        let Some(last) = openings.last() else { return begins };
        at = last.end;
        let (from, is_done) = (FROM.parse().unwrap(), last.begin >= end);
        let within = openings.iter().filter(|one| (from..end).contains(&one.begin));
        begins.extend(within.map(|opening| opening.begin.to_string()));
        if is_done {
            return begins;
        }
    }
}

// R54, R55, R56
#[test]
fn windows_open_when_python_dateutil_says_for_ten_years() {
    let Some(python) = program::python() else {
        let test = "windows_open_when_python_dateutil_says_for_ten_years";
        return sutler_tests::skip(test, "cargo xtask test has not set up its Python");
    };
    let cases = cases();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/expand_windows.py");
    let mut command = Command::new(python);
    let mut expanding =
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let asked = json!({ "from": FROM, "to": TO, "cases": cases });
    expanding.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = expanding.wait_with_output().unwrap();
    assert!(output.status.success());
    let theirs: Vec<Vec<String>> = serde_json::from_slice(&output.stdout).unwrap();

    // The system's zones, as Python takes them: two releases of the database may differ.
    let zones = Zones { site: None, device: None, database: jiff::tz::db() };
    let mut differing = String::new();
    let mut openings = 0;
    assert_eq!(theirs.len(), cases.len());
    for (case, theirs) in cases.iter().zip(&theirs) {
        let ours = ours(case, &zones);
        openings += ours.len();
        if ours != *theirs {
            let at = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
            let at = at.unwrap_or_else(|| ours.len().min(theirs.len()));
            let (ours, theirs) = (ours.get(at), theirs.get(at));
            writeln!(differing, "{case}: {ours:?}, python-dateutil says {theirs:?}").unwrap();
        }
    }
    assert!(differing.is_empty(), "{differing}");
    assert!(openings > 50_000, "{openings}");
}
