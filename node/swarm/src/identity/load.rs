//! A member's own certificate and key, loaded from its folder and checked before use.
//!
//! Loading checks what every peer will check, against the member's own roots and clock, so that a
//! bad identity is an error at start and not a refusal at every connection.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hkdf;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;

use super::files::{self, Secret};
use super::name::{PeerName, Role};
use super::shown::Shown;
use super::verifier::{Expect, PeerVerifier, VerifyError, begins_of, ends_of, name_of, parse};

/// Sets what is derived from a private key here apart from what anybody else derives from it.
const DERIVATION: &[u8] = b"sutler/1 derived keys";

/// Bytes in a derived key: one block of the hash.
pub(crate) const DERIVED_BYTES: usize = 32;

/// The file of the member's certificate and any intermediates.
pub(crate) const CHAIN_FILE: &str = "chain.pem";
/// The file of the member's private key.
pub(crate) const KEY_FILE: &str = "key.pem";
/// The file of the roots that the member believes.
pub(crate) const ROOTS_FILE: &str = "ca.pem";

/// A member's certificate, key and roots. Cheap to clone; it prints as its name and never as its key.
#[derive(Clone)]
pub struct Identity {
    name: PeerName,
    chain: Arc<[CertificateDer<'static>]>,
    /// Shared by all clones and by every socket that shows it, so that renewing reaches them all.
    shown: Arc<Shown>,
    roots: Arc<[CertificateDer<'static>]>,
    /// What further keys are derived from; the private key itself is not kept.
    secret: Arc<hkdf::Prk>,
}

/// Why an identity folder is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file: perhaps nobody issued an identity yet.
    #[error("{} is missing; `sutler org issue` makes it", .path.display())]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A file is there but cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Others than its owner may read or change the key, so it may be known already.
    #[error("{} has mode {mode:03o}, so others may know this key; it must be 600", .path.display())]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no PEM, or none of the right kind.
    #[error("{} holds no usable {what}", .path.display())]
    Unparsable {
        /// The file.
        path: PathBuf,
        /// What was expected in it.
        what: &'static str,
    },
    /// The key is not the one that the certificate was issued for.
    #[error("the key in {} does not belong to the certificate beside it", .path.display())]
    KeyMismatch {
        /// The key's file.
        path: PathBuf,
    },
    /// No peer would accept this certificate now. [`VerifyError::Expired`] is the usual cause.
    #[error("the certificate in {} is not valid", .path.display())]
    Invalid {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        source: VerifyError,
    },
}

/// Why an identity does not take another's place.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// It names somebody else.
    #[error("the new certificate names {found}, not {expected}")]
    OtherName {
        /// Whom it names.
        found: PeerName,
        /// Whom it had to name.
        expected: PeerName,
    },
}

