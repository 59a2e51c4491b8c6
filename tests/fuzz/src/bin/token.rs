//! Tokens: whatever is typed is refused or read, and what was read is written as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sutler_swarm::enrol::{Token, TokenKeys};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(token) = Token::parse(text) else { return };
    assert_eq!(token.text().as_str(), text.trim());
    // Nobody's key signed it.
    assert!(token.presented().verify(&TokenKeys::default()).is_err());
    let printed = format!("{token:?}");
    let secret = text.trim().rsplit('.').next().unwrap_or_default();
    assert!(secret.is_empty() || !printed.contains(secret));
});
