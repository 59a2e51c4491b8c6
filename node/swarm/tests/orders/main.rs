//! Orders from machine to machine: followed, passed on, denied and reported, over real sockets on
//! loopback.

mod follow;
mod organisation;
mod wrong;
