//! What the orders say, and what a device answers: the manifest's target files, rules over a device's
//! facts, windows, and their evaluation.
//!
//! This crate is pure like `protocol`, which it stands on: no socket, no file, no clock, and time zones come from the
//! caller. TUF decides which files are believed; here is what is in them. Admins' tools write with the
//! types that agents read, so that what is shown before a signature is what a device will see. Every
//! field is in section 8 of `SPEC.md`.
//!
//! | Question | Room |
//! |---|---|
//! | What has every order file? | [`order`], [`text`] |
//! | Whose keys decide for a scope? | [`mandate`] |
//! | What is a content? | [`content`] |
//! | What did approvers decide? | [`approvals`], [`denial`] |
//! | What does silence approve? | [`standing`] |
//! | What does control stop? | [`halts`] |
//! | Whom is it for? | [`audience`], [`rings`], [`rule`], [`facts`] |
//! | Where are they? | [`sites`] |
//! | How do they behave, and when? | [`policies`], [`schedules`], [`recurrence`] |
//! | When is the next window? | [`windows`] |
//! | Who is let in no longer? | [`admission`] |
//! | Which version is the higher one? | [`version`] |
//! | What is believed of all this? | [`vouched`] |
//! | What does a device answer? | [`mod@evaluate`], [`answer`], [`mod@effective`] |
//! | How does a device report? | [`report`] |
//! | How much may there be? | [`bounds`] |

pub mod admission;
pub mod answer;
pub mod approvals;
pub mod audience;
pub mod bounds;
pub mod content;
pub mod denial;
pub mod effective;
pub mod evaluate;
pub mod facts;
pub mod halts;
pub mod mandate;
pub mod order;
pub mod policies;
pub mod recurrence;
pub mod report;
pub mod rings;
pub mod rule;
pub mod schedules;
pub mod sites;
pub mod standing;
pub mod text;
pub mod version;
pub mod vouched;
pub mod windows;

pub use answer::{Answer, Reason, State};
pub use approvals::Approvals;
pub use content::Content;
pub use evaluate::{Device, Now, evaluate, evaluate_only};
pub use facts::Facts;
pub use halts::Halts;
pub use order::{Body, Head, Kind, Order, OrderError};
pub use policies::Policies;
pub use rings::Rings;
pub use rule::Rule;
pub use schedules::Schedules;
pub use sites::Sites;
pub use standing::Standing;
pub use vouched::{Orders, Scope, Statement, Vouched};
