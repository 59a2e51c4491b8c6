//! Members that come for their next certificate, and those who should not have one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustls_pki_types::UnixTime;
use sutler_control::Members;
use sutler_control::members::Change;
use sutler_protocol::join::JoinRefusal;
use sutler_swarm::enrol::client::JoinError;
use sutler_swarm::enrol::renew::{RenewalError, due, keep_renewed, renew_now};
use sutler_swarm::identity::{
    HandshakeRefusal, Identity, Member, RefusalCause, Revoked, TrustedClock, Validity,
};
use sutler_swarm::peer::ConnectError;
use tokio_util::sync::CancellationToken;

use super::world::{DAY, Port, World, refusal};

/// An identity that ended `ago`, where it asks `port`.
fn ended(acme: &World, port: &Port, ago: Duration, name: &str) -> PathBuf {
    let life = Duration::from_hours(24);
    issued(acme, port, Validity::starting(SystemTime::now() - ago - life, life), name)
}

fn issued(acme: &World, port: &Port, validity: Validity, name: &str) -> PathBuf {
    let dir = acme.path(name);
    let (site, id) = ("leeds".parse().unwrap(), name.parse().unwrap());
    acme.authority.issue(Member::Agent { site, id }, validity, &dir).unwrap();
    let control = format!("{{\"format\": 1, \"addresses\": [\"{}\"]}}", port.address);
    std::fs::write(dir.join("control.json"), control).unwrap();
    dir
}

fn renewal_refusal(result: Result<Identity, RenewalError>) -> JoinRefusal {
    match result {
        Err(RenewalError::Ask(error)) => refusal::<()>(Err(error)),
        other => panic!("{other:?}"),
    }
}

fn handshake_refusal(result: Result<Identity, RenewalError>) -> HandshakeRefusal {
    match result {
        Err(RenewalError::Ask(JoinError::Connect(ConnectError::Identity { source, .. }))) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ended_within_the_grace_is_renewed_under_its_key_and_name() {
    let acme = World::new("acme");
    let port = acme.port();
    let clock = TrustedClock::default();
    let dir = ended(&acme, &port, 29 * DAY, "late");
    let key = std::fs::read(dir.join("key.pem")).unwrap();
    let renewed = renew_now(&dir, &clock).await.unwrap();
    assert_eq!(renewed.name().to_string(), "spiffe://acme/site/leeds/agent/late");
    assert_eq!(std::fs::read(dir.join("key.pem")).unwrap(), key);
    assert!(Identity::load(&dir).is_ok());

    // Asked again by a machine that lost the answer: the same one.
    let chain = std::fs::read(dir.join("chain.pem")).unwrap();
    let [record] = &acme.records()[..] else { panic!("one record") };
    assert_eq!(record.chain.as_deref().map(str::as_bytes), Some(&chain[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stolen_expired_certificate_is_refused_after_31_days() {
    let acme = World::new("acme");
    let port = acme.port();
    let dir = ended(&acme, &port, 31 * DAY, "stolen");
    let before = std::fs::read(dir.join("chain.pem")).unwrap();
    let refused = handshake_refusal(renew_now(&dir, &TrustedClock::default()).await);
    assert_eq!(refused, HandshakeRefusal::ByPeer(RefusalCause::Expired));
    assert_eq!(std::fs::read(dir.join("chain.pem")).unwrap(), before);
    assert!(acme.records().is_empty());
}

// T19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_member_renews_nothing_not_even_within_the_grace() {
    let acme = World::new("acme");
    let port = acme.port();
    let dir = ended(&acme, &port, DAY, "revoked");
    let member = Identity::load_to_renew(&dir).unwrap().name().member().clone();
    let members = BTreeMap::from([(member, None)]);
    acme.revocations.set(Revoked { members, keys: BTreeSet::new() });
    let refused = handshake_refusal(renew_now(&dir, &TrustedClock::default()).await);
    assert_eq!(refused, HandshakeRefusal::ByPeer(RefusalCause::Revoked));
}

// R162, T19
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_revoked_and_joins_anew_is_not_revoked_with_its_past() {
    let acme = World::new("acme");
    let port = acme.port();
    let named = || acme.token(|grant| grant.name = Some("laptop7".parse().unwrap()));
    let first = acme.join(&port, &named(), "first").await.unwrap();
    let members = BTreeMap::from([(first.name().member().clone(), Some(UnixTime::now()))]);
    acme.revocations.set(Revoked { members, keys: BTreeSet::new() });
    Members::change(&acme.path("members"), "laptop7", Change::Retire, "ann", UnixTime::now())
        .unwrap();
    let second = acme.join(&port, &named(), "second").await.unwrap();
    let shown =
        |identity: &Identity| sutler_swarm::identity::Credentials::of(identity.chain()).unwrap();
    assert!(acme.revocations.now().covers(&shown(&first)));
    assert!(!acme.revocations.now().covers(&shown(&second)));
}

// R162
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retired_machine_renews_nothing_and_does_not_join_again_with_its_key() {
    let acme = World::new("acme");
    let port = acme.port();
    let dir = issued(&acme, &port, Validity::from_now(DAY), "lost");
    renew_now(&dir, &TrustedClock::default()).await.unwrap();
    let retire =
        || Members::change(&acme.path("members"), "lost", Change::Retire, "ann", UnixTime::now());
    retire().unwrap();
    let refused = renewal_refusal(renew_now(&dir, &TrustedClock::default()).await);
    assert_eq!(refused, JoinRefusal::Retired);
    assert!(retire().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_renews_itself_at_two_thirds_of_its_life() {
    let acme = World::new("acme");
    let port = acme.port();
    // It began an hour ago, as all do, so that a life of 20 minutes more is past its two thirds.
    let dir = issued(&acme, &port, Validity::from_now(Duration::from_mins(20)), "agent");
    let identity = Identity::load(&dir).unwrap();
    let (old, shutdown) = (identity.ends().as_secs(), CancellationToken::new());
    assert!(due(identity.begins(), identity.ends()).as_secs() < UnixTime::now().as_secs());
    let keeping = tokio::spawn(keep_renewed(
        dir.clone(),
        identity,
        TrustedClock::default(),
        shutdown.clone(),
    ));
    let renewed = async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while Identity::load(&dir).unwrap().ends().as_secs() == old {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), renewed).await.expect("renewed");
    shutdown.cancel();
    keeping.await.unwrap();
}
