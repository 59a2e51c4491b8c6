//! Order files: no bytes make a reader panic, and what is read is written so that it is read as the same again.

#![no_main]

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use libfuzzer_sys::fuzz_target;
use sutler_orders::admission::Revocations;
use sutler_orders::content::About;
use sutler_orders::denial::SignedDenial;
use sutler_orders::windows::{Zones, next_windows};
use sutler_orders::{
    Approvals, Body, Halts, Order, Policies, Rings, Rule, Schedules, Sites, Standing,
};

fuzz_target!(|bytes: &[u8]| {
    read::<Approvals>(bytes);
    read::<Standing>(bytes);
    read::<Policies>(bytes);
    read::<Sites>(bytes);
    read::<Rings>(bytes);
    read::<Halts>(bytes);
    read::<Revocations>(bytes);
    let _ = SignedDenial::parse(bytes);
    if let Ok(value) = serde_json::from_slice(bytes)
        && let Ok(about) = About::read(&value)
    {
        assert_eq!(
            About::read(&about.write().expect("what was read can be written")).ok(),
            Some(about)
        );
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Rule>();
    }
    let Some(schedules) = read::<Schedules>(bytes) else { return };
    let database = TimeZoneDatabase::bundled();
    let zones = Zones {
        site: database.get("Europe/Berlin").ok(),
        device: database.get("America/New_York").ok(),
        database: &database,
    };
    let from = Timestamp::from_second(1_780_000_000).expect("an instant of 2026");
    for schedule in schedules.body.schedules.iter().take(4) {
        let Ok(openings) = next_windows(schedule, &zones, from, 12) else { continue };
        for opening in &openings {
            assert!(opening.begin < opening.end && from < opening.end);
        }
        assert!(openings.is_sorted_by_key(|opening| opening.begin));
    }
});

fn read<B: Body + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<Order<B>> {
    let order = Order::<B>::read(bytes).ok()?;
    let written = order.write().expect("what was read can be written");
    assert_eq!(Order::read(&written).as_ref().ok(), Some(&order));
    Some(order)
}
