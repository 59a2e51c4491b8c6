//! Key files: what an admin's signature comes from, and what others know of it.
//!
//! `NAME.key` is an ed25519 key as PKCS #8 in PEM, as `openssl pkey` reads it: an admin's is encrypted with a
//! passphrase, control's own are not, since it has to start without anybody there. `NAME.pub` beside it is
//! the public half as the manifest lists it, with its id and name.
//!
//! Always true: a secret is in memory that is wiped, has no `Debug`, and lies in a file that only its owner
//! reads; a file that exists is never written over.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use serde::{Deserialize, Serialize};
use sutler_protocol::manifest::key::{Key, KeyValue};
use sutler_protocol::manifest::sign::SEED_BYTES;
use sutler_protocol::manifest::{KeyId, PublicKey, SigningKey};
use zeroize::Zeroizing;

/// Bytes of a key file, at most: ours have 400.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Bytes of a passphrase, at most: a file of one is a line, not a disk.
const PASSPHRASE_BYTES_MAX: u64 = 1024;

/// Rounds of PBKDF2 with HMAC-SHA-256 between a passphrase and its key, as OWASP advises: a third of a second for
/// us, and for whoever guesses.
const ROUNDS: u32 = 600_000;

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const PLAIN: &str = "PRIVATE KEY";

/// RFC 8410's frame around the seed of an ed25519 key.
const ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// RFC 8410's name of ed25519.
const ED25519: &str = "1.3.101.112";

/// What a key file is opened with. Wiped when it goes; it has no `Debug`.
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// How a new key file is protected.
pub enum Protection<'a> {
    /// With a passphrase: an admin's.
    Passphrase(&'a Passphrase),
    /// With its file's mode alone: control's own, which has to start without anybody there.
    Mode,
}

/// The public half of a key, and what its holder is called.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedKey {
    /// The holder's name: that of the file without its ending.
    pub name: String,
    /// The key as the manifest lists it.
    pub key: Key,
}

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateKeyError {
    /// There is one; it was not touched.
    #[error("make {}: it exists", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// Its name would be no name of an admin.
    #[error("make {}: its name has to be of letters, digits, dots, dashes and underscores, and end in .key", path.display())]
    Name {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no randomness, or the library refused.
    #[error("make a key")]
    Library,
    /// The disk refused.
    #[error("write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenKeyError {
    /// The disk refused.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// Others than its owner may read or change it.
    #[error("use {}: others may read it, its mode is {mode:o}", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no key file of the kind that is needed.
    #[error("read {}: it is no {expected} in PEM", path.display())]
    Unparsable {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// The passphrase is another one, or the file was changed.
    #[error("open {} with this passphrase", path.display())]
    Passphrase {
        /// Which file.
        path: PathBuf,
    },
    /// It is a key of another kind.
    #[error("use {}: it is no ed25519 key", path.display())]
    Kind {
        /// Which file.
        path: PathBuf,
    },
}

/// Why a `.pub` file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ReadPublicError {
    /// The disk refused.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// A field is missing, unknown or of another kind.
    #[error("read {}, field {field}", path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What was wrong with it.
        source: serde_json::Error,
    },
    /// The id is not that of the key beside it.
    #[error("use {}: its keyid is {found}, and its key's is {expected}", path.display())]
    Id {
        /// Which file.
        path: PathBuf,
        /// The key's.
        expected: KeyId,
        /// What it says.
        found: KeyId,
    },
    /// Its key is of no kind that could sign.
    #[error("use {}: its key is of no known kind", path.display())]
    Kind {
        /// Which file.
        path: PathBuf,
    },
    /// Its name is none.
    #[error("use {}: its name {name:?} is not of letters, digits, dots, dashes and underscores", path.display())]
    Name {
        /// Which file.
        path: PathBuf,
        /// What it says.
        name: String,
    },
}

/// What a `.pub` file says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicFile {
    name: String,
    keyid: KeyId,
    keytype: String,
    scheme: String,
    keyval: KeyValue,
}

