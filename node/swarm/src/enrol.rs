//! How a machine becomes a member, and stays one: tokens, signing requests, and the port at which
//! control answers strangers.
//!
//! The port is control's alone and speaks `sutler-join/1`, whose frames are
//! [`sutler_protocol::join`]'s. It is the one place where nobody needs a certificate: the joiner
//! believes control by the hash of the root in its token, control believes the joiner by the token.
//!
//! | Question | Room |
//! |---|---|
//! | What does an admin hand over? | [`token`] |
//! | What does a joiner ask for? | [`csr`] |
//! | How do both believe each other? | [`tls`] |
//! | What does control's port answer, and how much? | [`serve`] |
//! | How does a machine ask? | [`client`] |
//! | What does it keep on its disk? | [`device`] |
//! | How does it come by its next certificate? | [`renew`] |
//! | How do those ask who reach only their node? | [`relay`] |

pub mod client;
pub mod csr;
pub mod device;
pub mod relay;
pub mod renew;
pub mod serve;
pub mod tls;
pub mod token;

pub use serve::{EnrolLimits, Enrolment, Granted, JoinOutcome, Registrar};
pub use tls::GRACE;
pub use token::{Grant, JoinRole, Token, TokenKeys};
