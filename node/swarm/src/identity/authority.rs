//! An organisation's own certificate authority, kept in a folder that is meant to stay offline.
//!
//! It names members as its caller chose: a device's signing request gives a public key and nothing
//! else, so there is nothing that could ask for more names than were granted. An *intermediate* is an
//! authority below it, for control, which names nodes and agents and nobody else.
//!
//! Invariants: a certificate names exactly one URI and both extended key usages; it never outlives
//! its authority; a folder that exists is never overwritten, because its key may be in use.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ED25519, PublicKeyData, SanType, SigningKey,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::files::{self, NewFile, Readers, Secret};
use super::load::{CHAIN_FILE, KEY_FILE, ROOTS_FILE};
use super::name::{Label, Member, Organisation, PeerName, Role};

/// How long a member's certificate lives unless told otherwise: 90 days, as long as a machine may be
/// switched off and still be a member.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(90 * DAY_SECS);

/// How long an authority lives: 10 years. Its members all have to learn of the next one.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3_650 * DAY_SECS);

/// How long an intermediate lives unless told otherwise: 13 months, as the manifest's root does, so
/// that one visit to the offline machine renews both.
pub const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(395 * DAY_SECS);

/// How far back a certificate begins, for members whose clocks are behind.
const CLOCK_SLACK: Duration = Duration::from_hours(1);

/// Lifetimes are cut to this, 100 years, before they are added to a time; every authority ends earlier.
const LIFETIME_MAX: Duration = Duration::from_secs(36_500 * DAY_SECS);

const DAY_SECS: u64 = 24 * 60 * 60;

const ORGANISATION_FILE: &str = "org.json";
const AUTHORITY_KEY_FILE: &str = "ca-key.pem";

/// The version of `org.json` that this code writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// An organisation's certificate authority: whoever holds it decides who is a member.
pub struct Authority {
    organisation: Organisation,
    roots_pem: String,
    /// An intermediate's own certificate, which its members show beside theirs; empty for a root.
    above_pem: String,
    issuer: Issuer<'static, KeyPair>,
    ends: SystemTime,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: SystemTime,
    not_after: SystemTime,
}

/// What `org.json` says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrganisationFile {
    format: u32,
    organisation: String,
}

