//! What nodes and agents share as peers.
//!
//! - [`identity`]: who a peer is, and how that is proved

pub mod identity;
