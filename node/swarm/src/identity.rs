//! Who a peer is, and how that is proved: certificates of one organisation, in both directions.
//!
//! A peer believes another's bytes because of their hashes, never because of its name. The name
//! decides who may ask at all: `sutler/1` has no anonymous door.
//!
//! - [`PeerName`]: `spiffe://ORG/site/S/{node|agent}/ID`, `spiffe://ORG/control/ID`
//! - [`Authority`]: an organisation's own certificate authority, or control's below it, in a folder
//! - [`Identity`]: a member's certificate and key, loaded from a folder
//! - [`PeerVerifier`]: what a certificate must be for its holder to be let in
//! - [`client_config`], [`server_config`]: TLS 1.3 with all of it, for QUIC
//! - [`Revocations`]: who is no longer let in, [`TrustedClock`]: by which time certificates are judged
//! - [`Attested`]: a statement that a member signs, for whoever reads it later
//! - [`handshake_refusal`]: why a handshake failed, in words that a user can act on
//!
//! A member's identity folder (`DATA/identity`) holds three PEM files:
//!
//! | File | What | Mode |
//! |---|---|---|
//! | `chain.pem` | its certificate, then any intermediates, up to but without the root | 0644 |
//! | `key.pem` | its private key, PKCS #8 | 0600, or it is refused |
//! | `ca.pem` | the roots of its organisation: whom it believes | 0644 |
//!
//! An authority's folder holds `org.json` (format and organisation), `ca.pem` and `ca-key.pem`; that
//! of an intermediate also `chain.pem`, its own certificate. All
//! kinds of folder appear complete under their name or not at all, and are never overwritten.

mod authority;
mod clock;
pub(crate) mod files;
mod instance;
mod load;
mod name;
mod refusal;
mod revoked;
mod shown;
mod signing;
mod tls;
mod verifier;

pub use authority::{
    Authority, AuthorityCreateError, AuthorityOpenError, INTERMEDIATE_LIFETIME, IssueError,
    LEAF_LIFETIME, Validity, read_roots,
};
pub use clock::TrustedClock;
pub use instance::{Holders, INSTANCE_BYTES, Instance, Instances, instance_here};
pub(crate) use load::{CHAIN_FILE, KEY_FILE, ROOTS_FILE};
pub use load::{Identity, LoadError, RenewError};
pub use name::{
    LABEL_BYTES_MAX, Label, Member, NameError, Organisation, PeerName, Role, random_label,
};
pub use refusal::{HandshakeRefusal, RefusalCause, handshake_refusal};
pub(crate) use revoked::hash;
pub use revoked::{Credentials, KeyHash, Revocations, Revoked, key_hash};
pub use signing::{AttestError, Attested, SignError};
pub(crate) use tls::provider;
pub use tls::{
    ALPN, SERVER_NAME, Terms, TlsError, client_config, client_config_on, client_config_with_clock,
    server_config, server_config_on, server_config_with_clock,
};
pub use verifier::{Expect, PeerNameError, PeerVerifier, VerifyError, peer_credentials, peer_name};
pub(crate) use verifier::{check_tls13_signature, refused_tls12, schemes};
