//! A token: an admin's word, in one string, that machines of a site may join.
//!
//! ```text
//! sutler1.STATEMENT.SIGNATURE.SECRET
//! ```
//!
//! Each part is base64url without padding. The statement is JSON and says what is granted; the
//! signature is that of the organisation's offline authority or of an admin, on [`CONTEXT`] and the
//! statement's bytes as they are; the secret is known to whoever holds the token, and the statement
//! has its SHA-256. Behind the secret stand four bytes of a checksum, so that a token that was not
//! copied whole is told from a wrong one where it is typed.
//!
//! Control makes no token: it has none of the keys, and keeps of each token what it granted and never
//! the secret. Nothing here reads a clock.
//!
//! Invariants: a [`Grant`] comes out of [`Presented::verify`] only; no secret is printed.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::constant_time;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ipnet::IpNet;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use sutler_protocol::join::{SECRET_BYTES, SIGNATURE_BYTES_MAX, STATEMENT_BYTES_MAX};
use zeroize::{Zeroize, Zeroizing};

use crate::identity::{Label, Member, Organisation, PeerName, hash};

/// What a token begins with.
const PREFIX: &str = "sutler1";

/// Set before a statement when it is signed, so that no other signature by the same key is one.
pub const CONTEXT: &[u8] = b"sutler token 1\n";

/// Bytes of a token, at most: its parts' bounds in base64, and the dots.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Machines that may join by one token, at most: a large site at once.
pub const USES_MAX: u32 = 10_000;

/// How long a token may be good for: whoever finds it later should find nothing.
pub const TTL_MAX: Duration = Duration::from_hours(30 * 24);

/// Addresses in a token, at most, each of them at most as long as a DNS name with its port.
pub const ADDRESSES_MAX: usize = 8;
const ADDRESS_BYTES_MAX: usize = 260;

/// Networks in a token, at most.
pub const NETWORKS_MAX: usize = 32;

const CHECKSUM_BYTES: usize = 4;

/// Which token: the SHA-256 of its statement.
pub type TokenId = [u8; 32];

/// What an admin puts into a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The organisation to join.
    pub organisation: Organisation,
    /// The site that joiners belong to.
    pub site: Label,
    /// What they become.
    pub role: JoinRole,
    /// What the one joiner is called. Absent: each is given a name that follows from its key.
    pub name: Option<Label>,
    /// How many machines may join, from 1 to [`USES_MAX`].
    pub uses: u32,
    /// When it is over.
    pub expires: UnixTime,
    /// The networks that a request may come from; empty for any. Through a relay it comes from the
    /// relay's address.
    pub networks: Vec<IpNet>,
    /// Whether somebody has to accept each machine.
    pub hold: bool,
    /// Where to ask, in the order in which to try: `host:port`.
    pub addresses: Vec<String>,
    /// The SHA-256 of the `root.json` that joiners begin to believe.
    pub root_sha256: [u8; 32],
    /// The SHA-256 of the organisation's root certificate (DER).
    pub authority_sha256: [u8; 32],
}

/// What a joiner may become: control never joins by a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JoinRole {
    /// The on-site manager.
    Node,
    /// The client on a managed device.
    Agent,
}

/// The statement as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    format: u32,
    organisation: String,
    site: String,
    role: JoinRole,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    uses: u32,
    expires: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    networks: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hold: bool,
    addresses: Vec<String>,
    root_sha256: String,
    authority_sha256: String,
    secret_sha256: String,
}

const KIND: &str = "token";
const FORMAT: u32 = 1;

/// A token as its holder has it: not believed, and not to be shown.
#[derive(Clone)]
pub struct Token {
    presented: Presented,
    grant: Grant,
}

/// What a joiner shows of its token.
#[derive(Clone)]
pub struct Presented {
    /// The statement as it was signed.
    pub statement: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
    /// The secret.
    pub secret: [u8; SECRET_BYTES],
}

/// Whose signatures count on a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenKeys {
    ed25519: Vec<Vec<u8>>,
    p256: Vec<Vec<u8>>,
}

