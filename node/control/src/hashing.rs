//! The SHA-256 of a stream.

use aws_lc_rs::digest::{Context, SHA256};
use sutler_protocol::Sha256Digest;

/// A SHA-256 under way.
pub struct Sha256(Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// Starts one.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest.
    pub fn finish(self) -> Sha256Digest {
        let digest = self.0.finish();
        Sha256Digest::from_bytes(digest.as_ref().try_into().expect("a SHA-256 has 32 bytes"))
    }
}
