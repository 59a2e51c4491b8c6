//! An organisation to attack, and the means: its own authority's key, and authorities of others.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SignatureAlgorithm,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use sutler_swarm::identity::{Authority, Identity, Member, Role, Validity};

pub(crate) const DAY: Duration = Duration::from_hours(24);

/// How long forged and issued certificates live here.
pub(crate) const LIFETIME: Duration = Duration::from_hours(30 * 24);

/// The name that forged certificates claim unless a test says otherwise.
pub(crate) const AGENT: &str = "spiffe://acme/site/leeds/agent/a1";

/// An organisation in a folder that goes when it does.
pub(crate) struct Organisation {
    folder: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Organisation {
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = name.parse().expect("an organisation's name");
        let authority = Authority::create(&folder.path().join("org"), name).expect("an authority");
        Self { folder, authority }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Issues and loads an identity the honest way.
    pub(crate) fn member(&self, role: Role, id: &str) -> Identity {
        let dir = self.path(&format!("{role}-{id}"));
        self.authority
            .issue(member(role, id), Validity::from_now(LIFETIME), &dir)
            .expect("an identity");
        Identity::load(&dir).expect("the identity loads")
    }

    /// The authority's own key, stolen: for certificates that the authority would never issue.
    pub(crate) fn stolen(&self) -> Ca {
        let read = |name| std::fs::read_to_string(self.path("org").join(name)).expect("a file");
        let key = KeyPair::from_pem(&read("ca-key.pem")).expect("a key");
        let der = CertificateDer::from_pem_slice(read("ca.pem").as_bytes()).expect("a certificate");
        let issuer = Issuer::from_ca_cert_der(&der, key).expect("an issuer");
        Ca { der, issuer }
    }
}

pub(crate) fn member(role: Role, id: &str) -> Member {
    let site = "leeds".parse().expect("a site");
    let id = id.parse().expect("an id");
    match role {
        Role::Node => Member::Node { site, id },
        Role::Agent => Member::Agent { site, id },
        Role::Control => Member::Control { id },
    }
}

/// Something that signs certificates, rightfully or not.
pub(crate) struct Ca {
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate, and the key to use it with.
pub(crate) struct Leaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

impl Ca {
    pub(crate) fn of(der: CertificateDer<'static>, issuer: Issuer<'static, KeyPair>) -> Self {
        Self { der, issuer }
    }

    /// A root of its own making, with the subject that an honest authority of `organisation` has.
    pub(crate) fn posing_as(organisation: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let params = root_params(organisation);
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let der = params.self_signed(&key).expect("a certificate").into();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// An authority below this one.
    pub(crate) fn intermediate(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = root_params("acme");
        params.distinguished_name.push(DnType::CommonName, "intermediate");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        change(&mut params);
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let der = params.signed_by(&key, &self.issuer).expect("a certificate").into();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// A certificate like those that members have, then changed.
    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        self.leaf_with(&PKCS_ED25519, change)
    }

    pub(crate) fn leaf_with(
        &self,
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let mut params = leaf_params();
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let der = params.signed_by(&key, &self.issuer).expect("a certificate").into();
        Leaf { der, key }
    }
}

impl Leaf {
    /// A certificate like those that members have, signed by nobody but itself, then changed.
    pub(crate) fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = leaf_params();
        change(&mut params);
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        Self { der: params.self_signed(&key).expect("a certificate").into(), key }
    }

    /// Lets this certificate sign others, as if it were an authority.
    pub(crate) fn usurp(self) -> Ca {
        let issuer = Issuer::from_ca_cert_der(&self.der, self.key).expect("an issuer");
        Ca { der: self.der, issuer }
    }

    /// What TLS shows of this certificate, proved with `key`.
    pub(crate) fn shown_with(&self, key: &KeyPair) -> Arc<SingleCertAndKey> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = any_supported_type(&key).expect("a key");
        Arc::new(CertifiedKey::new(vec![self.der.clone()], key).into())
    }

    pub(crate) fn shown(&self) -> Arc<SingleCertAndKey> {
        self.shown_with(&self.key)
    }
}

fn root_params(organisation: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    valid_now(&mut params);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    params.distinguished_name.push(DnType::CommonName, "organisation root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    valid_now(&mut params);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "a1");
    params.subject_alt_names = vec![uri(AGENT)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn valid_now(params: &mut CertificateParams) {
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + LIFETIME).into();
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

/// The machine's clock, moved forward at will.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    ahead_secs: AtomicU64,
}

impl Clock {
    pub(crate) fn forward(&self, by: Duration) {
        self.ahead_secs.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(ahead(Duration::from_secs(self.ahead_secs.load(Ordering::SeqCst))))
    }
}

/// The time `by` from now.
pub(crate) fn ahead(by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + by)
}
