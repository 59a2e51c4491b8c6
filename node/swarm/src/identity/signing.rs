//! Statements that a member signs with the key of its certificate: whoever has the organisation's roots
//! can check them, long after the connection that carried them is gone.
//!
//! What is signed begins with a purpose, so that no statement is taken for one of another kind, and none for
//! a part of a handshake.

use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

use super::load::Identity;
use super::name::PeerName;
use super::verifier::{ALGORITHMS, PeerVerifier, VerifyError};

/// A signature, and the certificates that say whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// The signer's certificate, then any intermediates, in DER.
    pub chain: Vec<Vec<u8>>,
    /// The signature, as the certificate's key makes it.
    pub signature: Vec<u8>,
}

/// Why a member cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// Its key is none that statements are signed with.
    #[error("the key of the identity signs with no algorithm that is accepted")]
    Algorithm,
    /// The key refused.
    #[error("sign with the key of the identity")]
    Key(#[source] rustls::Error),
}

/// Why a statement is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// There is no certificate beside it.
    #[error("there is no certificate beside the signature")]
    NoCertificate,
    /// Its signer is not who is expected.
    #[error("check the signer's certificate")]
    Certificate(#[from] VerifyError),
    /// The certificate's key has not signed this.
    #[error("the key of {signer} did not sign this")]
    Signature {
        /// Whom the certificate names.
        signer: PeerName,
    },
}

impl Identity {
    /// Signs `message` for `purpose` with the key that handshakes use now.
    ///
    /// # Errors
    ///
    /// [`SignError`].
    pub fn attest(&self, purpose: &str, message: &[u8]) -> Result<Attested, SignError> {
        // One look, so that the chain and the key are of the same renewal.
        let shown = self.shown().now();
        let schemes = [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];
        let signer = shown.key.choose_scheme(&schemes).ok_or(SignError::Algorithm)?;
        let signature = signer.sign(&framed(purpose, message)).map_err(SignError::Key)?;
        let chain = shown.cert.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(Attested { chain, signature })
    }
}

impl PeerVerifier {
    /// Checks who signed `message` for `purpose`, as of `now`, and returns whom the certificate names.
    ///
    /// # Errors
    ///
    /// [`AttestError`].
    pub fn verify_attested(
        &self,
        purpose: &str,
        message: &[u8],
        attested: &Attested,
        now: UnixTime,
    ) -> Result<PeerName, AttestError> {
        let chain: Vec<CertificateDer<'_>> =
            attested.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let (leaf, intermediates) = chain.split_first().ok_or(AttestError::NoCertificate)?;
        let signer = self.verify(leaf, intermediates, now)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| VerifyError::Unparsable)?;
        let message = framed(purpose, message);
        let has_signed = ALGORITHMS.all.iter().any(|algorithm| {
            leaf.verify_signature(*algorithm, &message, &attested.signature).is_ok()
        });
        if has_signed { Ok(signer) } else { Err(AttestError::Signature { signer }) }
    }
}

/// Returns what is signed: the purpose, an end that no purpose has, the message.
fn framed(purpose: &str, message: &[u8]) -> Vec<u8> {
    [b"sutler ", purpose.as_bytes(), b"\0", message].concat()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::authority::{Authority, LEAF_LIFETIME, Validity};
    use super::super::name::{Member, Role};
    use super::super::verifier::Expect;
    use super::*;

    const PURPOSE: &str = "report 1";

    fn authority(dir: &Path, name: &str) -> Authority {
        Authority::create(&dir.join(name), "acme".parse().unwrap()).unwrap()
    }

    fn identity(authority: &Authority, dir: &Path, id: &str) -> Identity {
        let member = Member::Agent { site: "here".parse().unwrap(), id: id.parse().unwrap() };
        let folder = dir.join(id);
        authority.issue(member, Validity::from_now(LEAF_LIFETIME), &folder).unwrap();
        Identity::load(&folder).unwrap()
    }

    fn verifier(identity: &Identity) -> PeerVerifier {
        let expect = Expect::new("acme".parse().unwrap(), [Role::Agent]);
        PeerVerifier::new(identity.roots(), expect).unwrap()
    }

    // T26
    #[test]
    fn only_what_the_certificates_key_signed_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority(dir.path(), "ca");
        let (anna, ben) =
            (identity(&authority, dir.path(), "anna"), identity(&authority, dir.path(), "ben"));
        let verifier = verifier(&anna);
        let now = UnixTime::now();
        let attested = anna.attest(PURPOSE, b"said").unwrap();
        let signer = verifier.verify_attested(PURPOSE, b"said", &attested, now).unwrap();
        assert_eq!(signer, *anna.name());

        let is_refused = |purpose, message: &[u8], attested: &Attested| {
            let error = verifier.verify_attested(purpose, message, attested, now).unwrap_err();
            assert!(matches!(error, AttestError::Signature { .. }), "{error:?}");
        };
        is_refused(PURPOSE, b"other", &attested);
        is_refused("report 2", b"said", &attested);
        // Another device's certificate beside it.
        let chain = ben.attest(PURPOSE, b"said").unwrap().chain;
        is_refused(PURPOSE, b"said", &Attested { chain, ..attested.clone() });
        let unsigned = Attested { signature: Vec::new(), ..attested.clone() };
        is_refused(PURPOSE, b"said", &unsigned);
        let bare = Attested { chain: Vec::new(), ..attested };
        let error = verifier.verify_attested(PURPOSE, b"said", &bare, now).unwrap_err();
        assert_eq!(error, AttestError::NoCertificate);
    }

    // T26
    #[test]
    fn a_stranger_of_the_same_name_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let ours = identity(&authority(dir.path(), "ca"), dir.path(), "anna");
        let theirs = dir.path().join("elsewhere");
        std::fs::create_dir(&theirs).unwrap();
        let stranger = identity(&authority(&theirs, "ca"), &theirs, "anna");
        let attested = stranger.attest(PURPOSE, b"said").unwrap();
        let verified =
            verifier(&ours).verify_attested(PURPOSE, b"said", &attested, UnixTime::now());
        assert!(matches!(verified, Err(AttestError::Certificate(_))), "{verified:?}");
        let later = UnixTime::since_unix_epoch(
            LEAF_LIFETIME + std::time::Duration::from_secs(UnixTime::now().as_secs() + 86_400),
        );
        let own = ours.attest(PURPOSE, b"said").unwrap();
        let verified = verifier(&ours).verify_attested(PURPOSE, b"said", &own, later);
        assert!(
            matches!(verified, Err(AttestError::Certificate(VerifyError::Expired { .. }))),
            "{verified:?}"
        );
    }
}
