//! Why a connection is over, in our own words.
//!
//! What a peer sends along with a close is never passed on: it could be anything, and would end on
//! a terminal or in a log.

use quinn::ConnectionError;

use crate::identity::{HandshakeRefusal, handshake_refusal};

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// One side did not accept the other's certificate.
    #[error(transparent)]
    Identity(HandshakeRefusal),
    /// Nothing came for too long.
    #[error("nothing came from the peer for too long")]
    Silence,
    /// The peer's process is gone: its machine refuses what is sent to the port.
    #[error("nothing listens there any more")]
    Nobody,
    /// The peer closed it, with this code of [`sutler_protocol::close::CloseCode`].
    #[error("the peer closed the connection with code {code}")]
    ByPeer {
        /// The code.
        code: u64,
    },
    /// The peer does not know the connection: it was started anew.
    #[error("the peer was started anew")]
    Reset,
    /// This side closed it.
    #[error("this side closed the connection")]
    ByUs,
    /// QUIC itself failed, with this transport error code (RFC 9000, section 20.1).
    #[error("QUIC failed with code {code}")]
    Transport {
        /// The code.
        code: u64,
    },
    /// The two sides speak no version of QUIC in common, or have no connection ids left.
    #[error("the peer speaks another version of QUIC")]
    Version,
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        if let Some(refusal) = handshake_refusal(&error) {
            return Self::Identity(refusal);
        }
        match error {
            ConnectionError::TimedOut => Self::Silence,
            ConnectionError::ApplicationClosed(close) => {
                Self::ByPeer { code: close.error_code.into_inner() }
            }
            ConnectionError::Reset => Self::Reset,
            ConnectionError::LocallyClosed => Self::ByUs,
            ConnectionError::TransportError(error) => Self::Transport { code: error.code.into() },
            ConnectionError::ConnectionClosed(close) => {
                Self::Transport { code: close.error_code.into() }
            }
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => Self::Version,
        }
    }
}