/// Why no authority was made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityCreateError {
    /// Something is there already, perhaps an authority whose key is in use.
    #[error("{} exists and is not empty; an authority is never overwritten", .dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The key or the certificate could not be made.
    #[error("make the authority's certificate")]
    Certificate(#[source] rcgen::Error),
    /// The disk refused. Nothing was left behind.
    #[error("write {}", .dir.display())]
    Write {
        /// The folder.
        dir: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// Why a folder is no usable authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityOpenError {
    /// There is no such file: `sutler org init` makes an authority.
    #[error("{} is missing; `sutler org init` makes an authority", .path.display())]
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
    /// A newer program made it.
    #[error("{} has format {found}, this program knows {FORMAT}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that it says.
        found: u32,
    },
    /// The file does not say what it should.
    #[error("{} cannot be understood", .path.display())]
    Unparsable {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the one that the certificate was made for.
    #[error("the key in {} does not belong to the certificate beside it", .path.display())]
    KeyMismatch {
        /// The key's file.
        path: PathBuf,
    },
}

/// Why no identity was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Something is there already, perhaps an identity that is in use.
    #[error("{} exists and is not empty; an identity is never overwritten", .dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// Nobody would accept a certificate past its authority's end.
    #[error("the certificate would outlive its authority, which has {} days left", .left.as_secs() / DAY_SECS)]
    OutlivesAuthority {
        /// Time until the authority's own end; zero if that has passed.
        left: Duration,
    },
    /// An intermediate lies on a machine that is online: it may neither name control nor make
    /// another of its kind, or whoever stole it once would be control for ever.
    #[error(
        "an intermediate names nodes and agents alone; this takes the organisation's own folder"
    )]
    ByIntermediate,
    /// The key or the certificate could not be made.
    #[error("make the certificate")]
    Certificate(#[source] rcgen::Error),
    /// The disk refused. Nothing was left behind.
    #[error("write {}", .dir.display())]
    Write {
        /// The folder.
        dir: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

impl Validity {
    /// Begins now, a little back for clocks that are behind, and ends after `lifetime`.
    pub fn from_now(lifetime: Duration) -> Self {
        Self::starting(SystemTime::now(), lifetime)
    }

    /// Cut to begin at `time` at the earliest: certificates before it may be revoked.
    #[must_use]
    pub fn no_sooner_than(self, time: SystemTime) -> Self {
        Self { not_before: self.not_before.max(time), not_after: self.not_after.max(time) }
    }

    /// Cut to end at `time` at the latest: when the authority does.
    #[must_use]
    pub fn no_later_than(self, time: SystemTime) -> Self {
        Self { not_before: self.not_before, not_after: self.not_after.min(time) }
    }

    /// Begins at `start`, a little back for clocks that are behind, and ends `lifetime` after it.
    pub fn starting(start: SystemTime, lifetime: Duration) -> Self {
        Self { not_before: start - CLOCK_SLACK, not_after: start + lifetime.min(LIFETIME_MAX) }
    }
}

impl Authority {
    /// Makes an authority for `organisation` in the folder `dir`, which must be absent or empty.
    ///
    /// # Errors
    ///
    /// [`AuthorityCreateError`].
    pub fn create(dir: &Path, organisation: Organisation) -> Result<Self, AuthorityCreateError> {
        let validity = Validity::from_now(AUTHORITY_LIFETIME);
        let key =
            KeyPair::generate_for(&PKCS_ED25519).map_err(AuthorityCreateError::Certificate)?;
        let params = root_params(&organisation, validity);
        let root = params.self_signed(&key).map_err(AuthorityCreateError::Certificate)?;
        let about = organisation_text(&organisation);
        let key_pem = Zeroizing::new(key.serialize_pem());
        let roots_pem = root.pem();
        files::create_folder(
            dir,
            &[
                NewFile { name: AUTHORITY_KEY_FILE, text: &key_pem, readers: Readers::Owner },
                NewFile { name: ROOTS_FILE, text: &roots_pem, readers: Readers::Everyone },
                NewFile { name: ORGANISATION_FILE, text: &about, readers: Readers::Everyone },
            ],
        )
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => AuthorityCreateError::Exists { dir: dir.to_owned() },
            _ => AuthorityCreateError::Write { dir: dir.to_owned(), source },
        })?;
        Ok(Self {
            organisation,
            roots_pem,
            above_pem: String::new(),
            issuer: Issuer::new(params, key),
            ends: validity.not_after,
        })
    }

    /// Opens the authority in the folder `dir`.
    ///
    /// # Errors
    ///
    /// [`AuthorityOpenError`].
    pub fn open(dir: &Path) -> Result<Self, AuthorityOpenError> {
        let organisation = read_organisation(&dir.join(ORGANISATION_FILE))?;
        let root_path = dir.join(ROOTS_FILE);
        let pem = files::read(&root_path).map_err(|source| read_error(&root_path, source))?;
        let unparsable = || AuthorityOpenError::Unparsable { path: root_path.clone() };
        let roots_pem = String::from_utf8(pem).map_err(|_| unparsable())?;
        let above_path = dir.join(CHAIN_FILE);
        let above_pem = match files::read(&above_path) {
            Ok(pem) => String::from_utf8(pem)
                .map_err(|_| AuthorityOpenError::Unparsable { path: above_path.clone() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(read_error(&above_path, source)),
        };
        // Of the roots the first is the one that signs; any others are handed to members to believe
        // as well.
        let (own_path, own_pem) = match above_pem.as_str() {
            "" => (root_path, roots_pem.as_str()),
            above => (above_path, above),
        };
        let unparsable = || AuthorityOpenError::Unparsable { path: own_path.clone() };
        let own = CertificateDer::from_pem_slice(own_pem.as_bytes()).map_err(|_| unparsable())?;
        let key_path = dir.join(AUTHORITY_KEY_FILE);
        let key = read_key(&key_path)?;
        let (_, certificate) = X509Certificate::from_der(&own).map_err(|_| unparsable())?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityOpenError::KeyMismatch { path: key_path });
        }
        let ends = certificate.validity().not_after.timestamp();
        let ends = u64::try_from(ends).map_err(|_| unparsable())?;
        let issuer = Issuer::from_ca_cert_der(&own, key).map_err(|_| unparsable())?;
        Ok(Self {
            organisation,
            ends: SystemTime::UNIX_EPOCH + Duration::from_secs(ends),
            issuer,
            roots_pem,
            above_pem,
        })
    }

    /// Returns the organisation whose members this authority names.
    pub fn organisation(&self) -> &Organisation {
        &self.organisation
    }

    /// Returns when this authority's own certificate ends: no member's outlives it.
    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// Returns whether this is an intermediate, below the organisation's own authority.
    pub fn is_intermediate(&self) -> bool {
        !self.above_pem.is_empty()
    }

    /// Returns the roots that the members believe, as PEM.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Makes an authority below this one in the folder `out`, which must be absent or empty: it names
    /// nodes and agents of this organisation and nobody else. [`Authority::open`] reads the folder.
    ///
    /// # Errors
    ///
    /// [`IssueError`].
    pub fn intermediate(
        &self,
        id: &Label,
        validity: Validity,
        out: &Path,
    ) -> Result<(), IssueError> {
        if self.is_intermediate() {
            return Err(IssueError::ByIntermediate);
        }
        self.check_lives_to(validity)?;
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(IssueError::Certificate)?;
        let certificate = intermediate_params(&self.organisation, id, validity)
            .signed_by(&key, &self.issuer)
            .map_err(IssueError::Certificate)?;
        let about = organisation_text(&self.organisation);
        let key_pem = Zeroizing::new(key.serialize_pem());
        let own_pem = certificate.pem();
        write_folder(
            out,
            &[
                NewFile { name: AUTHORITY_KEY_FILE, text: &key_pem, readers: Readers::Owner },
                NewFile { name: CHAIN_FILE, text: &own_pem, readers: Readers::Everyone },
                NewFile { name: ROOTS_FILE, text: &self.roots_pem, readers: Readers::Everyone },
                NewFile { name: ORGANISATION_FILE, text: &about, readers: Readers::Everyone },
            ],
        )
    }

    /// Certifies that `key` belongs to `member`, and returns what the member shows: its certificate,
    /// then this authority's own unless that is a root, as PEM.
    ///
    /// # Errors
    ///
    /// [`IssueError`]; nothing is written.
    pub fn certify(
        &self,
        member: Member,
        validity: Validity,
        key: &impl PublicKeyData,
    ) -> Result<String, IssueError> {
        let name = PeerName::new(self.organisation.clone(), member);
        let certificate = self.sign(&name, validity, key)?;
        Ok(certificate.pem() + &self.above_pem)
    }

    /// Signs a statement with the authority's key, such as a token.
    ///
    /// # Errors
    ///
    /// [`IssueError::ByIntermediate`]: what lies at control signs nothing but certificates.
    pub fn sign_statement(&self, statement: &[u8]) -> Result<Vec<u8>, IssueError> {
        if self.is_intermediate() {
            return Err(IssueError::ByIntermediate);
        }
        self.issuer.key().sign(statement).map_err(IssueError::Certificate)
    }

    /// Makes a key and a certificate for `member` in the folder `out`, which must be absent or empty,
    /// and returns the member's full name. [`super::Identity::load`] reads such a folder.
    ///
    /// # Errors
    ///
    /// [`IssueError`].
    pub fn issue(
        &self,
        member: Member,
        validity: Validity,
        out: &Path,
    ) -> Result<PeerName, IssueError> {
        let name = PeerName::new(self.organisation.clone(), member);
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(IssueError::Certificate)?;
        let chain_pem = self.sign(&name, validity, &key)?.pem() + &self.above_pem;
        let key_pem = Zeroizing::new(key.serialize_pem());
        write_folder(
            out,
            &[
                NewFile { name: KEY_FILE, text: &key_pem, readers: Readers::Owner },
                NewFile { name: CHAIN_FILE, text: &chain_pem, readers: Readers::Everyone },
                NewFile { name: ROOTS_FILE, text: &self.roots_pem, readers: Readers::Everyone },
            ],
        )?;
        Ok(name)
    }

    /// Signs a member's certificate: the one place where names are given.
    fn sign(
        &self,
        name: &PeerName,
        validity: Validity,
        key: &impl PublicKeyData,
    ) -> Result<Certificate, IssueError> {
        if self.is_intermediate() && name.role() == Role::Control {
            return Err(IssueError::ByIntermediate);
        }
        self.check_lives_to(validity)?;
        leaf_params(name, validity)
            .and_then(|params| params.signed_by(key, &self.issuer))
            .map_err(IssueError::Certificate)
    }

    fn check_lives_to(&self, validity: Validity) -> Result<(), IssueError> {
        if validity.not_after > self.ends {
            let left = self.ends.duration_since(SystemTime::now()).unwrap_or_default();
            return Err(IssueError::OutlivesAuthority { left });
        }
        Ok(())
    }
}