impl Identity {
    /// Loads the identity in the folder `dir` and checks it by the machine's clock, or as of the day
    /// it was issued if the clock is still before that.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let issued = certificates(&dir.join(CHAIN_FILE))?.first().and_then(begins);
        let now = UnixTime::now();
        let issued = issued.filter(|issued| issued.as_secs() > now.as_secs());
        Self::load_at(dir, issued.unwrap_or(now))
    }

    /// Loads the identity in the folder `dir` to renew it: one that has ended is checked as of its last
    /// moment. Nobody but control's enrolment port lets it in.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load_to_renew(dir: &Path) -> Result<Self, LoadError> {
        let ends = certificates(&dir.join(CHAIN_FILE))?.first().and_then(ends);
        match ends.filter(|ends| ends.as_secs() < UnixTime::now().as_secs()) {
            Some(ended) => Self::load_at(dir, ended),
            None => Self::load(dir),
        }
    }

    /// Loads the identity in the folder `dir` and checks it as of `now`.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load_at(dir: &Path, now: UnixTime) -> Result<Self, LoadError> {
        let chain_path = dir.join(CHAIN_FILE);
        let chain = certificates(&chain_path)?;
        let roots = certificates(&dir.join(ROOTS_FILE))?;
        let key_path = dir.join(KEY_FILE);
        let key = key(&key_path)?;
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, DERIVATION);
        let secret = Arc::new(salt.extract(key.secret_der()));
        let key = any_supported_type(&key)
            .map_err(|_| LoadError::Unparsable { path: key_path.clone(), what: "private key" })?;
        let certified = CertifiedKey::new(chain, key);
        let (leaf, intermediates) = certified.cert.split_first().ok_or_else(|| {
            LoadError::Unparsable { path: chain_path.clone(), what: "certificate" }
        })?;
        let invalid = |source| LoadError::Invalid { path: chain_path.clone(), source };
        let name = name_of(leaf).map_err(invalid)?;
        certified.keys_match().map_err(|_| LoadError::KeyMismatch { path: key_path })?;
        let all = [Role::Node, Role::Agent, Role::Control];
        PeerVerifier::new(&roots, Expect::new(name.organisation().clone(), all))
            .and_then(|verifier| verifier.verify(leaf, intermediates, now))
            .map_err(invalid)?;
        Ok(Self {
            name,
            chain: certified.cert.clone().into(),
            shown: Arc::new(Shown::new(certified)),
            roots: roots.into(),
            secret,
        })
    }

    /// Returns the member's own name.
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    /// Returns the roots of the member's organisation, one at least.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Returns what the member shows of itself: its certificate, then any intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Returns when the certificate begins: a time that has passed, as its organisation says.
    pub fn begins(&self) -> UnixTime {
        self.chain.first().and_then(begins).unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO))
    }

    /// Returns when the certificate ends.
    pub fn ends(&self) -> UnixTime {
        self.chain.first().and_then(ends).unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO))
    }

    /// Returns when the certificate ends that is shown now: this one, or the one that has renewed it.
    pub fn shown_ends(&self) -> UnixTime {
        let shown = self.shown.now();
        shown.cert.first().and_then(ends).unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO))
    }

    /// Shows `renewed` in the place of this identity from now on: in every clone of it, and in each
    /// handshake of every socket that was opened with one.
    ///
    /// # Errors
    ///
    /// [`RenewError`]; nothing is changed.
    pub fn renew(&self, renewed: &Self) -> Result<(), RenewError> {
        if renewed.name != self.name {
            let (found, expected) = (renewed.name.clone(), self.name.clone());
            return Err(RenewError::OtherName { found, expected });
        }
        self.shown.replace(renewed.shown.now());
        Ok(())
    }

    /// Derives a key of its own for a `purpose`: the same whenever this identity is loaded, and of
    /// no use for finding the private key or the key of another purpose (HKDF, RFC 5869).
    pub(crate) fn derive(&self, purpose: &[u8]) -> [u8; DERIVED_BYTES] {
        let mut derived = [0; DERIVED_BYTES];
        let info = [purpose];
        self.secret
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|key| key.fill(&mut derived))
            .expect("one block of the hash is never too long");
        derived
    }

    /// Returns the certificate and key as they are shown now.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.shown.now()
    }

    pub(super) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.name)
    }
}

fn begins(leaf: &CertificateDer<'static>) -> Option<UnixTime> {
    parse(leaf).ok().map(|leaf| begins_of(&leaf))
}

fn ends(leaf: &CertificateDer<'static>) -> Option<UnixTime> {
    parse(leaf).ok().map(|leaf| ends_of(&leaf))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let pem = files::read(path).map_err(|source| read_error(path, source))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(LoadError::Unparsable { path: path.to_owned(), what: "certificate" }),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    match files::read_secret(path).map_err(|source| read_error(path, source))? {
        Secret::Exposed(mode) => Err(LoadError::Exposed { path: path.to_owned(), mode }),
        Secret::Bytes(pem) => PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| LoadError::Unparsable { path: path.to_owned(), what: "private key" }),
    }
}

fn read_error(path: &Path, source: io::Error) -> LoadError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => LoadError::Missing { path },
        _ => LoadError::Read { path, source },
    }
}
