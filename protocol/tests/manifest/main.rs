//! The manifest: what a device believes of what a repository says, honest or not.

mod delegations;
mod documents;
mod freshness;
mod properties;
mod repository;
mod rollback;
mod rotation;
mod signatures;
mod sweep;
mod writing;
