//! The one command: sutler.

fn main() {}
