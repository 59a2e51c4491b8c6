//! A vendor as clients meet it: who signs, what the archive holds, and the server that hands it out.
//!
//! | Question | Room |
//! |---|---|
//! | Whose key signs the indexes? | [`signer`] |
//! | Which packages, and what do the indexes say of them? | [`archive`], [`rpm_repository`] |
//! | Who serves them, how badly, and what was asked for? | [`origin`] |

pub mod archive;
pub mod origin;
pub mod rpm_repository;
pub mod signer;

pub use archive::{Archive, Publication};
pub use origin::{Conduct, Origin};
pub use rpm_repository::{IndexNames, RpmRepository};
pub use signer::Signer;
