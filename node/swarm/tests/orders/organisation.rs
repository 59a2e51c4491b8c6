//! An organisation whose control signs, and machines that follow it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sutler_cache::{Store, StoreOptions};
use sutler_orders::approvals::Approvals;
use sutler_orders::audience::Audience;
use sutler_orders::denial::Denial;
use sutler_orders::halts::Halts;
use sutler_orders::{Body, Head, Kind, Order};
use sutler_protocol::ContentId;
use sutler_protocol::manifest::signed::Document;
use sutler_protocol::manifest::{
    Delegation, Expires, Kind as Metadata, Pin, RoleName, Root, Signed, SigningKey, Snapshot,
    TargetFile, TargetPath, Targets, Timestamp, Version,
};
use sutler_swarm::arrivals::Arrivals;
use sutler_swarm::counters::Counters;
use sutler_swarm::identity::{
    Authority, Identity, LEAF_LIFETIME, Member, Organisation as Name, PeerName, Validity,
    random_label,
};
use sutler_swarm::orders::{Board, Follower, NotTaken, Orders, Outbox, Place, Reports};
use sutler_swarm::{Endpoint, Server, StoreGateway, TransportConfig};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a test waits for at most. Far more than it takes: machines that run tests are busy.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Organisation {
    authority: Authority,
    dir: TempDir,
    keys: Mutex<BTreeMap<&'static str, SigningKey>>,
}

/// What control signs next.
pub(crate) struct Control {
    pub(crate) machine: Machine,
    pub(crate) reports: Arc<Pile>,
    version: u64,
    root: Version,
    issued: Option<Expires>,
    /// Who signs for what the scope's directorate says, where it was left to one.
    heads: Option<&'static str>,
    files: BTreeMap<&'static str, BTreeMap<String, Bytes>>,
}

/// A machine that serves its orders.
pub(crate) struct Machine {
    pub(crate) board: Board,
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    pub(crate) folder: PathBuf,
    pub(crate) counters: Arc<Counters>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// Reports that arrived.
#[derive(Default)]
pub(crate) struct Pile(pub(crate) Mutex<Vec<Bytes>>);

impl Reports for Pile {
    fn take(&self, _from: &PeerName, report: Bytes) -> Result<(), NotTaken> {
        self.0.lock().unwrap().push(report);
        Ok(())
    }
}

/// Who signs for each delegated role.
const DELEGATED: [&str; 3] = ["approvals-qa", "halts", "admission"];

impl Organisation {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority =
            Authority::create(&dir.path().join("org"), "acme".parse().unwrap()).unwrap();
        let roles =
            ["root", "timestamp", "snapshot", "targets", DELEGATED[0], DELEGATED[1], DELEGATED[2]];
        let key = |(position, role)| (role, SigningKey::from_seed(&[position as u8; 32]));
        let keys = Mutex::new(roles.into_iter().enumerate().map(key).collect());
        Self { authority, dir, keys }
    }

    fn identity(&self, member: Member) -> Identity {
        let folder = TempDir::new_in(self.dir.path()).unwrap().keep().join("identity");
        self.authority.issue(member, Validity::from_now(LEAF_LIFETIME), &folder).unwrap();
        Identity::load(&folder).unwrap()
    }

    pub(crate) fn control(&self) -> Control {
        let member = Member::Control { id: random_label() };
        let reports = Arc::new(Pile::default());
        let machine = self.machine(member, None, Some(Arc::clone(&reports) as _), None);
        let (version, root, files) = (0, Version::FIRST, BTreeMap::new());
        let (issued, heads) = (None, None);
        let mut control = Control { machine, reports, version, root, issued, heads, files };
        control.put_root(self);
        control.set(self, "approvals-qa", Some("qa"), 1, Approvals::default());
        control.set(self, "halts", None, 1, Halts::default());
        control
    }

    pub(crate) fn root(&self) -> Bytes {
        self.root_of(Version::FIRST)
    }

