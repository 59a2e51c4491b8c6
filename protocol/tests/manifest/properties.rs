//! Random lives of a repository and its attackers: no version that was believed ever goes down.

use proptest::prelude::*;

use crate::repository::{Device, Repository};

const ROLES: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// What happens to a repository between two refreshes.
#[derive(Clone, Debug)]
enum Event {
    /// Its admins publish these roles.
    Publish(Vec<usize>),
    /// An attacker puts the older document of a role in place of the newest.
    Replay { role: usize, which: usize },
    /// An attacker puts a document of one role in the place of another's.
    Mix { from: usize, to: usize },
    /// A document is cut short.
    Cut { role: usize, at: usize },
    /// The device restarts with what it has kept.
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let role = 0..ROLES.len();
    let event = prop_oneof![
        3 => proptest::collection::vec(role.clone(), 1..4).prop_map(Event::Publish),
        3 => (role.clone(), 0..8usize).prop_map(|(role, which)| Event::Replay { role, which }),
        1 => (role.clone(), role.clone()).prop_map(|(from, to)| Event::Mix { from, to }),
        1 => (role, 0..2000usize).prop_map(|(role, at)| Event::Cut { role, at }),
        1 => Just(Event::Restart),
    ];
    proptest::collection::vec(event, 1..16)
}

/// Where a client looks for the newest document of a role.
fn place(repository: &Repository, role: &str) -> String {
    if role == "timestamp" {
        return "timestamp.json".to_owned();
    }
    format!("{}.{role}.json", repository[role]["version"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // T1, T4: random replays.
    #[test]
    fn what_was_believed_never_becomes_older(events in events()) {
        let mut repository = Repository::new();
        let mut device = Device::new(&repository.first_root());
        let mut before = device.versions();
        for event in events {
            match event {
                Event::Publish(roles) => {
                    let mut roles: Vec<&str> = roles.into_iter().map(|role| ROLES[role]).collect();
                    roles.sort_unstable();
                    roles.dedup();
                    // In the order of the pins.
                    roles.sort_by_key(|role| usize::MAX - ROLES.iter().position(|other| other == role).unwrap());
                    repository.publish(&roles);
                }
                Event::Replay { role, which } => {
                    let published = &repository.published[ROLES[role]];
                    let old = published[which % published.len()].clone();
                    repository.places.insert(place(&repository, ROLES[role]), old);
                }
                Event::Mix { from, to } => {
                    let bytes = repository.newest(ROLES[from]);
                    repository.places.insert(place(&repository, ROLES[to]), bytes);
                }
                Event::Cut { role, at } => {
                    let bytes = repository.newest(ROLES[role]);
                    let bytes = bytes.slice(..at.min(bytes.len()));
                    repository.places.insert(place(&repository, ROLES[role]), bytes);
                }
                Event::Restart => device = device.restart(),
            }
            let is_new = device.refresh(&mut repository).is_ok();
            let after = device.versions();
            for (before, after) in before.into_iter().zip(after) {
                prop_assert!(after >= before, "{before:?} became {after:?}");
            }
            for (role, version) in ROLES.into_iter().zip(after) {
                // Only what was published, and nothing that was put together.
                if version > 0 {
                    prop_assert!(repository.published[role].contains(&device.disk.files[role]));
                }
            }
            if is_new {
                let (timestamp, snapshot) = (device.trusted.timestamp().unwrap(), device.trusted.snapshot().unwrap());
                prop_assert_eq!(timestamp.snapshot().version, snapshot.version());
            }
            before = after;
        }
    }
}
