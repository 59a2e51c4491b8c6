//! Approvals, modes, windows and what a device itself has against something.

use serde_json::json;
use sutler_orders::answer::{Approved, GateName, GateVerdict, Reason, State, Step};
use sutler_orders::effective::{Source, effective};
use sutler_orders::evaluate::{Absence, Presence, Progress};

use super::world::{NOON, World, at, bytes, content, decide, id, install, merged, policy};

// R1
#[test]
fn what_is_staged_and_not_approved_is_never_installed() {
    let world = World::new();
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    assert!(!world.installs());
    assert_eq!(world.answer(1).blocks().unwrap().name, GateName::Approval);
}

// R2, R52
#[test]
fn one_approval_stages_and_then_installs_in_the_window() {
    let mut world = World::approved();
    world.device.contents.clear();
    assert_eq!(world.says(), (State::Needed, None));
    assert_eq!(world.answer(1).step, Step::Stage { is_urgent: false });
    world.staged(1);
    assert_eq!(world.says(), (State::Staged, None));
    let until = Some(at("2026-03-09T17:00:00Z"));
    assert_eq!(world.answer(1).step, Step::Install { until, max_run_minutes: 120 });
    world.local(1).presence = Presence::Installed;
    assert_eq!(world.says(), (State::Installed, None));
}

// R3
#[test]
fn an_approval_for_one_device_leaves_the_next_alone() {
    let mut world = World::new();
    world.items.push(install(1, &json!({ "for": { "devices": ["cologne/anna-3"] } })));
    assert!(world.installs());
    world.facts.device = "cologne/anna-4".parse().unwrap();
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
}

// R4
#[test]
fn members_of_a_ring_install_whenever_they_join_and_not_when_they_have_left() {
    let mut world = World::new();
    world.rings = Some(json!([{ "name": "pilot", "rule": "'pilot' in tags" }]));
    world.items.push(install(1, &json!({ "for": { "ring": "pilot" } })));
    assert!(world.installs());
    world.facts.tags.clear();
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    world.facts.tags.insert("pilot".to_owned());
    world.rings = None;
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
}

// R5
#[test]
fn the_name_of_who_approved_is_kept() {
    let answer = World::approved().answer(1);
    let Some(Approved::Explicitly { by, scope, .. }) = answer.approved else { panic!() };
    assert_eq!((by.as_str(), scope.as_str()), ("Anna", "desktops"));
}

// R16, T12
#[test]
fn an_order_reaches_no_device_outside_of_its_scope_whatever_it_says() {
    let mut world = World::new();
    world.reach = json!({ "sites": ["new-york"] });
    world.items.push(install(1, &json!({ "for": { "devices": ["cologne/anna-3"] } })));
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    world.reach = json!({ "ring": "nobody-knows" });
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    world.reach = json!({ "sites": ["cologne"] });
    assert!(world.installs());
}

// T12
#[test]
fn orders_of_another_organisation_start_nothing() {
    let mut world = World::approved();
    world.facts.organisation = "elsewhere".parse().unwrap();
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
}

// T10
#[test]
fn both_roles_agree_on_every_field_or_nothing_starts() {
    for more in [
        json!({ "sha256": id(2) }),
        json!({ "length": 2 }),
        json!({ "kind": "script" }),
        json!({ "hooks": { "install": ["all"] } }),
        json!({ "blake3": id(2) }),
    ] {
        let mut world = World::new();
        world.items.push(install(1, &more));
        let (state, reason) = world.says();
        assert_eq!((state, reason), (State::Staged, Some(Reason::NotApproved)), "{more}");
    }
}

// T10
#[test]
fn content_without_approval_and_approval_without_content_start_nothing() {
    assert_eq!(World::new().says().1, Some(Reason::NotApproved));
    let mut world = World::approved();
    world.contents.clear();
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
    assert_eq!(world.answer(1).blocks().unwrap().name, GateName::Content);
}

/// What the holder of a key has a device believe.
type Signs = fn(&mut World);

