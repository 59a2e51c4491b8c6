//! Who is let in, and above all who is not: certificates forged in every way that came to mind.
//!
//! `verifier` asks the verifier alone, `handshake` shows that QUIC asks it too, `folder` is about the
//! files that keys lie in, `intermediate` about the authority at control. `forge` makes what no authority of ours would issue.

mod folder;
mod forge;
mod handshake;
mod intermediate;
mod verifier;
