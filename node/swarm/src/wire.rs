//! Frames on a QUIC stream.

use quinn::{ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use sutler_protocol::close::CloseCode;
use sutler_protocol::frame::{self, Frame, FrameError, LENGTH_BYTES};

/// Why no frame was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The bytes are no frame: the other side broke the protocol.
    #[error("receive a frame")]
    Frame(#[source] FrameError),
    /// The stream or its connection ended first.
    #[error("receive a frame")]
    Stream(#[source] ReadExactError),
}

/// Sends one frame.
///
/// Not cancel-safe: a frame may be cut, and the stream is then of no further use.
pub(crate) async fn send(to: &mut SendStream, frame: &impl Frame) -> Result<(), WriteError> {
    to.write_all(&frame::encode(frame)).await
}

/// Receives one frame. Allocates no more than the frame's bound.
///
/// Not cancel-safe: bytes read so far are lost with the future.
pub(crate) async fn receive<F: Frame>(from: &mut RecvStream) -> Result<F, ReceiveError> {
    let mut field = [0; LENGTH_BYTES];
    from.read_exact(&mut field).await.map_err(ReceiveError::Stream)?;
    let mut bytes = vec![0; frame::length(field).map_err(ReceiveError::Frame)?];
    from.read_exact(&mut bytes).await.map_err(ReceiveError::Stream)?;
    frame::decode(&bytes).map_err(ReceiveError::Frame)
}

/// Returns a close code as quinn writes it.
pub(crate) const fn code(code: CloseCode) -> VarInt {
    VarInt::from_u32(code.code())
}
