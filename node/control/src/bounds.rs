//! How much may be submitted and kept, each with its reason.

/// Bytes of an order file, as devices read it.
pub const ORDER_BYTES_MAX: u64 = sutler_orders::bounds::ORDER_BYTES_MAX;

/// Bytes of a submission: a role of 4 MiB and an order file of 16, quoted within JSON, and some more of each.
pub const SUBMISSION_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Documents or files of one submission: more than any command makes.
pub const SUBMISSION_ITEMS_MAX: usize = 256;
