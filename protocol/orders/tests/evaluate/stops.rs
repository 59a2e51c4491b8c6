//! Denials, pauses, halts, and what outranks them.

use serde_json::{Value, json};
use sutler_orders::answer::{Reason, State};

use super::world::{World, decide, id, install, merged};

fn halt(more: &Value) -> Value {
    merged(json!({ "id": "h-1", "at": "2026-03-09T08:00:00Z", "by": "control" }), more)
}

fn denial(more: &Value) -> Value {
    merged(
        json!({
            "organisation": "example", "scope": "desktops", "id": "d-1", "issued": "2026-03-08T00:00:00Z",
            "contents": [id(1)], "by": "Bert",
        }),
        more,
    )
}

// R12
#[test]
fn a_denial_outranks_an_approval_and_a_halt_outranks_both() {
    let mut world = World::approved();
    world.items.push(decide("deny", 1, &json!({})));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Denied)));
    world.halts.push(halt(&json!({})));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Halted)));
}

#[test]
fn a_denial_is_not_outranked_by_patch_now_nor_by_a_later_approval() {
    let mut world = World::new();
    world.items.push(decide("deny", 1, &json!({})));
    world.items.push(install(1, &json!({ "patch_now": true, "at": "2026-03-08T00:00:00Z" })));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Denied)));
}

#[test]
fn a_denial_in_any_scope_that_reaches_the_device_counts() {
    let mut world = World::approved();
    world.scopes = vec!["desktops", "servers"];
    world.items.push(merged(decide("deny", 1, &json!({})), &json!({ "scope": "servers" })));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Denied)));
}

#[test]
fn a_pause_holds_and_its_removal_goes_on() {
    let mut world = World::approved();
    world.items.push(decide("pause", 1, &json!({})));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Halted)));
    world.items.pop();
    assert!(world.installs());
}

// T29, N2
#[test]
fn a_free_standing_denial_stops_whatever_the_online_keys_say() {
    let mut world = World::approved();
    world.denials.push(denial(&json!({})));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Denied)));
    world.withdrawn = json!(["d-1"]);
    assert!(world.installs());
    world.withdrawn = json!(["d-2"]);
    assert!(!world.installs());
}

// T12
#[test]
fn a_denial_of_another_organisation_scope_content_or_device_is_nobodys() {
    for more in [
        json!({ "organisation": "elsewhere" }),
        json!({ "scope": "servers" }),
        json!({ "contents": [id(2)] }),
        json!({ "for": { "sites": ["new-york"] } }),
    ] {
        let mut world = World::approved();
        world.denials.push(denial(&more));
        assert!(world.installs(), "{more}");
    }
}

#[test]
fn what_cannot_be_told_stops() {
    let for_unknown = json!({ "for": { "ring": "nobody-knows" } });
    let mut world = World::approved();
    world.items.push(decide("deny", 1, &for_unknown));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Denied)));
    world.items.pop();
    world.halts.push(halt(&for_unknown));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Halted)));
}

// T30
#[test]
fn a_halt_lapses_after_72_hours_unless_an_approver_countersigns_it() {
    let mut world = World::approved();
    world.halts.push(halt(&json!({ "contents": [id(1)] })));
    world.time("2026-03-12T07:59:59Z");
    assert_eq!(world.says(), (State::Staged, Some(Reason::Halted)));
    world.time("2026-03-12T08:00:00Z");
    assert!(world.installs());
    // A clock that runs ahead does not end it: the newest statement is older.
    world.time("2026-03-12T07:00:00Z").clock = "2026-03-12T08:00:00Z".to_owned();
    assert_eq!(world.says(), (State::Staged, Some(Reason::Halted)));
    world.time("2026-03-12T08:00:00Z");
    world.countersigned = json!([{ "halt": "h-1", "by": "Anna", "at": "2026-03-09T10:00:00Z" }]);
    assert_eq!(world.says(), (State::Staged, Some(Reason::Halted)));
}

// T30
#[test]
fn a_halt_that_begins_in_the_future_does_not_hold_for_ever() {
    let mut world = World::approved();
    world.halts.push(halt(&json!({ "at": "2099-01-01T00:00:00Z" })));
    assert!(world.installs());
}

// T30
#[test]
fn an_approvers_resume_outranks_every_halt_of_control_until_it_ends() {
    let mut world = World::approved();
    world.halts.push(halt(&json!({})));
    world.halts.push(halt(&json!({ "id": "h-2" })));
    world.resumed =
        json!([{ "until": "2026-03-10T12:00:00Z", "by": "Anna", "at": "2026-03-09T08:30:00Z" }]);
    assert!(world.installs());
    world.countersigned = json!([{ "halt": "h-2", "by": "Bert", "at": "2026-03-09T08:45:00Z" }]);
    assert_eq!(world.says(), (State::Staged, Some(Reason::Halted)));
    world.countersigned = json!([{ "halt": "h-2", "by": "Bert", "at": "2026-03-09T08:15:00Z" }]);
    assert!(world.installs());
    world.time("2026-03-10T12:00:00Z");
    assert_eq!(world.says(), (State::Staged, Some(Reason::Halted)));
    // It is about halts alone: what an approver paused or denied stays so.
    world.time("2026-03-09T09:00:00Z");
    world.items.push(decide("pause", 1, &json!({})));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Halted)));
}
