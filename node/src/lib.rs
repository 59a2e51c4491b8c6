//! The on-site manager: one store, one server, one gateway to the vendor.
//!
//! This crate puts the parts together and speaks to whoever runs them: by a config file, by a
//! local socket, by metrics and by reports. `swarm` moves the bytes and `cache` keeps them.
//!
//! | Question | Room |
//! |---|---|
//! | What may be set? | [`config`] |
//! | What lies where? | [`data`] |
//! | How does a command reach the process that owns a store? | [`local`] |
//! | What does a node consist of, and in which order does it stop? | [`node`] |
//! | What does it do with a store? | [`owner`] |
//! | What is missing, and where to get it? | [`fill`], `catalogue` |
//! | How do package managers as they are use it? | [`proxy`] |
//! | Whose orders does it pass on? | [`orders`] |
//! | What is measured, and who may read that? | [`metrics`], [`http`] |
//! | What expires? | `expiry` |
//! | Who looks after old bytes? | `adopt`, `scrub` |
//! | What do commands report? | [`report`], [`status`], [`failure`] |

mod adopt;
mod catalogue;
pub mod config;
pub mod data;
mod expiry;
pub mod failure;
pub mod fill;
pub mod http;
pub mod local;
pub mod metrics;
pub mod node;
pub mod orders;
pub mod owner;
pub mod proxy;
pub mod report;
mod scrub;
pub mod size;
pub mod status;
