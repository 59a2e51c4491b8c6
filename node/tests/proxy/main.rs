//! The caching proxy over real sockets: what clients get, what origins are asked, and what neither
//! can do to the other.

mod access;
mod caching;
mod client;
mod faults;
mod generations;
mod house;
mod origin;
mod smuggling;
