//! Who is no longer believed, though their certificates have not ended.
//!
//! The admins' signed orders say it; whoever verified those replaces the set ([`Revocations::set`])
//! while connections come and go. A member is meant by its name, with the certificates that begin
//! before an instant where a machine was given its old name anew; an authority, which has no
//! member's name, by its key.
//!
//! The set is read at each handshake. Whoever holds connections closes those that it now covers
//! ([`crate::Endpoint::set_revoked`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::name::{Member, PeerName};
use super::verifier::{VerifyError, parse, read_credentials};

/// The SHA-256 of a public key as certificates hold it (`SubjectPublicKeyInfo`, DER).
pub type KeyHash = [u8; 32];

/// Members and keys that are no longer believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Members by name, with every certificate that names them; or, where an instant is given, with
    /// those that begin before it.
    pub members: BTreeMap<Member, Option<UnixTime>>,
    /// Keys, of members or of authorities, with every certificate that they have or made.
    pub keys: BTreeSet<KeyHash>,
}

/// What a certificate says that revocation goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Whom it names.
    pub name: PeerName,
    /// When it begins.
    pub begins: UnixTime,
    /// When it ends.
    pub ends: UnixTime,
    /// Its key and those of the authorities above it.
    pub keys: Vec<KeyHash>,
}

/// The set as it is now. Cheap to clone; all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Revocations(Arc<RwLock<Arc<Revoked>>>);

impl Revoked {
    /// Returns whether a certificate is no longer believed.
    pub fn covers(&self, shown: &Credentials) -> bool {
        let by_name = self
            .members
            .get(shown.name.member())
            .is_some_and(|until| until.is_none_or(|until| shown.begins < until));
        by_name || shown.keys.iter().any(|key| self.keys.contains(key))
    }
}

impl Revocations {
    /// Returns the set as it is now.
    pub fn now(&self) -> Arc<Revoked> {
        // Whole whenever the lock is free: it is only ever replaced.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the set. Handshakes that are judged from now on see the new one.
    pub fn set(&self, revoked: Revoked) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(revoked);
    }
}

impl Credentials {
    /// Reads what a chain says, the leaf first; `None` if the leaf is no certificate of a member.
    ///
    /// Nothing is checked: the caller has had [`super::PeerVerifier`] do that, or wrote it itself. Of the others
    /// the verifier passes over those that lead nowhere, and so does this.
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        read_credentials(chain).ok()
    }
}

/// Returns the hash of the key that a certificate is about.
///
/// # Errors
///
/// [`VerifyError::Unparsable`].
pub fn key_hash(certificate: &CertificateDer<'_>) -> Result<KeyHash, VerifyError> {
    Ok(hash(parse(certificate)?.public_key().raw))
}

/// Returns the SHA-256 of `bytes`.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, begins_secs: u64, keys: &[KeyHash]) -> Credentials {
        let name = name.parse().expect("a name");
        let (begins, ends) = (at(begins_secs), at(u64::from(u32::MAX)));
        Credentials { name, begins, ends, keys: keys.to_vec() }
    }

    fn at(secs: u64) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs))
    }

    const A1: &str = "spiffe://acme/site/s/agent/a1";
    const A2: &str = "spiffe://acme/site/s/agent/a2";

    #[test]
    fn a_member_is_covered_by_its_name_or_by_a_key_above_it() {
        let a1 = shown(A1, 0, &[]).name.member().clone();
        let revoked =
            Revoked { members: BTreeMap::from([(a1, None)]), keys: BTreeSet::from([[7; 32]]) };
        assert!(revoked.covers(&shown(A1, 9_999, &[[1; 32]])));
        assert!(revoked.covers(&shown(A2, 0, &[[1; 32], [7; 32]])));
        assert!(!revoked.covers(&shown(A2, 0, &[[1; 32]])));
        // A node of the same id is another member.
        assert!(!revoked.covers(&shown("spiffe://acme/site/s/node/a1", 0, &[])));
    }

    // R162
    #[test]
    fn a_machine_that_was_given_its_name_anew_goes_on_under_it() {
        let a1 = shown(A1, 0, &[]).name.member().clone();
        let members = BTreeMap::from([(a1, Some(at(1_000)))]);
        let revoked = Revoked { members, ..Revoked::default() };
        assert!(revoked.covers(&shown(A1, 999, &[])));
        assert!(!revoked.covers(&shown(A1, 1_000, &[])));
    }

    #[test]
    fn whoever_holds_the_set_sees_it_replaced() {
        let here = Revocations::default();
        let there = here.clone();
        here.set(Revoked { keys: BTreeSet::from([[7; 32]]), ..Revoked::default() });
        assert_eq!(there.now().keys.len(), 1);
        here.set(Revoked::default());
        assert_eq!(*there.now(), Revoked::default());
    }
}