// N1, T10: content 2 is the thief's own, and there on the device. Each key signs all that it may, alone.
#[test]
fn each_single_stolen_key_installs_nothing_of_its_own() {
    let import: Signs = |world| {
        let quiet = json!({ "no_restart": true, "no_interruption": true, "severity": "severe" });
        world.contents.insert(2, content(2, &quiet));
    };
    let approvals: Signs = |world| {
        world.items.push(install(2, &json!({ "patch_now": true })));
        world.standing.push(policy("all", &json!({ "veto_hours": 1 })));
    };
    let stolen: [(&str, Signs); 6] = [
        ("import", import),
        ("approvals", approvals),
        ("schedules", |world| {
            world.policies =
                vec![policy("all", &json!({ "mode": "immediate", "schedule": "daily" }))];
        }),
        ("rings", |world| world.rings = Some(json!([{ "name": "all", "rule": "true" }]))),
        ("sites", |world| world.zone = Some("Asia/Tokyo")),
        ("online", |world| {
            world.statement = Some((NOON.to_owned(), "2026-03-16T09:00:00Z".to_owned()));
            world.halts.clear();
        }),
    ];
    let installs = |signs: &[Signs]| {
        let mut world = World::new();
        world.staged(2);
        for sign in signs {
            sign(&mut world);
        }
        let answers = world.evaluate(&world.orders());
        let step = answers.get(&bytes(2).blake3).map(|answer| &answer.step);
        matches!(step, Some(Step::Install { .. }))
    };
    for (whose, sign) in stolen {
        assert!(!installs(&[sign]), "{whose}");
    }
    // It takes both of the two roles, and with both it would have been installed; no other two do.
    assert!(installs(&[import, approvals]));
    for (one, sign) in stolen {
        for (other, signs) in stolen.into_iter().filter(|(other, _)| *other != one) {
            let is_pair = [one, other].contains(&"import") && [one, other].contains(&"approvals");
            assert_eq!(installs(&[sign, signs]), is_pair, "{one} {other}");
        }
    }
}

// T10
#[test]
fn a_stolen_import_key_cannot_make_approved_bytes_bypass_a_window_or_be_handled_otherwise() {
    let quiet = json!({ "no_restart": true, "no_interruption": true });
    let mut world = World::approved();
    world.policies = vec![policy("all", &json!({ "mode": "immediate", "schedule": "daily" }))];
    world.contents.insert(1, content(1, &quiet));
    world.time("2026-03-09T21:00:00Z");
    assert_eq!(world.says(), (State::Staged, Some(Reason::OutsideWindow)));
    world.contents.insert(1, content(1, &json!({ "kind": "script" })));
    world.time("2026-03-09T09:00:00Z");
    assert_eq!(world.says(), (State::Staged, Some(Reason::NotApproved)));
}

// R50
#[test]
fn a_devices_own_policy_beats_the_groups_and_says_so() {
    let mut world = World::approved();
    world.policies = vec![
        policy(
            "all",
            &json!({ "mode": "download-and-install", "schedule": "daily", "max_run_minutes": 30 }),
        ),
        policy(
            "own",
            &json!({ "for": { "devices": ["cologne/anna-3"] }, "mode": "download-only" }),
        ),
    ];
    assert_eq!(world.says(), (State::Staged, Some(Reason::Held)));
    let orders = world.orders();
    let policies = orders.scopes[0].policies.as_ref().unwrap();
    let effective = effective(Some(&policies.document().body), &world.facts, None);
    assert_eq!(effective.mode.source, Source::Device("own".parse().unwrap()));
    assert_eq!(effective.max_run_minutes.value, 30);
    assert_eq!(effective.max_run_minutes.source.to_string(), "policy all");
    assert_eq!(effective.max_install_minutes.source, Source::Default);
}

// R51
#[test]
fn download_only_stages_and_never_installs_not_even_now() {
    let mut world = World::new();
    world.items.push(install(1, &json!({ "patch_now": true })));
    world.policies = vec![policy("all", &json!({ "mode": "download-only", "schedule": "daily" }))];
    assert_eq!(world.says(), (State::Staged, Some(Reason::Held)));
    world.policies.clear();
    assert_eq!(world.says(), (State::Staged, Some(Reason::Held)));
    world.device.contents.clear();
    assert_eq!(world.answer(1).step, Step::Stage { is_urgent: true });
}

#[test]
fn a_policy_of_which_it_cannot_be_told_whose_it_is_makes_cautious() {
    let mut world = World::approved();
    world
        .policies
        .insert(0, policy("lab", &json!({ "for": { "ring": "lab" }, "mode": "download-only" })));
    assert_eq!(world.says(), (State::Staged, Some(Reason::Held)));
    world.rings = Some(json!([{ "name": "lab" }]));
    assert!(world.installs());
}

// R53
#[test]
fn immediate_bypasses_the_window_only_without_restart_and_interruption() {
    for (no_restart, no_interruption) in
        [(true, true), (true, false), (false, true), (false, false)]
    {
        let flags = json!({ "no_restart": no_restart, "no_interruption": no_interruption });
        let mut world = World::new();
        world.contents.insert(1, content(1, &flags));
        world.items.push(install(1, &flags));
        world.policies = vec![policy("all", &json!({ "mode": "immediate", "schedule": "daily" }))];
        world.time("2026-03-09T21:00:00Z");
        assert_eq!(world.installs(), no_restart && no_interruption, "{flags}");
        world.policies =
            vec![policy("all", &json!({ "mode": "download-and-install", "schedule": "daily" }))];
        assert!(!world.installs());
    }
}

