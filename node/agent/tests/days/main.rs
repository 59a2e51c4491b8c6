//! Days of a device on virtual time: what it does of what its orders ask for, minute by minute.

mod device;

use jiff::SignedDuration;
use sutler_agent::plan::{ATTEMPTS_MAX, Next};
use sutler_agent::state::{Found, HowEnded};
use sutler_orders::answer::{Reason, State};

use self::device::{Device, Did};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

// R52
#[test]
fn what_is_approved_is_staged_at_once_and_installed_in_the_window() {
    let mut device = Device::new();
    device.run_until("2026-03-09T20:59:00Z");
    assert_eq!(device.did()[..2], [Did::Fetched(1), Did::Looked(1)]);
    assert!(device.begun.is_empty());
    let said = device.said(1);
    assert_eq!((said.state, said.reason), (State::Staged, Some(Reason::OutsideWindow)));

    device.run_until("2026-03-09T21:05:00Z");
    let begun = device.begun[0];
    assert!(begun >= device::at("2026-03-09T21:00:00Z"), "{begun}");
    assert!(begun <= device::at("2026-03-09T21:01:00Z"), "{begun}");
    assert_eq!(device.said(1).state, State::Installed);
}

// R1
#[test]
fn what_nobody_approved_is_neither_fetched_nor_looked_for() {
    let mut device = Device::new();
    device.items.clear();
    device.run_until("2026-03-12T21:00:00Z");
    assert!(device.did().is_empty());
    let said = device.said(1);
    assert_eq!((said.state, said.reason), (State::Needed, Some(Reason::NotApproved)));
}

// N2, R49
#[test]
fn silence_installs_what_goes_upwards_and_nothing_that_goes_down_or_is_new_here() {
    for (list, installs) in [
        ("app 1.0-1", true),
        ("app 1.9-1\napp 2.0~rc1", true),
        ("app 2.0-1", false),
        ("app 2.0-1+deb12u1", false),
        ("other 1.0", false),
        ("", false),
    ] {
        let mut device = Device::new();
        device.leave_to_silence(1, "app", "2.0-1");
        device.has_installed(list);
        device.run_until("2026-03-09T18:59:00Z");
        let reason = if installs { Reason::VetoOpen } else { Reason::NotApproved };
        assert_eq!(device.said(1).reason, Some(reason), "{list:?}");
        device.run_until("2026-03-09T21:05:00Z");
        assert_eq!(device.begun.len(), usize::from(installs), "{list:?}");
    }
}

// R159
#[test]
fn a_device_that_observes_does_nothing_and_says_what_it_would() {
    let mut device = Device::new();
    device.observes = true;
    device.run_until("2026-03-12T21:00:00Z");
    assert!(device.did().iter().all(|did| matches!(did, Did::Looked(_))), "{:?}", device.did());
    assert_eq!(device.said(1).reason, Some(Reason::Held));
}

// R51
#[test]
fn a_device_that_only_downloads_never_installs() {
    let mut device = Device::new();
    device.mode = "download-only";
    device.run_until("2026-03-12T21:00:00Z");
    assert!(device.stored(1) && device.begun.is_empty());
    assert_eq!(device.said(1).reason, Some(Reason::Held));
}

// R59
#[test]
fn patch_now_starts_outside_of_every_window() {
    let mut device = Device::new();
    device.patch_now(1);
    device.run_for(MINUTE);
    assert_eq!(device.did(), [Did::Fetched(1), Did::Looked(1), Did::Installed(1), Did::Looked(1)]);
    assert_eq!(device.said(1).state, State::Installed);
}

#[test]
fn a_denial_between_staging_and_window_stops_it() {
    let mut device = Device::new();
    device.run_until("2026-03-09T20:00:00Z");
    assert!(device.stored(1));
    device.deny(1);
    device.run_until("2026-03-12T21:30:00Z");
    assert!(device.begun.is_empty());
    let said = device.said(1);
    assert_eq!((said.state, said.reason), (State::Staged, Some(Reason::Denied)));
}

#[test]
fn installed_is_what_a_look_finds_and_no_exit_code() {
    let mut device = Device::new();
    device.finds = Found::Needed;
    device.run_until("2026-03-09T21:30:00Z");
    let said = device.said(1);
    assert_eq!(said.state, State::Failed);
    assert_eq!(said.attempts, 1, "one window, one attempt");
    assert!(said.detail.unwrap().contains("a look does not find it"));

    let mut device = Device::new();
    device.ends = HowEnded::Failed;
    device.run_until("2026-03-09T21:30:00Z");
    assert_eq!(device.said(1).state, State::Installed);
}

// R78
#[test]
fn what_hangs_is_failed_by_timeout_and_tried_again_in_the_next_window() {
    let mut device = Device::new();
    (device.ends, device.finds) = (HowEnded::Timeout, Found::Needed);
    device.run_until("2026-03-10T12:00:00Z");
    let said = device.said(1);
    assert_eq!((said.state, said.reason), (State::Failed, Some(Reason::Timeout)));
    assert_eq!(device.begun.len(), 1);
    device.run_until("2026-03-20T12:00:00Z");
    assert_eq!(device.begun.len() as u64, ATTEMPTS_MAX);
}

