//! A free-standing denial: one approver's word that something must not be installed.
//!
//! It enters at any node and spreads from peer to peer, outside of the snapshot, so that whoever stole the
//! online keys cannot hide it (T29). It is an envelope like the manifest's, `{"signatures", "signed"}`, signed over the
//! canonical form. One key of the scope's approvals role is enough, whatever the role's threshold is, because it can
//! only stop.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sutler_protocol::ContentId;
use sutler_protocol::manifest::json::{self, CanonicalError};
use sutler_protocol::manifest::key::Key;
use sutler_protocol::manifest::signed::Signature;
use sutler_protocol::manifest::{KeyId, RoleKeys, VerifyError};
use sutler_protocol::name::{Label, Organisation};

use crate::audience::Audience;
use crate::bounds::{CONTENTS_MAX, DENIAL_BYTES_MAX};
use crate::order::{Breach, FORMAT, Kind, OrderError, at_most, begins_well, each_once, from_value};
use crate::text::{Line, Utc, list, one};

/// Signatures of a denial that are looked at. One is enough, and each may cost a check.
const SIGNATURES_MAX: usize = 16;

/// What a denial says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// Whose it is.
    #[serde(with = "one")]
    pub organisation: Organisation,
    /// The scope whose approver denies.
    #[serde(with = "one")]
    pub scope: Label,
    /// Its id, which the scope's approvals may withdraw.
    #[serde(with = "one")]
    pub id: Label,
    /// When it was written.
    pub issued: Utc,
    /// The contents that must not be installed.
    #[serde(with = "list")]
    pub contents: Vec<ContentId>,
    /// Whom of the scope it is for. Absent: all.
    #[serde(default, rename = "for", skip_serializing_if = "Audience::is_everybody")]
    pub audience: Audience,
    /// Who denies.
    pub by: Line,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Line>,
}

/// A denial as received: nothing in it believed yet, but it says which scope's keys it wants.
#[derive(Clone, Debug)]
pub struct SignedDenial {
    denial: Denial,
    message: Vec<u8>,
    signatures: Vec<Signature>,
}

/// A denial that an approver of its scope has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BelievedDenial(Denial);

/// Why bytes are no denial.
#[derive(Debug, thiserror::Error)]
pub enum DenialError {
    /// It is no such document, or breaks a rule.
    #[error("read the denial")]
    Order(#[from] OrderError),
    /// What was signed has no canonical form, so nobody can have signed it.
    #[error("write the denial in the canonical form")]
    Canonical(#[source] CanonicalError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    signatures: Vec<Signature>,
    signed: Map<String, Value>,
}

/// How a denial is written: what names it first.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    format: u64,
    #[serde(flatten)]
    denial: &'a Denial,
}

impl Denial {
    /// Returns the value to be signed: its canonical form is what a signature is over.
    ///
    /// # Errors
    ///
    /// [`DenialError`] if a device would refuse it.
    pub fn write(&self) -> Result<Value, DenialError> {
        let document = Kind::Denial;
        self.rules().map_err(|breach| breach.of(document))?;
        let written = Written { kind: document.as_str(), format: FORMAT, denial: self };
        let value = serde_json::to_value(written)
            .map_err(|source| OrderError::Json { document, source })?;
        Ok(value)
    }

    /// Returns the denial's whole text with its signatures, as it is passed on.
    ///
    /// # Errors
    ///
    /// [`DenialError`] if a device would refuse it.
    pub fn envelope(&self, signatures: &[(KeyId, String)]) -> Result<Vec<u8>, DenialError> {
        let signatures: Vec<Value> = signatures
            .iter()
            .map(|(keyid, sig)| serde_json::json!({ "keyid": keyid.as_str(), "sig": sig }))
            .collect();
        let envelope = serde_json::json!({ "signatures": signatures, "signed": self.write()? });
        let mut bytes = envelope.to_string().into_bytes();
        bytes.push(b'\n');
        SignedDenial::parse(&bytes)?;
        Ok(bytes)
    }

    fn rules(&self) -> Result<(), Breach> {
        at_most("contents", self.contents.len(), CONTENTS_MAX)?;
        each_once("contents", self.contents.iter())?;
        self.audience.rules().map_err(|breach| breach.below("for"))
    }
}

impl SignedDenial {
    /// Reads a denial, and believes nothing of it.
    ///
    /// # Errors
    ///
    /// [`DenialError`], naming the field and the rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, DenialError> {
        let document = Kind::Denial;
        let found = bytes.len() as u64;
        if found > DENIAL_BYTES_MAX {
            let too_long = OrderError::TooLong { document, found, bytes_max: DENIAL_BYTES_MAX };
            return Err(too_long.into());
        }
        let value = json::read(bytes).map_err(|source| OrderError::Json { document, source })?;
        let Envelope { signatures, signed } = from_value(document, value)?;
        at_most("signatures", signatures.len(), SIGNATURES_MAX)
            .map_err(|breach| breach.of(document))?;
        let message = json::canonical(&Value::Object(signed.clone()));
        let message = message.map_err(DenialError::Canonical)?;
        let mut fields = signed;
        begins_well(document, &mut fields)?;
        let denial: Denial = from_value(document, Value::Object(fields))?;
        denial.rules().map_err(|breach| breach.of(document))?;
        Ok(Self { denial, message, signatures })
    }

    /// Returns the scope that it says it is of: whose keys to check it with. It is a claim.
    pub fn claimed_scope(&self) -> &Label {
        &self.denial.scope
    }

    /// Returns what has to be signed: the canonical form.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Believes the denial if any one of an approvals role's keys has signed it: `listed` and `ids` are those of the
    /// delegation of `approvals-SCOPE` for the scope that it claims.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Threshold`] if none has.
    pub fn verify(
        self,
        listed: &std::collections::BTreeMap<KeyId, Key>,
        ids: &[KeyId],
    ) -> Result<BelievedDenial, VerifyError> {
        RoleKeys::new(listed, ids, 1).check(&self.message, &self.signatures)?;
        Ok(BelievedDenial(self.denial))
    }
}

impl BelievedDenial {
    /// Returns what it says.
    pub fn denial(&self) -> &Denial {
        &self.0
    }

    /// Takes a denial that was not signed yet for one that was: to see what it would do. A device never
    /// calls it.
    pub fn assumed(denial: Denial) -> Self {
        Self(denial)
    }
}