fn write_folder(out: &Path, files: &[NewFile<'_>]) -> Result<(), IssueError> {
    files::create_folder(out, files).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => IssueError::Exists { dir: out.to_owned() },
        _ => IssueError::Write { dir: out.to_owned(), source },
    })
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.organisation)
    }
}

fn root_params(organisation: &Organisation, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.distinguished_name = subject(organisation, "organisation root");
    // One intermediate may come between the root and a member: the one at control.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn intermediate_params(
    organisation: &Organisation,
    id: &Label,
    validity: Validity,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.distinguished_name = subject(organisation, &format!("intermediate {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    // It vouches for no host and no address, whoever else may believe this organisation. That its
    // members' URIs name no control is for our verifier: webpki refuses any constraint on URIs.
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: Vec::new(),
        excluded_subtrees: vec![
            GeneralSubtree::DnsName(String::new()),
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ],
    });
    params.use_authority_key_identifier_extension = true;
    params
}

fn leaf_params(name: &PeerName, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.distinguished_name = subject(name.organisation(), name.member().id().as_str());
    params.subject_alt_names = vec![SanType::URI(name.to_string().try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// For people who look at certificates; nothing here reads it.
fn subject(organisation: &Organisation, common_name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, organisation.as_str());
    subject.push(DnType::CommonName, common_name);
    subject
}

fn organisation_text(organisation: &Organisation) -> String {
    let file = OrganisationFile { format: FORMAT, organisation: organisation.as_str().to_owned() };
    serde_json::to_string(&file).expect("a number and a string are JSON") + "\n"
}

/// Reads the roots that members of the organisation in the folder `dir` believe, one at least, the first of
/// which is its own. The authority's key need not be there.
///
/// # Errors
///
/// [`AuthorityOpenError`].
pub fn read_roots(dir: &Path) -> Result<Vec<CertificateDer<'static>>, AuthorityOpenError> {
    let path = dir.join(ROOTS_FILE);
    let pem = files::read(&path).map_err(|source| read_error(&path, source))?;
    let roots = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let roots = roots.ok().filter(|roots| !roots.is_empty());
    roots.ok_or(AuthorityOpenError::Unparsable { path })
}

fn read_organisation(path: &Path) -> Result<Organisation, AuthorityOpenError> {
    let text = files::read(path).map_err(|source| read_error(path, source))?;
    let unparsable = || AuthorityOpenError::Unparsable { path: path.to_owned() };
    let about: OrganisationFile = serde_json::from_slice(&text).map_err(|_| unparsable())?;
    if about.format != FORMAT {
        return Err(AuthorityOpenError::Format { path: path.to_owned(), found: about.format });
    }
    about.organisation.parse().map_err(|_| unparsable())
}

fn read_key(path: &Path) -> Result<KeyPair, AuthorityOpenError> {
    let unparsable = || AuthorityOpenError::Unparsable { path: path.to_owned() };
    match files::read_secret(path).map_err(|source| read_error(path, source))? {
        Secret::Exposed(mode) => Err(AuthorityOpenError::Exposed { path: path.to_owned(), mode }),
        Secret::Bytes(pem) => {
            let pem = std::str::from_utf8(&pem).map_err(|_| unparsable())?;
            KeyPair::from_pem(pem).map_err(|_| unparsable())
        }
    }
}

fn read_error(path: &Path, source: io::Error) -> AuthorityOpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => AuthorityOpenError::Missing { path },
        _ => AuthorityOpenError::Read { path, source },
    }
}
