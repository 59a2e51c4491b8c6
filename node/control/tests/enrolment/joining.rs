//! Machines that may join, do: once each, whoever is killed on the way.

use std::sync::Arc;

use rustls_pki_types::UnixTime;
use sutler_control::Members;
use sutler_control::members::{Change, Standing};
use sutler_protocol::join::JoinRefusal;
use sutler_swarm::enrol::client::Joined;
use sutler_swarm::enrol::device::{Begun, DeviceError, Existing, Joiner, control_addresses};
use sutler_swarm::enrol::relay::JoinRelay;
use sutler_swarm::enrol::token::hex;
use sutler_swarm::enrol::{JoinRole, Token};
use sutler_swarm::identity::Role;
use tokio_util::sync::CancellationToken;

use super::raw::new_key;
use super::world::{ROOT_JSON, World, ask, decide, joiner, local, refusal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_joins_and_is_named_by_its_token_alone() {
    let acme = World::new("acme");
    let port = acme.port();
    let agent = acme.join(&port, &acme.token(|_| {}), "agent").await.unwrap();
    assert_eq!(
        (agent.name().role(), agent.name().site().unwrap().as_str()),
        (Role::Agent, "leeds")
    );
    assert_eq!(agent.chain().len(), 2);

    let token = acme.token(|grant| {
        (grant.role, grant.name) = (JoinRole::Node, Some("n1".parse().unwrap()));
    });
    let node = acme.join(&port, &Token::parse(&token.text()).unwrap(), "node").await.unwrap();
    assert_eq!(node.name().to_string(), "spiffe://acme/site/leeds/node/n1");

    let identity = acme.path("node/identity");
    assert_eq!(std::fs::read(identity.join("root.json")).unwrap(), ROOT_JSON);
    assert_eq!(control_addresses(&identity).unwrap(), token.grant().addresses);
    assert!(!acme.path("node/joining").exists());
    assert_eq!(acme.records().len(), 2);
}

// A token of one use whose answer was lost, at each point where either side can be killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_on_the_way_asks_again_and_is_given_the_same() {
    let acme = World::new("acme");
    let (token, data) = (acme.token(|_| {}), acme.path("agent"));
    let port = acme.port();
    // The answer came, and the machine was killed before it wrote anything of it.
    let first = joiner(&data, &token, Existing::Keep);
    let Joined::Granted(lost) = ask(port.address, &token, &first, false).await.unwrap() else {
        panic!("held")
    };
    drop((first, port));
    // Control was killed too, and starts anew.
    let port = acme.port();
    let again = joiner(&data, &token, Existing::Keep);
    let Joined::Granted(granted) = ask(port.address, &token, &again, false).await.unwrap() else {
        panic!("held")
    };
    assert_eq!(granted, lost);
    let pending = std::fs::read(data.join("joining/key.pem")).unwrap();
    let identity = again.finish(&token, &granted).unwrap();
    // Killed after the identity was there and before the rest was cleared away.
    std::fs::create_dir(data.join("joining")).unwrap();
    std::fs::copy(data.join("identity/key.pem"), data.join("joining/key.pem")).unwrap();
    assert_eq!(std::fs::read(data.join("joining/key.pem")).unwrap(), pending);
    std::fs::write(data.join("joining/token"), hex(&token.id())).unwrap();
    match Joiner::begin(&data, &token.id(), Existing::Keep).unwrap() {
        Begun::Member(member) => assert_eq!(member.name(), identity.name()),
        Begun::Joiner(_) => panic!("it is a member"),
    }
    assert!(!data.join("joining").exists());
    assert_eq!(acme.records().len(), 1);
    let again = Joiner::begin(&data, &token.id(), Existing::Keep);
    assert!(matches!(again, Err(DeviceError::Member { .. })));
}