/// Why a text is no token, or a grant cannot be put into one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form that [`Token`] has.
    #[error("a token has the form {PREFIX}.….….…")]
    Form,
    /// Something is missing of it, or was changed: it was not copied whole.
    #[error("the token was not copied whole: its checksum differs")]
    Checksum,
    /// The statement does not say what a token's does.
    #[error("the token's statement cannot be read: {0}")]
    Statement(&'static str),
    /// One of its values is out of its bounds.
    #[error("{0}")]
    Bounds(&'static str),
}

/// Why a token that was presented is not believed. To the joiner all are one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresentedError {
    /// None of the keys that count made the signature.
    #[error("the signature is by none of the keys that may make tokens")]
    Signature,
    /// The secret is not the one that the statement was signed with.
    #[error("the secret is another")]
    Secret,
    /// It is signed, and yet no token that this program can read.
    #[error("read the signed statement")]
    Statement(#[source] TokenError),
}

/// Why a believed token grants nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// It is over.
    #[error("the token has expired")]
    Expired,
    /// As many have joined as may.
    #[error("the token has been used up")]
    UsedUp,
    /// It is for other networks.
    #[error("the token is not for this network")]
    Network,
    /// It is for another organisation.
    #[error("the token is of another organisation")]
    Organisation,
}

impl Grant {
    /// Returns whether a further machine may join by the token.
    ///
    /// # Errors
    ///
    /// [`NotGranted`]; of several reasons the first of organisation, expiry, network and uses.
    pub fn admits(
        &self,
        organisation: &Organisation,
        from: IpAddr,
        used: u32,
        now: UnixTime,
    ) -> Result<(), NotGranted> {
        if self.organisation != *organisation {
            return Err(NotGranted::Organisation);
        }
        if now.as_secs() >= self.expires.as_secs() {
            return Err(NotGranted::Expired);
        }
        let from = from.to_canonical();
        if !self.networks.is_empty() && !self.networks.iter().any(|net| net.contains(&from)) {
            return Err(NotGranted::Network);
        }
        if used >= self.uses {
            return Err(NotGranted::UsedUp);
        }
        Ok(())
    }

    /// Returns the member that the holder of a key becomes: by the name that the token gives, or else
    /// by one that follows from the token and the key, so that asking again gives the same.
    pub fn member(&self, token: &TokenId, key: &[u8; 32]) -> Member {
        let site = self.site.clone();
        let id = self.name.clone().unwrap_or_else(|| {
            let derived = hash(&[&b"sutler member id\n"[..], token, key].concat());
            hex(&derived[..8]).parse().expect("hex digits are a label")
        });
        match self.role {
            JoinRole::Node => Member::Node { site, id },
            JoinRole::Agent => Member::Agent { site, id },
        }
    }

    /// Returns whether `name` is one that this token gives.
    pub fn gives(&self, name: &PeerName) -> bool {
        let role = matches!(
            (name.member(), self.role),
            (Member::Node { .. }, JoinRole::Node) | (Member::Agent { .. }, JoinRole::Agent)
        );
        role && *name.organisation() == self.organisation
            && name.site() == Some(&self.site)
            && self.name.as_ref().is_none_or(|own| own == name.member().id())
    }

