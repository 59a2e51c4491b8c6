//! What to give up when room is needed, as a pure function.
//!
//! The store asks [`plan`] and carries out the answer; nothing here touches a disk or reads a clock.
//!
//! Invariants:
//! - what is leased (being read or written) is never in a plan;
//! - what is pinned is never given up for something that is not, nor for something of equal rank;
//! - a plan frees enough, and without any one of its contents it would not;
//! - the same candidates in another order give the same plan.

use std::cmp::Ordering;

use sutler_protocol::ContentId;

/// What one request more costs, in bytes of the line: round trips weigh on small contents, so that
/// a thousand of them are worth more than one large content of the same total.
const REQUEST_BYTES: u64 = 64 * 1024;

/// A day in UTC, counted from 1970-01-01. Coarse on purpose: a read then costs at most one record
/// write a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

/// How much harm it does to lack a content while a signed order asks for it; higher is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Risk(pub u8);

/// Why a content is kept whatever the quota says. The lesser pin is shed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pin {
    /// The version before, kept so that a rollback needs no vendor.
    Rollback,
    /// A signed order asks for it.
    Order(Risk),
}

/// What the orders think of a content; what stands lower is given up first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// A newer content has taken its place.
    Superseded,
    /// Nothing that is known names it.
    #[default]
    Unreferenced,
    /// A catalog names it, no order asks for it.
    Referenced,
    /// Kept by an order.
    Pinned(Pin),
}

/// Whether a content is being read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Nobody holds it.
    Free,
    /// Somebody holds it: not now.
    Held,
}

/// A content that might be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which content.
    pub id: ContentId,
    /// Bytes of it on this disk: what giving it up frees.
    pub had_bytes: u64,
    /// What the orders think of it.
    pub standing: Standing,
    /// Whether it is in use.
    pub lease: Lease,
    /// The day of its last read or write.
    pub last_access: Day,
    /// What a byte of it costs to fetch again, relative to other contents; 1 where nothing is known.
    pub wan_cost: u16,
}

/// What room is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Bytes to free, beyond what is free already.
    pub bytes: u64,
    /// The standing of the content that wants them; it decides which pins may be shed.
    pub standing: Standing,
}

/// What to do about a [`Need`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Give these up, in this order. None of them is pinned. Empty if nothing is needed.
    Evict(Vec<ContentId>),
    /// Even so the pins do not fit: give up `evict`, then the pinned `shed`, each in its order.
    Shed {
        /// Contents that nothing pins.
        evict: Vec<ContentId>,
        /// Pinned contents that rank below the need: rollback pins, then those of lower risk.
        shed: Vec<ContentId>,
    },
    /// Nothing that may be given up is enough: hand the bytes on without storing them.
    PassThrough,
}

/// Returns what to give up so that `need` fits.
///
/// The order: superseded, then unreferenced, then what is least worth its WAN cost; pins only where
/// the need is itself pinned, and higher.
pub fn plan(candidates: &[Candidate], need: Need, today: Day) -> Plan {
    let mut ranked: Vec<&Candidate> =
        candidates.iter().filter(|candidate| may_go(candidate, need)).collect();
    ranked.sort_by(|a, b| rank(a, b, today));
    let mut freed = 0u64;
    let mut going = Vec::new();
    for candidate in ranked {
        if freed >= need.bytes {
            break;
        }
        freed = freed.saturating_add(candidate.had_bytes);
        going.push(candidate);
    }
    if freed < need.bytes {
        return Plan::PassThrough;
    }
    spare(&mut going, freed - need.bytes);
    let (shed, evict): (Vec<_>, Vec<_>) =
        going.into_iter().partition(|candidate| matches!(candidate.standing, Standing::Pinned(_)));
    let ids = |chosen: Vec<&Candidate>| chosen.into_iter().map(|candidate| candidate.id).collect();
    if shed.is_empty() {
        Plan::Evict(ids(evict))
    } else {
        Plan::Shed { evict: ids(evict), shed: ids(shed) }
    }
}

/// Returns the order in which contents would go if ever more room were needed: the eviction order
/// as an operator may ask for it. Leased and pinned ones come too, each at its place.
pub fn order(candidates: &[Candidate], today: Day) -> Vec<ContentId> {
    let mut ranked: Vec<&Candidate> = candidates.iter().collect();
    ranked.sort_by(|a, b| rank(a, b, today));
    ranked.into_iter().map(|candidate| candidate.id).collect()
}

