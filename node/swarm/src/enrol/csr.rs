//! A signing request: a public key, and the proof that whoever sent it has the private one.
//!
//! Nothing else of it counts: names come from the token. A request that asks for more than a key's
//! certificate is refused rather than granted in part, because whoever wrote it expects what they
//! would not get.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PublicKeyData,
    SignatureAlgorithm,
};
use rustls::pki_types::CertificateSigningRequestDer;
use sutler_protocol::join::CSR_BYTES_MAX;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::identity::{KeyHash, hash};

/// A public key whose holder proved to have the private one.
#[derive(Debug)]
pub struct ProvenKey {
    request: CertificateSigningRequestParams,
    hash: KeyHash,
}

/// Why a signing request is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// No PKCS #10 in DER, too long, or with bytes behind it.
    #[error("it is no signing request")]
    Unparsable,
    /// It was not signed with its own key, or by an algorithm that is not accepted.
    #[error("it is not signed with the key that it is about, by Ed25519 or ECDSA P-256")]
    Signature,
    /// It asks for names, for uses, or to be an authority.
    #[error("it asks for more than a certificate of its key")]
    AsksForMore,
}

impl ProvenKey {
    /// Checks a signing request (PKCS #10, DER).
    ///
    /// # Errors
    ///
    /// [`CsrError`].
    pub fn of(csr: &[u8]) -> Result<Self, CsrError> {
        if csr.len() > CSR_BYTES_MAX {
            return Err(CsrError::Unparsable);
        }
        let Ok(([], parsed)) = X509CertificationRequest::from_der(csr) else {
            return Err(CsrError::Unparsable);
        };
        let about = &parsed.certification_request_info;
        if about.iter_attributes().next().is_some() || about.subject.iter().next().is_some() {
            return Err(CsrError::AsksForMore);
        }
        let hash = hash(about.subject_pki.raw);
        let csr = CertificateSigningRequestDer::from(csr);
        let request =
            CertificateSigningRequestParams::from_der(&csr).map_err(|_| CsrError::Signature)?;
        let algorithm: &SignatureAlgorithm = request.public_key.algorithm();
        let accepted = [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256];
        if !accepted.contains(&algorithm) {
            return Err(CsrError::Signature);
        }
        Ok(Self { request, hash })
    }

    /// Returns the hash of the key.
    pub const fn hash(&self) -> KeyHash {
        self.hash
    }
}

impl PublicKeyData for ProvenKey {
    fn der_bytes(&self) -> &[u8] {
        self.request.public_key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(&self.request.public_key)
    }
}

/// Returns a signing request for a key: it asks for nothing but that key's certificate.
///
/// # Errors
///
/// What rcgen says of the key.
pub fn request(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, PKCS_ECDSA_P256_SHA256,
        PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
    };

    use super::*;

    fn key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ED25519).expect("a key")
    }

    fn asking(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        params.serialize_request(&key()).expect("a request").der().to_vec()
    }

    #[test]
    fn a_request_that_asks_for_nothing_proves_its_key() {
        for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let proven = ProvenKey::of(&request(&key).expect("a request")).expect("proven");
            assert_eq!(proven.der_bytes(), key.der_bytes());
            assert_eq!(proven.hash(), hash(&key.subject_public_key_info()));
        }
    }

    // T20
    #[test]
    fn a_csr_with_more_names_is_refused() {
        let uri = "spiffe://acme/control/c1".try_into().expect("ASCII");
        let names = [
            asking(|params| params.subject_alt_names = vec![SanType::URI(uri)]),
            asking(|params| params.distinguished_name.push(DnType::CommonName, "control")),
        ];
        for csr in names {
            assert_eq!(ProvenKey::of(&csr).err(), Some(CsrError::AsksForMore));
        }
    }

    // T20
    #[test]
    fn a_csr_for_an_authority_is_refused() {
        let csr = asking(|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
        });
        assert_eq!(ProvenKey::of(&csr).err(), Some(CsrError::AsksForMore));
    }

    #[test]
    fn a_csr_without_its_key_is_refused() {
        let mut csr = request(&key()).expect("a request");
        let last = csr.len() - 1;
        csr[last] ^= 1;
        assert_eq!(ProvenKey::of(&csr).err(), Some(CsrError::Signature));
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        let csr = request(&other).expect("a request");
        assert_eq!(ProvenKey::of(&csr).err(), Some(CsrError::Signature));
    }

    #[test]
    fn what_is_no_csr_is_refused() {
        let whole = request(&key()).expect("a request");
        let trailing = [&whole[..], &[0]].concat();
        for csr in [&[][..], &whole[..whole.len() - 1], &trailing, &[0x30; 5_000]] {
            assert_eq!(ProvenKey::of(csr).err(), Some(CsrError::Unparsable));
        }
    }
}
