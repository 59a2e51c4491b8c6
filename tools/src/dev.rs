//! What `sutler dev` is made of: who takes part, where its content comes from, how it moves, what is ordered about it,
//! and the tables it ends with.

pub(crate) mod apt;
pub(crate) mod cast;
pub(crate) mod orders;
pub(crate) mod organisation;
pub(crate) mod play;
pub(crate) mod share;
pub(crate) mod summary;
