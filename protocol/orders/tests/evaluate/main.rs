//! What a device answers: the rows and threats that name it, and what holds for all orders.

mod approvals;
mod properties;
mod silence;
mod stops;
mod time;
mod world;
