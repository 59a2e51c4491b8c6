//! The device's daemon: it judges the orders by itself, stages what they ask for, hands it to the operator's
//! commands in its window, looks whether it is there, and reports.
//!
//! It has no store and no socket of its own: whoever composes it gives it what fetches and what it knows of
//! the orders.
//!
//! | Question | Room |
//! |---|---|
//! | What may be set? | [`config`] |
//! | What does the device know of itself? | [`inventory`] |
//! | Which orders does it believe? | [`believed`] |
//! | What is to be done next? | [`plan`] |
//! | What is remembered over a restart? | [`state`] |
//! | What is run for a content, and how? | [`command`], [`run`] |
//! | What does it ask other programs of itself? | [`senses`], [`versions`] |

pub mod agent;
pub mod believed;
pub mod clock;
pub mod command;
pub mod config;
pub mod core;
mod durable;
pub mod inventory;
pub mod plan;
mod power;
mod reporting;
pub mod run;
pub mod senses;
pub mod state;
pub mod versions;
pub mod view;

/// Returns an error and its causes in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