#[test]
fn what_is_there_already_is_not_installed() {
    let mut device = Device::new();
    device.is_there = true;
    device.run_until("2026-03-12T12:00:00Z");
    assert!(device.begun.is_empty());
    assert_eq!(device.said(1).state, State::Installed);
}

#[test]
fn an_answer_that_is_none_starts_nothing() {
    let mut device = Device::new();
    device.is_unclear = true;
    device.run_until("2026-03-12T12:00:00Z");
    assert!(device.begun.is_empty());
    assert!(device.said(1).detail.unwrap().contains("has no answer"));
    let looks = device.did().len();
    assert!(looks < 100, "{looks} looks in 3 days");
}

#[test]
fn what_was_cut_off_is_looked_for_and_not_tried_again_in_the_window() {
    let mut device = Device::new();
    device.run_until("2026-03-09T20:59:00Z");
    device.cut_off_at_next_install();
    device.run_until("2026-03-09T21:30:00Z");
    assert_eq!(device.begun.len(), 1);
    assert_eq!(device.said(1).state, State::Failed);
    device.run_until("2026-03-10T21:30:00Z");
    assert_eq!(device.begun.len(), 2);
    assert_eq!(device.said(1).state, State::Installed);
}

// R79
#[test]
fn what_finds_no_time_waits_for_the_next_window() {
    let mut device = Device::new();
    device.add(2);
    device.add(3);
    device.max_install_minutes = Some(40);
    device.run_until("2026-03-09T23:30:00Z");
    assert_eq!(device.begun.len(), 2, "25 minutes each, and 40 are allowed");
    let late = device.said(3);
    assert_eq!((late.state, late.reason), (State::Staged, Some(Reason::OutsideWindow)));
    device.run_until("2026-03-10T23:00:00Z");
    assert_eq!(device.begun.len(), 3);
}

#[test]
fn nothing_starts_that_may_outlast_its_window() {
    let mut device = Device::new();
    device.run_until("2026-03-09T20:00:00Z");
    device.duration_minutes = 29;
    device.run_until("2026-03-09T21:10:00Z");
    assert!(device.begun.is_empty());
    assert_eq!(device.said(1).reason, Some(Reason::WindowTooShort));
}

// R80
#[test]
fn an_enforced_start_is_within_a_minute_or_not_at_all() {
    let mut device = Device::new();
    device.enforce_start = true;
    device.run_until("2026-03-09T20:00:00Z");
    device.sleep_until("2026-03-09T21:02:00Z");
    device.run_until("2026-03-10T20:00:00Z");
    assert!(device.begun.is_empty());
    device.run_until("2026-03-10T21:02:00Z");
    let late = device.begun[0].duration_since(device::at("2026-03-10T21:00:00Z"));
    assert!(late <= MINUTE, "{late}");
}

#[test]
fn a_source_that_is_gone_is_said_and_tried_again() {
    let mut device = Device::new();
    device.has_source = false;
    device.run_until("2026-03-09T12:00:00Z");
    let said = device.said(1);
    assert_eq!((said.state, said.reason), (State::Needed, Some(Reason::NoSource)));
    device.has_source = true;
    device.run_until("2026-03-09T14:00:00Z");
    assert!(device.stored(1));
}

// T13
#[test]
fn a_device_whose_clock_is_wrong_answers_clock_and_starts_nothing_until_it_is_right() {
    for clock in ["1970-01-01T21:00:00Z", "2025-03-09T21:00:00Z"] {
        let mut device = Device::new();
        device.run_until("2026-03-09T20:00:00Z");
        device.set_clock(clock);
        device.run_for(SignedDuration::from_hours(30));
        assert!(device.begun.is_empty(), "{clock}");
        assert_eq!(device.said(1).reason, Some(Reason::Clock), "{clock}");
        // Set right, it goes on with the next window.
        device.set_clock("2026-03-11T02:00:00Z");
        device.run_until("2026-03-11T20:59:00Z");
        assert!(device.begun.is_empty(), "{clock}");
        device.run_until("2026-03-11T21:05:00Z");
        assert_eq!((device.begun.len(), device.said(1).state), (1, State::Installed), "{clock}");
    }
}

#[test]
fn the_severe_one_is_installed_first() {
    let mut device = Device::new();
    device.add(2);
    device.severe(2);
    device.run_until("2026-03-09T20:00:00Z");
    device.advance_to("2026-03-09T21:00:30Z");
    let plan = device.plan();
    assert!(matches!(plan.next, Some(Next::Look(_) | Next::Install { .. })));
    device.run_until("2026-03-09T23:00:00Z");
    let installed: Vec<Did> =
        device.did().into_iter().filter(|did| matches!(did, Did::Installed(_))).collect();
    assert_eq!(installed, [Did::Installed(2), Did::Installed(1)]);
}
