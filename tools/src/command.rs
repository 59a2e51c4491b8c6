//! The commands, one file each: arguments, what is done, what is printed.

pub(crate) mod org;
