//! A control that signs whatever a test wants, in the test's own process: its keys are all in one hand.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sutler_cache::{Store, StoreOptions};
use sutler_protocol::manifest::signed::Document;
use sutler_protocol::manifest::{
    Delegation, Expires, Kind, Pin, RoleName, Root, Signed, SigningKey, Snapshot, TargetFile,
    TargetPath, Targets, Timestamp as Statement, Version,
};
use sutler_swarm::arrivals::Arrivals;
use sutler_swarm::counters::Counters;
use sutler_swarm::identity::{Authority, Identity, LEAF_LIFETIME, Member, PeerName, Validity};
use sutler_swarm::orders::{Board, NotTaken, Orders, Place, Reports};
use sutler_swarm::{Endpoint, Server, StoreGateway, TransportConfig};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Delegated roles, and the paths that they may name.
const ROLES: [(&str, &str); 5] = [
    ("content-2026-11", "content/2026-11/*/*"),
    ("approvals-qa", "approvals/qa/*"),
    ("schedules-qa", "schedules/qa/*"),
    ("sites", "sites/*"),
    ("halts", "halts/*"),
];

pub(crate) struct Control {
    pub(crate) address: SocketAddr,
    pub(crate) reports: Arc<Pile>,
    pub(crate) dir: TempDir,
    board: Board,
    keys: BTreeMap<String, SigningKey>,
    contents: BTreeMap<TargetPath, TargetFile>,
    files: BTreeMap<&'static str, BTreeMap<String, Bytes>>,
    seq: u64,
    version: u64,
    lifetime: SignedDuration,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

/// Reports that arrived.
#[derive(Default)]
pub(crate) struct Pile(Mutex<Vec<Bytes>>);

impl Reports for Pile {
    fn take(&self, _from: &PeerName, report: Bytes) -> Result<(), NotTaken> {
        self.0.lock().unwrap().push(report);
        Ok(())
    }
}

impl Pile {
    pub(crate) fn all(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().clone()
    }
}

impl Control {
    /// Starts a control of the organisation whose authority lies in `authority`. Must be called within a runtime.
    pub(crate) fn start(authority: &Path) -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::open(authority).unwrap();
        let folder = dir.path().join("identity");
        let member = Member::Control { id: "control".parse().unwrap() };
        authority.issue(member, Validity::from_now(LEAF_LIFETIME), &folder).unwrap();
        let identity = Identity::load(&folder).unwrap();
        let transport = TransportConfig::default();
        let endpoint =
            Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity, transport).unwrap();
        let address = endpoint.local_address().unwrap();
        let reports = Arc::new(Pile::default());
        let organisation = authority.organisation().clone();
        let board =
            Board::new(&dir.path().join("orders"), organisation, Some(Arc::clone(&reports) as _));
        let options = StoreOptions { bytes_max: None, free_bytes_min: 0 };
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        let gateway = StoreGateway { store, arrivals: Arrivals::default() };
        let server = Server::new(endpoint, gateway, Arc::new(Counters::default()))
            .orders(Some(Arc::new(board.clone()) as Arc<dyn Orders>));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(stop.clone()));
        let top = ["root", "timestamp", "snapshot", "targets"].into_iter();
        let names = top.chain(ROLES.into_iter().map(|(role, _)| role)).enumerate();
        let keys = names
            .map(|(n, role)| (role.to_owned(), SigningKey::from_seed(&[n as u8 + 1; 32])))
            .collect();
        let control = Self {
            address,
            reports,
            dir,
            board,
            keys,
            contents: BTreeMap::new(),
            files: BTreeMap::new(),
            seq: 0,
            version: 0,
            lifetime: SignedDuration::from_hours(7 * 24),
            stop,
            _tasks: tasks,
        };
        let root = control.root();
        control.put("metadata/1.root.json", &root);
        std::fs::write(control.dir.path().join("root.json"), &root).unwrap();
        control
    }

    fn root(&self) -> Bytes {
        let mut root = Root::new(Version::FIRST, in_hours(24 * 365));
        for (kind, role) in [
            (Kind::Root, "root"),
            (Kind::Timestamp, "timestamp"),
            (Kind::Snapshot, "snapshot"),
            (Kind::Targets, "targets"),
        ] {
            root.set_keys(kind, &[self.keys[role].key().clone()], 1);
        }
        self.sign("root", &root)
    }

    fn sign<T: Document + serde::Serialize>(&self, role: &str, document: &T) -> Bytes {
        let mut signed = Signed::propose(document).unwrap();
        signed.sign(&self.keys[role]);
        signed.bytes().clone()
    }

    /// Publishes a content, and returns what an approval says of it.
    pub(crate) fn content(&mut self, name: &str, bytes: &[u8]) -> Value {
        let id = sutler_protocol::ContentId::of(bytes).to_string();
        let mut file = TargetFile::of(bytes);
        let about = json!({
            "format": 1, "blake3": id, "name": name, "kind": "demo",
            "published": "2026-11-27T00:00:00Z", "cve": ["CVE-2026-12345"],
            "product": "tool", "version": "2.0-1",
        });
        file.custom = Some(json!({ "sutler": about }));
        let sha256 = file.hashes.sha256().unwrap();
        let sha256 = sutler_protocol::Sha256Digest::from_bytes(sha256).to_string();
        let sha256 = sha256.trim_start_matches("sha256:");
        let path = format!("content/2026-11/{id}/{name}");
        self.contents.insert(TargetPath::from(path.as_str()), file);
        json!({
            "action": "install", "blake3": id, "sha256": sha256, "length": bytes.len(),
            "kind": "demo", "by": "Anna", "at": now(),
        })
    }

    /// Signs an order file; it is published with the next statement.
    pub(crate) fn set(&mut self, role: &'static str, path: &str, kind: &str, body: &Value) {
        self.seq += 1;
        let mut file = json!({
            "_type": kind, "format": 1, "organisation": "acme", "seq": self.seq, "issued": now(),
        });
        if role.ends_with("-qa") {
            file["scope"] = json!("qa");
        }
        file.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let bytes = Bytes::from(file.to_string());
        self.files.entry(role).or_default().insert(path.to_owned(), bytes);
    }

    /// Gives statements so long a life.
    pub(crate) fn lifetime(&mut self, lifetime: SignedDuration) {
        self.lifetime = lifetime;
    }

    fn put(&self, place: &str, bytes: &Bytes) {
        self.board.mirror().put(&Place::parse(place).unwrap(), bytes).unwrap();
    }

    /// Signs a new version of everything, and tells of it.
    pub(crate) fn publish(&mut self) {
        self.version += 1;
        let version = Version::new(self.version).unwrap();
        let expires = in_hours(24 * 30);
        let mut snapshot = Snapshot::new(version, expires);
        let mut top = Targets::new(version, expires);
        for (role, pattern) in ROLES {
            let name = RoleName::delegated(role).unwrap();
            let key = self.keys[role].key().clone();
            let paths = vec![pattern.to_owned()];
            top.delegate(
                Delegation::new(name.clone(), std::slice::from_ref(&key), 1, paths),
                std::slice::from_ref(&key),
            );
            let mut targets = Targets::new(version, expires);
            if role.starts_with("content-") {
                for (path, file) in &self.contents {
                    targets.set_file(path, file.clone());
                }
            }
            for (path, bytes) in self.files.get(role).into_iter().flatten() {
                let (path, file) = (TargetPath::from(path.as_str()), TargetFile::of(bytes));
                let place = path.place(file.hashes.prefix().as_deref());
                self.put(&format!("targets/{place}"), bytes);
                targets.set_file(&path, file);
            }
            let bytes = self.sign(role, &targets);
            snapshot.set_pin(&name, Pin::of(version, &bytes));
            self.put(&format!("metadata/{}", name.place(Some(version))), &bytes);
        }
        let top = self.sign("targets", &top);
        snapshot.set_pin(&RoleName::targets(), Pin::of(version, &top));
        self.put(&format!("metadata/{version}.targets.json"), &top);
        let snapshot = self.sign("snapshot", &snapshot);
        self.put(&format!("metadata/{version}.snapshot.json"), &snapshot);
        let pin = Pin::of(version, &snapshot);
        let issued = Timestamp::now();
        let expires = Expires::at(issued + self.lifetime);
        let statement = Statement::new(version, Expires::at(issued), expires, pin);
        let statement = self.sign("timestamp", &statement);
        self.put("metadata/timestamp.json", &statement);
        self.board.tell(Some(statement));
    }

    /// A denial by an approver, outside of every file.
    pub(crate) fn denial(&self, content: &Value) -> Bytes {
        let denial = json!({
            "_type": "denial", "format": 1, "organisation": "acme", "scope": "qa", "id": "d1",
            "issued": now(), "contents": [content], "by": "Ben",
        });
        let message = sutler_protocol::manifest::json::canonical(&denial).unwrap();
        let signature = self.keys["approvals-qa"].sign(&message);
        let signature = json!({ "keyid": signature.keyid.as_str(), "sig": signature.sig });
        json!({ "signatures": [signature], "signed": denial }).to_string().into()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The instant of now, as orders write it.
pub(crate) fn now() -> String {
    // Not later than any statement that follows.
    format!("{:.0}", Timestamp::from_second(Timestamp::now().as_second()).unwrap())
}

fn in_hours(hours: i64) -> Expires {
    Expires::at(Timestamp::now() + SignedDuration::from_hours(hours))
}