    fn check(&self) -> Result<(), TokenError> {
        let fits = |address: &String| {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            address.len() <= ADDRESS_BYTES_MAX
                && port.is_some_and(|port| port > 0)
                && address.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !(1..=USES_MAX).contains(&self.uses) {
            return Err(TokenError::Bounds("a token is good for 1 to 10000 machines"));
        }
        if self.name.is_some() && self.uses != 1 {
            return Err(TokenError::Bounds("a token that gives a name is good for one machine"));
        }
        if !(1..=ADDRESSES_MAX).contains(&self.addresses.len()) {
            return Err(TokenError::Bounds("a token has 1 to 8 addresses"));
        }
        if !self.addresses.iter().all(fits) {
            return Err(TokenError::Bounds("an address has the form HOST:PORT"));
        }
        if self.networks.len() > NETWORKS_MAX {
            return Err(TokenError::Bounds("a token has at most 32 networks"));
        }
        Ok(())
    }

    fn read(statement: &[u8]) -> Result<(Self, [u8; 32]), TokenError> {
        let wrong = TokenError::Statement;
        let said: Statement = serde_json::from_slice(statement)
            .map_err(|_| wrong("it is no JSON object with the fields of a token"))?;
        if said.kind != KIND || said.format != FORMAT {
            return Err(wrong("it is of another kind or of a newer format"));
        }
        let expires = said.expires.parse::<Timestamp>().ok();
        let expires = expires.and_then(|expires| u64::try_from(expires.as_second()).ok());
        let expires = expires.ok_or(wrong("its expiry is no instant in UTC"))?;
        let label = |text: &str| text.parse().map_err(|_| wrong("a name is malformed"));
        let grant = Self {
            organisation: said
                .organisation
                .parse()
                .map_err(|_| wrong("the organisation's name is malformed"))?,
            site: label(&said.site)?,
            role: said.role,
            name: said.id.as_deref().map(label).transpose()?,
            uses: said.uses,
            expires: UnixTime::since_unix_epoch(Duration::from_secs(expires)),
            networks: said.networks,
            hold: said.hold,
            addresses: said.addresses,
            root_sha256: digest(&said.root_sha256)?,
            authority_sha256: digest(&said.authority_sha256)?,
        };
        grant.check()?;
        Ok((grant, digest(&said.secret_sha256)?))
    }

    fn write(&self, secret: &[u8]) -> Result<Vec<u8>, TokenError> {
        let expires = i64::try_from(self.expires.as_secs()).ok();
        let expires = expires.and_then(|secs| Timestamp::from_second(secs).ok());
        let statement = Statement {
            kind: KIND.to_owned(),
            format: FORMAT,
            organisation: self.organisation.to_string(),
            site: self.site.to_string(),
            role: self.role,
            id: self.name.as_ref().map(ToString::to_string),
            uses: self.uses,
            expires: expires
                .ok_or(TokenError::Bounds("the expiry is beyond all calendars"))?
                .to_string(),
            networks: self.networks.clone(),
            hold: self.hold,
            addresses: self.addresses.clone(),
            root_sha256: BASE64.encode(self.root_sha256),
            authority_sha256: BASE64.encode(self.authority_sha256),
            secret_sha256: BASE64.encode(hash(secret)),
        };
        let bytes = serde_json::to_vec(&statement).expect("texts and numbers are JSON");
        if bytes.len() > STATEMENT_BYTES_MAX {
            return Err(TokenError::Bounds("the token would be too long"));
        }
        Ok(bytes)
    }
}

impl Token {
    /// Makes a token of `grant` with a new secret; `sign` signs what it is given with a key of the
    /// organisation's authority or of an admin.
    ///
    /// # Errors
    ///
    /// [`TokenError::Bounds`].
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness.
    pub fn make(grant: Grant, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Self, TokenError> {
        grant.check()?;
        let mut secret = [0; SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut secret).expect("the operating system gives random bytes");
        let statement = grant.write(&secret)?;
        let signature = sign(&[CONTEXT, &statement].concat());
        Ok(Self { presented: Presented { statement, signature, secret }, grant })
    }

    /// Reads a token. Whether it is a true one only control can tell.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Form);
        }
        let parts: Vec<&str> = text.split('.').take(5).collect();
        let [PREFIX, statement, signature, secret] = parts[..] else {
            return Err(TokenError::Form);
        };
        let decode = |part: &str| BASE64.decode(part).map_err(|_| TokenError::Checksum);
        let (statement, signature) = (decode(statement)?, decode(signature)?);
        let tail = Zeroizing::new(decode(secret)?);
        let (secret, sum) = tail.split_first_chunk::<SECRET_BYTES>().ok_or(TokenError::Checksum)?;
        if *sum != checksum(&statement, &signature, secret) {
            return Err(TokenError::Checksum);
        }
        if signature.len() > SIGNATURE_BYTES_MAX || statement.len() > STATEMENT_BYTES_MAX {
            return Err(TokenError::Form);
        }
        let (grant, _) = Grant::read(&statement)?;
        Ok(Self { presented: Presented { statement, signature, secret: *secret }, grant })
    }