impl Passphrase {
    /// Takes over a passphrase.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Reads a passphrase from a file that only its owner reads: all of it but a line's end.
    ///
    /// # Errors
    ///
    /// [`OpenKeyError::Read`] or [`OpenKeyError::Exposed`].
    pub fn read(path: &Path) -> Result<Self, OpenKeyError> {
        let mut bytes = read_secret(path, PASSPHRASE_BYTES_MAX)?;
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        Ok(Self(bytes))
    }

    /// Returns whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// Makes a key in the file at `path`, and its public half beside it.
///
/// # Errors
///
/// [`CreateKeyError`]; no file that exists is changed.
pub fn create(path: &Path, protection: &Protection<'_>) -> Result<NamedKey, CreateKeyError> {
    let name =
        name_of(path, "key").ok_or_else(|| CreateKeyError::Name { path: path.to_owned() })?;
    let public_path = path.with_extension("pub");
    for path in [path, &public_path] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(CreateKeyError::Exists { path: path.to_owned() });
        }
    }
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    aws_lc_rs::rand::fill(&mut *seed).map_err(|_| CreateKeyError::Library)?;
    let pem = write_pem(&seed, protection).ok_or(CreateKeyError::Library)?;
    let key = SigningKey::from_seed(&seed).key().clone();
    let named = NamedKey { name, key };
    // The public half first: without its secret it is of no use, and a secret alone could not be listed.
    write_new(&public_path, named.text().as_bytes(), 0o644)?;
    let written = write_new(path, pem.as_bytes(), 0o600);
    if written.is_err() {
        // Made by us a moment ago; where even that fails, the file says what it is.
        drop(fs::remove_file(&public_path));
    }
    written.map(|()| named)
}

/// Opens an admin's key.
///
/// # Errors
///
/// [`OpenKeyError`].
pub fn open(path: &Path, passphrase: &Passphrase) -> Result<SigningKey, OpenKeyError> {
    let pem = read_pem(path, ENCRYPTED)?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(pem.as_bytes())
        .map_err(|_| OpenKeyError::Unparsable { path: path.to_owned(), expected: ENCRYPTED })?;
    let plain = encrypted
        .decrypt(&*passphrase.0)
        .map_err(|_| OpenKeyError::Passphrase { path: path.to_owned() })?;
    signing_key(path, &plain)
}

/// Opens one of control's own keys, which has no passphrase.
///
/// # Errors
///
/// [`OpenKeyError`].
pub fn open_plain(path: &Path) -> Result<SigningKey, OpenKeyError> {
    signing_key(path, &read_pem(path, PLAIN)?)
}

impl NamedKey {
    /// Reads a `.pub` file.
    ///
    /// # Errors
    ///
    /// [`ReadPublicError`].
    pub fn read(path: &Path) -> Result<Self, ReadPublicError> {
        let failed = |source| ReadPublicError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let file: PublicFile = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let (path, field) = (path.to_owned(), error.path().to_string());
            ReadPublicError::Field { path, field, source: error.into_inner() }
        })?;
        let PublicFile { name, keyid: found, keytype, scheme, keyval } = file;
        let key = Key { keytype, scheme, keyval, extra: serde_json::Map::new() };
        let (path, expected) = (path.to_owned(), key.id());
        if found != expected {
            return Err(ReadPublicError::Id { path, expected, found });
        }
        if PublicKey::read(&key).is_none() {
            return Err(ReadPublicError::Kind { path });
        }
        if !is_name(&name) {
            return Err(ReadPublicError::Name { path, name });
        }
        Ok(Self { name, key })
    }

    /// Returns the key's id.
    pub fn id(&self) -> KeyId {
        self.key.id()
    }

    fn text(&self) -> String {
        let Key { keytype, scheme, keyval, .. } = self.key.clone();
        let file =
            PublicFile { name: self.name.clone(), keyid: self.id(), keytype, scheme, keyval };
        serde_json::to_string_pretty(&file).expect("text is JSON") + "\n"
    }
}

