//! What an order is about beside whom it reaches: contents, bytes, and from when on.

use sutler_control::change::{Change, ChangeError};
use sutler_control::draft::Draft;
use sutler_control::fleet::Effect;
use sutler_control::halting;
use sutler_control::outlook::{Outlook, Start};
use sutler_orders::approvals::{Action, Approvals, Item};
use sutler_orders::halts::Halt;
use sutler_orders::rings::{Ring, Rings};
use sutler_orders::sites::{Site, Sites};
use sutler_orders::text::Utc;
use sutler_protocol::ContentId;
use sutler_protocol::name::Label;

use crate::house::{House, deny, install, key, later, note, now};

const A: &[u8] = b"a tool";
const B: &[u8] = b"another tool";

/// `a` is approved from in an hour on, `b` is published.
fn world() -> House {
    let house = House::new(1);
    house.publish("a.deb", A);
    house.publish("b.deb", B);
    let item = Item { not_before: Some(Utc::of(later(1))), ..install(A) };
    house.submit(&house.approve(item, &[4]).submission(), now()).unwrap();
    house
}

fn scope() -> Label {
    "lab".parse().unwrap()
}

fn outlook(house: &House, draft: &Draft) -> Option<Outlook> {
    Outlook::of(draft, &house.state(), Utc::of(now()))
}

/// What is said of a draft: contents, bytes, hours from now, and what is waited for.
fn said(house: &House, draft: &Draft) -> Option<(u64, usize, Utc, Start)> {
    let outlook = outlook(house, draft)?;
    Some((outlook.contents, outlook.bytes as usize, outlook.earliest, outlook.start))
}

fn approvals(house: &House, signers: &[u8], edit: impl FnOnce(&mut Approvals)) -> Draft {
    house.draft(signers, |change| {
        change.order::<Approvals, ChangeError>(Some(&scope()), |approvals| {
            edit(approvals);
            Ok(())
        })
    })
}

