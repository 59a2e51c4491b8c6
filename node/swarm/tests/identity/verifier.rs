//! The verifier alone: what it accepts, and each thing it refuses by its own name.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use sutler_swarm::identity::{Expect, NameError, PeerName, PeerVerifier, Role, VerifyError};

use super::forge::{AGENT, Ca, DAY, LIFETIME, Leaf, Organisation, ahead, uri};

/// A verifier for the nodes and agents of `acme` that believes `ca`.
fn verifier(ca: &Ca) -> PeerVerifier {
    verifier_of(std::slice::from_ref(&ca.der))
}

fn verifier_of(roots: &[CertificateDer<'static>]) -> PeerVerifier {
    let expect = Expect::peers_of("acme".parse().expect("a name"));
    PeerVerifier::new(roots, expect).expect("roots")
}

fn acme() -> Ca {
    Organisation::new("acme").stolen()
}

/// Judges a certificate that the rightful authority signed, after `change`.
fn judge(change: impl FnOnce(&mut CertificateParams)) -> Result<PeerName, VerifyError> {
    let ca = acme();
    verifier(&ca).verify(&ca.leaf(change).der, &[], UnixTime::now())
}

#[test]
fn a_members_certificate_is_accepted_and_says_its_name() {
    let acme = Organisation::new("acme");
    let verifier = verifier(&acme.stolen());
    for (role, name) in [
        (Role::Node, "spiffe://acme/site/leeds/node/x"),
        (Role::Agent, "spiffe://acme/site/leeds/agent/x"),
    ] {
        let identity = acme.member(role, "x");
        assert_eq!(identity.name().to_string(), name);
        let found = verifier.verify(&identity.chain()[0], &[], UnixTime::now());
        assert_eq!(found.as_ref(), Ok(identity.name()));
    }
    // What the forger makes is as good, so that each test below shows the one thing it changes.
    assert_eq!(judge(|_| {}).map(|name| name.to_string()), Ok(AGENT.to_owned()));
}

#[test]
fn a_certificate_on_p256_is_accepted() {
    let ca = Ca::posing_as("acme", &PKCS_ECDSA_P256_SHA256);
    let leaf = ca.leaf_with(&PKCS_ECDSA_P256_SHA256, |_| {});
    assert!(verifier(&ca).verify(&leaf.der, &[], UnixTime::now()).is_ok());
}

#[test]
fn an_intermediate_may_stand_between_root_and_member() {
    let root = acme();
    let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for usages in [vec![], both] {
        let between = root.intermediate(|params| params.extended_key_usages = usages);
        let unrelated = Ca::posing_as("other", &PKCS_ED25519);
        let leaf = between.leaf(|_| {});
        let sent = [unrelated.der.clone(), between.der.clone()];
        let found = verifier(&root).verify(&leaf.der, &sent, UnixTime::now());
        assert_eq!(found.map(|name| name.to_string()), Ok(AGENT.to_owned()));
        // The same without its issuer leads nowhere.
        let alone = verifier(&root).verify(&leaf.der, &[], UnixTime::now());
        assert_eq!(alone, Err(VerifyError::ForeignAuthority));
    }
}

#[test]
fn an_intermediate_below_the_allowed_depth_is_refused() {
    let root = acme();
    let first = root.intermediate(|params| {
        params.distinguished_name.push(DnType::CommonName, "first");
    });
    let second = first.intermediate(|_| {});
    let leaf = second.leaf(|_| {});
    let found = verifier(&root).verify(&leaf.der, &[second.der, first.der], UnixTime::now());
    assert!(matches!(found, Err(VerifyError::Chain(_))), "{found:?}");
}

#[test]
fn an_intermediate_for_servers_alone_makes_no_members() {
    let root = acme();
    let between = root.intermediate(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let leaf = between.leaf(|_| {});
    let found = verifier(&root).verify(&leaf.der, &[between.der], UnixTime::now());
    assert_eq!(found, Err(VerifyError::KeyUsage));
}

#[test]
fn an_expired_intermediate_is_refused() {
    let root = acme();
    let between = root.intermediate(|params| {
        params.not_after = (SystemTime::now() - Duration::from_mins(1)).into();
    });
    let leaf = between.leaf(|_| {});
    let found = verifier(&root).verify(&leaf.der, &[between.der], UnixTime::now());
    assert!(matches!(found, Err(VerifyError::Expired { .. })), "{found:?}");
}

#[test]
fn a_foreign_authority_is_refused() {
    let foreign = Ca::posing_as("other", &PKCS_ED25519);
    let leaf = foreign.leaf(|_| {});
    let verifier = verifier(&acme());
    for sent in [vec![], vec![foreign.der.clone()]] {
        let found = verifier.verify(&leaf.der, &sent, UnixTime::now());
        assert_eq!(found, Err(VerifyError::ForeignAuthority));
    }
}

#[test]
fn a_foreign_authority_of_the_same_name_is_refused() {
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
        let foreign = Ca::posing_as("acme", algorithm);
        let leaf = foreign.leaf(|_| {});
        let verifier = verifier(&acme());
        for sent in [vec![], vec![foreign.der.clone()]] {
            let found = verifier.verify(&leaf.der, &sent, UnixTime::now());
            assert_eq!(found, Err(VerifyError::BadSignature));
        }
    }
}

#[test]
fn a_self_signed_certificate_is_refused() {
    let leaf = Leaf::self_signed(|_| {});
    let verifier = verifier(&acme());
    for sent in [vec![], vec![leaf.der.clone()]] {
        let found = verifier.verify(&leaf.der, &sent, UnixTime::now());
        assert_eq!(found, Err(VerifyError::ForeignAuthority));
    }
}

#[test]
fn nothing_is_believed_without_a_root() {
    let found = verifier_of(&[]).verify(&acme().leaf(|_| {}).der, &[], UnixTime::now());
    assert_eq!(found, Err(VerifyError::ForeignAuthority));
}

#[test]
fn a_member_cannot_make_members() {
    let root = acme();
    let member = root.leaf(|_| {}).usurp();
    let made = member
        .leaf(|params| params.subject_alt_names = vec![uri("spiffe://acme/site/leeds/node/n1")]);
    let found = verifier(&root).verify(&made.der, &[member.der], UnixTime::now());
    assert_eq!(found, Err(VerifyError::PeerAsAuthority));
}

#[test]
fn an_authoritys_certificate_is_no_members() {
    let root = acme();
    let leaf = root.leaf(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let verifier = verifier(&root);
    for der in [&leaf.der, &root.der] {
        let found = verifier.verify(der, &[], UnixTime::now());
        assert_eq!(found, Err(VerifyError::AuthorityAsPeer));
    }
}

#[test]
fn a_certificate_without_a_uri_is_refused() {
    let dns = SanType::DnsName("spiffe.acme".try_into().expect("ASCII"));
    let mail = SanType::Rfc822Name(AGENT.try_into().expect("ASCII"));
    for names in [vec![], vec![dns], vec![mail]] {
        let found = judge(|params| params.subject_alt_names = names);
        assert_eq!(found, Err(VerifyError::NoUri));
    }
}

#[test]
fn a_name_in_the_subject_counts_for_nothing() {
    let found = judge(|params| {
        params.subject_alt_names = vec![];
        params.distinguished_name.push(DnType::CommonName, AGENT);
    });
    assert_eq!(found, Err(VerifyError::NoUri));
}

#[test]
fn a_certificate_with_two_uris_is_refused() {
    for second in [AGENT, "spiffe://acme/site/leeds/node/n1", "https://acme.example/"] {
        for names in [[uri(AGENT), uri(second)], [uri(second), uri(AGENT)]] {
            let found = judge(|params| params.subject_alt_names = names.to_vec());
            assert_eq!(found, Err(VerifyError::ManyUris { count: 2 }));
        }
    }
}

// T20: what a certificate says beside its one name is refused, even where the authority signed it.
#[test]
fn a_certificate_that_names_more_than_its_uri_is_refused() {
    let dns = SanType::DnsName("acme.example".try_into().expect("ASCII"));
    let address = SanType::IpAddress([10, 0, 0, 1].into());
    let mail = SanType::Rfc822Name("a@acme.example".try_into().expect("ASCII"));
    for other in [dns, address, mail] {
        for names in [[uri(AGENT), other.clone()], [other.clone(), uri(AGENT)]] {
            let found = judge(|params| params.subject_alt_names = names.to_vec());
            assert_eq!(found, Err(VerifyError::OtherNames));
        }
    }
}

#[test]
fn two_lists_of_names_are_refused() {
    // A second subjectAltName extension: SEQUENCE { [6] URI }.
    let node = b"spiffe://acme/site/leeds/node/n1";
    let len = u8::try_from(node.len()).expect("short");
    let mut content = vec![0x30, len + 2, 0x86, len];
    content.extend_from_slice(node);
    let found = judge(|params| {
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
    });
    assert_eq!(found, Err(VerifyError::Unparsable));
}

#[test]
fn a_uri_that_names_no_peer_is_refused() {
    for text in [
        "",
        "https://acme/site/leeds/agent/a1",
        "spiffe://acme",
        "spiffe://acme/site/leeds/agent/",
        "spiffe://acme/site/leeds/agent/a1/",
        "spiffe://acme/site/leeds/agent/%61",
        "spiffe://acme/site/leeds/agent/a1\0",
        "spiffe://acme/site/leeds/agent/a1\0.evil",
        "spiffe://acme/site/../agent/a1",
        "spiffe://acme/site/leeds/admin/a1",
        "spiffe://ACME/site/leeds/agent/a1",
    ] {
        let found = judge(|params| params.subject_alt_names = vec![uri(text)]);
        assert!(matches!(found, Err(VerifyError::Name(_))), "{text:?}: {found:?}");
    }
    let found = judge(|params| params.subject_alt_names = vec![uri("spiffe://acme/agent/a1")]);
    assert_eq!(found, Err(VerifyError::Name(NameError::Form)));
}

#[test]
fn another_organisations_member_is_refused_even_where_its_root_is_believed() {
    let (ours, theirs) = (acme(), Ca::posing_as("other", &PKCS_ED25519));
    let name = "spiffe://other/site/leeds/agent/a1";
    let verifier = verifier_of(&[ours.der.clone(), theirs.der.clone()]);
    for ca in [ours, theirs] {
        let leaf = ca.leaf(|params| params.subject_alt_names = vec![uri(name)]);
        let found = verifier.verify(&leaf.der, &[], UnixTime::now());
        let (found_organisation, expected) = ("other".parse(), "acme".parse());
        assert_eq!(
            found,
            Err(VerifyError::WrongOrganisation {
                found: found_organisation.expect("a name"),
                expected: expected.expect("a name"),
            })
        );
    }
    // A prefix is not the whole.
    for name in ["spiffe://acme.evil/control/c", "spiffe://acm/control/c"] {
        let found = judge(|params| params.subject_alt_names = vec![uri(name)]);
        assert!(matches!(found, Err(VerifyError::WrongOrganisation { .. })), "{found:?}");
    }
}

#[test]
fn a_role_that_is_not_expected_is_refused() {
    let control = "spiffe://acme/control/c1";
    let found = judge(|params| params.subject_alt_names = vec![uri(control)]);
    assert_eq!(found, Err(VerifyError::WrongRole { found: Role::Control }));

    let ca = acme();
    let leaf = ca.leaf(|_| {});
    let organisation = || "acme".parse().expect("a name");
    for roles in [vec![], vec![Role::Node], vec![Role::Node, Role::Control]] {
        let expect = Expect::new(organisation(), roles);
        let verifier = PeerVerifier::new(std::slice::from_ref(&ca.der), expect).expect("roots");
        let found = verifier.verify(&leaf.der, &[], UnixTime::now());
        assert_eq!(found, Err(VerifyError::WrongRole { found: Role::Agent }));
    }
}

#[test]
fn a_certificate_is_refused_after_its_end_and_before_its_start() {
    let ca = acme();
    let leaf = ca.leaf(|_| {});
    let verifier = verifier(&ca);
    let judge = |now| verifier.verify(&leaf.der, &[], now);
    let minute = Duration::from_mins(1);
    assert!(judge(ahead(LIFETIME.saturating_sub(minute))).is_ok());
    let late = judge(ahead(LIFETIME + minute));
    assert!(matches!(late, Err(VerifyError::Expired { ago }) if ago <= minute * 2), "{late:?}");

    let since_epoch = Duration::from_secs(UnixTime::now().as_secs());
    let early = judge(UnixTime::since_unix_epoch(since_epoch.saturating_sub(DAY + minute)));
    assert!(
        matches!(early, Err(VerifyError::NotYetValid { starts_in }) if starts_in <= minute * 2),
        "{early:?}"
    );
}

#[test]
fn a_certificate_for_one_end_of_a_connection_is_refused() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    for usages in
        [vec![], vec![ServerAuth], vec![ClientAuth], vec![Any], vec![ServerAuth, CodeSigning]]
    {
        let found = judge(|params| params.extended_key_usages.clone_from(&usages));
        assert_eq!(found, Err(VerifyError::KeyUsage), "{usages:?}");
    }
}

#[test]
fn an_algorithm_that_is_not_listed_is_refused() {
    let ca = Ca::posing_as("acme", &PKCS_ECDSA_P384_SHA384);
    let found = verifier(&ca).verify(&ca.leaf(|_| {}).der, &[], UnixTime::now());
    assert_eq!(found, Err(VerifyError::Algorithm));
}

#[test]
fn a_critical_extension_that_nobody_understands_is_refused() {
    let mut extension =
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    let found = judge(|params| params.custom_extensions = vec![extension]);
    assert_eq!(found, Err(VerifyError::Unparsable));
}

#[test]
fn every_flipped_bit_of_a_certificate_is_noticed() {
    let ca = acme();
    let leaf = ca.leaf(|_| {}).der;
    let verifier = verifier(&ca);
    let now = UnixTime::now();
    for bit in 0..leaf.len() * 8 {
        let mut bytes = leaf.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = verifier.verify(&CertificateDer::from(bytes), &[], now);
        assert!(found.is_err(), "bit {bit}");
    }
}

#[test]
fn a_cut_or_extended_certificate_is_refused() {
    let ca = acme();
    let leaf = ca.leaf(|_| {}).der;
    let verifier = verifier(&ca);
    let judge =
        |bytes: Vec<u8>| verifier.verify(&CertificateDer::from(bytes), &[], UnixTime::now());
    for len in 0..leaf.len() {
        assert_eq!(judge(leaf[..len].to_vec()), Err(VerifyError::Unparsable), "{len}");
    }
    let mut longer = leaf.to_vec();
    longer.push(0);
    assert_eq!(judge(longer), Err(VerifyError::Unparsable));
    assert_eq!(judge([&leaf[..], &leaf[..]].concat()), Err(VerifyError::Unparsable));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_are_never_believed(
        leaf in proptest::collection::vec(any::<u8>(), 0..600),
        between in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let root = Ca::posing_as("acme", &PKCS_ED25519);
        let found = verifier(&root).verify(&leaf.into(), &[between.into()], UnixTime::now());
        prop_assert!(found.is_err());
    }
}