fn may_go(candidate: &Candidate, need: Need) -> bool {
    let outranked = match candidate.standing {
        Standing::Pinned(_) => candidate.standing < need.standing,
        _ => true,
    };
    outranked && candidate.lease == Lease::Free && candidate.had_bytes > 0
}

fn rank(a: &Candidate, b: &Candidate, today: Day) -> Ordering {
    a.standing
        .cmp(&b.standing)
        .then_with(|| worth(a, b, today))
        .then_with(|| a.last_access.cmp(&b.last_access))
        .then_with(|| a.id.cmp(&b.id))
}

/// Compares what is lost with each byte that is freed: the cost of fetching the content again,
/// times the chance that somebody asks, which falls with the days since somebody last did.
///
/// Whole numbers, multiplied crosswise: a rounded quotient would let ties depend on sizes.
fn worth(a: &Candidate, b: &Candidate, today: Day) -> Ordering {
    let lost = |of: &Candidate| u128::from(of.wan_cost) * u128::from(of.had_bytes + REQUEST_BYTES);
    let freed = |of: &Candidate| {
        let idle_days = today.0.saturating_sub(of.last_access.0).min(u32::from(u16::MAX));
        u128::from(of.had_bytes.max(1)) * u128::from(idle_days + 1)
    };
    // At most 16 + 39 + 38 + 17 bits, as a content has at most 2^38 bytes; saturating in case that
    // the caller's numbers are no content's.
    lost(a).saturating_mul(freed(b)).cmp(&lost(b).saturating_mul(freed(a)))
}

