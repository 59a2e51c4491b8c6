//! The folders of authorities and members: made once, read with suspicion.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ED25519};
use sutler_swarm::identity::{
    Authority, AuthorityCreateError, AuthorityOpenError, Identity, IssueError, LoadError, Member,
    Role, Validity, VerifyError, random_label,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::forge::{LIFETIME, Organisation, ahead, member, uri};

/// An organisation and the folder of one agent in it.
fn issued() -> (Organisation, std::path::PathBuf) {
    let acme = Organisation::new("acme");
    let dir = acme.path("data/identity");
    let name = acme
        .authority
        .issue(member(Role::Agent, "a1"), Validity::from_now(LIFETIME), &dir)
        .expect("an identity");
    assert_eq!(name.to_string(), "spiffe://acme/site/leeds/agent/a1");
    (acme, dir)
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).expect("read");
    fs::write(path, change(text)).expect("written");
}

#[test]
fn an_issued_identity_loads_and_a_reopened_authority_issues_the_same() {
    let (acme, dir) = issued();
    let first = Identity::load(&dir).expect("an identity");
    let reopened = Authority::open(&acme.path("org")).expect("an authority");
    assert_eq!(reopened.organisation().as_str(), "acme");
    let again = acme.path("again");
    let node = Member::Node { site: "leeds".parse().expect("a site"), id: random_label() };
    reopened.issue(node, Validity::from_now(LIFETIME), &again).expect("an identity");
    let second = Identity::load(&again).expect("an identity");
    assert_eq!(first.roots(), second.roots());
    assert_eq!(second.name().role(), Role::Node);
}

// T20: what is in a certificate is what its issuer was told, and nothing else.
#[test]
fn an_issued_certificate_names_one_uri_and_both_ends_of_a_connection() {
    let (_acme, dir) = issued();
    let identity = Identity::load(&dir).expect("an identity");
    assert_eq!(identity.chain().len(), 1);
    let (_, leaf) = X509Certificate::from_der(&identity.chain()[0]).expect("a certificate");
    let names = leaf.subject_alternative_name().expect("one list").expect("a list");
    let name = "spiffe://acme/site/leeds/agent/a1";
    assert_eq!(names.value.general_names, [GeneralName::URI(name)]);
    let usage = leaf.extended_key_usage().expect("one list").expect("a list");
    assert!(usage.value.server_auth && usage.value.client_auth && !usage.value.any);
    assert!(usage.value.other.is_empty() && !usage.value.code_signing);
    assert!(!leaf.is_ca());
    assert!(leaf.key_usage().expect("one list").expect("a list").value.digital_signature());
    let validity = leaf.validity();
    let lifetime = (validity.not_after - validity.not_before).expect("it lives");
    assert_eq!(lifetime.whole_seconds().unsigned_abs(), LIFETIME.as_secs() + 3_600);
}

#[test]
fn two_identities_never_share_a_key() {
    let (acme, dir) = issued();
    let other = acme.path("other");
    acme.authority
        .issue(member(Role::Agent, "a1"), Validity::from_now(LIFETIME), &other)
        .expect("an identity");
    let key = |dir: &Path| fs::read(dir.join("key.pem")).expect("a key");
    assert_ne!(key(&dir), key(&other));
}

#[test]
fn neither_an_authority_nor_an_identity_is_overwritten() {
    let (acme, dir) = issued();
    let key = fs::read(dir.join("key.pem")).expect("a key");
    let error = acme
        .authority
        .issue(member(Role::Agent, "a2"), Validity::from_now(LIFETIME), &dir)
        .expect_err("it exists");
    assert!(matches!(error, IssueError::Exists { .. }));
    assert_eq!(fs::read(dir.join("key.pem")).expect("a key"), key);

    let org = acme.path("org");
    let key = fs::read(org.join("ca-key.pem")).expect("a key");
    let error = Authority::create(&org, "acme".parse().expect("a name")).expect_err("it exists");
    assert!(matches!(error, AuthorityCreateError::Exists { .. }));
    assert_eq!(fs::read(org.join("ca-key.pem")).expect("a key"), key);
}

#[test]
fn a_certificate_never_outlives_its_authority() {
    let acme = Organisation::new("acme");
    for lifetime in [Duration::from_hours(24 * 3_651), Duration::MAX] {
        let error = acme
            .authority
            .issue(member(Role::Agent, "a1"), Validity::from_now(lifetime), &acme.path("id"))
            .expect_err("too long");
        assert!(matches!(error, IssueError::OutlivesAuthority { .. }));
    }
    assert!(!acme.path("id").exists());
}

#[test]
fn a_missing_file_is_named() {
    for name in ["chain.pem", "key.pem", "ca.pem"] {
        let (_acme, dir) = issued();
        fs::remove_file(dir.join(name)).expect("removed");
        let error = Identity::load(&dir).expect_err("incomplete");
        assert!(matches!(&error, LoadError::Missing { path } if path.ends_with(name)), "{error}");
    }
    for name in ["org.json", "ca.pem", "ca-key.pem"] {
        let acme = Organisation::new("acme");
        fs::remove_file(acme.path("org").join(name)).expect("removed");
        let error = Authority::open(&acme.path("org")).expect_err("incomplete");
        assert!(
            matches!(&error, AuthorityOpenError::Missing { path } if path.ends_with(name)),
            "{error}"
        );
    }
}

