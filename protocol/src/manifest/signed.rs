//! A document as received, and the only way to what is in it.
//!
//! [`Signed::parse`] splits the envelope and believes nothing. [`Signed::verify`] gives the document
//! to who has the keys of its role: what was signed is the canonical form of exactly the value that is
//! then read. The bytes are kept as they came.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::SIGNATURES_MAX;
use super::document::{Kind, Root, RuleError};
use super::json::{self, CanonicalError};
use super::key::{KeyId, RoleKeys};

/// A document as received: nothing in it believed yet.
#[derive(Clone, Debug)]
pub struct Signed<T> {
    bytes: Bytes,
    value: Value,
    /// What the signatures are over.
    message: Vec<u8>,
    signatures: Vec<Signature>,
    document: PhantomData<T>,
}

/// A document that was verified, with the bytes it came in.
#[derive(Clone, Debug)]
pub struct Believed<T> {
    bytes: Bytes,
    document: T,
}

/// One signature of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Whose it says that it is.
    pub keyid: KeyId,
    /// The signature in hex. Empty where somebody has not signed yet.
    pub sig: String,
}

/// What can be believed of a document: the four kinds of metadata.
pub trait Document: DeserializeOwned {
    /// Which of them it is.
    const KIND: Kind;

    /// Checks what its fields alone do not say.
    ///
    /// # Errors
    ///
    /// [`RuleError`], naming the field and the rule.
    fn rules(&self) -> Result<(), RuleError>;
}

/// Why bytes are no document.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// No JSON, or one that could be read in two ways.
    #[error("read it as JSON")]
    Json(#[source] serde_json::Error),
    /// No envelope of signatures and something signed.
    #[error("read its field {field}")]
    Envelope {
        /// Where in the document.
        field: String,
        /// What was wrong there.
        source: serde_json::Error,
    },
    /// Two signatures say that they are of one key, which the specification forbids.
    #[error("its field signatures has the key id {keyid} twice")]
    SignedTwice {
        /// Whose.
        keyid: KeyId,
    },
    /// More signatures than are looked at.
    #[error("its field signatures has {found} entries, and {SIGNATURES_MAX} are allowed")]
    TooManySignatures {
        /// How many there are.
        found: usize,
    },
    /// What was signed has no canonical form, so nobody can have signed it.
    #[error("write its field signed in the canonical form")]
    Canonical(#[source] CanonicalError),
}

/// Why a document is not believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Too few of the role's keys have signed it.
    #[error("{counted} of its role's keys have signed it, and {needed} are needed")]
    Threshold {
        /// How many have to.
        needed: u64,
        /// How many different public keys have.
        counted: u64,
    },
    /// Signed, and yet no document of its kind.
    #[error("read its field signed.{field}")]
    Field {
        /// Where in the document.
        field: String,
        /// What was wrong there.
        source: serde_json::Error,
    },
    /// Signed, and against a rule of the specification.
    #[error("check its fields")]
    Rule(#[source] RuleError),
}

#[derive(Deserialize)]
struct Envelope {
    signatures: Vec<Signature>,
}

impl<T: Document> Signed<T> {
    /// Splits a document into what was signed and by whom. It believes neither.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if it is no such document.
    pub fn parse(bytes: Bytes) -> Result<Self, ParseError> {
        let mut value = json::read(&bytes).map_err(ParseError::Json)?;
        // Taken out, not copied: it may be long.
        let signed = value.as_object_mut().and_then(|envelope| envelope.remove("signed"));
        let Envelope { signatures } = serde_path_to_error::deserialize(value).map_err(|error| {
            ParseError::Envelope { field: error.path().to_string(), source: error.into_inner() }
        })?;
        let value = signed.ok_or_else(|| ParseError::Envelope {
            field: "signed".to_owned(),
            source: serde_json::Error::missing_field("signed"),
        })?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(ParseError::TooManySignatures { found: signatures.len() });
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = signatures.iter().find(|signature| !seen.insert(&signature.keyid)) {
            return Err(ParseError::SignedTwice { keyid: twice.keyid.clone() });
        }
        let message = json::canonical(&value).map_err(ParseError::Canonical)?;
        Ok(Self { bytes, value, message, signatures, document: PhantomData })
    }

    /// Checks the signatures, then reads the document. Version and expiry are for the caller to judge:
    /// an expired document is still good enough to compare versions with.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if too few keys have signed, or if it is no document of this kind.
    pub fn verify(&self, keys: &RoleKeys) -> Result<Believed<T>, VerifyError> {
        keys.check(&self.message, &self.signatures)?;
        Ok(Believed { bytes: self.bytes.clone(), document: self.read()? })
    }

    pub(super) fn read(&self) -> Result<T, VerifyError> {
        let document: T = serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let field = error.path().to_string();
            VerifyError::Field { field, source: error.into_inner() }
        })?;
        document.rules().map_err(VerifyError::Rule)?;
        Ok(document)
    }

    /// Returns the bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(super) fn from_parts(
        bytes: Bytes,
        value: Value,
        message: Vec<u8>,
        signatures: Vec<Signature>,
    ) -> Self {
        Self { bytes, value, message, signatures, document: PhantomData }
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    pub(super) fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Replaces the envelope around what is signed.
    pub(super) fn resign(&mut self, bytes: Bytes, signatures: Vec<Signature>) {
        (self.bytes, self.signatures) = (bytes, signatures);
    }
}

impl Signed<Root> {
    /// Checks a root against the keys that it lists itself. That is no reason to believe it: it holds for
    /// the root that an admin handed over, and on top of the previous root's keys for its successor
    /// (5.3.4 of the specification).
    ///
    /// # Errors
    ///
    /// [`VerifyError`], as by [`Signed::verify`].
    pub fn verify_by_itself(&self) -> Result<Believed<Root>, VerifyError> {
        let root = self.read()?;
        root.keys_of(Kind::Root).check(&self.message, &self.signatures)?;
        Ok(Believed { bytes: self.bytes.clone(), document: root })
    }
}

impl<T> Believed<T> {
    /// Returns the bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the document.
    pub fn document(&self) -> &T {
        &self.document
    }
}

impl<T> std::ops::Deref for Believed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.document
    }
}
