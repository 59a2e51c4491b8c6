//! Signing: a document is proposed once, as bytes that stay, and signed by one key after the other.
//!
//! The signers of a role whose threshold is above 1 sit at different machines. So a proposal is a document
//! like any other, which lacks signatures; it can be passed on, and copies of it that were signed apart are
//! merged.
//!
//! Always true: a signature is added to the bytes that were proposed and to no others, and nothing else of
//! the proposal changes with it.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::bounds::{
    ROOT_BYTES_MAX, SIGNATURES_MAX, SNAPSHOT_BYTES_MAX, TARGETS_BYTES_MAX, TIMESTAMP_BYTES_MAX,
};
use super::digest::{hex, sha256};
use super::document::{Kind, RuleError};
use super::json::{self, CanonicalError};
use super::key::{Key, KeyId, RoleKeys};
use super::signed::{Document, Signature, Signed, VerifyError};

/// Bytes of an ed25519 key's seed.
pub const SEED_BYTES: usize = 32;

/// An ed25519 key that signs. It has no `Debug`, and the library that holds it wipes it when it goes.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    key: Key,
    id: KeyId,
}

/// Why a document cannot be proposed.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// It breaks a rule: nobody would believe it.
    #[error("check the fields of the new {kind}")]
    Rule {
        /// Which kind of document.
        kind: Kind,
        /// The rule.
        source: RuleError,
    },
    /// It cannot be written.
    #[error("write the new {kind} in the canonical form")]
    Canonical {
        /// Which kind of document.
        kind: Kind,
        /// What has no such form.
        source: CanonicalError,
    },
    /// It is longer than anybody reads.
    #[error("the new {kind} has {found} bytes, and {bytes_max} are allowed")]
    TooLong {
        /// Which kind of document.
        kind: Kind,
        /// How many it has.
        found: u64,
        /// How many it may have.
        bytes_max: u64,
    },
}

/// Why copies of a proposal cannot be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Other bytes were signed.
    #[error("what was signed is another document than what was proposed")]
    Differs,
    /// More signatures than are looked at.
    #[error("together they have more than {SIGNATURES_MAX} signatures")]
    TooMany,
}

impl SigningKey {
    /// Returns the key with this seed.
    ///
    /// # Panics
    ///
    /// Never: every seed is a key's.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a seed");
        let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
        let key = Key::ed25519(public);
        let id = key.id();
        Self { pair, key, id }
    }

    /// Returns its public half, as a document lists it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Signs any bytes: free-standing statements have no envelope of the manifest.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature { keyid: self.id.clone(), sig: hex(&self.sign_raw(message)) }
    }

    /// Signs bytes of something that says by itself whose signature counts.
    pub fn sign_raw(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl<T: Document + Serialize> Signed<T> {
    /// Returns the document as it will be signed, with no signature yet.
    ///
    /// # Errors
    ///
    /// [`ProposeError`] if nobody would believe it, however it was signed.
    pub fn propose(document: &T) -> Result<Self, ProposeError> {
        let kind = T::KIND;
        document.rules().map_err(|source| ProposeError::Rule { kind, source })?;
        let value = serde_json::to_value(document).expect("documents are JSON with text as names");
        let message =
            json::canonical(&value).map_err(|source| ProposeError::Canonical { kind, source })?;
        let bytes = envelope(&value, &[]);
        let (found, bytes_max) = (bytes.len() as u64, bytes_max(kind));
        if found > bytes_max {
            return Err(ProposeError::TooLong { kind, found, bytes_max });
        }
        Ok(Self::from_parts(bytes, value, message, Vec::new()))
    }
}

impl<T: Document> Signed<T> {
    /// Signs it, in place of an earlier signature of that key.
    pub fn sign(&mut self, key: &SigningKey) {
        let signature = key.sign(self.message());
        self.add(signature);
    }

    /// Takes over the signatures of a copy that was signed elsewhere. Whether they count is not looked at.
    ///
    /// # Errors
    ///
    /// [`MergeError`] if it is no copy of this; nothing is taken over.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.message() != other.message() {
            return Err(MergeError::Differs);
        }
        let (own, others) = (self.signatures(), other.signatures());
        let is_new = |one: &&Signature| own.iter().all(|mine| mine.keyid != one.keyid);
        if own.len() + others.iter().filter(is_new).count() > SIGNATURES_MAX {
            return Err(MergeError::TooMany);
        }
        let new: Vec<Signature> = others.iter().filter(is_new).cloned().collect();
        for signature in new {
            self.add(signature);
        }
        Ok(())
    }

    /// Returns what the document says, for somebody who is about to sign it. Nobody has vouched for it.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Field`] or [`VerifyError::Rule`].
    pub fn proposed(&self) -> Result<T, VerifyError> {
        self.read()
    }

    /// Returns the SHA-256 of what is signed: two signers who compare it speak of the same document.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(self.message())
    }

    /// Returns how many signatures of `keys` it still lacks.
    pub fn lacks(&self, keys: &RoleKeys) -> u64 {
        let counted = keys.signers(self.message(), self.signatures()).len() as u64;
        keys.threshold().saturating_sub(counted)
    }

    /// Returns which of `keys` have signed it, each public key once.
    pub fn signers(&self, keys: &RoleKeys) -> Vec<KeyId> {
        keys.signers(self.message(), self.signatures())
    }

    fn add(&mut self, signature: Signature) {
        let mut signatures = self.signatures().to_vec();
        match signatures.iter_mut().find(|one| one.keyid == signature.keyid) {
            Some(one) => *one = signature,
            None => signatures.push(signature),
        }
        let bytes = envelope(self.value(), &signatures);
        self.resign(bytes, signatures);
    }
}

/// Returns the most bytes that a document of this kind may have.
fn bytes_max(kind: Kind) -> u64 {
    match kind {
        Kind::Root => ROOT_BYTES_MAX,
        Kind::Timestamp => TIMESTAMP_BYTES_MAX,
        Kind::Snapshot => SNAPSHOT_BYTES_MAX,
        Kind::Targets => TARGETS_BYTES_MAX,
    }
}

fn envelope(signed: &Value, signatures: &[Signature]) -> Bytes {
    #[derive(Serialize)]
    struct Envelope<'a> {
        signatures: &'a [Signature],
        signed: &'a Value,
    }
    let bytes = serde_json::to_vec(&Envelope { signatures, signed });
    bytes.expect("JSON with text as names can be written").into()
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a signature by {}", self.keyid)
    }
}
