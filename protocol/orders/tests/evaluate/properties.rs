//! What holds for all orders: what stops never starts, what is gone starts nothing, and waiting starts only what
//! an order lets start then.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use sutler_orders::answer::Step;
use sutler_orders::approvals::Action;
use sutler_orders::approvals::Approvals;
use sutler_orders::{Order, Orders, Vouched};
use sutler_protocol::ContentId;

use super::world::{World, at, content, decide, id, install, merged, policy};

fn started(world: &World, orders: &Orders) -> BTreeSet<ContentId> {
    let answers = world.evaluate(orders).into_iter();
    answers.filter(|(_, answer)| answer.step != Step::Nothing).map(|(id, _)| id).collect()
}

fn installed(world: &World, orders: &Orders) -> BTreeSet<ContentId> {
    let answers = world.evaluate(orders).into_iter();
    answers
        .filter(|(_, answer)| matches!(answer.step, Step::Install { .. }))
        .map(|(id, _)| id)
        .collect()
}

fn audience() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => Just(json!({})),
        1 => Just(json!({ "for": { "ring": "pilot" } })),
        1 => Just(json!({ "for": { "ring": "nobody-knows" } })),
        1 => Just(json!({ "for": { "sites": ["cologne"] } })),
        1 => Just(json!({ "for": { "sites": ["new-york"] } })),
        1 => Just(json!({ "for": { "rule": "'pilot' in tags" } })),
    ]
}

fn instant() -> impl Strategy<Value = String> {
    (1_u8..=28, 0_u8..24).prop_map(|(day, hour)| format!("2026-03-{day:02}T{hour:02}:00:00Z"))
}

fn item() -> impl Strategy<Value = Value> {
    let scope = prop_oneof![Just("desktops"), Just("servers")];
    let dates = (prop::option::of(instant()), prop::option::of(instant()));
    (0_u8..8, 1_u8..=4, audience(), scope, dates, any::<bool>()).prop_map(
        |(action, n, audience, scope, (from, to), patch_now)| {
            let scope = json!({ "scope": scope });
            let more = merged(audience, &scope);
            match action {
                0 => decide("deny", n, &more),
                1 => decide("pause", n, &more),
                _ => {
                    let mut item = install(n, &merged(more, &json!({ "patch_now": patch_now })));
                    if let (Some(from), Some(to)) = (&from, &to)
                        && from >= to
                    {
                        return item;
                    }
                    for (field, instant) in [("not_before", from), ("not_after", to)] {
                        if let Some(instant) = instant {
                            item[field] = instant.into();
                        }
                    }
                    item
                }
            }
        },
    )
}

fn halt() -> impl Strategy<Value = Value> {
    (audience(), instant(), prop::option::of(1_u8..=4)).prop_map(|(audience, at, n)| {
        let mut halt = merged(json!({ "id": "h-1", "at": at, "by": "control" }), &audience);
        if let Some(n) = n {
            halt["contents"] = json!([id(n)]);
        }
        halt
    })
}

fn denial() -> impl Strategy<Value = Value> {
    (audience(), 1_u8..=4, any::<bool>()).prop_map(|(audience, n, mine)| {
        let denial = json!({
            "organisation": "example", "scope": if mine { "desktops" } else { "other" }, "id": "d-1",
            "issued": "2026-03-08T00:00:00Z", "contents": [id(n)], "by": "Bert",
        });
        merged(denial, &audience)
    })
}

prop_compose! {
    fn world()(
        items in prop::collection::vec(item(), 0..10),
        halts in prop::collection::vec(halt(), 0..2),
        denials in prop::collection::vec(denial(), 0..2),
        mode in prop_oneof![Just("download-only"), Just("download-and-install"), Just("immediate")],
        has_standing in any::<bool>(),
        has_rings in any::<bool>(),
        supersedes in any::<bool>(),
        staged in prop::collection::vec(any::<bool>(), 4),
        (clock, issued) in (instant(), instant()),
        second_policy in audience(),
    ) -> World {
        let mut world = World::new();
        world.scopes = vec!["desktops", "servers"];
        for n in 1..=4_u8 {
            let more = if supersedes && n == 4 { json!({ "supersedes": [id(1)] }) } else { json!({}) };
            world.contents.insert(n, content(n, &more));
            if staged[usize::from(n) - 1] {
                world.staged(n);
            }
        }
        world.device.contents.remove(&super::world::bytes(9).blake3);
        world.items = items;
        world.halts = halts;
        world.denials = denials;
        world.policies = vec![
            policy("some", &merged(json!({ "mode": "download-only" }), &second_policy)),
            policy("all", &json!({ "mode": mode, "schedule": "daily" })),
        ];
        if has_standing {
            world.standing = vec![json!({
                "name": "all", "veto_hours": 24, "by": "Anna", "at": "2026-03-01T00:00:00Z",
            })];
        }
        world.rings = has_rings.then(|| json!([{ "name": "pilot", "rule": "'pilot' in tags" }]));
        let expires = at(&issued) + jiff::SignedDuration::from_hours(24 * 7);
        world.statement = Some((issued, expires.to_string()));
        world.clock = clock;
        world
    }
}

