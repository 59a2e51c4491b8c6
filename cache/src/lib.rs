//! Where the bytes lie: the store of contents on a machine's disk.
//!
//! Everything here blocks, knows no network and no async; `swarm` calls it from threads that may
//! wait. The plain files are the truth: whatever else is kept can be thrown away and rebuilt from
//! them. `FORMAT.md` beside this crate gives every file byte by byte.
//!
//! | Question | Room |
//! |---|---|
//! | Which contents are here? | [`store`] |
//! | What of one is had, and is it right? | [`content`] |
//! | What is known of one beside its bytes? | [`about`] |
//! | How is that written down? | [`record`] |
//! | How does a whole one come in? | [`import`] |
//! | How does one go out? | [`export`] |
//! | Where are bytes that nothing vouches for? | [`quarantine`] |
//! | Is it all still right? | [`scrub`] |
//! | How does all of it move elsewhere? | [`relocate`] |
//! | What may be asked of a disk? | [`backend`] |
//! | Which content is meant? | [`index`] |
//! | What does a device believe of its manifest? | [`trust`] |
//! | What goes when room is needed? | [`eviction`] |
//! | How much may lie here? | [`quota`] |

pub mod about;
pub mod backend;
pub mod content;
pub mod eviction;
pub mod export;
mod hashing;
pub mod import;
pub mod index;
mod layout;
pub mod quarantine;
pub mod quota;
pub mod record;
pub mod relocate;
pub mod scrub;
pub mod store;
pub mod trust;

pub use about::{About, Entry, Offer, Origin};
pub use content::{CheckpointError, CommitError, Content, ReadError, Single};
pub use export::{ExportError, ExportHow};
pub use import::{ImportError, ImportFrom, ImportHow, Imported, Novelty};
pub use quarantine::{PartReader, Place, PromoteError, Quarantine, QuarantineError, QuarantineKey};
pub use store::{
    Collected, CompleteError, CreateError, EvictError, OpenError, Store, StoreOptions,
};