/// Returns the name that a key in this file has.
fn name_of(path: &Path, extension: &str) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    (path.extension()?.to_str()? == extension && is_name(stem)).then(|| stem.to_owned())
}

/// Returns whether a text can be an admin's name: what names have everywhere here.
fn is_name(text: &str) -> bool {
    let outer = |byte: u8| byte.is_ascii_alphanumeric();
    let inner = |byte: u8| outer(byte) || matches!(byte, b'.' | b'-' | b'_');
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    bytes.len() <= 63
        && ends.is_some_and(|(first, last)| outer(*first) && outer(*last))
        && bytes.iter().all(|byte| inner(*byte))
}

fn write_pem(seed: &[u8; SEED_BYTES], protection: &Protection<'_>) -> Option<Zeroizing<String>> {
    let mut der = Zeroizing::new([0; ED25519_PREFIX.len() + SEED_BYTES]);
    der[..ED25519_PREFIX.len()].copy_from_slice(&ED25519_PREFIX);
    der[ED25519_PREFIX.len()..].copy_from_slice(seed);
    let info = PrivateKeyInfoRef::try_from(&der[..]).ok()?;
    match protection {
        Protection::Passphrase(passphrase) => {
            let (mut salt, mut iv) = ([0; 16], [0; 16]);
            aws_lc_rs::rand::fill(&mut salt).ok()?;
            aws_lc_rs::rand::fill(&mut iv).ok()?;
            let parameters =
                pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ROUNDS, &salt, iv).ok()?;
            let encrypted = info.encrypt_with_params(parameters, &*passphrase.0).ok()?;
            encrypted.to_pem(ENCRYPTED, LineEnding::LF).ok()
        }
        Protection::Mode => {
            SecretDocument::encode_msg(&info).ok()?.to_pem(PLAIN, LineEnding::LF).ok()
        }
    }
}

fn read_pem(path: &Path, expected: &'static str) -> Result<SecretDocument, OpenKeyError> {
    let unparsable = || OpenKeyError::Unparsable { path: path.to_owned(), expected };
    let bytes = read_secret(path, FILE_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unparsable())?;
    match SecretDocument::from_pem(text) {
        Ok((label, document)) if label == expected => Ok(document),
        _ => Err(unparsable()),
    }
}

fn signing_key(path: &Path, plain: &SecretDocument) -> Result<SigningKey, OpenKeyError> {
    let kind = || OpenKeyError::Kind { path: path.to_owned() };
    let info = PrivateKeyInfoRef::try_from(plain.as_bytes()).map_err(|_| kind())?;
    // The key itself is an octet string within one.
    let seed = match info.private_key.as_bytes() {
        [4, 0x20, seed @ ..] if info.algorithm.oid.to_string() == ED25519 => seed.try_into().ok(),
        _ => None,
    };
    seed.map(SigningKey::from_seed).ok_or_else(kind)
}