    fn root_of(&self, version: Version) -> Bytes {
        let mut root = Root::new(version, in_days(365));
        for (kind, role) in [
            (Metadata::Root, "root"),
            (Metadata::Timestamp, "timestamp"),
            (Metadata::Snapshot, "snapshot"),
            (Metadata::Targets, "targets"),
        ] {
            root.set_keys(kind, &[self.keys.lock().unwrap()[role].key().clone()], 1);
        }
        self.sign("root", &root)
    }

    /// Delegates to a role, which the key of `signer` signs for.
    fn delegate(&self, by: &mut Targets, role: &str, signer: &str, pattern: String) {
        let key = [self.keys.lock().unwrap()[signer].key().clone()];
        by.delegate(
            Delegation::new(RoleName::delegated(role).unwrap(), &key, 1, vec![pattern]),
            &key,
        );
    }

    fn sign<T: Document + serde::Serialize>(&self, role: &str, document: &T) -> Bytes {
        let mut signed = Signed::propose(document).unwrap();
        signed.sign(&self.keys.lock().unwrap()[role]);
        signed.bytes().clone()
    }

    /// A denial by an approver of `qa`, or by somebody else's key.
    pub(crate) fn denial(&self, content: &[u8], by: &str) -> Bytes {
        let denial = Denial {
            organisation: "acme".parse().unwrap(),
            scope: "qa".parse().unwrap(),
            id: "d1".parse().unwrap(),
            issued: "2026-11-27T20:00:00Z".parse().unwrap(),
            contents: vec![ContentId::of(content)],
            audience: Audience::default(),
            by: "anna".parse().unwrap(),
            reason: None,
        };
        let message = sutler_protocol::manifest::json::canonical(&denial.write().unwrap()).unwrap();
        let signature = self.keys.lock().unwrap()[by].sign(&message);
        denial.envelope(&[(signature.keyid, signature.sig)]).unwrap().into()
    }

    /// A machine in a folder, new or of before, that follows these sources.
    pub(crate) fn follower(&self, folder: Option<&Path>, sources: &[SocketAddr]) -> Machine {
        let member = Member::Node { site: "cologne".parse().unwrap(), id: random_label() };
        let folder = folder.map(Path::to_owned);
        let folder = folder.unwrap_or_else(|| TempDir::new_in(self.dir.path()).unwrap().keep());
        let outbox = Outbox::open(&folder.join("reports")).unwrap();
        let reports = Some(Arc::new(outbox.clone()) as Arc<dyn Reports>);
        let mut machine = self.machine(member, Some(&folder), reports, None);
        let (board, endpoint) = (machine.board.clone(), machine.endpoint.clone());
        let root = self.root();
        let follower =
            Follower::open(&folder, Some(&root), board, endpoint.clone(), sources.to_vec())
                .unwrap();
        machine.tasks.spawn(follower.run(machine.stop.clone()));
        machine.tasks.spawn(outbox.run(endpoint, sources.to_vec(), machine.stop.clone()));
        machine
    }

    /// A control that answers from these orders, whatever they are.
    pub(crate) fn server(&self, orders: Arc<dyn Orders>) -> Machine {
        self.machine(Member::Control { id: random_label() }, None, None, Some(orders))
    }

    fn machine(
        &self,
        member: Member,
        folder: Option<&Path>,
        reports: Option<Arc<dyn Reports>>,
        orders: Option<Arc<dyn Orders>>,
    ) -> Machine {
        let folder = folder.map(Path::to_owned);
        let folder = folder.unwrap_or_else(|| TempDir::new_in(self.dir.path()).unwrap().keep());
        let transport =
            TransportConfig { handshake_timeout_ms: 20_000, ..TransportConfig::default() };
        let identity = self.identity(member);
        let endpoint =
            Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity, transport).unwrap();
        let address = endpoint.local_address().unwrap();
        let organisation: Name = "acme".parse().unwrap();
        let board = Board::new(&folder, organisation, reports);
        let options = StoreOptions { bytes_max: None, free_bytes_min: 0 };
        let store = TempDir::new_in(self.dir.path()).unwrap().keep();
        let store = Store::open(&store.join("store"), options).unwrap();
        let gateway = StoreGateway { store, arrivals: Arrivals::default() };
        let stop = CancellationToken::new();
        let orders = orders.unwrap_or_else(|| Arc::new(board.clone()));
        let counters = Arc::new(Counters::default());
        let server =
            Server::new(endpoint.clone(), gateway, Arc::clone(&counters)).orders(Some(orders));
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(stop.clone()));
        Machine { board, endpoint, address, folder, counters, stop, tasks }
    }
}

