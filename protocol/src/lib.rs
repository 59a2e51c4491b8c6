//! What the bytes mean: content and its hash list, the frames on the wire, and the two halves of
//! a transfer as state machines.
//!
//! This crate is pure. It opens no socket and no file, reads no clock and draws no random number:
//! `now` and seeds are arguments. `cache` decides where bytes lie and `swarm` moves them; both ask
//! here whether the bytes are the right ones. `SPEC.md` beside this crate gives every format byte
//! by byte.
//!
//! | Question | Room |
//! |---|---|
//! | What is a content called? | [`content`] |
//! | Where do its chunks begin and end? | [`geometry`] |
//! | Which chunks? | [`ranges`] |
//! | Are these the right bytes? | [`hash_list`] |
//! | What do peers say to each other? | [`frame`] |
//! | What does a machine say that becomes a member? | [`join`] |
//! | Whom to ask for what, and when to give up? | [`fetch`] |
//! | What to send next? | [`serve`] |
//! | Why was a stream or connection ended? | [`close`] |
//! | Which orders are believed? | [`manifest`] |
//! | What is a member of an organisation called? | [`name`] |
//! | How soon does something expire? | [`expiry`] |

pub mod close;
pub mod content;
pub mod expiry;
pub mod fetch;
pub mod frame;
pub mod geometry;
pub mod hash_list;
pub mod join;
pub mod manifest;
pub mod name;
pub mod ranges;
pub mod serve;

pub use content::{ContentId, ContentName, Sha256Digest};
pub use geometry::{ChunkIndex, Geometry};
pub use hash_list::{HashList, HashListBuilder};
pub use ranges::{ChunkRange, ChunkRanges};