/// Reads a file that only its owner reads.
fn read_secret(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, OpenKeyError> {
    let failed = |source| OpenKeyError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file, not of its name: what is checked is what is read.
    if let Some(mode) = exposed(&file).map_err(failed)? {
        return Err(OpenKeyError::Exposed { path: path.to_owned(), mode });
    }
    // Reserved in full, so that growing leaves no copy behind in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max as usize + 1));
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn exposed(file: &File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

#[cfg(not(unix))]
fn exposed(_file: &File) -> io::Result<Option<u32>> {
    Ok(None)
}

/// Writes a file whole, under a name that nothing has.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CreateKeyError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(mode));
        }
        let mut file = builder.prefix(".sutler-new-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|error| error.error)?;
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    };
    write().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => CreateKeyError::Exists { path: path.to_owned() },
        _ => CreateKeyError::Write { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.as_bytes().to_vec()))
    }

    fn made(folder: &Path, name: &str) -> (PathBuf, NamedKey) {
        let path = folder.join(name);
        let named = create(&path, &Protection::Passphrase(&passphrase("correct horse"))).unwrap();
        (path, named)
    }

    // T28
    #[test]
    fn a_key_opens_with_its_passphrase_alone_and_is_the_one_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, named) = made(folder.path(), "anna.key");
        let key = open(&path, &passphrase("correct horse")).unwrap();
        assert_eq!(NamedKey::read(&path.with_extension("pub")).unwrap(), named);
        assert_eq!((named.name.as_str(), key.key()), ("anna", &named.key));
        for wrong in ["", "correct horse ", "Correct horse"] {
            let error = open(&path, &passphrase(wrong)).err().unwrap();
            assert!(matches!(error, OpenKeyError::Passphrase { .. }), "{error}");
        }
        // Control's own are not taken for an admin's, nor the other way round.
        assert!(matches!(open_plain(&path).err().unwrap(), OpenKeyError::Unparsable { .. }));
        let online = folder.path().join("timestamp.key");
        let named = create(&online, &Protection::Mode).unwrap();
        assert_eq!(open_plain(&online).unwrap().key(), &named.key);
        let error = open(&online, &passphrase("correct horse")).err().unwrap();
        assert!(matches!(error, OpenKeyError::Unparsable { .. }), "{error}");
    }

    // T28
    #[cfg(unix)]
    #[test]
    fn a_key_is_born_private_and_refused_when_others_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = made(folder.path(), "anna.key");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        for exposed in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
            let error = open(&path, &passphrase("correct horse")).err().unwrap();
            assert!(matches!(error, OpenKeyError::Exposed { mode, .. } if mode == exposed));
        }
    }

    #[test]
    fn no_file_is_written_over_and_none_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = made(folder.path(), "anna.key");
        let before = fs::read(&path).unwrap();
        let again = create(&path, &Protection::Mode).unwrap_err();
        assert!(matches!(again, CreateKeyError::Exists { .. }));
        assert_eq!(fs::read(&path).unwrap(), before);
        // Its public half alone is in the way as well.
        fs::write(folder.path().join("ben.pub"), "mine").unwrap();
        assert!(create(&folder.path().join("ben.key"), &Protection::Mode).is_err());
        for bad in ["anna", "anna.pem", ".key", "-a.key", "a b.key"] {
            let error = create(&folder.path().join(bad), &Protection::Mode).unwrap_err();
            assert!(matches!(error, CreateKeyError::Name { .. }), "{bad}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_public_half_that_was_changed_is_refused_with_its_field() {
        let folder = tempfile::tempdir().unwrap();
        let (path, named) = made(folder.path(), "anna.key");
        let path = path.with_extension("pub");
        let text = fs::read_to_string(&path).unwrap();
        let id = named.id().to_string();
        for (change, with, says) in [
            (id.as_str(), "00", "its keyid is 00"),
            ("\"anna\"", "\"../a\"", "its name"),
            ("\"name\"", "\"nom\"", "field nom"),
            ("\"ed25519\"", "\"none\"", "its keyid"),
            ("{", "", "field"),
        ] {
            fs::write(&path, text.replacen(change, with, 1)).unwrap();
            let error = NamedKey::read(&path).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn openssl_reads_the_key_and_finds_the_same_public_half() {
        let folder = tempfile::tempdir().unwrap();
        let (path, named) = made(folder.path(), "anna.key");
        let mut openssl = std::process::Command::new("openssl");
        openssl.args([
            "pkey",
            "-passin",
            "pass:correct horse",
            "-pubout",
            "-outform",
            "DER",
            "-in",
        ]);
        let Ok(output) = openssl.arg(&path).output() else {
            eprintln!("skipped: there is no openssl");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let public = output.stdout.last_chunk::<32>().unwrap();
        assert_eq!(named.key, Key::ed25519(public));
    }
}
