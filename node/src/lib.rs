//! The on-site manager: one store, one server, one gateway to the vendor.
//!
//! This crate puts the parts together and speaks to whoever runs them: by a config file, by a
//! local socket, by metrics and by reports. `swarm` moves the bytes and `cache` keeps them.
//!
//! | Question | Room |
//! |---|---|
//! | What may be set? | [`config`] |
//! | What lies where? | [`data`] |
//! | How does what is missing come from its origin? | [`fill`] |
//! | What do commands report? | [`report`], [`status`], [`failure`] |

pub mod config;
pub mod data;
pub mod failure;
pub mod fill;
pub mod report;
pub mod size;
pub mod status;
