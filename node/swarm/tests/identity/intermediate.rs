//! The authority below the organisation's own, for control: what it may name, and what nobody
//! believes though it was signed with its stolen key.

use std::fs;

use rcgen::{Issuer, KeyPair, PKCS_ED25519, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use sutler_swarm::identity::{
    Authority, Expect, Identity, IssueError, PeerVerifier, Role, Validity, VerifyError,
};

use super::forge::{Ca, LIFETIME, Leaf, Organisation, member, uri};

/// An organisation with an intermediate in the folder `below`.
fn with_intermediate() -> (Organisation, Authority) {
    let acme = Organisation::new("acme");
    let below = acme.path("below");
    let id = "c1".parse().expect("an id");
    acme.authority.intermediate(&id, Validity::from_now(LIFETIME), &below).expect("made");
    let below = Authority::open(&below).expect("it opens");
    (acme, below)
}

/// The intermediate's key in the hands of whoever took over control.
fn stolen(acme: &Organisation) -> Ca {
    let read = |name| fs::read_to_string(acme.path("below").join(name)).expect("a file");
    let key = KeyPair::from_pem(&read("ca-key.pem")).expect("a key");
    let der = CertificateDer::from_pem_slice(read("chain.pem").as_bytes()).expect("a certificate");
    Ca::of(der.clone(), Issuer::from_ca_cert_der(&der, key).expect("an issuer"))
}

/// Judges a certificate of the intermediate as whoever lets in every role.
fn judge(
    acme: &Organisation,
    leaf: &Leaf,
    between: &[CertificateDer<'_>],
) -> Result<(), VerifyError> {
    let all = [Role::Node, Role::Agent, Role::Control];
    let expect = Expect::new("acme".parse().expect("a name"), all);
    let verifier = PeerVerifier::new(&[acme.stolen().der], expect).expect("a root");
    verifier.verify(&leaf.der, between, UnixTime::now()).map(|_name| ())
}

#[test]
fn its_members_load_and_show_it_beside_their_own_certificate() {
    let (acme, below) = with_intermediate();
    assert!(below.is_intermediate() && !acme.authority.is_intermediate());
    let dir = acme.path("a1");
    let name = below.issue(member(Role::Agent, "a1"), Validity::from_now(LIFETIME / 2), &dir);
    let identity = Identity::load(&dir).expect("an identity");
    assert_eq!(Some(identity.name()), name.ok().as_ref());
    assert_eq!(identity.chain().len(), 2);
    assert_eq!(identity.roots(), [acme.stolen().der]);
}

#[test]
fn a_public_key_is_certified_under_the_name_that_was_given() {
    let (acme, below) = with_intermediate();
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let validity = Validity::from_now(LIFETIME / 2);
    let chain = below.certify(member(Role::Node, "n1"), validity, &key).expect("certified");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .expect("certificates");
    let leaf = Leaf { der: chain[0].clone(), key };
    assert_eq!(judge(&acme, &leaf, &chain[1..]), Ok(()));
}

#[test]
fn it_names_no_control_and_makes_no_authority() {
    let (acme, below) = with_intermediate();
    let (validity, out) = (Validity::from_now(LIFETIME / 2), acme.path("new"));
    let refused = below.issue(member(Role::Control, "c1"), validity, &out);
    assert!(matches!(refused, Err(IssueError::ByIntermediate)));
    let refused = below.intermediate(&"c2".parse().expect("an id"), validity, &out);
    assert!(matches!(refused, Err(IssueError::ByIntermediate)));
    let beyond = Validity::from_now(LIFETIME * 2);
    let refused = below.issue(member(Role::Agent, "a1"), beyond, &out);
    assert!(matches!(refused, Err(IssueError::OutlivesAuthority { .. })));
    assert!(!out.exists());
    // The organisation's own authority does name control.
    acme.member(Role::Control, "c1");
}

// T20: whoever stole it can sign what they like, and is believed only as far as it goes.
#[test]
fn what_it_may_not_name_is_refused_though_its_key_signed_it() {
    let (acme, _) = with_intermediate();
    let ca = stolen(&acme);
    let between = [ca.der.clone()];
    let honest = ca.leaf(|_| {});
    assert_eq!(judge(&acme, &honest, &between), Ok(()));

    let control =
        ca.leaf(|params| params.subject_alt_names = vec![uri("spiffe://acme/control/c9")]);
    assert_eq!(judge(&acme, &control, &between), Err(VerifyError::ControlByIntermediate));

    let second = ca.intermediate(|_| {});
    let leaf = second.leaf(|_| {});
    let refused = judge(&acme, &leaf, &[second.der, between[0].clone()]);
    assert!(matches!(refused, Err(VerifyError::Chain(_))), "{refused:?}");

    for other in [
        SanType::DnsName("vendor.example".try_into().expect("a name")),
        SanType::IpAddress([192, 0, 2, 1].into()),
        SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()),
    ] {
        let leaf = ca.leaf(|params| params.subject_alt_names.push(other.clone()));
        let refused = judge(&acme, &leaf, &between);
        assert!(matches!(refused, Err(VerifyError::Chain(_))), "{other:?}: {refused:?}");
    }
}

#[test]
fn control_of_another_organisations_intermediate_is_a_stranger() {
    let (acme, _) = with_intermediate();
    let (other, _) = with_intermediate();
    let ca = stolen(&other);
    let refused = judge(&acme, &ca.leaf(|_| {}), std::slice::from_ref(&ca.der));
    assert!(refused.is_err());
}