/// Takes back what turned out not to be needed, the most valuable first.
fn spare(going: &mut Vec<&Candidate>, mut surplus: u64) {
    let mut kept_back = Vec::with_capacity(going.len());
    for candidate in going.drain(..).rev() {
        if candidate.had_bytes <= surplus {
            surplus -= candidate.had_bytes;
        } else {
            kept_back.push(candidate);
        }
    }
    kept_back.reverse();
    *going = kept_back;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const TODAY: Day = Day(20_000);

    fn candidate(number: u8, had_bytes: u64, standing: Standing, idle_days: u32) -> Candidate {
        Candidate {
            id: ContentId::from_bytes([number; 32]),
            had_bytes,
            standing,
            lease: Lease::Free,
            last_access: Day(TODAY.0 - idle_days),
            wan_cost: 1,
        }
    }

    fn unreferenced(bytes: u64) -> Need {
        Need { bytes, standing: Standing::Unreferenced }
    }

    fn numbers(ids: &[ContentId]) -> Vec<u8> {
        ids.iter().map(|id| id.as_bytes()[0]).collect()
    }

    // R32
    #[test]
    fn superseded_goes_first_then_unreferenced_then_the_longest_idle() {
        let mib = 1 << 20;
        let all = [
            candidate(1, mib, Standing::Referenced, 3),
            candidate(2, mib, Standing::Referenced, 90),
            candidate(3, mib, Standing::Unreferenced, 0),
            candidate(4, mib, Standing::Superseded, 0),
            candidate(5, mib, Standing::Pinned(Pin::Rollback), 400),
        ];
        let Plan::Evict(gone) = plan(&all, unreferenced(4 * mib), TODAY) else {
            panic!("four of them are enough");
        };
        assert_eq!(numbers(&gone), [4, 3, 2, 1]);
        assert_eq!(plan(&all, unreferenced(4 * mib + 1), TODAY), Plan::PassThrough);
        assert_eq!(numbers(&order(&all, TODAY)), [4, 3, 2, 1, 5]);
    }

    // R32
    #[test]
    fn pins_are_shed_only_for_a_higher_pin_rollback_first_then_the_lower_risk() {
        let order = |risk| Standing::Pinned(Pin::Order(Risk(risk)));
        let all = [
            candidate(1, 100, order(7), 0),
            candidate(2, 100, order(2), 0),
            candidate(3, 100, Standing::Pinned(Pin::Rollback), 0),
            candidate(4, 100, Standing::Unreferenced, 0),
        ];
        let shed = |bytes, standing| plan(&all, Need { bytes, standing }, TODAY);
        let Plan::Shed { evict, shed: pins } = shed(300, order(7)) else {
            panic!("a rollback and a lower risk make room");
        };
        assert_eq!((numbers(&evict), numbers(&pins)), (vec![4], vec![3, 2]));
        assert_eq!(shed(301, order(7)), Plan::PassThrough, "an equal risk stays");
        assert_eq!(shed(101, Standing::Referenced), Plan::PassThrough);
        assert_eq!(shed(101, Standing::Pinned(Pin::Rollback)), Plan::PassThrough);
    }

    #[test]
    fn a_dear_line_and_many_small_files_are_kept_longer() {
        let near = Candidate { wan_cost: 1, ..candidate(1, 1 << 20, Standing::Referenced, 9) };
        let far = Candidate { wan_cost: 20, ..candidate(2, 1 << 20, Standing::Referenced, 9) };
        let small = candidate(3, 4096, Standing::Referenced, 9);
        assert_eq!(numbers(&order(&[far, small, near], TODAY)), [1, 3, 2]);
    }

    #[test]
    fn a_small_content_is_spared_when_a_large_one_had_to_go_anyway() {
        let all = [
            candidate(1, 1000, Standing::Unreferenced, 0),
            candidate(2, 10, Standing::Superseded, 0),
        ];
        let Plan::Evict(gone) = plan(&all, unreferenced(900), TODAY) else {
            panic!("there is enough");
        };
        assert_eq!(numbers(&gone), [1]);
    }

    prop_compose! {
        fn any_candidate()(
            number in any::<u8>(),
            had_bytes in prop_oneof![Just(0), 1u64..200, 1u64..(256 << 30)],
            standing in prop_oneof![
                Just(Standing::Superseded),
                Just(Standing::Unreferenced),
                Just(Standing::Referenced),
                Just(Standing::Pinned(Pin::Rollback)),
                (0u8..4).prop_map(|risk| Standing::Pinned(Pin::Order(Risk(risk)))),
            ],
            held in any::<bool>(),
            // Some lie in the future: a clock was set back.
            last_access in 19_900u32..20_010,
            wan_cost in any::<u16>(),
        ) -> Candidate {
            let lease = if held { Lease::Held } else { Lease::Free };
            let last_access = Day(last_access);
            let id = ContentId::from_bytes([number; 32]);
            Candidate { id, had_bytes, standing, lease, last_access, wan_cost }
        }
    }

    fn distinct(candidates: Vec<Candidate>) -> Vec<Candidate> {
        let mut seen = BTreeSet::new();
        candidates.into_iter().filter(|candidate| seen.insert(candidate.id)).collect()
    }

    proptest! {
        // R32
        #[test]
        fn a_plan_frees_just_enough_and_touches_no_lease_and_no_higher_pin(
            candidates in proptest::collection::vec(any_candidate(), 0..24).prop_map(distinct),
            bytes in prop_oneof![0u64..1000, 0u64..(1 << 40)],
            standing in any_candidate().prop_map(|candidate| candidate.standing),
        ) {
            let need = Need { bytes, standing };
            let (evict, shed) = match plan(&candidates, need, TODAY) {
                Plan::Evict(evict) => (evict, Vec::new()),
                Plan::Shed { evict, shed } => (evict, shed),
                Plan::PassThrough => {
                    let at_most: u64 = candidates
                        .iter()
                        .filter(|candidate| may_go(candidate, need))
                        .map(|candidate| candidate.had_bytes)
                        .sum();
                    prop_assert!(at_most < bytes);
                    return Ok(());
                }
            };
            let find = |id: &ContentId| candidates.iter().find(|one| one.id == *id).copied();
            let evicted: Vec<Candidate> = evict.iter().filter_map(find).collect();
            let unpinned = evicted.iter().all(|one| one.standing < Standing::Pinned(Pin::Rollback));
            prop_assert!(unpinned);
            let pins: Vec<Candidate> = shed.iter().filter_map(find).collect();
            prop_assert!(pins.iter().all(|pin| pin.standing < standing));
            let gone: Vec<Candidate> = evicted.into_iter().chain(pins).collect();
            prop_assert!(gone.iter().all(|one| one.lease == Lease::Free));
            let freed: u64 = gone.iter().map(|one| one.had_bytes).sum();
            prop_assert!(freed >= bytes);
            prop_assert!(gone.iter().all(|one| freed - one.had_bytes < bytes));
            prop_assert!(gone.is_sorted_by_key(|one| one.standing));
        }

        #[test]
        fn the_order_of_the_candidates_decides_nothing(
            candidates in proptest::collection::vec(any_candidate(), 0..24).prop_map(distinct),
            bytes in 0u64..(1 << 40),
        ) {
            let reversed: Vec<Candidate> = candidates.iter().rev().copied().collect();
            let need = unreferenced(bytes);
            prop_assert_eq!(plan(&candidates, need, TODAY), plan(&reversed, need, TODAY));
            prop_assert_eq!(order(&candidates, TODAY), order(&reversed, TODAY));
        }
    }
}
