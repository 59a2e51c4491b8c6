//! What silence approves, and when.

use serde_json::{Value, json};
use sutler_orders::answer::{Approved, Reason, State};
use sutler_orders::evaluate::Direction;

use super::world::{World, at, content, decide, id, merged};

/// Published on the 1st of March at midnight, seen an hour later, to be denied for a week.
fn world(more: &Value) -> World {
    let mut world = World::new();
    "2026-02-01T00:00:00Z".clone_into(&mut world.orders_issued);
    world.standing = vec![merged(
        json!({
            "name": "all", "veto_hours": 168, "by": "Anna", "at": "2026-02-01T00:00:00Z",
            "approvers": ["Anna", "Bert", "Carla", "Dora", "Emil"],
        }),
        more,
    )];
    world
}

// R11, R13
#[test]
fn silence_approves_a_second_after_the_deadline_and_names_who_did_not_answer() {
    let mut world = world(&json!({}));
    // The device saw it at 01:00.
    world.windows[0]["start"] = "2026-01-01T00:00:00".into();
    world.time("2026-03-08T01:00:00Z");
    assert_eq!(world.says(), (State::Staged, Some(Reason::VetoOpen)));
    world.time("2026-03-08T01:00:01Z");
    assert!(world.installs());
    let Some(Approved::BySilence { deadline, non_responders, policy, .. }) =
        world.answer(1).approved
    else {
        panic!("approved by somebody")
    };
    assert_eq!(deadline, at("2026-03-08T01:00:00Z"));
    assert_eq!((non_responders.len(), policy.as_str()), (5, "all"));
}

// R11
#[test]
fn without_a_standing_policy_silence_approves_nothing() {
    let mut world = world(&json!({}));
    assert!(world.installs());
    world.standing.clear();
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
}

// N2
#[test]
fn silence_counts_only_on_a_statement_issued_after_the_deadline() {
    let mut world = world(&json!({}));
    world.statement = Some(("2026-03-08T00:59:00Z".to_owned(), "2026-03-15T00:00:00Z".to_owned()));
    assert_eq!(world.says(), (State::Staged, Some(Reason::VetoOpen)));
}

// R12
#[test]
fn one_denial_before_the_deadline_stops_it_for_good() {
    let mut world = world(&json!({}));
    world.items.push(decide("deny", 1, &json!({})));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Denied)));
    world.items.clear();
    world.denials.push(json!({
        "organisation": "example", "scope": "desktops", "id": "d-1", "issued": "2026-03-02T00:00:00Z",
        "contents": [id(1)], "by": "Emil",
    }));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Denied)));
}

// T10
#[test]
fn a_stolen_import_key_cannot_date_the_veto_period_back() {
    let mut world = world(&json!({}));
    world.contents.insert(1, content(1, &json!({ "published": "2020-01-01T00:00:00Z" })));
    world.local(1).first_seen = Some(at("2026-03-09T08:00:00Z"));
    assert_eq!(world.says(), (State::Staged, Some(Reason::VetoOpen)));
    world.local(1).first_seen = None;
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
}

#[test]
fn silence_takes_versions_only_upwards() {
    for direction in [Direction::NotUpwards, Direction::Unknown] {
        let mut world = world(&json!({}));
        world.local(1).direction = direction;
        assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    }
}

#[test]
fn later_rings_wait_while_the_earlier_ones_have_it() {
    let mut world = world(&json!({ "soak_hours": 48 }));
    assert_eq!(world.says(), (State::Staged, Some(Reason::RingWait)));
    assert!(world.time("2026-03-10T09:00:00Z").installs());
}

#[test]
fn a_standing_policy_is_about_what_it_says() {
    let mut world =
        world(&json!({ "contents": { "severities": ["severe"], "vendors": ["debian"] } }));
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    world.contents.insert(1, content(1, &json!({ "severity": "severe" })));
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    world.contents.insert(1, content(1, &json!({ "severity": "severe", "vendor": "debian" })));
    assert!(world.installs());
}

// T3
#[test]
fn silence_approves_nothing_on_stale_orders_even_if_it_is_staged() {
    let mut world = world(&json!({}));
    world.clock = "2026-03-17T09:00:00Z".to_owned();
    assert_eq!(world.says(), (State::Staged, Some(Reason::ManifestStale)));
}
