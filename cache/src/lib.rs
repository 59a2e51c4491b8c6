//! Where the bytes lie: the store of contents on a machine's disk.
//!
//! Everything here blocks, knows no network and no async; `swarm` calls it from threads that may
//! wait. The plain files are the truth: whatever else is kept can be thrown away and rebuilt from
//! them. `FORMAT.md` beside this crate gives every file byte by byte.
//!
//! | Question | Room |
//! |---|---|
//! | What may be asked of a disk? | [`backend`] |
//! | What goes when room is needed? | [`eviction`] |
//! | Which content is meant? | [`index`] |
//! | How much may lie here? | [`quota`] |

pub mod backend;
pub mod eviction;
pub mod index;
pub mod quota;
