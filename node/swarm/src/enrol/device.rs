//! Joining, on the joiner's disk: the key is made here and never leaves; the identity folder appears
//! whole or not at all.
//!
//! ```text
//! DATA/joining/    key.pem and the token's id: made before the first request, gone after the last
//! DATA/identity/   what `sutler org issue` makes, and besides
//!                  root.json      what the device begins to believe of the manifest
//!                  control.json   where it asks for the next certificate
//! ```
//!
//! Killed between any two lines, the next attempt goes on with the same key, to which control gives
//! the same certificate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::csr;
use super::serve::Granted;
use super::token::{Token, TokenId, hex};
use crate::identity::files::{self, NewFile, Readers, Secret};
use crate::identity::{CHAIN_FILE, KEY_FILE, ROOTS_FILE};
use crate::identity::{Identity, KeyHash, LoadError, hash};

/// What a device begins to believe of the manifest, in its identity folder.
pub const ROOT_FILE: &str = "root.json";

/// Where a member asks for its next certificate, in its identity folder.
pub const CONTROL_FILE: &str = "control.json";

const TOKEN_FILE: &str = "token";

/// A machine that is about to join, with its key.
pub struct Joiner {
    identity: PathBuf,
    joining: PathBuf,
    key_pem: Zeroizing<String>,
    key: KeyPair,
}

/// How far a machine was found to be.
pub enum Begun {
    /// It has a key, and may ask.
    Joiner(Joiner),
    /// It had joined by this very attempt, which was killed before it could say so.
    Member(Identity),
}

/// Whether a machine that is a member already may become another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays what it is.
    Keep,
    /// Its identity is set aside once the new one is there.
    Replace,
}

/// What `control.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlFile {
    format: u32,
    /// Where to ask, in the order in which to try: `host:port`.
    pub addresses: Vec<String>,
}

/// Why a machine cannot join, or is not a member though control said so.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It is a member already.
    #[error("{} exists already: this machine is a member", .dir.display())]
    Member {
        /// The identity folder.
        dir: PathBuf,
    },
    /// A key could not be made.
    #[error("make a key")]
    Key(#[source] rcgen::Error),
    /// Others than its owner may read or change the key, so it may be known already.
    #[error("{} has mode {mode:03o}, so others may know this key; remove it and join again", .path.display())]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The disk refused. What was there before is there still.
    #[error("write {}", .path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// What was written does not load.
    #[error("load the new identity")]
    Load(#[source] LoadError),
}

impl Joiner {
    /// Makes the key with which this machine joins by `token`, or finds the one that an attempt before
    /// made for it. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`DeviceError`].
    pub fn begin(data: &Path, token: &TokenId, existing: Existing) -> Result<Begun, DeviceError> {
        let (identity, joining) = (data.join("identity"), data.join("joining"));
        let pending = pending(&joining, token)?;
        if identity.exists() {
            let own = files::read_secret(&identity.join(KEY_FILE)).ok();
            if let (Some(Secret::Bytes(own)), Some(pending)) = (own, &pending)
                && own.as_slice() == pending.as_bytes()
            {
                remove(&joining)?;
                return Identity::load(&identity).map(Begun::Member).map_err(DeviceError::Load);
            }
            if existing == Existing::Keep {
                return Err(DeviceError::Member { dir: identity });
            }
        }
        if let Some(key_pem) = pending
            && let Ok(key) = KeyPair::from_pem(&key_pem)
        {
            return Ok(Begun::Joiner(Self { identity, joining, key_pem, key }));
        }
        // Of another token, or unreadable: nothing was granted for it here.
        remove(&joining)?;
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(DeviceError::Key)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let id = hex(token);
        files::create_folder(
            &joining,
            &[
                NewFile { name: KEY_FILE, text: &key_pem, readers: Readers::Owner },
                NewFile { name: TOKEN_FILE, text: &id, readers: Readers::Owner },
            ],
        )
        .map_err(|source| DeviceError::Disk { path: joining.clone(), source })?;
        Ok(Begun::Joiner(Self { identity, joining, key_pem, key }))
    }

    /// Returns what to send to control.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Key`].
    pub fn csr(&self) -> Result<Vec<u8>, DeviceError> {
        csr::request(&self.key).map_err(DeviceError::Key)
    }

    /// Returns the hash of the key.
    pub fn key_hash(&self) -> KeyHash {
        hash(&self.key.subject_public_key_info())
    }

    /// Makes this machine what was granted, which was checked. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; asking again and finishing then is harmless.
    pub fn finish(self, token: &Token, granted: &Granted) -> Result<Identity, DeviceError> {
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |source| DeviceError::Disk { path, source }
        };
        if self.identity.exists() {
            // Kept until the next one is replaced: somebody may want to look at it.
            let aside = self.identity.with_extension("replaced");
            remove(&aside)?;
            fs::rename(&self.identity, &aside).map_err(disk(&aside))?;
        }
        let addresses = token.grant().addresses.clone();
        let control = serde_json::to_string(&ControlFile { format: 1, addresses });
        let control = control.expect("texts are JSON") + "\n";
        let (chain, roots) = (pem(&granted.chain), pem(&granted.roots));
        let root_json = String::from_utf8_lossy(&granted.root_json);
        let everyone = |name, text| NewFile { name, text, readers: Readers::Everyone };
        files::create_folder(
            &self.identity,
            &[
                NewFile { name: KEY_FILE, text: &self.key_pem, readers: Readers::Owner },
                everyone(CHAIN_FILE, &chain),
                everyone(ROOTS_FILE, &roots),
                everyone(ROOT_FILE, &root_json),
                everyone(CONTROL_FILE, &control),
            ],
        )
        .map_err(disk(&self.identity))?;
        remove(&self.joining)?;
        Identity::load(&self.identity).map_err(DeviceError::Load)
    }
}

