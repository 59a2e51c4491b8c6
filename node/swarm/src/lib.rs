//! What nodes and agents share as peers.
//!
//! - [`identity`]: who a peer is, and how that is proved
//! - [`origin`]: the vendor's servers and their mirrors, over HTTP

pub mod identity;
pub mod origin;