// T2: what a killed control left half written is nobody's record.
#[test]
fn a_record_that_was_not_finished_is_no_member_and_a_damaged_one_is_an_error() {
    let acme = World::new("acme");
    let members = acme.members();
    let (token, (_, csr)) = (acme.token(|_| {}), new_key());
    std::fs::write(acme.path("members/.new-x"), "{\"format\": 1, \"na").unwrap();
    assert!(decide(&acme.members(), &token, &csr, local()).unwrap().is_some());
    assert!(decide(&members, &token, &csr, local()).unwrap().is_some());
    let [record] = &acme.records()[..] else { panic!("one record") };
    std::fs::write(acme.path("members").join(hex(&record.key) + ".json"), "{\"format\": 1, \"na")
        .unwrap();
    let refused = decide(&members, &token, &csr, local()).unwrap_err();
    assert!(matches!(refused, JoinRefusal::Failed { .. }), "{refused:?}");
    assert!(Members::list(&acme.path("members")).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_machine_joins_once_it_was_accepted_and_another_never() {
    let acme = World::new("acme");
    let token = acme.token(|grant| (grant.hold, grant.uses) = (true, 2));
    let port = acme.port();
    let (held, turned_down) = (
        joiner(&acme.path("held"), &token, Existing::Keep),
        joiner(&acme.path("other"), &token, Existing::Keep),
    );
    let mut ids = Vec::new();
    for joiner in [&held, &turned_down] {
        match ask(port.address, &token, joiner, false).await.unwrap() {
            Joined::Held { id, .. } => ids.push(id),
            Joined::Granted(_) => panic!("nobody accepted it"),
        }
    }
    // The request outlives control.
    drop(port);
    let port = acme.port();
    let change = |who: &str, change| {
        Members::change(&acme.path("members"), who, change, "ann", UnixTime::now())
    };
    change(&ids[0], Change::Accept).unwrap();
    change(&ids[1], Change::Reject).unwrap();
    assert!(change(&ids[1], Change::Accept).is_err());
    assert!(change("nobody", Change::Accept).is_err());
    let granted = ask(port.address, &token, &held, false).await.unwrap();
    let Joined::Granted(granted) = granted else { panic!("it was accepted") };
    let identity = held.finish(&token, &granted).unwrap();
    assert_eq!(identity.name().member().id().as_str(), ids[0]);
    let refused = refusal(ask(port.address, &token, &turned_down, false).await);
    assert_eq!(refused, JoinRefusal::Retired);
    let by_hand = acme.records().into_iter().filter_map(|record| record.changed);
    assert!(by_hand.map(|changed| changed.by).eq(["ann", "ann"]));
}

// R162
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reimaged_machine_takes_its_name_back_and_the_old_record_retires() {
    let acme = World::new("acme");
    let port = acme.port();
    let named = || acme.token(|grant| grant.name = Some("laptop7".parse().unwrap()));
    let old = acme.join(&port, &named(), "old").await.unwrap();

    // By accident nobody takes another's name.
    let token = named();
    let fresh = joiner(&acme.path("new"), &token, Existing::Keep);
    let refused = refusal(ask(port.address, &token, &fresh, false).await);
    assert_eq!(refused, JoinRefusal::Taken);

    let Joined::Granted(granted) = ask(port.address, &token, &fresh, true).await.unwrap() else {
        panic!("held")
    };
    let new = fresh.finish(&token, &granted).unwrap();
    assert_eq!(new.name(), old.name());
    let standing: Vec<_> = acme.records().iter().map(|record| record.standing).collect();
    assert_eq!(standing.iter().filter(|one| **one == Standing::Retired).count(), 1);
    assert_eq!(standing.iter().filter(|one| **one == Standing::Member).count(), 1);
}

// R162
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_joins_anew_keeps_what_it_was_until_it_is_the_other() {
    let acme = World::new("acme");
    let port = acme.port();
    let first = acme.join(&port, &acme.token(|_| {}), "agent").await.unwrap();
    let token = acme.token(|_| {});
    let again = joiner(&acme.path("agent"), &token, Existing::Replace);
    let before = std::fs::read(acme.path("agent/identity/key.pem")).unwrap();
    let Joined::Granted(granted) = ask(port.address, &token, &again, true).await.unwrap() else {
        panic!("held")
    };
    assert_eq!(std::fs::read(acme.path("agent/identity/key.pem")).unwrap(), before);
    let second = again.finish(&token, &granted).unwrap();
    assert_ne!(first.name(), second.name());
    assert_ne!(std::fs::read(acme.path("agent/identity/key.pem")).unwrap(), before);
    assert_eq!(std::fs::read(acme.path("agent/identity.replaced/key.pem")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_joins_through_its_sites_node_which_sees_no_secret() {
    let acme = World::new("acme");
    let port = acme.port();
    let relay = JoinRelay::bind("127.0.0.1:0".parse().unwrap(), port.address.to_string()).unwrap();
    let address = relay.local_address().unwrap();
    let stop = CancellationToken::new();
    let relaying = tokio::spawn(relay.run(stop.clone()));
    let token = Arc::new(acme.token(|grant| grant.uses = 3));
    for machine in ["a", "b", "c"] {
        let joiner = joiner(&acme.path(machine), &token, Existing::Keep);
        let joined = ask(address, &token, &joiner, false).await.unwrap();
        let Joined::Granted(granted) = joined else { panic!("held") };
        joiner.finish(&token, &granted).unwrap();
    }
    assert_eq!(acme.records().len(), 3);
    stop.cancel();
    relaying.await.unwrap().unwrap();
}
