//! The daemon: the repository kept fresh and served, submissions taken, machines let in, reports kept.
//!
//! It is trusted by nobody. What is handed in is published if the keys that delegate vouch for it; what it
//! signs by itself can stop things and start none. Everything that is published goes through one desk,
//! which writes it down first; the orders that it serves are what it believes of its own repository, by the
//! rules by which every device does.
//!
//! | Question | Room |
//! |---|---|
//! | What may be set? | [`config`] |
//! | Who publishes? | [`desk`] |
//! | What do strangers see? | [`http`] |
//! | What do devices say of themselves? | [`reports`] |

pub mod config;
pub mod desk;
pub mod http;
