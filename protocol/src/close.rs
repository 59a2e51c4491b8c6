//! Why a stream or a connection is ended, as the number that goes on the wire.
//!
//! A refusal ([`crate::frame::Refusal`]) is an honest answer. A close code says that the other side
//! broke the protocol, or that this side can go no further.

/// The reason in QUIC's application error code, for a reset stream or a closed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing is wrong; the work is done or no longer wanted.
    Done = 0,
    /// A frame was too long, of another version, or made no sense.
    BadFrame = 1,
    /// Bytes came that nobody had asked for, or too many of them.
    TooMuch = 2,
    /// The request was not completed in time.
    TooSlow = 3,
    /// Two pieces from this peer did not verify.
    BadBytes = 4,
    /// A chunk was found damaged while it was being sent; what came before is good.
    Damaged = 5,
    /// This side shuts down.
    Draining = 6,
    /// More connections than this side keeps.
    TooMany = 7,
    /// The peer was revoked while it was connected.
    Revoked = 8,
}

impl CloseCode {
    /// Returns the number on the wire.
    pub const fn code(self) -> u32 {
        self as u32
    }
}