    /// Returns the token as text, to be handed to whoever joins.
    pub fn text(&self) -> Zeroizing<String> {
        let Presented { statement, signature, secret } = &self.presented;
        let sum = checksum(statement, signature, secret);
        let tail = Zeroizing::new([&secret[..], &sum].concat());
        let [statement, signature] = [statement, signature].map(|part| BASE64.encode(part));
        let tail = Zeroizing::new(BASE64.encode(&*tail));
        Zeroizing::new(format!("{PREFIX}.{statement}.{signature}.{}", *tail))
    }

    /// Returns what it says that it grants: the word of whoever handed it over.
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Returns what to show to control.
    pub const fn presented(&self) -> &Presented {
        &self.presented
    }

    /// Returns which token it is.
    pub fn id(&self) -> TokenId {
        hash(&self.presented.statement)
    }
}

impl Presented {
    /// Checks the signature, then the secret, and returns what is granted and by which token.
    ///
    /// # Errors
    ///
    /// [`PresentedError`].
    pub fn verify(&self, keys: &TokenKeys) -> Result<(Grant, TokenId), PresentedError> {
        if !keys.signed(&[CONTEXT, &self.statement].concat(), &self.signature) {
            return Err(PresentedError::Signature);
        }
        let (grant, secret_sha256) =
            Grant::read(&self.statement).map_err(PresentedError::Statement)?;
        constant_time::verify_slices_are_equal(&hash(&self.secret), &secret_sha256)
            .map_err(|_| PresentedError::Secret)?;
        Ok((grant, hash(&self.statement)))
    }
}

impl TokenKeys {
    /// Lets the holders of these root certificates' keys make tokens.
    ///
    /// Roots whose keys are of a kind that signs nothing here are passed over.
    pub fn of_roots(roots: &[CertificateDer<'_>]) -> Self {
        use x509_parser::prelude::{FromDer, X509Certificate};
        use x509_parser::public_key::PublicKey;

        let mut keys = Self::default();
        for root in roots {
            let Ok((_, root)) = X509Certificate::from_der(root) else { continue };
            let key = root.public_key();
            let raw = key.subject_public_key.data.to_vec();
            match key.parsed() {
                Ok(PublicKey::EC(_)) => keys.p256.push(raw),
                _ if raw.len() == 32 => keys.ed25519.push(raw),
                _ => {}
            }
        }
        keys
    }

    /// Lets an admin make tokens with this Ed25519 key.
    pub fn admin(&mut self, public_key: [u8; 32]) {
        self.ed25519.push(public_key.to_vec());
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm, keys: &[Vec<u8>]| {
            let mut keys = keys.iter().map(|key| UnparsedPublicKey::new(algorithm, key));
            keys.any(|key| key.verify(message, signature).is_ok())
        };
        by(&ED25519, &self.ed25519) || by(&ECDSA_P256_SHA256_ASN1, &self.p256)
    }
}

impl Drop for Presented {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({})", String::from_utf8_lossy(&self.statement))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").field(&self.grant).finish()
    }
}

impl fmt::Display for JoinRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Agent => "agent",
        })
    }
}

/// Returns `bytes` in small hex digits, as ids and hashes are shown.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes what is written");
        text
    })
}

/// Returns the SHA-256 of `bytes`, as a token carries it.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    hash(bytes)
}

fn checksum(statement: &[u8], signature: &[u8], secret: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let sum = hash(&[statement, signature, secret].concat());
    [sum[0], sum[1], sum[2], sum[3]]
}

fn digest(text: &str) -> Result<[u8; 32], TokenError> {
    let bytes = BASE64.decode(text).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or(TokenError::Statement("a digest is no SHA-256 in base64url"))
}
