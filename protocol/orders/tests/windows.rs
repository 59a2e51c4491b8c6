//! When windows are: the dates of rows 54 to 56, the edges of summer time, and what nobody has.

use jiff::Timestamp;
use jiff::civil::date;
use jiff::tz::TimeZoneDatabase;
use serde_json::{Value, json};
use sutler_orders::schedules::Schedule;
use sutler_orders::windows::{Opening, Warning, Zones, next_windows, patch_tuesday};

fn schedule(window: &Value) -> Schedule {
    let mut whole = json!({ "duration_minutes": 60 });
    whole.as_object_mut().unwrap().extend(window.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "name": "s", "windows": [whole], "by": "Anna", "at": "2026-03-01T09:00:00Z",
    }))
    .unwrap()
}

fn next(window: &Value, zone: &str, from: &str, count: usize) -> Vec<Opening> {
    let database = TimeZoneDatabase::bundled();
    let site = Some(database.get(zone).unwrap());
    let zones = Zones { site, device: None, database: &database };
    next_windows(&schedule(window), &zones, from.parse().unwrap(), count).unwrap()
}

fn begins(openings: &[Opening]) -> Vec<String> {
    openings.iter().map(|opening| opening.begin.to_string()).collect()
}

// R54, R56
#[test]
fn the_second_saturday_is_each_sites_own() {
    let window = json!({ "start": "2026-01-01T22:00:00", "rule": "FREQ=MONTHLY;BYDAY=2SA" });
    let in_march = |zone| begins(&next(&window, zone, "2026-03-01T00:00:00Z", 1));
    assert_eq!(in_march("Europe/Berlin"), ["2026-03-14T21:00:00Z"]);
    assert_eq!(in_march("America/New_York"), ["2026-03-15T02:00:00Z"]);
    assert_eq!(in_march("Asia/Kolkata"), ["2026-03-14T16:30:00Z"]);
}

// R55
#[test]
fn four_days_after_patch_tuesday_is_between_the_12th_and_the_18th() {
    let window = json!({ "start": "2026-01-01T18:00:00", "patch_tuesday_plus_days": 4 });
    let openings = next(&window, "Europe/Berlin", "2026-01-01T00:00:00Z", 240);
    assert_eq!(openings.len(), 240);
    for opening in &openings {
        let day = opening.local.date();
        assert!((12..=18).contains(&day.day()), "{day}");
        assert_eq!(day.checked_sub(jiff::Span::new().days(4)).ok(), patch_tuesday(day));
    }
    // 27 days after is in the next month, and comes no less.
    let late = json!({ "start": "2026-01-20T18:00:00", "patch_tuesday_plus_days": 27 });
    let openings = next(&late, "Europe/Berlin", "2026-02-01T00:00:00Z", 2);
    assert_eq!(openings[0].local.date(), date(2026, 2, 9));
    assert_eq!(openings[1].local.date(), date(2026, 3, 9));
    // The first is still that of the month before the start: the 10th of October and 27 days.
    let first = json!({ "start": "2023-11-05T18:00:00", "patch_tuesday_plus_days": 27 });
    let openings = next(&first, "Europe/Berlin", "2023-11-01T00:00:00Z", 2);
    assert_eq!(openings[0].local.date(), date(2023, 11, 6));
    assert_eq!(openings[1].local.date(), date(2023, 12, 11));
}

#[test]
fn a_begin_in_the_gap_moves_forward_and_one_in_the_fold_is_the_first() {
    let window =
        json!({ "start": "2026-01-01T02:30:00", "rule": "FREQ=DAILY", "duration_minutes": 240 });
    let spring = &next(&window, "Europe/Berlin", "2026-03-28T23:00:00Z", 1)[0];
    assert_eq!(spring.begin.to_string(), "2026-03-29T01:30:00Z");
    assert_eq!(spring.warnings, [Warning::Gap { begins: date(2026, 3, 29).at(3, 30, 0, 0) }]);
    let autumn = &next(&window, "Europe/Berlin", "2026-10-24T22:00:00Z", 1)[0];
    assert_eq!(autumn.begin.to_string(), "2026-10-25T00:30:00Z");
    assert_eq!(autumn.end.to_string(), "2026-10-25T04:30:00Z");
    let ends = date(2026, 10, 25).at(5, 30, 0, 0);
    assert_eq!(autumn.warnings, [Warning::Fold, Warning::ChangesInside { ends }]);
    // Sydney goes the other way round, on other days.
    let sydney = &next(&window, "Australia/Sydney", "2026-10-03T10:00:00Z", 1)[0];
    assert_eq!(sydney.begin.to_string(), "2026-10-03T16:30:00Z");
    assert!(matches!(sydney.warnings[..], [Warning::Gap { .. }]));
}