// R59
#[test]
fn patch_now_starts_outside_of_every_window() {
    let mut world = World::approved();
    world.time("2026-03-09T21:00:00Z");
    assert_eq!(world.says(), (State::Staged, Some(Reason::OutsideWindow)));
    world.items.push(install(1, &json!({ "patch_now": true })));
    assert_eq!(world.answer(1).step, Step::Install { until: None, max_run_minutes: 120 });
}

// R10, R56
#[test]
fn devices_install_at_eighteen_of_their_own_clock_and_never_before() {
    let mut world = World::approved();
    world.windows =
        json!([{ "start": "2026-01-01T18:00:00", "rule": "FREQ=DAILY", "duration_minutes": 840 }]);
    for (zone, hour, installs) in [
        ("Europe/Berlin", "2026-03-09T16:59:59Z", false),
        ("Europe/Berlin", "2026-03-09T17:00:00Z", true),
        ("Europe/Berlin", "2026-03-10T07:00:00Z", false),
        ("America/New_York", "2026-03-09T17:00:00Z", false),
        ("America/New_York", "2026-03-09T22:00:00Z", true),
    ] {
        world.zone = Some(zone);
        world.time(hour);
        assert_eq!(world.installs(), installs, "{zone} {hour}");
    }
    world.zone = None;
    assert_eq!(world.says(), (State::Staged, Some(Reason::OutsideWindow)));
}

// R80
#[test]
fn an_enforced_start_is_within_sixty_seconds_or_not_at_all() {
    let mut world = World::approved();
    world.windows[0]["enforce_start"] = true.into();
    for (clock, installs) in [
        ("2026-03-09T07:00:00Z", true),
        ("2026-03-09T07:01:00Z", true),
        ("2026-03-09T07:01:01Z", false),
    ] {
        assert_eq!(world.time(clock).installs(), installs, "{clock}");
    }
}

#[test]
fn of_windows_that_overlap_the_one_that_is_open_longest_counts() {
    let mut world = World::approved();
    // Two days from each midnight: yesterday's ends at the next midnight, today's a day later.
    world.windows = json!([{ "start": "2026-01-01T00:00:00", "rule": "FREQ=DAILY", "duration_minutes": 2_880 }]);
    world.time("2026-03-09T22:50:00Z");
    let Step::Install { until: Some(until), .. } = world.answer(1).step else {
        panic!("{:?}", world.says())
    };
    assert!(until > at("2026-03-10T12:00:00Z"), "{until}");
}

#[test]
fn a_missed_window_is_made_up_for_only_where_it_says_so() {
    let mut world = World::approved();
    world.windows =
        json!([{ "start": "2026-01-01T02:00:00", "rule": "FREQ=DAILY", "duration_minutes": 60 }]);
    let (from, until) = (at("2026-03-08T20:00:00Z"), at("2026-03-09T08:30:00Z"));
    world.device.absence = Some(Absence { from, until });
    assert!(!world.installs());
    world.windows[0]["missed"] = "run".into();
    assert!(world.installs());
    world.time("2026-03-09T09:30:00Z");
    assert!(!world.installs());
    world.time("2026-03-09T09:00:00Z");
    // It was there when the window opened.
    world.device.absence = Some(Absence { from: at("2026-03-09T01:30:00Z"), until });
    assert!(!world.installs());
}

// R67
#[test]
fn what_requires_another_content_waits_for_it() {
    let mut world = World::approved();
    world.contents.insert(1, content(1, &json!({ "requires": [id(2)] })));
    assert_eq!(world.says(), (State::Staged, Some(Reason::PrereqMissing)));
    world.local(2).progress = Progress::Failed;
    assert_eq!(world.says(), (State::Staged, Some(Reason::PrereqMissing)));
    world.local(2).presence = Presence::Installed;
    assert!(world.installs());
}

// R78, R79
#[test]
fn the_lower_of_the_limits_counts_and_what_is_used_up_waits() {
    let mut world = World::approved();
    world.policies = vec![policy(
        "all",
        &json!({
            "mode": "download-and-install", "schedule": "daily", "max_run_minutes": 30,
            "max_install_minutes": 90,
        }),
    )];
    let limit = |world: &World| match world.answer(1).step {
        Step::Install { max_run_minutes, .. } => max_run_minutes,
        step => panic!("{step:?}"),
    };
    assert_eq!(limit(&world), 30);
    world.windows[0]["max_run_minutes"] = 20.into();
    assert_eq!(limit(&world), 20);
    world.device.used_minutes = 89;
    assert!(world.installs());
    world.device.used_minutes = 90;
    assert_eq!(world.says(), (State::Staged, Some(Reason::WindowTooShort)));
    world.device.used_minutes = 0;
    world.local(1).expected_minutes = 45;
    world.time("2026-03-09T16:30:00Z");
    assert_eq!(world.says(), (State::Staged, Some(Reason::WindowTooShort)));
}

