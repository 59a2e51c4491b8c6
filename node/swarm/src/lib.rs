//! What nodes and agents share as peers: QUIC, identity, serving, fetching, origins.
//!
//! The decisions are `sutler-protocol`'s and the bytes lie in `sutler-cache`; here they meet
//! sockets and the clock. Whoever is asked and whoever asks proves a name first ([`identity`]), and
//! no byte is believed because of it.
//!
//! | Question | Room |
//! |---|---|
//! | Who is a peer, and who may ask at all? | [`identity`] |
//! | How does a machine become a member? | [`enrol`] |
//! | The one socket, and how it is set up | [`endpoint`], [`transport`] |
//! | What does a server send? | [`serve`], [`gateway`] |
//! | How is a content gathered? | [`fetch`], [`peer`] |
//! | Why is a connection over? | [`ended`] |
//! | How does a vendor's server become a source? | [`origin`] |
//! | What does it say about orders? | [`orders`] |
//! | What is arriving just now? | [`arrivals`] |
//! | Where does disk work run? | [`disk`] |
//! | What has it all come to? | [`counters`] |

pub mod arrivals;
mod buffers;
pub mod counters;
pub mod disk;
pub mod ended;
pub mod endpoint;
pub mod enrol;
pub mod fetch;
pub mod gateway;
pub mod identity;
mod knock;
mod live;
pub mod orders;
pub mod origin;
pub mod peer;
pub mod serve;
pub mod transport;
mod wire;

pub use endpoint::Endpoint;
pub use fetch::{FetchError, Fetched, Fetcher, SourceAddress, Wanted};
pub use gateway::{Gateway, StoreGateway};
pub use serve::Server;
pub use transport::TransportConfig;
