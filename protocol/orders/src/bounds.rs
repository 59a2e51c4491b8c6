//! How much an order file may hold, each with its reason.
//!
//! Orders are signed, and yet bounded: a device reads them all, and a signer who errs, or whose key
//! was stolen, is not to take its memory or its day.

/// Bytes of one order file. 10,000 items with their reasons fit, and a small device holds it twice.
pub const ORDER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of a free-standing denial: it is passed on from peer to peer before anybody wants it.
pub const DENIAL_BYTES_MAX: u64 = 64 * 1024;

/// Items of one order file: a year of every patch that an organisation of any size decides on.
pub const ITEMS_MAX: usize = 10_000;

/// Contents that one denial, halt or resume names: more than one vendor withdraws at once.
pub const CONTENTS_MAX: usize = 1_000;

/// Devices, sites or networks that one item names. Beyond it, a ring or a rule says it better.
pub const NAMED_MAX: usize = 10_000;

/// Origins, prerequisites, superseded contents or CVE ids of one content.
pub const LINKS_MAX: usize = 256;

/// Windows of one schedule: one for every day of a month.
pub const WINDOWS_MAX: usize = 31;

/// Bytes of a line: a title, a reason, a person's name. People read it in a table.
pub const LINE_BYTES_MAX: usize = 500;

/// Bytes of a URL, as in the frames of the wire.
pub const URL_BYTES_MAX: usize = 2_048;

/// Arguments of a hook, each of at most [`LINE_BYTES_MAX`]: a command that wants more reads a file.
pub const ARGUMENTS_MAX: usize = 32;

/// Bytes of a rule. Its cost grows with its length, and what is longer than this nobody reviews.
pub const RULE_BYTES_MAX: usize = 1_024;

/// How deep a rule may be nested: the parser and the evaluation go down the stack by it.
pub const RULE_DEPTH_MAX: u16 = 24;

/// Tags of one device.
pub const TAGS_MAX: usize = 64;

/// Bytes of a recurrence rule: every part once, with every day and month named, is shorter.
pub const RECURRENCE_BYTES_MAX: usize = 500;

/// Hours that soaking or a veto may take: half a year, after which nobody remembers what for.
pub const HOURS_MAX: u32 = 4_380;

/// Minutes of a window, and of the runs in it: a week.
pub const WINDOW_MINUTES_MAX: u32 = 7 * 24 * 60;

/// Days after Patch Tuesday: the next one is at least 28 days away.
pub const PATCH_TUESDAY_DAYS_MAX: u8 = 27;

/// Hours that an online halt holds without an approver: long enough for a weekend, too short for a
/// stolen key to stop an organisation (T30).
pub const HALT_HOURS: i64 = 72;

/// Seconds that a device's clock may be behind the newest statement: two honest clocks differ by this much.
pub const CLOCK_BEHIND_SECONDS_MAX: i64 = 300;

/// Seconds after a window's begin within which it starts where the start is enforced (R80).
pub const ENFORCED_START_SECONDS: i64 = 60;
