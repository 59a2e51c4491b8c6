//! How many devices an order reaches: what is new of it, by scope and site, and never too few.

use bytes::Bytes;
use sutler_control::change::ChangeError;
use sutler_control::draft::Draft;
use sutler_control::fleet::{Effect, Fleet, Reach};
use sutler_orders::approvals::{Action, Approvals, Item};
use sutler_orders::report::{Report, ToldFacts};
use sutler_orders::rings::{Ring, Rings};
use sutler_protocol::manifest::RoleName;

use crate::house::{House, deny, install, now};

pub(crate) fn report(device: &str) -> Report {
    Report {
        organisation: "acme".parse().unwrap(),
        device: device.parse().unwrap(),
        number: 1,
        written: "2026-11-27T20:00:00Z".parse().unwrap(),
        program: "sutler 0.1.0".parse().unwrap(),
        facts: ToldFacts::default(),
        statement: None,
        observes: false,
        answers: Vec::new(),
        left_out: 0,
    }
}

/// Three devices in the hall, and two in the depot.
fn reports() -> Vec<Report> {
    ["hall/a", "hall/b", "hall/c", "depot/d", "depot/e"].map(report).to_vec()
}

fn of_sites(sites: &[&str]) -> Item {
    let mut item = install(b"x");
    item.audience.sites = sites.iter().map(|site| site.parse().unwrap()).collect();
    item
}

fn of_devices(devices: &[&str]) -> Item {
    let mut item = install(b"y");
    item.audience.devices = devices.iter().map(|device| device.parse().unwrap()).collect();
    item
}

fn approving(house: &House, items: &[Item]) -> Draft {
    house.draft(&[], |change| {
        change.order::<Approvals, ChangeError>(Some(&"lab".parse().unwrap()), |approvals| {
            approvals.items.extend(items.iter().cloned());
            Ok(())
        })
    })
}

fn reach(house: &House, fleet: &Fleet, items: &[Item]) -> Reach {
    fleet.reach(&Effect::of(&approving(house, items), &house.state())).unwrap()
}

#[test]
fn an_order_starts_what_is_new_of_it_and_what_it_no_longer_stops() {
    let house = House::new(1);
    let starts = |draft: &Draft| Effect::of(draft, &house.state()).starts();
    house.publish("tool.deb", b"a tool");
    assert!(starts(&house.approve(install(b"a tool"), &[])));
    house.submit(&house.approve(install(b"a tool"), &[4]).submission(), now()).unwrap();
    // The approval that is there is nothing new beside a stop.
    let pause = Item { action: Action::Pause, ..deny(b"a tool") };
    for stop in [deny(b"a tool"), pause] {
        let draft = house.approve(stop, &[4]);
        assert!(!starts(&draft));
        // It is said all the same how many it stops.
        let fleet = Fleet::of(&house.state(), &reports());
        assert_eq!(fleet.reach(&Effect::of(&draft, &house.state())).unwrap().devices, 5);
        house.submit(&draft.submission(), now()).unwrap();
    }
    // Signed anew, it says the same.
    let role = RoleName::delegated("approvals-lab").unwrap();
    let anew = house.draft(&[], |change| change.renew(&role));
    assert!(Effect::of(&anew, &house.state()).is_nothing());
    let resume = house.draft(&[], |change| {
        change.order::<Approvals, ChangeError>(Some(&"lab".parse().unwrap()), |approvals| {
            approvals.items.retain(|item| item.action != Action::Deny);
            Ok(())
        })
    });
    assert!(starts(&resume));
    // What cannot be read is taken for everything.
    let mut unreadable = approving(&house, &[]);
    unreadable.set_file("approvals/lab/approvals.json".to_owned(), Bytes::from_static(b"{}"));
    assert!(starts(&unreadable));
}

#[test]
fn devices_are_counted_by_site_and_named_ones_once() {
    let house = House::new(1);
    let fleet = Fleet::of(&house.state(), &reports());
    for (items, devices, sites) in [
        (vec![install(b"x")], 5, 2),
        (vec![of_sites(&["hall"])], 3, 1),
        (vec![of_sites(&["depot", "elsewhere"])], 2, 1),
        (vec![of_devices(&["hall/a"]), of_devices(&["hall/a", "depot/d"])], 2, 2),
        (vec![of_devices(&["hall/a"]), of_sites(&["hall"])], 3, 1),
        (vec![of_devices(&["elsewhere/a"])], 0, 0),
        // More of a site than have reported from it.
        (vec![of_devices(&["depot/d", "depot/e", "depot/f"])], 2, 1),
    ] {
        let reach = reach(&house, &fleet, &items);
        assert_eq!((reach.devices, reach.sites, reach.fleet), (devices, sites, 5), "{items:?}");
    }
    let nobody = Fleet::of(&house.state(), &[]);
    assert_eq!(
        nobody.reach(&Effect::of(&approving(&house, &[install(b"x")]), &house.state())),
        None
    );
    // What goes over the wire is the same.
    let text = serde_json::to_string(&fleet).unwrap();
    assert_eq!(serde_json::from_str::<Fleet>(&text).unwrap(), fleet);
    assert!(!text.contains("hall/a"), "{text}");
}

#[test]
fn a_ring_that_is_described_reaches_its_members_and_one_that_is_not_may_reach_all() {
    let house = House::new(1);
    let item = [install(b"x")];
    assert_eq!(reach(&house, &Fleet::of(&house.state(), &reports()), &item).devices, 5);
    let ring = Ring {
        name: "lab".parse().unwrap(),
        pins: vec!["depot/d".parse().unwrap()],
        exclusions: Vec::new(),
        rule: None,
    };
    let draft = house.draft(&[1, 2], |change| {
        change.order::<Rings, ChangeError>(None, |rings| {
            rings.rings.push(ring);
            Ok(())
        })
    });
    house.submit(&draft.submission(), now()).unwrap();
    let reach = reach(&house, &Fleet::of(&house.state(), &reports()), &item);
    assert_eq!(reach, Reach { devices: 1, sites: 1, fleet: 5 });
}

#[test]
fn more_than_a_tenth_is_asked_for() {
    let asked = |devices, fleet| Reach { devices, sites: 1, fleet }.is_asked();
    assert!(asked(1, 1) && asked(1, 9) && asked(2, 19) && asked(1001, 10_000));
    assert!(!asked(0, 1) && !asked(1, 10) && !asked(2, 20) && !asked(1000, 10_000));
}
