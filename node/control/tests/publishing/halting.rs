//! Control's halts, and approvers who hold one up or let things go on.

use jiff::{SignedDuration, Timestamp};
use sutler_control::change::{Change, Note};
use sutler_control::draft::{Draft, DraftError};
use sutler_control::halting::{self, HaltingError};
use sutler_orders::approvals::Approvals;
use sutler_orders::halts::Halt;
use sutler_orders::order::Order;
use sutler_orders::text::Utc;
use sutler_protocol::manifest::TargetPath;
use sutler_protocol::name::Label;

use crate::house::{House, key, later, note, now};

fn scope() -> Label {
    "lab".parse().unwrap()
}

fn halt(id: &str, at: Timestamp) -> Halt {
    serde_json::from_value(serde_json::json!({
        "id": id, "at": Utc::of(at).to_string(), "by": "control",
    }))
    .unwrap()
}

/// A change at some time, signed by these.
fn draft<E: std::fmt::Debug>(
    house: &House,
    at: Timestamp,
    signers: &[u8],
    edit: impl FnOnce(&sutler_control::State, &mut Change<'_>) -> Result<(), E>,
) -> Draft {
    let state = house.state();
    let note = Note { at: Utc::of(at), ..note("dora", "test") };
    let mut change = Change::new(&state, &house.organisation, note, at);
    edit(&state, &mut change).unwrap();
    let mut draft = change.draft().unwrap();
    for signer in signers {
        draft.sign(&key(*signer), Some(&state)).unwrap();
    }
    draft
}

/// Control halts by its own key, and it is published.
fn halts(house: &House, id: &str, at: Timestamp) {
    let draft = draft(house, at, &[103], |state, change| halting::add(state, change, halt(id, at)));
    house.submit(&draft.submission(), at).unwrap();
}

fn published(house: &House) -> Vec<String> {
    let halts = halting::halts(&house.state()).unwrap();
    halts.into_iter().map(|halt| halt.id.to_string()).collect()
}

fn approvals(house: &House) -> Approvals {
    let path = TargetPath::from("approvals/lab/approvals.json");
    Order::<Approvals>::read(&house.state().orders[&path]).unwrap().body
}

// T30
#[test]
fn a_countersigned_halt_outlives_its_72_hours_and_the_next_halt() {
    let house = House::new(1);
    halts(&house, "h-1", now());
    halts(&house, "h-2", later(1));
    let confirm = |signers: &[u8]| {
        draft(&house, later(2), signers, |state, change| {
            halting::countersign(state, change, &scope(), &"h-1".parse().unwrap()).map(drop)
        })
    };
    // Control's own key does not do: an approver's does.
    let mut alone = confirm(&[]);
    let error = alone.sign(&key(103), Some(&house.state())).unwrap_err();
    assert!(matches!(error, DraftError::NotASigner { .. }));
    house.submit(&confirm(&[4]).submission(), later(2)).unwrap();
    let says = approvals(&house).countersigned;
    assert_eq!((says.len(), says[0].halt.as_str(), says[0].by.as_str()), (1, "h-1", "dora"));

    halts(&house, "h-3", later(80));
    assert_eq!(published(&house), ["h-1", "h-3"], "what nobody held up has lapsed");
}

#[test]
fn a_halt_is_countersigned_once_and_only_if_control_names_it() {
    let house = House::new(1);
    halts(&house, "h-1", now());
    for at in [later(1), later(2)] {
        let draft = draft(&house, at, &[4], |state, change| {
            halting::countersign(state, change, &scope(), &"h-1".parse().unwrap()).map(drop)
        });
        house.submit(&draft.submission(), at).unwrap();
    }
    let says = approvals(&house).countersigned;
    assert_eq!((says.len(), says[0].at), (1, Utc::of(later(2))));
    let state = house.state();
    let mut change = Change::new(&state, &house.organisation, note("dora", "test"), now());
    let unknown = halting::countersign(&state, &mut change, &scope(), &"h-9".parse().unwrap());
    let error = unknown.unwrap_err();
    assert!(error.to_string().contains("there are h-1"), "{error}");
}

// T30
#[test]
fn an_approver_lets_things_go_on_until_an_instant_that_is_to_come() {
    let house = House::new(1);
    halts(&house, "h-1", now());
    let until = |hours| Utc::of(now() + SignedDuration::from_hours(hours));
    for (at, hours) in [(later(1), 5), (later(6), 9)] {
        let draft = draft(&house, at, &[5], |_, change| {
            halting::resume(change, &scope(), &[], until(hours))
        });
        house.submit(&draft.submission(), at).unwrap();
    }
    // What was over is gone.
    let says = approvals(&house).resumed;
    assert_eq!((says.len(), says[0].until), (1, until(9)));
    let state = house.state();
    let mut change = Change::new(&state, &house.organisation, note("dora", "test"), now());
    let error = halting::resume(&mut change, &scope(), &[], until(0)).unwrap_err();
    assert!(matches!(error, HaltingError::Over { .. }));
}
