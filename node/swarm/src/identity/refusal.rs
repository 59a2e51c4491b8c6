//! Why a handshake failed, in words that a user can act on.
//!
//! TLS says it as an alert's number, and the two sides see it at different moments: a client often
//! has its connection already when the server turns its certificate down. [`handshake_refusal`]
//! reads either from the error that the connection ended with.
//!
//! The words that a peer sends along are never passed on: whoever answers at an address could put
//! anything in them, and they would end on a terminal.

use std::fmt;

use quinn::{ConnectionError, TransportErrorCode};

/// Who turned whom down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeRefusal {
    /// The peer did not accept what we showed. The remedy is on this side, or is to ask elsewhere.
    #[error("the peer turned us down: {0}")]
    ByPeer(RefusalCause),
    /// We did not accept what the peer showed.
    #[error("we turned the peer down: {cause} ({words})")]
    ByUs {
        /// The kind of reason.
        cause: RefusalCause,
        /// The whole reason, as this side found it.
        words: String,
    },
}

/// What was wrong with what one side showed the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCause {
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate comes from another authority: it belongs to another organisation.
    ForeignAuthority,
    /// Its certificate expired, or has not begun. One of the two clocks may be wrong.
    Expired,
    /// Its certificate was revoked by the organisation's admins.
    Revoked,
    /// A signature was wrong: a forged certificate, or one without its key.
    BadSignature,
    /// Its certificate is in order, and yet not of an organisation, role or form that is let in.
    NotLetIn,
    /// It does not speak this protocol.
    Protocol,
    /// Something else, by its number in the list of TLS alerts.
    Other(u8),
}

/// Returns who turned whom down and why, or `None` if the connection ended for another reason than
/// its handshake.
pub fn handshake_refusal(error: &ConnectionError) -> Option<HandshakeRefusal> {
    match error {
        ConnectionError::TransportError(error) => {
            let cause = cause_of(error.code)?;
            Some(HandshakeRefusal::ByUs { cause, words: error.reason.clone() })
        }
        ConnectionError::ConnectionClosed(close) => {
            cause_of(close.error_code).map(HandshakeRefusal::ByPeer)
        }
        _ => None,
    }
}

/// The alerts are those of RFC 8446, section 6, which QUIC carries as 0x100 and up (RFC 9001, 4.8).
fn cause_of(code: TransportErrorCode) -> Option<RefusalCause> {
    let alert = u8::try_from(u64::from(code).checked_sub(0x100)?).ok()?;
    Some(match alert {
        44 => RefusalCause::Revoked,
        45 => RefusalCause::Expired,
        46 => RefusalCause::NotLetIn,
        48 => RefusalCause::ForeignAuthority,
        51 => RefusalCause::BadSignature,
        116 => RefusalCause::NoCertificate,
        120 => RefusalCause::Protocol,
        other => RefusalCause::Other(other),
    })
}

impl fmt::Display for RefusalCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("no certificate was shown"),
            Self::ForeignAuthority => f.write_str("the certificate is of another organisation"),
            Self::Expired => f.write_str("the certificate is not valid at this time"),
            Self::Revoked => f.write_str("the certificate was revoked"),
            Self::BadSignature => f.write_str("a signature is wrong"),
            Self::NotLetIn => f.write_str("the certificate's name or use is not let in"),
            Self::Protocol => f.write_str("the protocol is another"),
            Self::Other(alert) => write!(f, "TLS alert {alert}"),
        }
    }
}