// N3
#[test]
fn a_second_saturday_before_patch_tuesday_is_warned_of() {
    let window = json!({ "start": "2026-01-01T22:00:00", "rule": "FREQ=MONTHLY;BYDAY=2SA" });
    let year = next(&window, "Europe/Berlin", "2026-01-01T00:00:00Z", 12);
    let warned: Vec<i8> = year
        .iter()
        .filter(|opening| {
            opening.warnings.iter().any(|one| matches!(one, Warning::BeforePatchTuesday { .. }))
        })
        .map(|opening| opening.local.month())
        .collect();
    // Months of 2026 whose first day is a Wednesday, Thursday, Friday or Saturday.
    let expected: Vec<i8> = (1..=12)
        .filter(|month| {
            let second =
                date(2026, *month, 1).nth_weekday_of_month(2, jiff::civil::Weekday::Saturday);
            second.unwrap() < patch_tuesday(date(2026, *month, 1)).unwrap()
        })
        .collect();
    assert_eq!(warned, expected);
    assert_eq!(warned, [1, 4, 5, 7, 8, 10]);
    let weekly = json!({ "start": "2026-01-01T22:00:00", "rule": "FREQ=WEEKLY;BYDAY=SA" });
    let weekly = next(&weekly, "Europe/Berlin", "2026-08-01T00:00:00Z", 2);
    assert!(weekly.iter().all(|opening| opening.warnings.is_empty()));
}

#[test]
fn an_opening_that_has_begun_is_still_the_next() {
    let window = json!({ "start": "2026-03-14T22:00:00", "rule": "FREQ=MONTHLY;BYDAY=2SA" });
    let at = |from| begins(&next(&window, "Europe/Berlin", from, 1))[0].clone();
    assert_eq!(at("2026-03-14T21:59:59Z"), "2026-03-14T21:00:00Z");
    assert_eq!(at("2026-03-14T22:00:00Z"), "2026-04-11T20:00:00Z");
}

#[test]
fn a_rule_that_counts_is_counted_from_its_start() {
    let window = json!({ "start": "2026-03-01T22:00:00", "rule": "FREQ=WEEKLY;COUNT=3" });
    assert_eq!(next(&window, "UTC", "2026-03-09T00:00:00Z", 9).len(), 1);
    assert!(next(&window, "UTC", "2026-03-16T00:00:00Z", 9).is_empty());
    let until =
        json!({ "start": "2026-03-01T22:00:00", "rule": "FREQ=DAILY;UNTIL=20260303T215959" });
    assert_eq!(next(&until, "UTC", "2026-03-01T00:00:00Z", 9).len(), 2);
}

#[test]
fn a_rule_that_never_holds_ends() {
    for rule in [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYMONTH=4;BYMONTHDAY=31",
        "FREQ=MONTHLY;INTERVAL=1000;BYMONTHDAY=31;BYMONTH=2",
    ] {
        let window = json!({ "start": "2026-03-01T22:00:00", "rule": rule });
        assert!(next(&window, "UTC", "2026-03-01T00:00:00Z", 1).is_empty(), "{rule}");
    }
    let leap = json!({ "start": "2026-03-01T22:00:00", "rule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=SA" });
    assert_eq!(begins(&next(&leap, "UTC", "2026-03-01T00:00:00Z", 1)), ["2048-02-29T22:00:00Z"]);
}

#[test]
fn a_zone_that_nobody_knows_is_said() {
    let database = TimeZoneDatabase::bundled();
    let zones = Zones { site: None, device: None, database: &database };
    for zone in ["site", "device", "Europe/Atlantis"] {
        let window = json!({ "start": "2026-03-01T22:00:00", "rule": "FREQ=DAILY", "zone": zone });
        let error = next_windows(&schedule(&window), &zones, Timestamp::UNIX_EPOCH, 1).unwrap_err();
        assert_eq!((error.zone.as_str(), error.window), (zone, 0));
    }
}
