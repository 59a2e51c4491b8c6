//! How we know: what the end-to-end tests share.
//!
//! | Question | Room |
//! |---|---|
//! | May this test skip itself? | [`skips`] |
//! | Where is the program under test? | [`program`] |
//! | What does a user have and type? | [`machine`] |

pub mod machine;
pub mod program;
pub mod skips;

pub use program::sutler;
pub use skips::skip;