fn halting(
    house: &House,
    signers: &[u8],
    edit: impl FnOnce(&sutler_control::State, &mut Change<'_>),
) -> Draft {
    let state = house.state();
    let mut change = Change::new(&state, &house.organisation, note("dora", "test"), now());
    edit(&state, &mut change);
    let mut draft = change.draft().unwrap();
    for signer in signers {
        draft.sign(&key(*signer), Some(&state)).unwrap();
    }
    draft
}

fn halt(contents: &[&[u8]]) -> Halt {
    let contents: Vec<String> =
        contents.iter().map(|bytes| ContentId::of(bytes).to_string()).collect();
    let mut halt = serde_json::json!({
        "id": "h-1", "at": Utc::of(now()).to_string(), "by": "control",
        "for": { "sites": ["hall"] },
    });
    if !contents.is_empty() {
        halt["contents"] = contents.into();
    }
    serde_json::from_value(halt).unwrap()
}

#[test]
fn an_approval_begins_when_it_says_and_patch_now_at_once() {
    let house = world();
    let (at_once, in_an_hour) = (Utc::of(now()), Utc::of(later(1)));
    let b = house.approve(install(B), &[]);
    assert_eq!(said(&house, &b), Some((1, B.len(), at_once, Start::InWindow)));
    let of = |item: &Item| said(&house, &house.approve(item.clone(), &[])).unwrap();
    let from = Item { not_before: Some(in_an_hour), ..install(B) };
    assert_eq!(of(&from), (1, B.len(), in_an_hour, Start::InWindow));
    let patch_now = Item { patch_now: true, ..install(B) };
    assert_eq!(of(&patch_now), (1, B.len(), at_once, Start::AtOnce));
    let over = Item { not_before: Some(Utc::of(later(-5))), ..install(B) };
    assert_eq!(of(&over), (1, B.len(), at_once, Start::InWindow));
    // Several are one sum, and the earliest counts.
    let both = approvals(&house, &[], |approvals| {
        let later = Item { not_before: Some(Utc::of(later(9))), ..install(A) };
        approvals.items.extend([later, from.clone()]);
    });
    let all = A.len() + B.len();
    assert_eq!(said(&house, &both), Some((2, all, in_an_hour, Start::InWindow)));
    let text = outlook(&house, &both).unwrap().to_string();
    assert_eq!(
        text,
        format!(
            "2 contents, {all} bytes for each device; from {in_an_hour}, in the next window of each device"
        )
    );
}

#[test]
fn what_stops_does_so_at_once_and_what_goes_on_begins_as_it_is_approved() {
    let house = world();
    let (at_once, in_an_hour) = (Utc::of(now()), Utc::of(later(1)));
    for action in [Action::Deny, Action::Pause] {
        let draft = house.approve(Item { action, ..deny(A) }, &[]);
        assert_eq!(said(&house, &draft), Some((1, A.len(), at_once, Start::AtOnce)));
    }
    house.submit(&house.approve(deny(A), &[4]).submission(), now()).unwrap();
    house.submit(&house.approve(deny(B), &[4]).submission(), now()).unwrap();
    let resume = |bytes: &[u8]| {
        let id = ContentId::of(bytes);
        let draft = approvals(&house, &[], |approvals| {
            approvals.items.retain(|item| item.action == Action::Install || item.blake3 != id);
        });
        said(&house, &draft).unwrap()
    };
    assert_eq!(resume(A), (1, A.len(), in_an_hour, Start::InWindow));
    // Nothing here says when: at any time.
    assert_eq!(resume(B), (1, B.len(), at_once, Start::InWindow));
    // Nothing is said of what changes nothing.
    assert_eq!(outlook(&house, &approvals(&house, &[], |_| {})), None);
}

// R155
#[test]
fn a_halt_stops_whom_it_names_and_an_approver_who_lets_things_go_on_starts_them() {
    let house = world();
    let starts = |draft: &Draft| Effect::of(draft, &house.state()).starts();
    let is_nothing = |draft: &Draft| Effect::of(draft, &house.state()).is_nothing();
    let at_once = (Utc::of(now()), Start::AtOnce);
    let add = |halt: Halt, signers: &[u8]| {
        halting(&house, signers, |state, change| halting::add(state, change, halt).unwrap())
    };
    for (contents, count, bytes) in [(&[][..], 2, A.len() + B.len()), (&[B][..], 1, B.len())] {
        let draft = add(halt(contents), &[]);
        assert!(!starts(&draft) && !is_nothing(&draft));
        assert_eq!(said(&house, &draft), Some((count, bytes, at_once.0, at_once.1)));
    }
    house.submit(&add(halt(&[B]), &[103]).submission(), now()).unwrap();
    let confirm = halting(&house, &[4], |state, change| {
        halting::countersign(state, change, &scope(), &"h-1".parse().unwrap()).unwrap();
    });
    assert!(!starts(&confirm) && !is_nothing(&confirm));
    assert_eq!(said(&house, &confirm), Some((1, B.len(), at_once.0, at_once.1)));

    let until = Utc::of(later(9));
    let all = halting(&house, &[], |_, change| {
        halting::resume(change, &scope(), &[], until).unwrap();
    });
    assert!(starts(&all));
    // All that is approved, when it is.
    assert_eq!(said(&house, &all), Some((1, A.len(), Utc::of(later(1)), Start::InWindow)));
    // Once it is countersigned, to take that back starts it.
    house.submit(&confirm.submission(), now()).unwrap();
    let back = approvals(&house, &[], |approvals| approvals.countersigned.clear());
    assert!(starts(&back));
}

#[test]
fn rings_and_zones_that_change_start_what_is_approved_anywhere() {
    let house = world();
    let starts = |draft: &Draft| Effect::of(draft, &house.state()).starts();
    let in_an_hour = (Utc::of(later(1)), Start::InWindow);
    let ring = Ring {
        name: "lab".parse().unwrap(),
        pins: vec!["depot/d".parse().unwrap()],
        exclusions: Vec::new(),
        rule: None,
    };
    let rings = |add: Option<Ring>| {
        house.draft(&[1, 2], |change| {
            change.order::<Rings, ChangeError>(None, |rings| {
                rings.rings.extend(add);
                Ok(())
            })
        })
    };
    let draft = rings(Some(ring));
    assert!(starts(&draft));
    assert_eq!(said(&house, &draft), Some((1, A.len(), in_an_hour.0, in_an_hour.1)));
    house.submit(&draft.submission(), now()).unwrap();
    assert!(!starts(&rings(None)), "the same rings");

    let sites = |zone: &str, kbit: Option<u64>| {
        let site = Site {
            name: "hall".parse().unwrap(),
            zone: zone.parse().unwrap(),
            networks: Vec::new(),
            wan_kbit_per_second: kbit,
            nodes: Vec::new(),
        };
        house.draft(&[1, 2], |change| {
            change.order::<Sites, ChangeError>(None, |sites| {
                sites.sites = vec![site];
                Ok(())
            })
        })
    };
    let new = sites("Europe/Berlin", None);
    assert!(starts(&new));
    house.submit(&new.submission(), now()).unwrap();
    assert!(starts(&sites("Europe/Rome", None)));
    let line = sites("Europe/Berlin", Some(1000));
    assert!(Effect::of(&line, &house.state()).is_nothing(), "a line is no hour");
}
