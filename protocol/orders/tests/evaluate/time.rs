//! Wrong clocks, old statements, and orders from the future.

use serde_json::json;
use sutler_orders::answer::{Reason, State, Step};

use super::world::{World, install};

// T13
#[test]
fn a_clock_that_nobody_confirmed_starts_nothing() {
    let mut world = World::approved();
    world.is_confirmed = false;
    assert_eq!(world.says(), (State::Staged, Some(Reason::Clock)));
    world.clock = "1970-01-01T00:00:10Z".to_owned();
    assert_eq!(world.says(), (State::Staged, Some(Reason::Clock)));
    world.device.contents.clear();
    assert_eq!(world.answer(1).step, Step::Stage { is_urgent: false }, "it can still fetch");
}

// T13
#[test]
fn a_clock_a_year_ahead_installs_nothing_early_and_200_ms_behind_harms_nobody() {
    let mut world = World::new();
    world.items.push(install(1, &json!({ "not_before": "2026-12-01T00:00:00Z" })));
    assert_eq!(world.says(), (State::Staged, Some(Reason::OutsideWindow)));
    // The clock is a year ahead, and the statement would have to have expired long ago.
    world.clock = "2027-03-09T09:00:00Z".to_owned();
    assert_eq!(world.says().0, State::Staged);
    assert!(!world.installs());

    let mut world = World::approved();
    world.clock = "2026-03-09T08:59:59.8Z".to_owned();
    assert!(world.installs());
    world.clock = "2026-03-09T08:50:00Z".to_owned();
    assert_eq!(world.says(), (State::Staged, Some(Reason::Clock)));
    world.clock = "2025-03-09T09:00:00Z".to_owned();
    assert!(!world.installs());
}

#[test]
fn an_approval_begins_when_clock_and_statement_have_both_passed_its_not_before() {
    let mut world = World::new();
    world.items.push(install(1, &json!({ "not_before": "2026-03-09T09:30:00Z" })));
    world.clock = "2026-03-09T09:30:00Z".to_owned();
    assert_eq!(world.says(), (State::Staged, Some(Reason::ManifestStale)));
    world.time("2026-03-09T09:29:59Z");
    assert_eq!(world.says(), (State::Staged, Some(Reason::OutsideWindow)));
    assert!(world.time("2026-03-09T09:30:00Z").installs());
}

#[test]
fn an_approval_has_ended_when_either_has_passed_its_not_after() {
    let mut world = World::new();
    world.items.push(install(1, &json!({ "not_after": "2026-03-09T09:30:00Z" })));
    assert!(world.installs());
    world.clock = "2026-03-09T09:30:00Z".to_owned();
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    world.time("2026-03-09T09:30:00Z").clock = "2026-03-09T09:29:00Z".to_owned();
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
}

// T13
#[test]
fn an_order_issued_in_2099_starts_nothing_before_2099() {
    let mut world = World::approved();
    world.orders_issued = "2099-01-01T00:00:00Z".to_owned();
    assert_eq!(world.says(), (State::Staged, Some(Reason::Clock)));
    world.clock = "2099-06-01T00:00:00Z".to_owned();
    assert!(!world.installs(), "the newest statement is of today");
}

// T3
#[test]
fn stale_orders_start_what_was_approved_and_staged_and_nothing_new() {
    let mut world = World::approved();
    world.clock = "2026-03-17T09:00:00Z".to_owned();
    assert!(world.installs());
    world.items[0]["not_after"] = "2026-03-17T00:00:00Z".into();
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    world.items[0] = install(1, &json!({}));
    world.device.contents.clear();
    assert_eq!(world.says(), (State::Needed, Some(Reason::ManifestStale)));
    assert_eq!(world.answer(1).step, Step::Nothing);
}

#[test]
fn without_any_statement_nothing_starts() {
    let mut world = World::approved();
    world.statement = None;
    assert_eq!(world.says(), (State::Staged, Some(Reason::ManifestStale)));
}
