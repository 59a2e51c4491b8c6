//! What nodes and agents share as peers.