// R159
#[test]
fn a_device_that_only_watches_installs_nothing_and_fetches_nothing() {
    let mut world = World::new();
    world.items.push(install(1, &json!({ "patch_now": true })));
    world.device.observe_only = true;
    assert_eq!(world.says(), (State::Staged, Some(Reason::Held)));
    world.device.contents.clear();
    assert_eq!(world.answer(1).step, Step::Nothing);
    assert_eq!(world.says(), (State::Needed, Some(Reason::Held)));
}

#[test]
fn a_content_whose_place_another_has_taken_is_superseded() {
    let mut world = World::approved();
    world.contents.insert(2, content(2, &json!({ "supersedes": [id(1)] })));
    world.contents.insert(3, content(3, &json!({ "supersedes": [id(2)] })));
    assert!(world.installs(), "nobody has approved the others");
    world.items.push(install(3, &json!({})));
    assert_eq!(world.says(), (State::Superseded, None));
    world.items.push(decide("deny", 3, &json!({})));
    assert_eq!(world.says(), (State::Superseded, None), "a denial starts nothing");
    world.items.truncate(1);
    world.local(2).presence = Presence::Installed;
    assert_eq!(world.says(), (State::Superseded, None));
}

#[test]
fn a_content_that_does_not_apply_says_so() {
    let mut world = World::approved();
    world.contents.insert(1, content(1, &json!({ "applies": "os == 'windows'" })));
    assert_eq!(world.says(), (State::NotApplicable, None));
    assert_eq!(world.answer(1).gates[0].verdict, GateVerdict::Done);
}

#[test]
fn what_the_device_has_against_it_is_the_reason() {
    for reason in
        [Reason::UserPostponed, Reason::Conffile, Reason::PackageDbBroken, Reason::Timeout]
    {
        let mut world = World::approved();
        world.local(1).against = Some(reason);
        assert_eq!(world.says(), (State::Staged, Some(reason)));
    }
    let mut world = World::approved();
    world.device.on_battery = true;
    assert_eq!(world.says(), (State::Staged, Some(Reason::OnBattery)));
    world.device.is_metered = true;
    world.device.contents.clear();
    assert_eq!(world.says(), (State::Needed, Some(Reason::Metered)));
    world.device.is_metered = false;
    world.local(1).against = Some(Reason::NoSource);
    assert_eq!(world.says(), (State::Needed, Some(Reason::NoSource)));
    assert_eq!(world.answer(1).step, Step::Stage { is_urgent: false });
}

// N4
#[test]
fn the_gates_are_in_order_and_end_with_the_one_that_blocks() {
    let mut world = World::approved();
    world.time("2026-03-09T21:00:00Z");
    let answer = world.answer(1);
    let names: Vec<GateName> = answer.gates.iter().map(|gate| gate.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted);
    let (last, before) = answer.gates.split_last().unwrap();
    assert!(before.iter().all(|gate| gate.verdict == GateVerdict::Passed));
    assert_eq!(last.name, GateName::Window);
    let said = "window: blocked (outside-window), schedule daily opens at 2026-03-10T07:00:00Z, \
                2026-03-10T08:00:00 local time";
    assert_eq!(last.to_string(), said);
    for gate in &answer.gates {
        assert!(!gate.input.is_empty(), "{gate:?}");
    }
}

// R61
#[test]
fn a_severity_is_kept_with_who_set_it_and_is_never_guessed() {
    let more = json!({ "severity": "severe", "severity_by": "Anna", "severity_reason": "in use" });
    let about = |more| sutler_orders::content::About::read(&content(1, more)).unwrap();
    assert_eq!(about(&more).severity.as_str(), "severe");
    assert_eq!(about(&more).severity_by.unwrap().as_str(), "Anna");
    assert_eq!(about(&json!({})).severity.as_str(), "unknown");
}

#[test]
fn two_approvals_are_asked_and_the_one_that_gets_further_speaks() {
    let mut world = World::new();
    world.scopes = vec!["desktops", "servers"];
    world.items.push(install(1, &json!({ "not_after": "2026-03-05T00:00:00Z" })));
    world.items.push(merged(install(1, &json!({ "by": "Bert" })), &json!({ "scope": "servers" })));
    let answer = world.answer(1);
    assert_eq!(answer.reason, None);
    assert!(
        matches!(answer.approved, Some(Approved::Explicitly { by, .. }) if by.as_str() == "Bert")
    );
    assert_eq!(bytes(1).length, 1);
}
