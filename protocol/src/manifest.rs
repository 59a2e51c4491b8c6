//! The signed orders as a whole: TUF metadata of specification 1.0, and how a device comes to
//! believe it.
//!
//! A document arrives as bytes and is believed by type: [`Signed`] gives what is in it only to who
//! has the keys of its role. [`Trusted`] is what a device believes, [`Refresh`] brings it up to date
//! (section 5 of the specification), [`Search`] finds the target file that a path means (5.6.7) and
//! [`Check`] says whether bytes are that file. These are machines that are told and asked: whoever
//! drives them has the transport, the disk and the clock; [`drive`] does so for those that may block.
//!
//! Always true:
//! - what is kept is the bytes that came, never an encoding of ours;
//! - a document is measured, then hashed where its hash is known, then checked against its keys, and
//!   only then read;
//! - nothing here reads a clock: `now` is the time at which an update began, and stays it;
//! - a role that cannot be believed ends the searches that lead through it, and no other.
//!
//! | Question | Room |
//! |---|---|
//! | What bytes were signed? | [`json`] |
//! | Whose signature counts? | [`key`] |
//! | When is a document believed? | [`signed`] |
//! | What do the documents say? | [`document`], [`delegation`] |
//! | What is a role called, and its file? | [`name`] |
//! | Are these the bytes that were meant? | [`digest`] |
//! | What does a device believe? | [`trusted`] |
//! | What to ask for next? | [`refresh`], [`search`], [`sweep`] |
//! | How much may come? | [`bounds`] |
//! | How is a document made, and signed? | [`compose`], [`sign`] |

pub mod bounds;
pub mod compose;
pub mod delegation;
pub mod digest;
pub mod document;
pub mod drive;
pub mod json;
pub mod key;
pub mod name;
mod pattern;
pub mod refresh;
pub mod search;
pub mod sign;
pub mod signed;
pub mod sweep;
pub mod trusted;

pub use delegation::{Delegated, Delegation, Delegations, SuccinctRoles};
pub use digest::{Check, Digests, MismatchError};
pub use document::{Expires, Kind, Pin, Root, Snapshot, TargetFile, Targets, Timestamp, Version};
pub use key::{KeyId, PublicKey, RoleKeys};
pub use name::{RoleName, TargetPath};
pub use refresh::{Answer, Fetch, Keep, Refresh};
pub use search::{Found, Search, SearchStep};
pub use sign::SigningKey;
pub use signed::{Believed, ParseError, Signature, Signed, VerifyError};
pub use sweep::{Roles, Sweep, SweepStep, Unreadable};
pub use trusted::{Fault, Kept, LoadError, Refusal, Trusted};
