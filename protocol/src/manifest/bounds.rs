//! How much of a manifest may come, each with its reason.
//!
//! Whoever fetches a document stops reading at its bound: what an attacker never stops sending is
//! never held. A document that its signer made longer than this is refused, too.

/// Bytes of `timestamp.json`: one pin, and as many signatures as anybody needs.
pub const TIMESTAMP_BYTES_MAX: u64 = 16 * 1024;

/// Bytes of a `root.json`: five RSA keys for each role are 20 KiB.
pub const ROOT_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a `snapshot.json`: about 150 bytes a role, so some 7,000 roles.
pub const SNAPSHOT_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of `targets.json` and of each delegated role: some 10,000 target files.
pub const TARGETS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Values in one document, an object counting for four: more than 10,000 target files have with all that
/// is said of them. A value of two bytes takes 32 in memory, an object some 600; so the worst document
/// takes some 90 MiB, which a small device still has, and not a gigabyte.
pub const VALUES_MAX: usize = 500_000;

/// Roots that one refresh goes through: a yearly rotation for longer than anybody keeps a machine. The
/// next refresh goes on from there.
pub const ROOTS_MAX: u32 = 256;

/// Delegated roles that one search looks into: depth and breadth that no admin could follow any more.
pub const DELEGATIONS_MAX: usize = 32;

/// Delegated roles that are read at a time: some 80 years of months, or 300 scopes with all that belongs to
/// one. What comes behind is not read, and said to be so.
pub const SWEEP_ROLES_MAX: usize = 1_000;

/// Signatures of one document: each may cost a check, and no organisation has more signers.
pub const SIGNATURES_MAX: usize = 256;

/// Bits of a succinct delegation's bin number, as in the specification.
pub const BIN_BITS_MAX: u32 = 32;

/// How long before its expiry a timestamp may say that it was signed: it is signed anew every hour, and what
/// counts on one that says less often than every week is not Sutler's.
pub const ISSUED_BEFORE_EXPIRY_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
