//! What a vendor's indexes say, and who vouches for it.
//!
//! A vendor signs one file; that file names the indexes by digest, and the indexes name the
//! packages by digest. This crate walks that chain over bytes that somebody else fetched, and
//! believes nothing that is not on it: a [`Release`] comes only out of a verification, and
//! [`Packages`] only out of bytes whose digest a `Release` gave.
//!
//! It has no network, no store and no async; `now` is an argument. It starts two programs, `gpgv`
//! to check signatures and `apt-get` to ask the machine for its sources, and both are bounded.
//! Nothing here panics on what a vendor, or somebody who poses as one, has written.
//!
//! | Question | Room |
//! |---|---|
//! | Is it signed, by whom, and still valid? | [`release`] |
//! | Whose signature counts? | [`keyring`], [`gpgv`] |
//! | What was signed of a clear-signed file? | [`clear_signed`] |
//! | Which file of the archive has which digest? | [`packages`] |
//! | How is an index packed, and how long may it get? | [`compression`] |
//! | What are the fields of a stanza, and of a record in XML? | [`deb822`], [`xml`] |
//! | Which sources has this machine's own apt? | [`apt`] |
//! | Why was something refused, in one word? | [`reason`] |

pub mod apt;
mod armor;
pub mod clear_signed;
pub mod compression;
pub mod deb822;
pub mod gpgv;
pub mod index;
pub mod keyring;
pub mod packages;
mod path;
mod program;
pub mod reason;
pub mod release;
pub mod xml;

pub use compression::Compression;
pub use index::{Index, IndexFile, Table};
pub use keyring::Keyring;
pub use packages::Packages;
pub use reason::Reason;
pub use release::Release;
