//! Tokens and signing requests that grant nothing, and controls that are none.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::UnixTime;
use sutler_protocol::join::JoinRefusal;
use sutler_protocol::manifest::SigningKey;
use sutler_swarm::enrol::Token;
use sutler_swarm::enrol::client::{JoinError, Joined, Mismatch, check};
use sutler_swarm::enrol::device::Existing;
use sutler_swarm::enrol::token::sha256;
use sutler_swarm::identity::{HandshakeRefusal, RefusalCause};
use sutler_swarm::peer::ConnectError;

use super::raw::new_key;
use super::world::{World, ask, decide, joiner, local, refusal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_used_twice_is_refused() {
    let acme = World::new("acme");
    let (port, token) = (acme.port(), acme.token(|grant| grant.uses = 2));
    acme.join(&port, &token, "a").await.unwrap();
    acme.join(&port, &token, "b").await.unwrap();
    assert_eq!(refusal(acme.join(&port, &token, "c").await), JoinRefusal::UsedUp);
    // Nor after a start, which counts anew.
    drop(port);
    assert_eq!(refusal(acme.join(&acme.port(), &token, "c").await), JoinRefusal::UsedUp);
    assert_eq!(acme.records().len(), 2);
}

#[test]
fn expired_token_is_refused() {
    let acme = World::new("acme");
    let past = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() - 1));
    let token = acme.token(|grant| grant.expires = past);
    let refused = decide(&acme.members(), &token, &new_key().1, local()).unwrap_err();
    assert_eq!(refused, JoinRefusal::Expired);
    assert!(acme.records().is_empty());
}

#[test]
fn token_from_another_network_is_refused() {
    let acme = World::new("acme");
    let token = acme.token(|grant| {
        grant.networks = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        grant.uses = 3;
    });
    let members = acme.members();
    let from = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        decide(&members, &token, &new_key().1, address)
    };
    for inside in ["10.1.2.3", "2001:db8::1", "::ffff:10.1.2.3"] {
        assert!(from(inside).unwrap().is_some(), "{inside}");
    }
    for outside in ["10.2.0.1", "127.0.0.1", "2001:db9::1", "::1"] {
        assert_eq!(from(outside).unwrap_err(), JoinRefusal::Network, "{outside}");
    }
}

#[test]
fn token_of_another_organisation_is_refused() {
    let (acme, other) = (World::new("acme"), World::new("other"));
    let namesake = World::new("acme");
    let members = acme.members();
    for stranger in [&other, &namesake] {
        // Signed by their own authority, for them or for us.
        let theirs = stranger.token(|_| {});
        let for_us = stranger.sign(acme.grant());
        for token in [theirs, for_us] {
            let refused = decide(&members, &token, &new_key().1, local()).unwrap_err();
            assert_eq!(refused, JoinRefusal::Token);
        }
    }
    // Signed by us for others: nothing that we do, and nothing that we honour.
    let token = acme.token(|grant| grant.organisation = "other".parse().unwrap());
    let refused = decide(&members, &token, &new_key().1, local()).unwrap_err();
    assert_eq!(refused, JoinRefusal::Token);
    assert!(acme.records().is_empty());
}

// T10: a stolen control has the intermediate's key, and makes no tokens with it.
#[test]
fn token_by_controls_own_key_is_refused() {
    let acme = World::new("acme");
    let key = std::fs::read_to_string(acme.path("below/ca-key.pem")).unwrap();
    let key = KeyPair::from_pem(&key).unwrap();
    let sign = |statement: &[u8]| rcgen::SigningKey::sign(&key, statement).unwrap();
    let token = Token::make(acme.grant(), sign).unwrap();
    let refused = decide(&acme.members(), &token, &new_key().1, local()).unwrap_err();
    assert_eq!(refused, JoinRefusal::Token);
}

#[test]
fn token_that_was_altered_or_guessed_is_refused() {
    let acme = World::new("acme");
    let (members, token, (_, csr)) = (acme.members(), acme.token(|_| {}), new_key());
    let honest = super::raw::join_frame(&token, &csr);
    let mut secret = honest.clone();
    secret.secret[0] ^= 1;
    let mut signature = honest.clone();
    signature.signature[0] ^= 1;
    let mut statement = honest.clone();
    let text = String::from_utf8(statement.statement).unwrap();
    statement.statement = text.replace("\"agent\"", "\"node\"").into_bytes();
    assert_ne!(statement, honest);
    for altered in [secret, signature, statement] {
        let refused =
            sutler_swarm::enrol::Registrar::join(&members, &altered, local(), UnixTime::now());
        assert_eq!(refused, Err(JoinRefusal::Token));
    }
    assert!(acme.records().is_empty());
}

fn asking(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    params.serialize_request(&new_key().0).unwrap().der().to_vec()
}

// T20
#[test]
fn csr_with_more_names_is_refused_and_uses_nothing_up() {
    let acme = World::new("acme");
    let (members, token) = (acme.members(), acme.token(|_| {}));
    let uri = "spiffe://acme/control/c9".try_into().unwrap();
    let csr = asking(|params| params.subject_alt_names = vec![rcgen::SanType::URI(uri)]);
    let refused = decide(&members, &token, &csr, local()).unwrap_err();
    assert!(matches!(refused, JoinRefusal::Csr { .. }));
    assert!(acme.records().is_empty());
    assert!(decide(&members, &token, &new_key().1, local()).unwrap().is_some());
}

