//! The control plane: keys, the signed repository on disk, and what may change it.
//!
//! Admins' commands and the daemon drive it. Nothing here is trusted: what is published is what the keys that
//! delegate vouch for, and devices find that out for themselves.
//!
//! | Question | Room |
//! |---|---|
//! | Where does a signature come from? | [`key`] |
//! | Where do documents and files lie? | [`repository`] |
//! | What do they say now? | [`state`] |
//! | What expires when? | [`status`] |
//! | What may be handed in? | [`submission`], [`files`] |
//! | How do contents' bytes come in? | [`uploads`] |
//! | What does control sign itself? | [`online`] |
//! | Who signs what in a new organisation? | [`preset`] |
//! | How is a change put together, and signed by several? | [`change`], [`draft`] |
//! | What did approvers decide? | [`decision`], [`halting`] |
//! | How do two who collide go on? | [`rebase`] |
//! | How does a role get new keys? | [`rotation`] |
//! | Who would sign for what? | [`appointment`] |
//! | What lies in an organisation's folder? | [`organisation`] |
//! | Which folder on which machine is it? | [`whereabouts`] |
//! | Who has joined, by which token, and who renews? | [`members`] |
//! | Who did what, and can it be proved? | [`audit`] |
//! | What do devices say of themselves? | [`reports`] |
//! | How many does an order reach? | [`fleet`] |
//! | How much is it, and from when on? | [`outlook`] |
//! | What is left after a disaster? | [`backup`] |
//! | What should they answer, as far as control can tell? | [`judgement`] |
//! | How far has a stop got? | [`spread`], [`stopping`] |
//! | What runs? | [`daemon`] |
//! | How much may there be? | [`bounds`] |

pub mod appointment;
pub mod audit;
pub mod backup;
pub mod bounds;
pub mod change;
pub mod daemon;
pub mod decision;
pub mod draft;
pub mod files;
pub mod fleet;
pub mod halting;
mod hashing;
pub mod judgement;
pub mod key;
pub mod members;
pub mod online;
pub mod organisation;
pub mod outlook;
pub mod preset;
pub mod rebase;
pub mod reports;
pub mod repository;
pub mod rotation;
pub mod spread;
pub mod state;
pub mod status;
pub mod stopping;
pub mod submission;
pub mod uploads;
pub mod whereabouts;

pub use change::{Change, Note};
pub use draft::Draft;
pub use hashing::Sha256;
pub use key::{NamedKey, Passphrase};
pub use members::Members;
pub use online::OnlineKeys;
pub use organisation::Folder;
pub use repository::Repository;
pub use state::State;
pub use submission::Submission;
pub use uploads::Uploads;
