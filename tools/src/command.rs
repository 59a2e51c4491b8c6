//! The commands, one file each: arguments, what is done, what is printed.

pub(crate) mod add;
pub(crate) mod apt_proxy;
pub(crate) mod dev;
pub(crate) mod device;
pub(crate) mod fetch;
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod node;
pub(crate) mod org;
pub(crate) mod runtime;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod token;
