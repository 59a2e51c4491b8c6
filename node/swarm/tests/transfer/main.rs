//! Transfers between machines, over real sockets on loopback: between honest ones, from peers that
//! lie, to peers that ask for too much, and through whatever may befall a line or a disk.
//!
//! `machines` sets honest ones up, `raw` is a peer that says what a test makes it say.

mod askers;
mod floods;
mod honest;
mod interruptions;
mod liars;
mod machines;
mod orders;
mod raw;
mod relay;
mod revoked;
mod stores;
