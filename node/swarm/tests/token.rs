//! Tokens as text: what is read back, what is refused, and what a mistake in copying is called.

use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use proptest::prelude::*;
use rustls::pki_types::UnixTime;
use sutler_protocol::join::STATEMENT_BYTES_MAX;
use sutler_swarm::enrol::token::{
    Grant, JoinRole, NotGranted, PresentedError, Token, TokenError, TokenKeys, USES_MAX,
};

const HOUR: u64 = 3_600;

fn at(secs: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(secs))
}

fn grant() -> Grant {
    Grant {
        organisation: "acme".parse().unwrap(),
        site: "leeds".parse().unwrap(),
        role: JoinRole::Agent,
        name: None,
        uses: 20,
        expires: at(HOUR),
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        hold: true,
        addresses: vec!["control.acme.example:7440".to_owned(), "[2001:db8::1]:7440".to_owned()],
        root_sha256: [1; 32],
        authority_sha256: [2; 32],
    }
}

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::generate().unwrap()
}

fn keys(key: &Ed25519KeyPair) -> TokenKeys {
    let mut keys = TokenKeys::default();
    keys.admin(key.public_key().as_ref().try_into().unwrap());
    keys
}

fn signed(grant: Grant, key: &Ed25519KeyPair) -> Result<Token, TokenError> {
    Token::make(grant, |statement| key.sign(statement).as_ref().to_vec())
}

#[test]
fn a_token_is_read_as_it_was_made_and_an_admins_signature_counts() {
    let key = key();
    let named = Grant { name: Some("a1".parse().unwrap()), uses: 1, ..grant() };
    for grant in [grant(), named] {
        let token = signed(grant.clone(), &key).unwrap();
        let text = token.text();
        // One word, which no shell and no line of a chat breaks.
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')));
        let read = Token::parse(&format!(" {}\n", *text)).unwrap();
        assert_eq!((read.grant(), read.id()), (&grant, token.id()));
        assert_eq!(read.presented().verify(&keys(&key)), Ok((grant, token.id())));
        let foreign = read.presented().verify(&keys(&self::key()));
        assert_eq!(foreign, Err(PresentedError::Signature));
    }
}

#[test]
fn two_tokens_of_the_same_grant_are_two() {
    let key = key();
    let [one, other] = [signed(grant(), &key).unwrap(), signed(grant(), &key).unwrap()];
    assert_ne!(one.id(), other.id());
    assert_ne!(one.presented().secret, other.presented().secret);
}

#[test]
fn a_token_that_was_not_copied_whole_is_called_so() {
    let text = signed(grant(), &key()).unwrap().text().to_string();
    for cut in 1..text.len() {
        let error = Token::parse(&text[..cut]).unwrap_err();
        assert!(matches!(error, TokenError::Form | TokenError::Checksum), "{cut}: {error}");
    }
    for (at, _) in text.char_indices() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(Token::parse(str::from_utf8(&changed).unwrap()).is_err(), "{at}");
    }
    assert_eq!(Token::parse("").unwrap_err(), TokenError::Form);
    assert_eq!(Token::parse(&"x".repeat(100_000)).unwrap_err(), TokenError::Form);
}

#[test]
fn what_no_token_may_say_is_refused_before_it_is_signed() {
    let wrong: [Grant; 8] = [
        Grant { uses: 0, ..grant() },
        Grant { uses: USES_MAX + 1, ..grant() },
        Grant { uses: 2, name: Some("a1".parse().unwrap()), ..grant() },
        Grant { addresses: vec![], ..grant() },
        Grant { addresses: vec!["control".to_owned()], ..grant() },
        Grant { addresses: vec!["control:0".to_owned()], ..grant() },
        Grant { addresses: vec!["con trol:1".to_owned()], ..grant() },
        Grant { networks: vec!["10.0.0.0/8".parse().unwrap(); 33], ..grant() },
    ];
    for grant in wrong {
        let refused = Token::make(grant.clone(), |_| panic!("nothing to sign"));
        assert!(matches!(refused, Err(TokenError::Bounds(_))), "{grant:?}");
    }
    let most = Grant {
        addresses: vec!["x".repeat(200) + ":65535"; 8],
        networks: vec!["2001:db8:ffff:ffff:ffff:ffff::/96".parse().unwrap(); 32],
        ..grant()
    };
    let token = signed(most, &key()).unwrap();
    assert!(token.presented().statement.len() <= STATEMENT_BYTES_MAX);
    assert!(Token::parse(&token.text()).is_ok());
}

#[test]
fn a_grant_says_for_what_reason_it_admits_nobody() {
    let (acme, inside) = ("acme".parse().unwrap(), "10.1.1.1".parse().unwrap());
    let grant = grant();
    assert_eq!(grant.admits(&acme, inside, 19, at(HOUR - 1)), Ok(()));
    assert_eq!(grant.admits(&acme, inside, 20, at(HOUR - 1)), Err(NotGranted::UsedUp));
    assert_eq!(grant.admits(&acme, inside, 0, at(HOUR)), Err(NotGranted::Expired));
    let outside = "192.0.2.1".parse().unwrap();
    assert_eq!(grant.admits(&acme, outside, 0, at(0)), Err(NotGranted::Network));
    let other = "other".parse().unwrap();
    assert_eq!(grant.admits(&other, inside, 0, at(0)), Err(NotGranted::Organisation));
}

#[test]
fn the_same_key_is_given_the_same_name_and_another_key_another() {
    let grant = grant();
    let name = |key| grant.member(&[3; 32], &[key; 32]);
    assert_eq!(name(1), name(1));
    assert_ne!(name(1), name(2));
    assert_ne!(name(1), grant.member(&[4; 32], &[1; 32]));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(sutler1)?[.A-Za-z0-9_-]{0,200}") {
        prop_assert!(Token::parse(&text).is_err());
    }

    // T20: whatever a statement says beyond what is known, it says nothing.
    #[test]
    fn a_statement_with_another_field_is_refused(field in "[a-z_]{1,12}") {
        let key = key();
        let token = signed(grant(), &key).unwrap();
        let mut presented = token.presented().clone();
        let text = String::from_utf8(presented.statement.clone()).unwrap();
        presented.statement = text.replacen('{', &format!("{{\"{field}\":1,"), 1).into_bytes();
        let message = [sutler_swarm::enrol::token::CONTEXT, &presented.statement].concat();
        presented.signature = key.sign(&message).as_ref().to_vec();
        let refused = presented.verify(&keys(&key));
        prop_assert!(matches!(refused, Err(PresentedError::Statement(_))), "{refused:?}");
    }
}
