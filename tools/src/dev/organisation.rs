//! The organisation of `sutler dev`: keys that are thrown away, a ring with both agents, and a window that never closes.
//!
//! The keys have no passphrase and lie beside everything else: nobody obeys them but the agents of the same folder.

use std::fs;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sutler_control::change::{Change, ChangeError, Note};
use sutler_control::key::{self, NamedKey, OpenKeyError, Protection};
use sutler_control::organisation::ONLINE;
use sutler_control::preset::{self, Approvers, Preset, Signers, Staff};
use sutler_control::{Draft, Folder};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::audience::Audience;
use sutler_orders::text::Utc;
use sutler_orders::{Body, Policies, Rings, Schedules, Sites};
use sutler_protocol::manifest::key::Key;
use sutler_protocol::manifest::{RoleName, Signed, SigningKey};
use sutler_protocol::name::Label;
use sutler_swarm::identity::{Authority, Organisation};

use super::cast::{AGENTS, SITE};

/// What everything in the organisation is called.
const NAME: &str = "dev";

/// The scope, and the ring that it covers.
const RING: &str = "qa";

/// Whose key signs everything, and the second one that the preset wants.
const ADMINS: [&str; 2] = ["laptop", "sealed"];

/// Opens the organisation in `folder`, or makes it there: authority, keys, repository, ring, window and policy.
///
/// # Errors
///
/// Kind `file` if the folder cannot be read or written in.
pub(crate) fn open_or_make(folder: &Path) -> Result<Authority, Failure> {
    if folder.exists() {
        return Authority::open(folder).map_err(|error| failed(&error));
    }
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| failed(&error))?;
    // Whole or not at all: the next run takes what it finds.
    let staging = tempfile::Builder::new().prefix(".sutler-new-").tempdir_in(parent);
    let staging = staging.map_err(|error| failed(&error))?;
    let beside = staging.path().join("org");
    Authority::create(&beside, name()).map_err(|error| failed(&error))?;
    for part in ["online", "keys", "repository", "drafts"] {
        fs::create_dir(beside.join(part)).map_err(|error| failed(&error))?;
    }
    publish_the_first(&beside)?;
    fs::rename(&beside, folder).map_err(|error| failed(&error))?;
    Authority::open(folder).map_err(|error| failed(&error))
}

/// Returns its name.
pub(crate) fn name() -> Organisation {
    NAME.parse().expect("letters are a name")
}

/// Returns the scope whose approvers decide.
pub(crate) fn scope() -> Label {
    RING.parse().expect("letters are a label")
}

/// Returns the key that signs everything.
///
/// # Errors
///
/// [`OpenKeyError`].
pub(crate) fn signer(folder: &Path) -> Result<SigningKey, OpenKeyError> {
    key::open_plain(&folder.join("keys").join(format!("{}.key", ADMINS[0])))
}

/// Says who does what.
pub(crate) fn note(what: &str, now: Timestamp) -> Note {
    let line = |text: &str| text.parse().expect("a short text is a line");
    Note { by: line(ADMINS[0]), at: Utc::of(now), what: line(what), reason: None }
}

/// Publishes root and targets, then who is where and how they behave.
fn publish_the_first(path: &Path) -> Result<(), Failure> {
    let now = Timestamp::now();
    let (root, targets) =
        preset::documents(Preset::Solo, &staff(path)?, now).map_err(|error| failed(&error))?;
    let mut draft = Draft::new();
    draft.set_root(Signed::propose(&root).map_err(|error| failed(&error))?);
    let targets = Signed::propose(&targets).map_err(|error| failed(&error))?;
    draft.set_role(RoleName::targets(), targets);
    let key = signer(path).map_err(|error| failed(&error))?;
    draft.sign(&key, None).map_err(|error| failed(&error))?;
    let folder = Folder::open(path).map_err(|error| failed(&error))?;
    let online = folder.online_keys().map_err(|error| failed(&error))?;
    let publish = |draft: &Draft| {
        let published = folder.publish(&draft.submission(), &online, &Map::new(), now);
        published.map_err(|error| failed(&error))
    };
    let state = publish(&draft)?;

    let mut change = Change::new(&state, folder.organisation(), note("set up", now), now);
    behave(&mut change, now).map_err(|error| failed(&error))?;
    let mut draft = change.draft().map_err(|error| failed(&error))?;
    draft.sign(&key, Some(&state)).map_err(|error| failed(&error))?;
    publish(&draft).map(drop)
}

/// Makes everybody's keys.
fn staff(path: &Path) -> Result<Staff, Failure> {
    let make = |part: &str, name: &str| {
        let made = key::create(&path.join(part).join(format!("{name}.key")), &Protection::Mode);
        made.map_err(|error| failed(&error))
    };
    let root: Vec<NamedKey> =
        ADMINS.iter().map(|name| make("keys", name)).collect::<Result<_, _>>()?;
    let online: Vec<Key> = ONLINE
        .iter()
        .map(|name| make("online", name).map(|named| named.key))
        .collect::<Result<_, _>>()?;
    let approvers = Approvers {
        scope: scope(),
        covers: Audience { ring: Some(scope()), ..Audience::default() },
        signers: Signers { keys: root[..1].to_vec(), threshold: 1 },
        heads: None,
    };
    let own = |position: usize| vec![online[position].clone()];
    let (snapshot, timestamp, halts) = (own(0), own(1), own(2));
    Ok(Staff { root, import: Vec::new(), approvers: vec![approvers], snapshot, timestamp, halts })
}

/// Says where the agents are, that they are in the ring, and that they install at any time.
fn behave(change: &mut Change<'_>, now: Timestamp) -> Result<(), ChangeError> {
    let by = json!({ "by": ADMINS[0], "at": Utc::of(now).to_string() });
    let by_admin = |mut order: Value| {
        order.as_object_mut().expect("an object").extend(by.as_object().expect("one").clone());
        order
    };
    let pins: Vec<String> = AGENTS.iter().map(|agent| format!("{SITE}/{agent}")).collect();
    // Each day's window is open for two, so that one always is, from the first moment on.
    let start = now.checked_sub(SignedDuration::from_hours(48)).unwrap_or(now);
    let start = start.strftime("%Y-%m-%dT00:00:00").to_string();
    let window =
        json!({ "start": start, "rule": "FREQ=DAILY", "duration_minutes": 2_880, "zone": "UTC" });
    let schedule = by_admin(json!({ "name": "always", "windows": [window] }));
    let policy =
        by_admin(json!({ "name": "all", "mode": "download-and-install", "schedule": "always" }));
    set::<Sites>(change, None, json!({ "sites": [{ "name": SITE, "zone": "UTC" }] }))?;
    set::<Rings>(change, None, json!({ "rings": [{ "name": RING, "pins": pins }] }))?;
    let scope = scope();
    set::<Schedules>(change, Some(&scope), json!({ "schedules": [schedule] }))?;
    set::<Policies>(change, Some(&scope), json!({ "policies": [policy] }))
}

fn set<B: Body + Default + DeserializeOwned>(
    change: &mut Change<'_>,
    scope: Option<&Label>,
    body: Value,
) -> Result<(), ChangeError> {
    let body: B = serde_json::from_value(body).expect("it is written as SPEC.md has it");
    change.order::<B, ChangeError>(scope, |order| {
        *order = body;
        Ok(())
    })
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::because(Kind::File, "make a throw-away organisation", error)
}
