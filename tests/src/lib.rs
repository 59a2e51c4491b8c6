//! How we know: what the end-to-end tests share.
//!
//! | Question | Room |
//! |---|---|
//! | May this test skip itself? | [`skips`] |
//! | Where is the program under test? | [`program`] |
//! | What does a user have and type? | [`machine`] |
//! | What of a command that is killed? | [`running`] |
//! | What of one at a terminal? | [`terminal`] |
//! | What if everything is killed, again and again? | [`torture`] |
//! | What chance decides? | [`random`] |
//! | What if a node is asked by HTTP? | [`proxy_node`] |
//! | What does a client without Sutler do? | [`apt_root`], [`dnf_root`] |
//! | What does a vendor sign, hold and serve? | [`vendor`] |

pub mod apt_root;
pub mod dnf_root;
pub mod machine;
pub mod program;
pub mod proxy_node;
pub mod random;
pub mod running;
pub mod skips;
pub mod terminal;
pub mod torture;
pub mod vendor;

pub use program::sutler;
pub use skips::skip;