impl Control {
    fn put(&self, place: &str, bytes: &Bytes) {
        let place = Place::parse(place).unwrap();
        self.machine.board.mirror().put(&place, bytes).unwrap();
    }

    /// Leaves the scope to a directorate, for which this role's key signs: `root` is the one that may.
    pub(crate) fn leave_to_directorate(&mut self, organisation: &Organisation, by: &'static str) {
        self.heads = Some(by);
        self.publish(organisation, |_| true);
    }

    fn put_root(&self, organisation: &Organisation) {
        let root = organisation.root_of(self.root);
        self.put(&format!("metadata/{}.root.json", self.root), &root);
    }

    /// Whoever has its keys signs statements of that year from now on.
    pub(crate) fn says_it_is(&mut self, issued: &str) {
        self.issued = Some(Expires::at(issued.parse().unwrap()));
    }

    /// The admins give control another key for its statements, which are honest again.
    pub(crate) fn gets_another_key(&mut self, organisation: &Organisation) {
        organisation.keys.lock().unwrap().insert("timestamp", SigningKey::from_seed(&[99; 32]));
        self.issued = None;
        self.root = self.root.next().unwrap();
        self.put_root(organisation);
    }

    /// Signs an order file, and all that pins it.
    pub(crate) fn set<B: Body>(
        &mut self,
        organisation: &Organisation,
        role: &'static str,
        scope: Option<&str>,
        seq: u64,
        body: B,
    ) {
        let head = Head {
            organisation: "acme".parse().unwrap(),
            scope: scope.map(|scope| scope.parse().unwrap()),
            seq,
            issued: "2026-11-27T20:00:00Z".parse().unwrap(),
        };
        let (_, path) = B::KIND.target(head.scope.as_ref()).unwrap();
        let bytes = Order { head, body }.write().unwrap();
        self.files.entry(role).or_default().insert(path, bytes.into());
        self.publish(organisation, |_| true);
    }

    /// The version that was signed last.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// An order file as it was signed last.
    pub(crate) fn file(&self, path: &TargetPath) -> &Bytes {
        self.files.values().find_map(|files| files.get(path.as_str())).unwrap()
    }

