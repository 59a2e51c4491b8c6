//! Where the bytes lie.
