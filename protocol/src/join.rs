//! How a machine becomes a member: what it says to control on a port of its own, and the answers.
//!
//! A joiner has no certificate yet, so that these frames are the only ones that a stranger may send,
//! on a connection whose protocol is [`ALPN`]. One connection carries one request. `SPEC.md` has the
//! bytes.
//!
//! Invariant: a request that names no token says nothing that changes anything; the certificate's
//! names come from the token alone.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::frame::Frame;

/// The application protocol of the port.
pub const ALPN: &[u8] = b"sutler-join/1";

/// Bytes of a token's statement, at most: eight addresses and 32 networks fit many times.
pub const STATEMENT_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a token's signature, at most: ECDSA's are the longest, with 72.
pub const SIGNATURE_BYTES_MAX: usize = 128;

/// Bytes of a token's secret: as many bits as AES-128 has, so that nobody finds one by asking.
pub const SECRET_BYTES: usize = 16;

/// Bytes of a signing request, at most: one that asks for nothing has fewer than 300.
pub const CSR_BYTES_MAX: usize = 4 * 1024;

/// Bytes of `root.json`, at most, as for any root of the manifest.
pub const ROOT_BYTES_MAX: usize = 64 * 1024;

/// Certificates in an answer, at most, each of them below [`CERTIFICATE_BYTES_MAX`].
pub const CERTIFICATES_MAX: usize = 8;

/// Bytes of a certificate, at most: the longest of ours have fewer than 1 KiB.
pub const CERTIFICATE_BYTES_MAX: usize = 4 * 1024;

/// What a machine asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRequest {
    /// A first certificate, by a token. Answered by [`JoinAnswer::Joined`], [`JoinAnswer::Held`] or
    /// [`JoinAnswer::Refused`].
    Join(Join),
    /// A new certificate in the place of the one that the connection was made with. Answered by
    /// [`JoinAnswer::Renewed`] or [`JoinAnswer::Refused`].
    Renew {
        /// The signing request (PKCS #10, DER): a public key and nothing else.
        csr: Vec<u8>,
    },
}

/// The body of [`JoinRequest::Join`]. It prints without its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// What the token grants, exactly as it was signed.
    pub statement: Vec<u8>,
    /// An admin's signature on it.
    pub signature: Vec<u8>,
    /// What only holders of the token know.
    pub secret: [u8; SECRET_BYTES],
    /// The signing request (PKCS #10, DER): a public key and nothing else.
    pub csr: Vec<u8>,
    /// Whether the record of a machine that has the token's name already may retire for this one.
    pub replace: bool,
}

/// What control answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// The machine is a member. `root.json` follows as raw bytes.
    Joined {
        /// Its certificate, then any intermediates (DER).
        chain: Vec<Vec<u8>>,
        /// The roots of the organisation, the token's first (DER).
        roots: Vec<Vec<u8>>,
        /// Raw bytes that follow.
        root_bytes: u32,
    },
    /// The member has a new certificate.
    Renewed {
        /// Its certificate, then any intermediates (DER).
        chain: Vec<Vec<u8>>,
    },
    /// Somebody has to accept the machine first. Asking again with the same key is harmless.
    Held {
        /// What the machine will be called.
        id: String,
        /// When to ask again, in milliseconds.
        retry_ms: u32,
    },
    /// Nothing was granted.
    Refused(JoinRefusal),
}

/// Why nothing was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// Not signed by an admin of this organisation, or the secret is another. Which of the two is
    /// not said.
    #[error("the token is not one of this organisation's")]
    Token,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// As many machines as it is good for have joined by it.
    #[error("the token has been used up")]
    UsedUp,
    /// It is good for other networks only.
    #[error("the token is not for the network that the request came from")]
    Network,
    /// The signing request is no such thing, or asks for more than a key's certificate.
    #[error("the signing request cannot be granted: {detail}")]
    Csr {
        /// What an operator reads; not interpreted.
        detail: String,
    },
    /// Another machine has the name that the token gives.
    #[error("another machine has this name; joining with --replace retires it")]
    Taken,
    /// The machine was retired, or its request was turned down.
    #[error("this machine was retired, or turned down")]
    Retired,
    /// The member was revoked by the admins.
    #[error("this member was revoked")]
    Revoked,
    /// A renewal without a member's certificate.
    #[error("a certificate is needed here")]
    NoCertificate,
    /// Control has not the `root.json` that the token names.
    #[error("control does not have the root.json that the token names")]
    NoRoot,
    /// Too many ask at once.
    #[error("busy, retry after {retry_ms} ms")]
    Busy {
        /// When to try again, in milliseconds.
        retry_ms: u32,
    },
    /// Control's own trouble: its disk, or its authority.
    #[error("control failed: {detail}")]
    Failed {
        /// What an operator reads; not interpreted.
        detail: String,
    },
}

impl Frame for JoinRequest {}
impl Frame for JoinAnswer {}

impl Join {
    /// Returns whether each part is within its bound.
    pub fn is_bounded(&self) -> bool {
        self.statement.len() <= STATEMENT_BYTES_MAX
            && self.signature.len() <= SIGNATURE_BYTES_MAX
            && self.csr.len() <= CSR_BYTES_MAX
    }
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("statement", &String::from_utf8_lossy(&self.statement))
            .field("replace", &self.replace)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, FRAME_BYTES_MAX, LENGTH_BYTES};

    fn join() -> Join {
        Join {
            statement: b"{}".to_vec(),
            signature: vec![1; 64],
            secret: *b"0123456789abcdef",
            csr: vec![2; 200],
            replace: false,
        }
    }

    // T28
    #[test]
    fn a_request_prints_without_its_secret() {
        let printed = format!("{:?}", JoinRequest::Join(join()));
        assert!(printed.contains("statement") && !printed.contains("48, 49"), "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
    }

    #[test]
    fn the_largest_honest_frames_fit() {
        let most = Join {
            statement: vec![0; STATEMENT_BYTES_MAX],
            signature: vec![0; SIGNATURE_BYTES_MAX],
            csr: vec![0; CSR_BYTES_MAX],
            ..join()
        };
        assert!(most.is_bounded());
        assert!(frame::encode(&JoinRequest::Join(most.clone())).len() <= FRAME_BYTES_MAX);
        assert!(!Join { csr: vec![0; CSR_BYTES_MAX + 1], ..most }.is_bounded());
        let certificate = vec![0; CERTIFICATE_BYTES_MAX];
        let chain = vec![certificate; CERTIFICATES_MAX - 1];
        let answer = JoinAnswer::Joined { roots: chain.clone(), chain, root_bytes: u32::MAX };
        assert!(frame::encode(&answer).len() <= FRAME_BYTES_MAX + LENGTH_BYTES);
    }
}