#[test]
fn a_damaged_file_is_named() {
    for name in ["chain.pem", "key.pem", "ca.pem"] {
        for content in
            ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            let (_acme, dir) = issued();
            edit(&dir.join(name), |_| content.to_owned());
            let error = Identity::load(&dir).expect_err("damaged");
            let named = match &error {
                LoadError::Unparsable { path, .. } => path.ends_with(name),
                // PEM around something that is no certificate: the chain is judged as a whole.
                LoadError::Invalid { source, .. } => *source == VerifyError::Unparsable,
                _ => false,
            };
            assert!(named, "{name} {content:?}: {error}");
        }
    }
    for name in ["org.json", "ca.pem", "ca-key.pem"] {
        let acme = Organisation::new("acme");
        edit(&acme.path("org").join(name), |_| "hello".to_owned());
        let error = Authority::open(&acme.path("org")).expect_err("damaged");
        assert!(
            matches!(&error, AuthorityOpenError::Unparsable { path } if path.ends_with(name)),
            "{error}"
        );
    }
}

#[test]
fn an_authority_of_a_newer_format_is_refused_by_its_number() {
    let acme = Organisation::new("acme");
    let path = acme.path("org/org.json");
    edit(&path, |text| text.replace("\"format\":1", "\"format\":2"));
    let error = Authority::open(&acme.path("org")).expect_err("newer");
    assert!(matches!(error, AuthorityOpenError::Format { found: 2, .. }), "{error}");
    edit(&path, |_| r#"{"format":1,"organisation":"acme","more":1}"#.to_owned());
    let error = Authority::open(&acme.path("org")).expect_err("unknown key");
    assert!(matches!(error, AuthorityOpenError::Unparsable { .. }), "{error}");
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_refused() {
    let other = KeyPair::generate_for(&PKCS_ED25519).expect("a key").serialize_pem();
    let (acme, dir) = issued();
    edit(&dir.join("key.pem"), |_| other.clone());
    let error = Identity::load(&dir).expect_err("another key");
    assert!(matches!(error, LoadError::KeyMismatch { .. }), "{error}");

    edit(&acme.path("org/ca-key.pem"), |_| other);
    let error = Authority::open(&acme.path("org")).expect_err("another key");
    assert!(matches!(error, AuthorityOpenError::KeyMismatch { .. }), "{error}");
}

#[test]
fn an_identity_that_no_peer_would_accept_is_refused_at_start() {
    let (acme, dir) = issued();
    let why = |error: LoadError| match error {
        LoadError::Invalid { source, .. } => source,
        other => panic!("{other}"),
    };
    let late = Identity::load_at(&dir, ahead(LIFETIME * 2)).expect_err("expired");
    assert!(late.source().is_some_and(|cause| cause.to_string().contains("expired")));
    assert!(matches!(why(late), VerifyError::Expired { .. }));

    let other = Organisation::new("other");
    fs::copy(other.path("org/ca.pem"), dir.join("ca.pem")).expect("copied");
    let foreign = why(Identity::load(&dir).expect_err("another's roots"));
    assert_eq!(foreign, VerifyError::ForeignAuthority);

    let two =
        acme.stolen().leaf(|params| params.subject_alt_names.push(uri("spiffe://acme/control/c")));
    fs::copy(acme.path("org/ca.pem"), dir.join("ca.pem")).expect("copied");
    let pem = pem(&two.der);
    edit(&dir.join("chain.pem"), |_| pem);
    edit(&dir.join("key.pem"), |_| two.key.serialize_pem());
    let many = why(Identity::load(&dir).expect_err("two names"));
    assert_eq!(many, VerifyError::ManyUris { count: 2 });
}

/// The text form of a certificate, by way of base64 as `openssl` would print it.
fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for group in der.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit > group.len() { '=' } else { DIGITS[value] as char });
        }
    }
    text + "\n-----END CERTIFICATE-----\n"
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let (acme, dir) = issued();
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    let expose = |path: &Path| {
        assert_eq!(mode(path), 0o600);
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("changed");
    };
    assert_eq!(mode(&dir), 0o700);
    expose(&dir.join("key.pem"));
    let error = Identity::load(&dir).expect_err("exposed");
    assert!(matches!(error, LoadError::Exposed { mode: 0o644, .. }), "{error}");

    expose(&acme.path("org/ca-key.pem"));
    let error = Authority::open(&acme.path("org")).expect_err("exposed");
    assert!(matches!(error, AuthorityOpenError::Exposed { mode: 0o644, .. }), "{error}");
}

// T28
#[test]
fn what_prints_holds_no_key() {
    let (acme, dir) = issued();
    let identity = Identity::load(&dir).expect("an identity");
    assert_eq!(format!("{identity:?}"), "Identity(spiffe://acme/site/leeds/agent/a1)");
    assert_eq!(format!("{:?}", acme.authority), "Authority(acme)");
}
