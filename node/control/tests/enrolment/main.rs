//! Machines that join over real sockets, and above all those that should not: attacks on tokens,
//! signing requests, renewal and the port itself.
//!
//! `world` is an organisation with its control; `raw` is a stranger that says what a test makes it say.

mod attacks;
mod door;
mod joining;
mod raw;
mod renewal;
mod world;
