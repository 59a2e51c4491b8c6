//! A node that fills from origins what its agents ask for, over real sockets on loopback.

mod adding;
mod kept;
mod known;
mod origin;
mod parts;
mod quarantine;
mod site;
mod vendor;
