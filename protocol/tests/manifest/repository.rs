//! A repository in memory, with real keys, that can be made to lie.
//!
//! Documents are JSON values that a test changes as it likes; [`Repository::publish`] signs them and
//! puts them where a client looks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PSS_SHA256,
    RsaKeyPair,
};
use bytes::Bytes;
use serde_json::{Value, json};
use sutler_protocol::manifest::drive::{self, DriveError, Keeper};
use sutler_protocol::manifest::{
    Answer, Fetch, Found, Keep, Kept, RoleName, Roles, TargetPath, Trusted, json as canonical,
};

pub(crate) type Refused = DriveError<Infallible, Infallible>;

/// The time of every test, but where it says otherwise.
pub(crate) fn now() -> jiff::Timestamp {
    "2026-11-23T09:00:00Z".parse().unwrap()
}

pub(crate) fn days(days: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_hours(24 * days)
}

/// An expiry so many days after [`now`].
pub(crate) fn in_days(count: i64) -> Value {
    json!((now() + days(count)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

pub(crate) enum SigningKey {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(&'static RsaKeyPair),
}

/// An RSA key takes long to make.
static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

impl SigningKey {
    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn ecdsa() -> Self {
        Self::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    pub(crate) fn rsa() -> Self {
        Self::Rsa(&RSA)
    }

    pub(crate) fn id(&self) -> String {
        hex(digest::digest(&digest::SHA256, self.public().to_string().as_bytes()).as_ref())
    }

    /// The key as a document lists it.
    pub(crate) fn public(&self) -> Value {
        let (keytype, scheme, public) = match self {
            Self::Ed25519(key) => ("ed25519", "ed25519", hex(key.public_key().as_ref())),
            Self::Ecdsa(key) => {
                let der = key.public_key().as_der().unwrap();
                ("ecdsa", "ecdsa-sha2-nistp256", pem(der.as_ref()))
            }
            Self::Rsa(key) => {
                let der = key.public_key().as_der().unwrap();
                ("rsa", "rsassa-pss-sha256", pem(der.as_ref()))
            }
        };
        json!({ "keytype": keytype, "scheme": scheme, "keyval": { "public": public } })
    }

    /// The same key once more, as it may be written too.
    pub(crate) fn public_otherwise(&self) -> Value {
        let mut public = self.public();
        public["x-note"] = json!("the same");
        let text = public["keyval"]["public"].as_str().unwrap();
        public["keyval"]["public"] = match self {
            Self::Ed25519(_) => json!(text.to_uppercase()),
            Self::Rsa(_) => json!(text.replace('\n', "\r\n")),
            Self::Ecdsa(key) => {
                // One coordinate and the sign of the other.
                let mut der =
                    vec![0x30, 0x39, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
                der.extend([6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 0x22, 0]);
                let point = key.public_key().as_ref();
                der.push(2 + (point[64] & 1));
                der.extend(&point[1..33]);
                json!(pem(&der))
            }
        };
        public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> String {
        let random = SystemRandom::new();
        match self {
            Self::Ed25519(key) => hex(key.sign(message).as_ref()),
            Self::Ecdsa(key) => hex(key.sign(&random, message).unwrap().as_ref()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PSS_SHA256, &random, message, &mut signature).unwrap();
                hex(&signature)
            }
        }
    }
}

pub(crate) struct Repository {
    /// What is signed next for each role.
    pub(crate) signed: BTreeMap<String, Value>,
    /// Who signs for it.
    pub(crate) signers: BTreeMap<String, Vec<SigningKey>>,
    /// What a client finds below the metadata.
    pub(crate) places: BTreeMap<String, Bytes>,
    /// The documents of each role as they were published.
    pub(crate) published: BTreeMap<String, Vec<Bytes>>,
    /// Whether pins have length and hashes.
    pub(crate) pins_bytes: bool,
    /// What was asked for, in order.
    pub(crate) asked: Vec<String>,
}

impl Repository {
    /// A manifest of one key a role, published once.
    pub(crate) fn new() -> Self {
        let expires = in_days(30);
        let signed = |kind: &str| json!({ "_type": kind, "spec_version": "1.0.31", "version": 1, "expires": expires });
        let mut repository = Self {
            signed: BTreeMap::new(),
            signers: BTreeMap::new(),
            places: BTreeMap::new(),
            published: BTreeMap::new(),
            pins_bytes: false,
            asked: Vec::new(),
        };
        for role in ["root", "timestamp", "snapshot", "targets"] {
            repository.signed.insert(role.to_owned(), signed(role));
        }
        repository["root"]["consistent_snapshot"] = json!(true);
        repository["root"]["keys"] = json!({});
        repository["root"]["roles"] = json!({});
        repository["timestamp"]["meta"] = json!({ "snapshot.json": { "version": 1 } });
        repository["snapshot"]["meta"] = json!({});
        repository["targets"]["targets"] = json!({});
        for role in ["root", "timestamp", "snapshot", "targets"] {
            repository["root"]["roles"][role] = json!({ "keyids": [], "threshold": 1 });
            repository.add_key(role, SigningKey::ed25519());
        }
        repository.publish(&["root", "targets", "snapshot", "timestamp"]);
        repository
    }

    /// Lists a key for a top-level role, and signs with it from now on.
    pub(crate) fn add_key(&mut self, role: &str, key: SigningKey) {
        self["root"]["keys"][key.id()] = key.public();
        self["root"]["roles"][role]["keyids"].as_array_mut().unwrap().push(json!(key.id()));
        self.signers.entry(role.to_owned()).or_default().push(key);
    }

    /// Replaces every key of a top-level role. The root's own old keys go on signing.
    pub(crate) fn rotate(&mut self, role: &str) {
        self["root"]["roles"][role]["keyids"] = json!([]);
        if role != "root" {
            self.signers.remove(role);
        }
        self.add_key(role, SigningKey::ed25519());
    }

    /// Signs these roles, in this order, and pins what they have become.
    pub(crate) fn publish(&mut self, roles: &[&str]) {
        for role in roles {
            if self.published.contains_key(*role) {
                let version = self[role]["version"].as_u64().unwrap();
                self[role]["version"] = json!(version + 1);
            }
            self.publish_as_is(role);
        }
    }

    /// Signs a role without a new version.
    pub(crate) fn publish_as_is(&mut self, role: &str) {
        let version = self[role]["version"].as_u64().unwrap();
        let bytes = self.sign(role);
        self.publish_bytes(role, version, bytes);
    }

    /// Puts bytes where a client looks for this version of a role, and pins them.
    pub(crate) fn publish_bytes(&mut self, role: &str, version: u64, bytes: Bytes) {
        let mut pin = json!({ "version": version });
        if self.pins_bytes {
            pin["length"] = json!(bytes.len());
            pin["hashes"] = hashes(&bytes);
        }
        match role {
            "root" | "timestamp" => {}
            "snapshot" => self["timestamp"]["meta"]["snapshot.json"] = pin,
            role => self["snapshot"]["meta"][format!("{role}.json")] = pin,
        }
        let name = if role == "root" || role == "timestamp" {
            RoleName::root().place(None).replace("root", role)
        } else {
            RoleName::delegated(role)
                .map_or_else(|| format!("{role}.json"), |role| role.place(None))
        };
        if role != "timestamp" {
            self.places.insert(format!("{version}.{name}"), bytes.clone());
        }
        if role != "root" {
            self.places.insert(name, bytes.clone());
        }
        self.published.entry(role.to_owned()).or_default().push(bytes);
    }

    /// Signs a role's document by all of its signers.
    pub(crate) fn sign(&self, role: &str) -> Bytes {
        sign(&self.signed[role], self.signers.get(role).map_or(&[][..], |keys| keys))
    }

    /// Delegates to a role, which has a key of its own and names nothing yet.
    pub(crate) fn delegate(&mut self, delegator: &str, role: &str, more: &Value) {
        let key = SigningKey::ed25519();
        let delegations = &mut self[delegator]["delegations"];
        if delegations.is_null() {
            *delegations = json!({ "keys": {}, "roles": [] });
        }
        delegations["keys"][key.id()] = key.public();
        let mut delegation = json!({
            "name": role, "keyids": [key.id()], "threshold": 1, "terminating": false,
        });
        for (name, value) in more.as_object().unwrap() {
            delegation[name] = value.clone();
        }
        delegations["roles"].as_array_mut().unwrap().push(delegation);
        self.signers.entry(role.to_owned()).or_default().push(key);
        self.add_role(role);
    }

    /// Makes the document of a delegated role, if there is none.
    pub(crate) fn add_role(&mut self, role: &str) {
        let expires = in_days(30);
        self.signed.entry(role.to_owned()).or_insert_with(|| {
            json!({
                "_type": "targets", "spec_version": "1.0.31", "version": 1, "expires": expires,
                "targets": {},
            })
        });
    }

    /// Lets a role name a target file.
    pub(crate) fn add_target(&mut self, role: &str, path: &str, content: &[u8]) {
        self[role]["targets"][path] = json!({ "length": content.len(), "hashes": hashes(content) });
    }

    /// What a device that was handed the first root has kept.
    pub(crate) fn first_root(&self) -> Kept {
        Kept { root: self.published["root"][0].clone(), ..Kept::default() }
    }

    /// The newest document of a role.
    pub(crate) fn newest(&self, role: &str) -> Bytes {
        self.published[role].last().unwrap().clone()
    }
}

impl drive::Repository for Repository {
    type Error = Infallible;

    fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, Infallible> {
        self.asked.push(fetch.place.clone());
        Ok(match self.places.get(&fetch.place) {
            // As a transport does: cut off one byte behind the bound.
            Some(bytes) => {
                let end = bytes.len().min(fetch.bytes_max as usize + 1);
                Answer::Document(bytes.slice(..end))
            }
            None => Answer::Absent,
        })
    }
}

impl std::ops::Index<&str> for Repository {
    type Output = Value;

    fn index(&self, role: &str) -> &Value {
        &self.signed[role]
    }
}

impl std::ops::IndexMut<&str> for Repository {
    fn index_mut(&mut self, role: &str) -> &mut Value {
        self.signed.get_mut(role).unwrap()
    }
}

/// A device: what it believes, and what it has kept.
pub(crate) struct Device {
    pub(crate) trusted: Trusted,
    pub(crate) disk: Disk,
    pub(crate) now: jiff::Timestamp,
}

/// What was kept, as a store would.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) files: BTreeMap<String, Bytes>,
}

impl Device {
    pub(crate) fn new(kept: &Kept) -> Self {
        let mut disk = Disk::default();
        disk.files.insert("root".to_owned(), kept.root.clone());
        Self { trusted: Trusted::load(kept).unwrap(), disk, now: now() }
    }

    pub(crate) fn refresh(&mut self, repository: &mut Repository) -> Result<(), Refused> {
        drive::refresh(&mut self.trusted, repository, &mut self.disk, self.now)
    }

    pub(crate) fn find(
        &mut self,
        path: &str,
        from: &mut Repository,
    ) -> Result<Option<Found>, Refused> {
        let path = TargetPath::from(path);
        drive::find(&mut self.trusted, path, from, &mut self.disk, self.now)
    }

    pub(crate) fn sweep(&mut self, from: &mut Repository) -> Result<Roles, Refused> {
        drive::sweep(&mut self.trusted, from, &mut self.disk, self.now)
    }

    /// The device after a restart: it believes what it has kept.
    pub(crate) fn restart(self) -> Self {
        let file = |role: &str| self.disk.files.get(role).cloned();
        let kept = Kept {
            root: file("root").unwrap(),
            timestamp: file("timestamp"),
            snapshot: file("snapshot"),
            targets: file("targets"),
            ..Kept::default()
        };
        Self { trusted: Trusted::load(&kept).unwrap(), ..self }
    }

    /// The versions that are believed: of root, timestamp, snapshot and targets; 0 for none.
    pub(crate) fn versions(&self) -> [u64; 4] {
        let Self { trusted, .. } = self;
        [
            trusted.root().version().number(),
            trusted.timestamp().map_or(0, |believed| believed.version().number()),
            trusted.snapshot().map_or(0, |believed| believed.version().number()),
            trusted.targets().map_or(0, |believed| believed.version().number()),
        ]
    }
}

impl Keeper for Disk {
    type Error = Infallible;

    fn keep(&mut self, keep: Keep) -> Result<(), Infallible> {
        match keep {
            Keep::Document { role, bytes, .. } => self.files.insert(role.to_string(), bytes),
            Keep::Forget { role } => self.files.remove(role.as_str()),
        };
        Ok(())
    }

    fn load(&mut self, role: &RoleName) -> Option<Bytes> {
        self.files.get(role.as_str()).cloned()
    }
}

/// Signs a document by these keys.
pub(crate) fn sign(signed: &Value, keys: &[SigningKey]) -> Bytes {
    let message = canonical::canonical(signed).unwrap();
    let signatures: Vec<Value> =
        keys.iter().map(|key| json!({ "keyid": key.id(), "sig": key.sign(&message) })).collect();
    serde_json::to_vec(&json!({ "signatures": signatures, "signed": signed })).unwrap().into()
}

/// Changes the envelope of a document that was signed.
pub(crate) fn edit(bytes: &Bytes, change: impl FnOnce(&mut Value)) -> Bytes {
    let mut document = serde_json::from_slice(bytes).unwrap();
    change(&mut document);
    serde_json::to_vec(&document).unwrap().into()
}

pub(crate) fn hashes(bytes: &[u8]) -> Value {
    json!({
        "sha256": hex(digest::digest(&digest::SHA256, bytes).as_ref()),
        "sha512": hex(digest::digest(&digest::SHA512, bytes).as_ref()),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
    bytes.iter().flat_map(|byte| digits(*byte)).map(char::from).collect()
}

fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
    for (position, group) in der.chunks(3).enumerate() {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= group.len() { char::from(DIGITS[index]) } else { '=' });
        }
        if position % 16 == 15 {
            text.push('\n');
        }
    }
    text + "\n-----END PUBLIC KEY-----\n"
}

/// Every error of a chain, as an operator reads it.
pub(crate) fn said(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    said
}