    /// Publishes a new version of everything, but for target files that `keeps` holds back.
    pub(crate) fn publish(&mut self, organisation: &Organisation, keeps: impl Fn(&str) -> bool) {
        self.version += 1;
        let version = Version::new(self.version).unwrap();
        let expires = in_days(7);
        let mut snapshot = Snapshot::new(version, expires);
        let mut top = Targets::new(version, expires);
        let mut staff = Targets::new(version, expires);
        for role in DELEGATED {
            let name = RoleName::delegated(role).unwrap();
            let (pattern, by) = match role {
                "approvals-qa" if self.heads.is_some() => ("approvals/qa/*".to_owned(), &mut staff),
                "approvals-qa" => ("approvals/qa/*".to_owned(), &mut top),
                role => (format!("{role}/*"), &mut top),
            };
            organisation.delegate(by, role, role, pattern);
            let Some(files) = self.files.get(role) else { continue };
            let mut targets = Targets::new(version, expires);
            for (path, bytes) in files {
                let (path, file) = (TargetPath::from(path.as_str()), TargetFile::of(bytes));
                let place = path.place(file.hashes.prefix().as_deref());
                if keeps(path.as_str()) {
                    self.put(&format!("targets/{place}"), bytes);
                }
                targets.set_file(&path, file);
            }
            let bytes = organisation.sign(role, &targets);
            snapshot.set_pin(&name, Pin::of(version, &bytes));
            self.put(&format!("metadata/{}", name.place(Some(version))), &bytes);
        }
        if let Some(heads) = self.heads {
            // Root is who names the heads, whoever signs in their place.
            organisation.delegate(&mut top, "staff-qa", "root", "approvals/qa/*".to_owned());
            let bytes = organisation.sign(heads, &staff);
            let name = RoleName::delegated("staff-qa").unwrap();
            snapshot.set_pin(&name, Pin::of(version, &bytes));
            self.put(&format!("metadata/{}", name.place(Some(version))), &bytes);
        }
        let top = organisation.sign("targets", &top);
        snapshot.set_pin(&RoleName::targets(), Pin::of(version, &top));
        self.put(&format!("metadata/{version}.targets.json"), &top);
        let snapshot = organisation.sign("snapshot", &snapshot);
        self.put(&format!("metadata/{version}.snapshot.json"), &snapshot);
        let pin = Pin::of(version, &snapshot);
        let issued = self.issued.unwrap_or_else(now);
        let week = jiff::SignedDuration::from_hours(24 * 7);
        let expires = Expires::at(issued.instant() + week);
        let timestamp =
            organisation.sign("timestamp", &Timestamp::new(version, issued, expires, pin));
        self.put("metadata/timestamp.json", &timestamp);
        self.machine.board.tell(Some(timestamp));
    }
}

impl Control {
    /// Publishes halts that nobody can fetch, and tells of them.
    pub(crate) fn hold_back(&mut self, organisation: &Organisation, seq: u64) {
        let held_back = Kind::Halts.target(None).unwrap().1;
        let head = Head {
            organisation: "acme".parse().unwrap(),
            scope: None,
            seq,
            issued: "2026-11-27T21:00:00Z".parse().unwrap(),
        };
        let bytes = Order { head, body: Halts::default() }.write().unwrap();
        self.files.entry("halts").or_default().insert(held_back.clone(), bytes.into());
        self.publish(organisation, |path| path != held_back);
    }
}

impl Machine {
    /// The version that is believed; 0 for none.
    pub(crate) fn version(&self) -> u64 {
        let manifest = self.board.manifest();
        let version =
            manifest.borrow().as_ref().map(|manifest| manifest.statement.version.number());
        version.unwrap_or(0)
    }

    /// Waits until the machine believes this version, or a newer one.
    pub(crate) async fn believes(&self, version: u64) {
        let mut manifest = self.board.manifest();
        let reached = manifest.wait_for(|manifest| {
            manifest.as_ref().is_some_and(|found| found.statement.version.number() >= version)
        });
        soon("the manifest", reached).await.unwrap();
    }

    /// Waits until the machine holds so many denials.
    pub(crate) async fn holds_denials(&self, count: usize) {
        let mut news = self.board.news();
        soon("the denials", news.wait_for(|latest| latest.denials.len() == count)).await.unwrap();
    }

    /// Ends it at once, whatever it is doing, and returns its folder.
    pub(crate) async fn kill(mut self) -> PathBuf {
        self.stop.cancel();
        self.endpoint.close().await;
        self.tasks.shutdown().await;
        self.folder
    }
}

fn now() -> Expires {
    Expires::at(jiff::Timestamp::now())
}

fn in_days(days: i64) -> Expires {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
    Expires::at(at)
}

pub(crate) fn approvals_path() -> TargetPath {
    TargetPath::from(Kind::Approvals.target(Some(&"qa".parse().unwrap())).unwrap().1.as_str())
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(PATIENCE, coming).await;
    came.unwrap_or_else(|_| panic!("never: {what}"))
}
