//! Whose signature counts: public keys, and how many of them a role needs.
//!
//! Known are `ed25519`, `ecdsa-sha2-nistp256` and `rsassa-pss-sha256`, with the encodings of section
//! 4.2 of the specification: hex for the first, PEM for the others. A key of another kind, or one that
//! cannot be read, is part of a document like any other and never counts.
//!
//! Always true: a threshold counts public keys, not their ids. What an id is made of is not looked at:
//! it is a name within the document that lists the key.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PSS_2048_8192_SHA256,
    VerificationAlgorithm,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::digest::{hex, unhex};
use super::signed::{Signature, VerifyError};

/// What a key is called within the document that lists it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

/// A key as a document lists it: of any kind, perhaps of none that is known here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// What sort of key it is, such as `ed25519`.
    pub keytype: String,
    /// How it signs, such as `rsassa-pss-sha256`.
    pub scheme: String,
    /// The key itself.
    pub keyval: KeyValue,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The public part of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The public key in the encoding of its kind. Kinds that are not known here may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
    /// Fields that the specification does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A public key of a known kind. Equal keys are equal here, however they were written.
#[derive(Clone)]
pub struct PublicKey {
    key: ParsedPublicKey,
    /// Its `SubjectPublicKeyInfo` as our library writes it, whatever form it came in.
    identity: Vec<u8>,
}

/// The keys of a role, and how many of them have to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleKeys {
    keys: BTreeMap<KeyId, PublicKey>,
    threshold: u64,
}

impl KeyId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PublicKey {
    /// Reads a key that a document lists, or returns `None` if its kind is not known here or its value
    /// is no such key.
    pub fn read(key: &Key) -> Option<Self> {
        let public = key.keyval.public.as_deref()?;
        match (key.keytype.as_str(), key.scheme.as_str()) {
            ("ed25519", "ed25519") => Self::parse(&ED25519, &ed25519(public)?),
            // The second keytype is of older writers, whose keys are still in use.
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                Self::parse(&ECDSA_P256_SHA256_ASN1, &pem(public)?)
            }
            ("rsa", "rsassa-pss-sha256") => Self::parse(&RSA_PSS_2048_8192_SHA256, &pem(public)?),
            _ => None,
        }
    }

    fn parse(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> Option<Self> {
        let key = ParsedPublicKey::new(algorithm, bytes).ok()?;
        let identity = key.as_der().ok()?.as_ref().to_vec();
        Some(Self { key, identity })
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

impl RoleKeys {
    /// Returns the keys that `ids` name among `listed`. An id that is not listed, or whose key is of no
    /// known kind, never counts.
    pub fn new(listed: &BTreeMap<KeyId, Key>, ids: &[KeyId], threshold: u64) -> Self {
        let keys = ids
            .iter()
            .filter_map(|id| Some((id.clone(), PublicKey::read(listed.get(id)?)?)))
            .collect();
        Self { keys, threshold }
    }

    /// Checks that as many keys as the threshold says have signed `message`. Signatures that are wrong,
    /// empty, or by others are passed over.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Threshold`] if too few have.
    pub fn check(&self, message: &[u8], signatures: &[Signature]) -> Result<(), VerifyError> {
        let needed = self.threshold;
        let counted = self.count(message, signatures, needed).len() as u64;
        if counted >= needed { Ok(()) } else { Err(VerifyError::Threshold { needed, counted }) }
    }

    /// Returns how many different keys have to sign.
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Returns how many different public keys there are.
    pub fn different(&self) -> usize {
        self.keys.values().collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Returns whether a key of this id is one of them.
    pub fn has(&self, id: &KeyId) -> bool {
        self.keys.contains_key(id)
    }

    /// Returns the ids of the keys that have signed `message`, each public key once.
    pub fn signers(&self, message: &[u8], signatures: &[Signature]) -> Vec<KeyId> {
        self.count(message, signatures, u64::MAX).into_values().cloned().collect()
    }

    /// Counts the public keys that have signed, until there are `enough`.
    fn count<'a>(
        &'a self,
        message: &[u8],
        signatures: &'a [Signature],
        enough: u64,
    ) -> BTreeMap<&'a PublicKey, &'a KeyId> {
        let mut counted = BTreeMap::new();
        for Signature { keyid, sig, .. } in signatures {
            let Some(key) = self.keys.get(keyid) else { continue };
            if counted.contains_key(key) {
                continue;
            }
            if unhex(sig).is_some_and(|signature| key.verifies(message, &signature)) {
                counted.insert(key, keyid);
            }
            if counted.len() as u64 >= enough {
                break;
            }
        }
        counted
    }
}

fn ed25519(public: &str) -> Option<Vec<u8>> {
    unhex(public).filter(|key| key.len() == 32)
}

fn pem(public: &str) -> Option<Vec<u8>> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(public.as_bytes()).ok()?;
    Some(key.as_ref().to_vec())
}

impl From<&str> for KeyId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for PublicKey {}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity.cmp(&other.identity)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", hex(&self.identity))
    }
}