// T20
#[test]
fn csr_for_a_ca_is_refused() {
    let acme = World::new("acme");
    let csr = asking(|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let refused = decide(&acme.members(), &acme.token(|_| {}), &csr, local()).unwrap_err();
    assert!(matches!(refused, JoinRefusal::Csr { .. }));
}

#[test]
fn replayed_enrolment_gives_the_same_certificate_and_no_member_more() {
    let acme = World::new("acme");
    let (members, token, (_, csr)) = (acme.members(), acme.token(|_| {}), new_key());
    let honest = decide(&members, &token, &csr, local()).unwrap();
    // Who recorded it has the certificate, which everybody may see, and not the key to use it with.
    let replayed = decide(&members, &token, &csr, "192.0.2.9".parse().unwrap()).unwrap();
    assert_eq!(honest, replayed);
    assert_eq!(acme.records().len(), 1);
}

// The joiner finds out before it has sent its secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_ca_hash_is_found_in_the_handshake() {
    let (acme, namesake) = (World::new("acme"), World::new("acme"));
    let port = namesake.port();
    let token = acme.token(|_| {});
    let joiner = joiner(&acme.path("agent"), &token, Existing::Keep);
    let error = ask(port.address, &token, &joiner, false).await.unwrap_err();
    let JoinError::Connect(ConnectError::Identity { source, .. }) = error else {
        panic!("{error:?}")
    };
    let foreign = RefusalCause::ForeignAuthority;
    assert!(matches!(source, HandshakeRefusal::ByUs { cause, .. } if cause == foreign));
    assert!(namesake.records().is_empty());
}

// T10: whoever was an admin when a token was made lets nobody join once the targets name others.
#[test]
fn only_those_who_are_admins_now_let_machines_join() {
    let acme = World::new("acme");
    let (members, [anna, eve]) =
        (acme.members(), [7, 8].map(|seed| SigningKey::from_seed(&[seed; 32])));
    let public = |key: &SigningKey| key.key().as_ed25519().unwrap();
    let by = |key: &SigningKey| {
        let grant = sutler_swarm::enrol::Grant { uses: 10, ..acme.grant() };
        Token::make(grant, |statement| key.sign_raw(statement)).unwrap()
    };
    let (annas, eves) = (by(&anna), by(&eve));
    let ask = |token: &Token, csr: &[u8]| decide(&members, token, csr, local());
    // Nobody has published that she is one yet.
    assert_eq!(ask(&annas, &new_key().1).unwrap_err(), JoinRefusal::Token);
    acme.makers.set_admins([public(&anna)]);
    let (_key, joined) = new_key();
    assert!(ask(&annas, &joined).unwrap().is_some());
    assert_eq!(ask(&eves, &new_key().1).unwrap_err(), JoinRefusal::Token);
    acme.makers.set_admins([public(&eve)]);
    assert_eq!(ask(&annas, &new_key().1).unwrap_err(), JoinRefusal::Token);
    assert_eq!(ask(&annas, &joined).unwrap_err(), JoinRefusal::Token);
    assert!(ask(&eves, &new_key().1).unwrap().is_some());
    // The authority's own are good whoever is an admin, and who has joined stays a member.
    assert!(ask(&acme.token(|_| {}), &new_key().1).unwrap().is_some());
    assert_eq!(acme.records().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_root_json_is_never_written() {
    let acme = World::new("acme");
    let port = acme.port();
    let token = acme.token(|grant| grant.root_sha256 = sha256(b"another"));
    assert_eq!(refusal(acme.join(&port, &token, "agent").await), JoinRefusal::NoRoot);
    assert!(!acme.path("agent/identity").exists() && acme.records().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_that_grants_something_else_is_not_believed() {
    let acme = World::new("acme");
    let (port, token) = (acme.port(), acme.token(|_| {}));
    let joiner = joiner(&acme.path("agent"), &token, Existing::Keep);
    let Joined::Granted(granted) = ask(port.address, &token, &joiner, false).await.unwrap() else {
        panic!("held")
    };
    let (key, now) = (joiner.key_hash(), UnixTime::now());
    assert!(check(&granted, &token, key, now).is_ok());

    let mut other_root = granted.clone();
    other_root.root_json.push(b' ');
    assert_eq!(check(&other_root, &token, key, now), Err(Mismatch::RootJson));

    let mut other_authority = granted.clone();
    other_authority.roots = vec![granted.chain[1].clone()];
    assert_eq!(check(&other_authority, &token, key, now), Err(Mismatch::Authority));

    assert_eq!(check(&granted, &token, [0; 32], now), Err(Mismatch::Key));

    let named = acme.token(|grant| grant.name = Some("n1".parse().unwrap()));
    let other_name = check(&granted, &named, key, now);
    assert!(matches!(other_name, Err(Mismatch::Name { .. })), "{other_name:?}");

    let mut unsigned = granted.clone();
    unsigned.chain.truncate(1);
    assert!(matches!(check(&unsigned, &token, key, now), Err(Mismatch::Certificate(_))));
}

// T28
#[test]
fn no_secret_is_printed_or_kept() {
    let acme = World::new("acme");
    let token = acme.token(|_| {});
    let text = token.text();
    let secret = text.rsplit('.').next().unwrap().to_owned();
    decide(&acme.members(), &token, &new_key().1, local()).unwrap();
    let [record] = &acme.records()[..] else { panic!("one record") };
    let mut printed = format!("{token:?} {:?} {record:?}", token.presented());
    for file in std::fs::read_dir(acme.path("members")).unwrap() {
        printed += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let bytes = format!("{:?}", token.presented().secret);
    assert!(!printed.contains(&secret) && !printed.contains(&bytes[1..bytes.len() - 1]));
}
