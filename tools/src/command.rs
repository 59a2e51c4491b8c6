//! The commands, one file each: arguments, what is done, what is printed.

pub(crate) mod add;
pub(crate) mod admin;
pub(crate) mod apt_proxy;
pub(crate) mod audit;
pub(crate) mod control;
pub(crate) mod decide;
pub(crate) mod dev;
pub(crate) mod device;
pub(crate) mod fetch;
pub(crate) mod found;
pub(crate) mod halt;
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod key;
pub(crate) mod manifest;
pub(crate) mod node;
pub(crate) mod order;
pub(crate) mod org;
pub(crate) mod publish;
pub(crate) mod revoke;
pub(crate) mod runtime;
pub(crate) mod set;
pub(crate) mod site;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod token;
