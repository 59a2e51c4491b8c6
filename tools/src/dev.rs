//! What `sutler dev` is made of: who takes part, where its content
//! comes from, how it moves, and the table it ends with.

pub(crate) mod apt;
pub(crate) mod cast;
pub(crate) mod play;
pub(crate) mod share;
pub(crate) mod summary;