/// Returns where a member asks for its next certificate; nowhere if it did not join by a token.
///
/// # Errors
///
/// [`DeviceError::Disk`] if the file is there and cannot be understood.
pub fn control_addresses(identity: &Path) -> Result<Vec<String>, DeviceError> {
    let path = identity.join(CONTROL_FILE);
    let read = match files::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(DeviceError::Disk { path, source }),
    };
    let said: ControlFile = serde_json::from_slice(&read)
        .map_err(|error| DeviceError::Disk { path, source: io::Error::other(error) })?;
    Ok(said.addresses)
}

/// Replaces the certificate in an identity folder, in one step that survives a power cut.
///
/// # Errors
///
/// [`DeviceError::Disk`]; the old one is there still.
pub(super) fn replace_chain(
    identity: &Path,
    chain: &[CertificateDer<'static>],
) -> Result<(), DeviceError> {
    let text = pem(chain);
    let file = NewFile { name: CHAIN_FILE, text: &text, readers: Readers::Everyone };
    files::replace(identity, &file)
        .map_err(|source| DeviceError::Disk { path: identity.join(CHAIN_FILE), source })
}

/// Returns a signing request for the key in an identity folder.
///
/// # Errors
///
/// [`DeviceError`].
pub(super) fn csr_of(identity: &Path) -> Result<Vec<u8>, DeviceError> {
    let path = identity.join(KEY_FILE);
    match files::read_secret(&path) {
        Ok(Secret::Bytes(pem)) => std::str::from_utf8(&pem)
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)
            .and_then(KeyPair::from_pem)
            .and_then(|key| csr::request(&key))
            .map_err(DeviceError::Key),
        Ok(Secret::Exposed(mode)) => Err(DeviceError::Exposed { path, mode }),
        Err(source) => Err(DeviceError::Disk { path, source }),
    }
}

/// Returns the key that an attempt before made for this token.
fn pending(joining: &Path, token: &TokenId) -> Result<Option<Zeroizing<String>>, DeviceError> {
    let of_token = files::read(&joining.join(TOKEN_FILE)).ok();
    if of_token.is_none_or(|id| id != hex(token).as_bytes()) {
        return Ok(None);
    }
    let path = joining.join(KEY_FILE);
    match files::read_secret(&path) {
        Ok(Secret::Bytes(pem)) => {
            Ok(std::str::from_utf8(&pem).ok().map(|pem| Zeroizing::new(pem.to_owned())))
        }
        Ok(Secret::Exposed(mode)) => Err(DeviceError::Exposed { path, mode }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DeviceError::Disk { path, source }),
    }
}

fn remove(folder: &Path) -> Result<(), DeviceError> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DeviceError::Disk { path: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Returns certificates as PEM (RFC 7468), as they lie in files.
pub fn pem(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let digits = STANDARD.encode(certificate);
        let mut rest = digits.as_str();
        while !rest.is_empty() {
            let (line, behind) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = behind;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
