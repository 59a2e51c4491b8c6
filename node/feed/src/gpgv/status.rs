//! What `gpgv` says on its status descriptor, one line a fact (`GnuPG`'s `doc/DETAILS`).

use super::SignatureError;
use crate::keyring::{Fingerprint, Keyring};

/// Hash algorithms that can be forged: MD5, SHA-1, RIPEMD-160 (RFC 9580, section 9.5).
const WEAK_HASHES: [&str; 3] = ["1", "2", "3"];

/// What was said of one signature, the lines between one `NEWSIG` and the next.
#[derive(Default)]
struct Signature<'s> {
    verdict: Option<Verdict<'s>>,
    valid: Option<Valid<'s>>,
}

/// The line that says how it went, with the key's id.
#[derive(Clone, Copy)]
enum Verdict<'s> {
    Good,
    Bad(&'s str),
    ExpiredSignature(&'s str),
    ExpiredKey(&'s str),
    RevokedKey(&'s str),
    UnknownKey(&'s str),
    Unsupported(&'s str),
}

/// The line that names the key in full. It also follows verdicts that are not good.
struct Valid<'s> {
    key: &'s str,
    primary: &'s str,
    hash: &'s str,
}

/// Reads the status lines, and returns the keys whose good signatures count.
///
/// One good signature is enough, as vendors sign with the next key before machines have it. One
/// that is not over the text refuses everything, whoever else signed.
///
/// # Errors
///
/// [`SignatureError`] with what stood in the way of the most promising signature.
pub fn judge(status: &str, keyring: &Keyring) -> Result<Vec<Fingerprint>, SignatureError> {
    let signatures = parse(status)?;
    let mut keys = Vec::new();
    let mut faults = Vec::new();
    for signature in &signatures {
        match signature.counts(keyring) {
            Ok(key) => keys.push(key),
            Err(fault @ SignatureError::Bad { .. }) => return Err(fault),
            Err(fault) => faults.push(fault),
        }
    }
    if !keys.is_empty() {
        return Ok(keys);
    }
    if faults.iter().all(|fault| matches!(fault, SignatureError::UnknownKey { .. })) {
        let keys: Vec<String> = faults.into_iter().flat_map(SignatureError::unknown).collect();
        return Err(if keys.is_empty() {
            SignatureError::Unsigned
        } else {
            SignatureError::UnknownKey { keys }
        });
    }
    Err(faults.into_iter().min_by_key(SignatureError::distance).unwrap_or(SignatureError::Unsigned))
}

fn parse(status: &str) -> Result<Vec<Signature<'_>>, SignatureError> {
    let mut signatures: Vec<Signature<'_>> = Vec::new();
    for line in status.lines() {
        let Some(line) = line.strip_prefix("[GNUPG:] ") else { continue };
        let words: Vec<&str> = line.split(' ').collect();
        let word = |index: usize| words.get(index).copied().ok_or(SignatureError::Status);
        let verdict = match words[0] {
            "NEWSIG" => {
                signatures.push(Signature::default());
                continue;
            }
            "VALIDSIG" => {
                let key = word(1)?;
                let primary = words.get(10).copied().unwrap_or(key);
                let valid = Valid { key, primary, hash: word(8)? };
                let signature = signatures.last_mut().ok_or(SignatureError::Status)?;
                if signature.valid.replace(valid).is_some() {
                    return Err(SignatureError::Status);
                }
                continue;
            }
            "GOODSIG" => Verdict::Good,
            "BADSIG" => Verdict::Bad(word(1)?),
            "EXPSIG" => Verdict::ExpiredSignature(word(1)?),
            "EXPKEYSIG" => Verdict::ExpiredKey(word(1)?),
            "REVKEYSIG" => Verdict::RevokedKey(word(1)?),
            // Its sixth field is the reason; 9 is a key that is not in the keyring.
            "ERRSIG" if word(6)? == "9" => Verdict::UnknownKey(word(1)?),
            "ERRSIG" => Verdict::Unsupported(word(1)?),
            _ => continue,
        };
        let signature = signatures.last_mut().ok_or(SignatureError::Status)?;
        // Two verdicts on one signature are not to be reconciled here.
        if signature.verdict.replace(verdict).is_some() {
            return Err(SignatureError::Status);
        }
    }
    Ok(signatures)
}

impl Signature<'_> {
    fn counts(&self, keyring: &Keyring) -> Result<Fingerprint, SignatureError> {
        let valid = match self.verdict.ok_or(SignatureError::Status)? {
            Verdict::Good => self.valid.as_ref().ok_or(SignatureError::Status)?,
            Verdict::Bad(key) => return Err(SignatureError::Bad { key: key.into() }),
            Verdict::ExpiredSignature(key) => {
                return Err(SignatureError::ExpiredSignature { key: key.into() });
            }
            Verdict::ExpiredKey(key) => return Err(SignatureError::ExpiredKey { key: key.into() }),
            Verdict::RevokedKey(key) => return Err(SignatureError::RevokedKey { key: key.into() }),
            Verdict::UnknownKey(key) => {
                return Err(SignatureError::UnknownKey { keys: vec![key.into()] });
            }
            Verdict::Unsupported(key) => {
                return Err(SignatureError::Unsupported { key: key.into() });
            }
        };
        let fingerprint = |text: &str| text.parse().map_err(|_| SignatureError::Status);
        let (key, primary) = (fingerprint(valid.key)?, fingerprint(valid.primary)?);
        if WEAK_HASHES.contains(&valid.hash) {
            return Err(SignatureError::Weak { key });
        }
        if !keyring.counts(&key, &primary) {
            return Err(SignatureError::OtherKey { key });
        }
        Ok(key)
    }
}

impl SignatureError {
    /// How far a signature was from counting: what is nearest is what an operator can act on.
    fn distance(&self) -> u8 {
        match self {
            Self::RevokedKey { .. } => 0,
            Self::ExpiredKey { .. } => 1,
            Self::ExpiredSignature { .. } => 2,
            Self::Weak { .. } => 3,
            Self::OtherKey { .. } => 4,
            Self::Unsupported { .. } => 5,
            _ => 6,
        }
    }

    fn unknown(self) -> Vec<String> {
        match self {
            Self::UnknownKey { keys } => keys,
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    const KEY: &str = "0123456789ABCDEF0123456789ABCDEF01234567";
    const PRIMARY: &str = "89ABCDEF0123456789ABCDEF0123456789ABCDEF";

    fn keyring() -> Keyring {
        Keyring::parse(&[0x99, 1]).unwrap()
    }

    fn signature(verdict: &str, hash: u8) -> String {
        format!(
            "[GNUPG:] NEWSIG\n[GNUPG:] {verdict}\n\
             [GNUPG:] VALIDSIG {KEY} 2026-05-16 1778922600 0 4 0 1 {hash} 01 {PRIMARY}\n"
        )
    }

    fn unknown(key: &str) -> String {
        format!(
            "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG {key} 1 8 01 1778922600 9 -\n[GNUPG:] NO_PUBKEY {key}\n"
        )
    }

    fn reason(status: &str) -> Reason {
        judge(status, &keyring()).unwrap_err().reason()
    }

    #[test]
    fn one_good_signature_is_enough_beside_unknown_keys() {
        let status = unknown("AA") + &signature("GOODSIG 89ABCDEF Acme", 8) + &unknown("BB");
        assert_eq!(judge(&status, &keyring()).unwrap(), [KEY.parse().unwrap()]);
    }

    #[test]
    fn a_bad_signature_outweighs_good_ones() {
        let status = signature("GOODSIG 89 Acme", 8) + "[GNUPG:] NEWSIG\n[GNUPG:] BADSIG 89 Acme\n";
        assert_eq!(reason(&status), Reason::BadSignature);
    }

    #[test]
    fn each_refusal_has_a_reason_of_its_own() {
        // R39
        assert_eq!(reason(&signature("EXPKEYSIG 89 Acme", 8)), Reason::ExpiredKey);
        assert_eq!(reason(&signature("REVKEYSIG 89 Acme", 8)), Reason::RevokedKey);
        assert_eq!(reason(&signature("EXPSIG 89 Acme", 8)), Reason::ExpiredSignature);
        assert_eq!(reason(&signature("GOODSIG 89 Acme", 2)), Reason::WeakSignature);
        assert_eq!(reason(&(unknown("AA") + &unknown("BB"))), Reason::UnknownKey);
        assert_eq!(reason("[GNUPG:] NODATA 4\n"), Reason::Unsigned);
        assert_eq!(reason(""), Reason::Unsigned);
        assert_eq!(reason(&(unknown("AA") + &signature("REVKEYSIG 89", 8))), Reason::RevokedKey);
        let unknown = judge(&(unknown("AA") + &unknown("BB")), &keyring()).unwrap_err();
        assert_eq!(unknown.to_string(), "no key of the keyring signed it; AA, BB did");
    }

    #[test]
    fn a_named_key_that_did_not_sign_is_not_replaced_by_another() {
        let status = signature("GOODSIG 89 Acme", 8);
        let other = keyring().only([&*"A".repeat(40)]).unwrap();
        assert_eq!(judge(&status, &other).unwrap_err().reason(), Reason::UnknownKey);
        assert!(judge(&status, &keyring().only([PRIMARY]).unwrap()).is_ok());
    }

    #[test]
    fn a_name_that_looks_like_a_status_line_is_only_a_name() {
        let status = "[GNUPG:] NEWSIG\n[GNUPG:] BADSIG 89 [GNUPG:] GOODSIG 89 Acme\n";
        assert_eq!(reason(status), Reason::BadSignature);
        // A verdict without the full key, or two on one signature, are no answer.
        assert_eq!(reason("[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 89 Acme\n"), Reason::Trouble);
        assert_eq!(reason(&signature("REVKEYSIG 89\n[GNUPG:] GOODSIG 89", 8)), Reason::Trouble);
        assert_eq!(reason("[GNUPG:] GOODSIG 89 Acme\n"), Reason::Trouble);
    }
}