/// What an approvals document stops, and what the contents in it take the place of.
fn stopped_by(world: &World, approvals: Option<&Vouched<Order<Approvals>>>) -> BTreeSet<ContentId> {
    let items = approvals.map(|approvals| approvals.document().body.items.as_slice());
    let items = items.unwrap_or_default();
    let mut stopped: BTreeSet<ContentId> = items
        .iter()
        .filter(|item| item.action != Action::Install)
        .map(|item| item.blake3)
        .collect();
    for about in world.contents.values() {
        let approved =
            |item: &&sutler_orders::approvals::Item| about["blake3"] == item.blake3.to_string();
        if items.iter().any(|item| approved(&item)) {
            for superseded in
                about.get("supersedes").and_then(Value::as_array).into_iter().flatten()
            {
                stopped.insert(superseded.as_str().unwrap().parse().unwrap());
            }
        }
    }
    stopped
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_order_starts_anything_through_what_stops(
        world in world(),
        more in prop::collection::vec((0_u8..4, item(), halt(), denial()), 1..4),
    ) {
        let before = started(&world, &world.orders());
        let mut stricter = world;
        for (position, (kind, mut item, mut halt, denial)) in more.into_iter().enumerate() {
            match kind {
                0 => {
                    halt["id"] = format!("h-more-{position}").into();
                    stricter.halts.push(halt);
                }
                1 => stricter.denials.push(denial),
                _ => {
                    for field in ["not_before", "not_after", "kind", "patch_now"] {
                        item.as_object_mut().unwrap().remove(field);
                    }
                    item["action"] = if kind == 2 { "deny" } else { "pause" }.into();
                    stricter.items.push(item);
                }
            }
        }
        for (position, halt) in stricter.halts.iter_mut().enumerate() {
            halt["id"] = format!("h-{position}").into();
        }
        let after = started(&stricter, &stricter.orders());
        prop_assert!(after.is_subset(&before), "{after:?} started beside {before:?}");
    }

    #[test]
    fn a_document_that_is_gone_starts_nothing_but_what_it_had_stopped(world in world(), gone in 0_usize..12) {
        let before = started(&world, &world.orders());
        let was_installed = installed(&world, &world.orders());
        let mut orders = world.orders();
        let mut excused = BTreeSet::new();
        let scope = gone % 2;
        match gone / 2 {
            0 => {
                excused = stopped_by(&world, orders.scopes[scope].approvals.as_ref());
                orders.scopes[scope].approvals = None;
            }
            1 => orders.scopes[scope].standing = None,
            2 => orders.scopes[scope].policies = None,
            3 => orders.scopes[scope].schedules = None,
            4 if scope == 0 => orders.rings = None,
            4 => orders.sites = None,
            _ => {
                // The month in which the newer content is, and one without.
                let lost = orders.contents.remove(if scope == 0 { 3 } else { 0 });
                excused.extend(lost.document().about.supersedes.iter().copied());
            }
        }
        let allowed: BTreeSet<_> = before.union(&excused).copied().collect();
        prop_assert!(started(&world, &orders).is_subset(&allowed));
        let allowed: BTreeSet<_> = was_installed.union(&excused).copied().collect();
        prop_assert!(installed(&world, &orders).is_subset(&allowed));
    }

    #[test]
    fn waiting_starts_only_what_is_allowed_to_begin_and_never_what_has_ended(
        world in world(),
        hours in 1_i64..200,
    ) {
        // Explicit approvals without a beginning, in a window that never closes, with no halt that lapses.
        let mut world = world;
        world.halts.clear();
        world.standing.clear();
        world.windows = json!([{ "start": "2026-01-01T00:00:00", "rule": "FREQ=DAILY", "duration_minutes": 2880 }]);
        for item in &mut world.items {
            item.as_object_mut().unwrap().remove("not_before");
        }
        let noon = at(super::world::NOON);
        world.time(super::world::NOON);
        let before = started(&world, &world.orders());
        let later = noon + jiff::SignedDuration::from_hours(hours);
        world.time(&later.to_string());
        let after = started(&world, &world.orders());
        prop_assert!(after.is_subset(&before), "{after:?} began by waiting");
    }

    #[test]
    fn an_evaluation_says_one_thing_and_ends_at_its_first_block(world in world()) {
        let orders = world.orders();
        let answers = world.evaluate(&orders);
        prop_assert_eq!(&answers, &world.evaluate(&orders));
        for answer in answers.values() {
            let blocks = answer.blocks();
            prop_assert_eq!(blocks.is_some(), answer.reason.is_some());
            if let Some(blocks) = blocks {
                prop_assert_eq!(Some(blocks), answer.gates.last());
                let installs = matches!(answer.step, Step::Install { .. });
                prop_assert!(!installs);
            }
        }
    }
}
