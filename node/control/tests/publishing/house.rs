//! An organisation on a disk in memory, its admins, and a client that believes nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Map;
use sutler_cache::backend::faulty::Faulty;
use sutler_cache::backend::{Backend, read_file};
use sutler_control::change::{Change, ChangeError, Note};
use sutler_control::draft::Draft;
use sutler_control::online::{self, OnlineKeys};
use sutler_control::preset::{self, Approvers, Preset, Signers, Staff};
use sutler_control::submission::{self, Refused, Submission};
use sutler_control::{NamedKey, Repository, State};
use sutler_orders::approvals::{Action, Approvals, Item};
use sutler_orders::content::About;
use sutler_orders::text::Utc;
use sutler_protocol::manifest::drive::{self, DriveError, Keeper};
use sutler_protocol::manifest::{
    Answer, Believed, Expires, Fetch, Found, Keep, Kept, Kind, RoleName, Root, Signed, SigningKey,
    TargetPath, Targets, Trusted,
};
use sutler_protocol::name::Organisation;
use sutler_protocol::{ContentId, Sha256Digest};

pub(crate) fn now() -> Timestamp {
    "2026-11-27T20:00:00Z".parse().unwrap()
}

pub(crate) fn later(hours: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_hours(hours)
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub(crate) fn named(name: &str, seed: u8) -> NamedKey {
    NamedKey { name: name.to_owned(), key: key(seed).key().clone() }
}

pub(crate) fn online_keys() -> OnlineKeys {
    OnlineKeys { snapshot: vec![key(101)], timestamp: vec![key(102)], halts: vec![key(103)] }
}

pub(crate) fn note(by: &str, what: &str) -> Note {
    Note { by: by.parse().unwrap(), at: Utc::of(now()), what: what.parse().unwrap(), reason: None }
}

/// An organisation with a root of 1 to 3, imports by 1, and a scope `lab` of two approvers.
pub(crate) struct House {
    pub(crate) disk: Faulty,
    pub(crate) repository: Repository,
    pub(crate) organisation: Organisation,
}

pub(crate) fn staff(threshold: u64) -> Staff {
    let own = |key: SigningKey| vec![key.key().clone()];
    let approvers = Approvers {
        scope: "lab".parse().unwrap(),
        covers: serde_json::from_str("{\"ring\":\"lab\"}").unwrap(),
        signers: Signers { keys: vec![named("dora", 4), named("emil", 5)], threshold },
        heads: None,
    };
    Staff {
        root: vec![named("anna", 1), named("ben", 2), named("cleo", 3)],
        import: vec![named("ines", 6)],
        approvers: vec![approvers],
        snapshot: own(key(101)),
        timestamp: own(key(102)),
        halts: own(key(103)),
    }
}

/// The same, but the scope's approvers are named by a directorate.
pub(crate) fn directorate() -> Staff {
    let mut staff = staff(1);
    let heads = Signers { keys: vec![named("hana", 11), named("hugo", 12)], threshold: 1 };
    staff.approvers[0].heads = Some(heads);
    staff
}

impl House {
    pub(crate) fn new(threshold: u64) -> Self {
        Self::of(&staff(threshold), [1, 2, 3])
    }

    /// An organisation like it whose root has these keys.
    pub(crate) fn founded_by(roots: [u8; 3]) -> Self {
        let names = ["anna", "ben", "cleo"].into_iter().zip(roots);
        let root = names.map(|(name, seed)| named(name, seed)).collect();
        Self::of(&Staff { root, ..staff(1) }, roots)
    }

    /// One whose scope is left to a directorate of two heads, 11 and 12, who have named the approvers.
    pub(crate) fn with_directorate() -> Self {
        let house = Self::of(&directorate(), [1, 2, 3]);
        let (role, document) = preset::directorates(&directorate(), now()).unwrap().remove(0);
        let mut draft = Draft::new();
        draft.set_role(role, signed(&document, &[11]));
        house.submit(&draft.submission(), now()).unwrap();
        house
    }

    pub(crate) fn of(staff: &Staff, roots: [u8; 3]) -> Self {
        let disk = Faulty::new();
        let repository = Repository::open_on(Arc::new(disk.clone())).unwrap();
        let (root, targets) = preset::documents(Preset::Team, staff, now()).unwrap();
        let root = signed(&root, &roots[..2]);
        let root = Signed::<Root>::parse(root.bytes().clone()).unwrap().verify_by_itself().unwrap();
        let targets = believed(&signed(&targets, &[roots[0], roots[2]]), &root);
        let first =
            online::first(&root, &[(RoleName::targets(), targets)].into(), &online_keys(), now());
        repository.write(&first.unwrap()).unwrap();
        Self { disk, repository, organisation: "acme".parse().unwrap() }
    }

    pub(crate) fn state(&self) -> State {
        self.repository.read().unwrap()
    }

    /// Checks and publishes a draft.
    pub(crate) fn submit(&self, submission: &Submission, at: Timestamp) -> Result<State, Refused> {
        let state = self.state();
        let accepted = submission::accept(&state, &self.organisation, submission, at)?;
        let publication =
            online::publication(&state, &accepted, &online_keys(), &Map::new(), at).unwrap();
        self.repository.write(&publication).unwrap();
        Ok(self.state())
    }

    /// A change by `signers`, ready to be submitted.
    pub(crate) fn draft(
        &self,
        signers: &[u8],
        edit: impl FnOnce(&mut Change<'_>) -> Result<(), ChangeError>,
    ) -> Draft {
        let state = self.state();
        let mut change = Change::new(&state, &self.organisation, note("anna", "test"), now());
        edit(&mut change).unwrap();
        let mut draft = change.draft().unwrap();
        for signer in signers {
            draft.sign(&key(*signer), Some(&state)).unwrap();
        }
        draft
    }

    /// Publishes a content whose bytes lie here.
    pub(crate) fn publish(&self, name: &str, bytes: &[u8]) -> About {
        let about = about(name, bytes);
        let mut put = None;
        let draft = self.draft(&[6], |change| {
            put = Some(change.content(&about, *sha256(bytes).as_bytes(), bytes.len() as u64)?);
            Ok(())
        });
        let (path, file) = put.unwrap();
        self.repository.put(&path, &file, about.blake3, &mut &bytes[..]).unwrap();
        self.submit(&draft.submission(), now()).unwrap();
        about
    }

    pub(crate) fn approve(&self, item: Item, signers: &[u8]) -> Draft {
        self.draft(signers, |change| {
            change.order::<Approvals, ChangeError>(Some(&"lab".parse().unwrap()), |approvals| {
                approvals.items.push(item);
                Ok(())
            })
        })
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.disk)
    }
}

pub(crate) fn about(name: &str, bytes: &[u8]) -> About {
    serde_json::from_value(serde_json::json!({
        "format": 1, "blake3": ContentId::of(bytes).to_string(), "name": name, "kind": "file",
        "published": "2026-11-27T20:00:00Z",
    }))
    .unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> Sha256Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Sha256Digest::from_bytes(digest.as_ref().try_into().unwrap())
}

pub(crate) fn install(bytes: &[u8]) -> Item {
    let sha256 = sha256(bytes).to_string();
    serde_json::from_value(serde_json::json!({
        "action": "install", "blake3": ContentId::of(bytes).to_string(),
        "sha256": sha256.strip_prefix("sha256:").unwrap_or(&sha256), "length": bytes.len(),
        "kind": "file", "by": "dora", "at": "2026-11-27T20:00:00Z",
    }))
    .unwrap()
}

pub(crate) fn deny(bytes: &[u8]) -> Item {
    Item { action: Action::Deny, kind: None, ..install(bytes) }
}

pub(crate) fn signed<T>(document: &T, signers: &[u8]) -> Signed<T>
where
    T: sutler_protocol::manifest::signed::Document + serde::Serialize,
{
    let mut proposal = Signed::propose(document).unwrap();
    for signer in signers {
        proposal.sign(&key(*signer));
    }
    proposal
}

pub(crate) fn believed(targets: &Signed<Targets>, root: &Root) -> Believed<Targets> {
    targets.verify(&root.keys_of(Kind::Targets)).unwrap()
}

pub(crate) fn in_days(days: i64) -> Expires {
    Expires::at(later(24 * days))
}

/// A client that keeps what it believes in memory and asks the disk.
pub(crate) struct Client {
    pub(crate) trusted: Trusted,
    places: Places,
    kept: Memory,
}

struct Places(Faulty);

#[derive(Default)]
struct Memory(BTreeMap<String, Bytes>);

pub(crate) type ClientError = DriveError<io::Error, Infallible>;

impl Client {
    /// A client that was handed the first root.
    pub(crate) fn new(disk: &Faulty) -> Self {
        let root = read_file(disk, Path::new("metadata/1.root.json"), 1 << 20).unwrap().into();
        let trusted = Trusted::load(&Kept { root, ..Kept::default() }).unwrap();
        Self { trusted, places: Places(disk.clone()), kept: Memory::default() }
    }

    /// The same client, before another disk.
    pub(crate) fn at(mut self, disk: &Faulty) -> Self {
        self.places = Places(disk.clone());
        self
    }

    pub(crate) fn refresh(&mut self, at: Timestamp) -> Result<(), ClientError> {
        drive::refresh(&mut self.trusted, &mut self.places, &mut self.kept, at)
    }

    pub(crate) fn find(&mut self, path: &str, at: Timestamp) -> Result<Option<Found>, ClientError> {
        let path = TargetPath::from(path);
        drive::find(&mut self.trusted, path, &mut self.places, &mut self.kept, at)
    }

    /// The bytes of a target file, checked.
    pub(crate) fn download(&mut self, path: &str, at: Timestamp) -> Option<Vec<u8>> {
        let found = self.find(path, at).unwrap()?;
        let place = PathBuf::from("targets").join(self.trusted.place_of(&found));
        let bytes = read_file(&self.places.0, &place, 1 << 24).unwrap();
        found.file.hashes.check(&bytes).unwrap();
        Some(bytes)
    }
}

impl drive::Repository for Places {
    type Error = io::Error;

    fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, io::Error> {
        let place = Path::new("metadata").join(&fetch.place);
        match read_file(&self.0 as &dyn Backend, &place, fetch.bytes_max) {
            Ok(bytes) => Ok(Answer::Document(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Absent),
            Err(error) => Err(error),
        }
    }
}

impl Keeper for Memory {
    type Error = Infallible;

    fn keep(&mut self, keep: Keep) -> Result<(), Infallible> {
        match keep {
            Keep::Document { role, bytes, .. } => self.0.insert(role.to_string(), bytes),
            Keep::Forget { role } => self.0.remove(role.as_str()),
        };
        Ok(())
    }

    fn load(&mut self, role: &RoleName) -> Option<Bytes> {
        self.0.get(role.as_str()).cloned()
    }
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
