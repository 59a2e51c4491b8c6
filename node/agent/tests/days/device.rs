//! A device on virtual time: the agent's core over real orders, with a store, commands and sources that a test
//! decides on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jiff::tz::TimeZoneDatabase;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sutler_agent::config::AgentConfig;
use sutler_agent::plan::{Doing, Next, Plan, Said, Situation, Trouble, Wish, local, plan};
use sutler_agent::state::{Finding, Found, HowEnded, State};
use sutler_agent::versions::Versions;
use sutler_orders::answer::Reason;
use sutler_orders::content::{About, Bytes};
use sutler_orders::text::Utc;
use sutler_orders::vouched::{Orders, Scope, Statement, Vouched};
use sutler_orders::windows::Zones;
use sutler_orders::{Body, Content, Facts, Now, Order, evaluate};
use sutler_protocol::{ContentId, Sha256Digest};

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// How long an installation takes here.
const TAKES: SignedDuration = SignedDuration::from_mins(25);

/// What a device did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    Fetched(u8),
    Looked(u8),
    Installed(u8),
}

#[expect(clippy::struct_excessive_bools, reason = "each is one thing that a test decides on")]
pub(crate) struct Device {
    config: AgentConfig,
    state: State,
    stored: BTreeSet<ContentId>,
    troubles: BTreeMap<ContentId, Trouble>,
    facts: Facts,
    clock: Timestamp,
    real: Timestamp,
    did: Vec<Did>,
    contents: BTreeMap<u8, Value>,
    installed: BTreeSet<u8>,
    cuts_off: bool,
    said: Vec<(u8, Said)>,
    versions: Versions,
    standing: Option<Value>,
    pub(crate) begun: Vec<Timestamp>,
    pub(crate) items: Vec<Value>,
    pub(crate) observes: bool,
    pub(crate) mode: &'static str,
    pub(crate) max_install_minutes: Option<u32>,
    pub(crate) duration_minutes: u32,
    pub(crate) enforce_start: bool,
    pub(crate) has_source: bool,
    /// Whether everything is there before anybody installs it.
    pub(crate) is_there: bool,
    pub(crate) is_unclear: bool,
    /// How commands end, and what a look finds after them.
    pub(crate) ends: HowEnded,
    pub(crate) finds: Found,
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn bytes(n: u8) -> Bytes {
    let (blake3, sha256) = (ContentId::from_bytes([n; 32]), Sha256Digest::from_bytes([n; 32]));
    Bytes { blake3, sha256, length: u64::from(n) }
}

fn number(content: ContentId) -> u8 {
    content.as_bytes()[0]
}

impl Device {
    /// A device of Cologne at ten in the morning, with content 1 approved for its nights from 22:00 on.
    pub(crate) fn new() -> Self {
        let config = "observe_only = false\n[[install]]\nkind = 'deb'\n\
                      command = ['/bin/install', '{file}']\ndetect = ['/bin/detect', '{file}']\n";
        let mut device = Self {
            config: toml::from_str(config).unwrap(),
            state: State::default(),
            stored: BTreeSet::new(),
            troubles: BTreeMap::new(),
            facts: Facts {
                organisation: "example".parse().unwrap(),
                device: "cologne/anna".parse().unwrap(),
                os: "debian".to_owned(),
                version: "12".to_owned(),
                architecture: "amd64".to_owned(),
                language: "de-DE".to_owned(),
                host_name: "anna".to_owned(),
                tags: BTreeSet::new(),
                first_ring: None,
            },
            clock: at("2026-03-09T09:00:00Z"),
            real: at("2026-03-09T09:00:00Z"),
            did: Vec::new(),
            contents: BTreeMap::new(),
            installed: BTreeSet::new(),
            cuts_off: false,
            said: Vec::new(),
            versions: Versions::default(),
            standing: None,
            begun: Vec::new(),
            items: Vec::new(),
            observes: false,
            mode: "download-and-install",
            max_install_minutes: None,
            duration_minutes: 120,
            enforce_start: false,
            has_source: true,
            is_there: false,
            is_unclear: false,
            ends: HowEnded::Well,
            finds: Found::Installed,
        };
        device.add(1);
        device
    }

    /// Publishes another content, and approves it.
    pub(crate) fn add(&mut self, n: u8) {
        let id = bytes(n).blake3.to_string();
        let content = json!({
            "format": 1, "blake3": id, "name": format!("{n}.deb"), "kind": "deb",
            "published": "2026-03-01T00:00:00Z",
        });
        self.contents.insert(n, content);
        self.items.push(json!({
            "action": "install", "blake3": id, "sha256": id, "length": n, "kind": "deb",
            "by": "Anna", "at": "2026-03-02T00:00:00Z",
        }));
    }

    /// Has nobody decide about a content, which brings a version of a product, and silence approve it after ten hours.
    pub(crate) fn leave_to_silence(&mut self, n: u8, product: &str, version: &str) {
        self.items.clear();
        let content = self.contents.get_mut(&n).unwrap();
        (content["product"], content["version"]) = (json!(product), json!(version));
        let (id, now) = (bytes(n).blake3, Utc::of(self.clock));
        self.state.see([id].into_iter(), now);
        let policy = json!({
            "name": "silent", "veto_hours": 10, "by": "Anna", "at": "2026-03-02T00:00:00Z",
        });
        self.standing = Some(json!({ "policies": [policy] }));
    }

    /// Says what is installed: lines of a product and its version.
    pub(crate) fn has_installed(&mut self, list: &str) {
        self.versions.read("deb".parse().unwrap(), list);
    }

    pub(crate) fn severe(&mut self, n: u8) {
        self.contents.get_mut(&n).unwrap()["severity"] = json!("severe");
    }

    pub(crate) fn patch_now(&mut self, n: u8) {
        let id = bytes(n).blake3.to_string();
        let item = self.items.iter_mut().find(|item| item["blake3"] == json!(id)).unwrap();
        item["patch_now"] = json!(true);
    }

    pub(crate) fn deny(&mut self, n: u8) {
        let id = bytes(n).blake3.to_string();
        self.items.push(json!({
            "action": "deny", "blake3": id, "sha256": id, "length": n, "by": "Ben",
            "at": "2026-03-02T00:00:00Z",
        }));
    }

    pub(crate) fn cut_off_at_next_install(&mut self) {
        self.cuts_off = true;
    }

    pub(crate) fn set_clock(&mut self, clock: &str) {
        self.clock = at(clock);
    }

    pub(crate) fn stored(&self, n: u8) -> bool {
        self.stored.contains(&bytes(n).blake3)
    }

    pub(crate) fn did(&self) -> Vec<Did> {
        self.did.clone()
    }

    pub(crate) fn said(&mut self, n: u8) -> Said {
        self.plan();
        self.said.iter().find(|(number, _)| *number == n).unwrap().1.clone()
    }

    pub(crate) fn run_until(&mut self, until: &str) {
        self.run_for(at(until).duration_since(self.real));
    }

    /// Acts for so long.
    pub(crate) fn run_for(&mut self, time: SignedDuration) {
        let until = self.real + time;
        loop {
            let plan = self.plan();
            if self.act(&plan) {
                continue;
            }
            if self.real >= until {
                return;
            }
            // As often as an agent looks where a window opens, and seldom where nothing happens.
            let minute = self.real.as_second().rem_euclid(86_400) / 60;
            let is_near = (20 * 60 + 58..21 * 60 + 3).contains(&minute);
            let step = SignedDuration::from_secs(if is_near { 15 } else { 120 });
            let step = step.min(until.duration_since(self.real));
            self.pass(step);
        }
    }

    pub(crate) fn sleep_until(&mut self, until: &str) {
        self.advance_to(until);
    }

    pub(crate) fn advance_to(&mut self, instant: &str) {
        self.pass(at(instant).duration_since(self.real));
    }

    fn pass(&mut self, time: SignedDuration) {
        self.real += time;
        self.clock += time;
    }

    /// Does what a plan says, and says whether that was anything.
    fn act(&mut self, plan: &Plan) -> bool {
        let mut has_acted = false;
        for (id, _) in &plan.fetch {
            has_acted = true;
            if self.has_source {
                self.stored.insert(*id);
                self.troubles.remove(id);
                self.did.push(Did::Fetched(number(*id)));
            } else {
                let again = self.clock + SignedDuration::from_mins(10);
                let trouble =
                    Trouble { reason: Reason::NoSource, detail: String::new(), again, count: 1 };
                self.troubles.insert(*id, trouble);
            }
        }
        match plan.next {
            None => return has_acted,
            Some(Next::Look(id)) => self.look(id),
            Some(Next::Install { content, until, run_max }) => {
                assert!(self.stored.contains(&content), "installed without its bytes");
                self.install(content, until, run_max);
            }
        }
        true
    }

    fn look(&mut self, id: ContentId) {
        let n = number(id);
        self.did.push(Did::Looked(n));
        let found = match () {
            () if self.is_unclear => Found::Unclear,
            () if self.is_there => Found::Installed,
            () if self.installed.contains(&n) => self.finds,
            () => Found::Needed,
        };
        let finding = Finding { at: Utc::of(self.clock), found, detail: None };
        self.state.record_mut(id).finding = Some(finding);
    }

    fn install(&mut self, id: ContentId, until: Option<Timestamp>, run_max: SignedDuration) {
        self.begun.push(self.real);
        self.state.record_mut(id).begin(until.map(Utc::of), Utc::of(self.clock));
        let busy = Some((id, Doing::Installing));
        assert_eq!(self.plan_while(busy).next, None, "two commands at a time");
        self.pass(TAKES.min(run_max));
        self.did.push(Did::Installed(number(id)));
        let how = if std::mem::take(&mut self.cuts_off) { HowEnded::CutOff } else { self.ends };
        if how != HowEnded::CutOff {
            self.installed.insert(number(id));
        }
        self.state.record_mut(id).end(how, Some("said".to_owned()), Utc::of(self.clock));
    }

    pub(crate) fn plan(&mut self) -> Plan {
        self.plan_while(None)
    }

    fn plan_while(&mut self, busy: Option<(ContentId, Doing)>) -> Plan {
        let contents: BTreeMap<ContentId, Content> =
            self.contents().into_iter().map(|one| (one.bytes.blake3, one)).collect();
        let situation = Situation {
            config: &self.config,
            state: &self.state,
            observes: self.observes,
            stored: &self.stored,
            troubles: &self.troubles,
            versions: &self.versions,
            busy,
            now: self.clock,
        };
        let device = sutler_orders::Device {
            contents: contents.iter().map(|(id, one)| (*id, local(one, &situation))).collect(),
            observe_only: self.observes,
            used_minutes: self.state.minutes_in_windows_after(self.clock),
            ..sutler_orders::Device::default()
        };
        let zones = Zones { site: ZONES.get("Europe/Berlin").ok(), device: None, database: &ZONES };
        let now = Now { clock: self.clock, is_confirmed: true, zones };
        // Control signs every hour, whatever this device's clock says.
        let issued = self.real - SignedDuration::from_mins(30);
        let statement = Statement { issued, expires: issued + SignedDuration::from_hours(168) };
        let answers = evaluate(&self.orders(), &self.facts, &device, Some(statement), &now);
        let wishes: Vec<Wish<'_>> =
            contents.iter().map(|(id, content)| Wish { content, answer: &answers[id] }).collect();
        let plan = plan(&wishes, &situation);
        let numbers = contents.keys().map(|id| number(*id));
        self.said = numbers.zip(plan.said.iter().cloned()).collect();
        plan
    }

    fn contents(&self) -> Vec<Content> {
        let contents = self.contents.iter();
        contents
            .map(|(n, about)| Content { bytes: bytes(*n), about: About::read(about).unwrap() })
            .collect()
    }

    fn orders(&self) -> Orders {
        let expires = at("2027-01-01T00:00:00Z");
        let contents = self.contents().into_iter();
        let mut policy = json!({
            "name": "all", "by": "Anna", "at": "2026-03-02T00:00:00Z", "mode": self.mode,
            "schedule": "nightly",
        });
        if let Some(minutes) = self.max_install_minutes {
            policy["max_install_minutes"] = minutes.into();
        }
        let window = json!({
            "start": "2026-01-01T22:00:00", "rule": "FREQ=DAILY",
            "duration_minutes": self.duration_minutes, "enforce_start": self.enforce_start,
        });
        let schedule = json!({
            "name": "nightly", "by": "Anna", "at": "2026-03-02T00:00:00Z", "windows": [window],
        });
        let scope = Scope {
            name: "desktops".parse().unwrap(),
            reach: sutler_orders::audience::Reached::default(),
            schedules_reach: sutler_orders::audience::Reached::default(),
            approvals: Some(file(&json!({ "items": self.items }))),
            standing: self.standing.as_ref().map(file),
            policies: Some(file(&json!({ "policies": [policy] }))),
            schedules: Some(file(&json!({ "schedules": [schedule] }))),
        };
        Orders {
            contents: contents.map(|content| Vouched::assumed(content, expires)).collect(),
            scopes: vec![scope],
            ..Orders::default()
        }
    }
}

fn file<B: Body>(body: &Value) -> Vouched<Order<B>> {
    let mut file = json!({
        "_type": B::KIND.as_str(), "format": 1, "organisation": "example", "scope": "desktops",
        "seq": 1, "issued": "2026-03-02T00:00:00Z",
    });
    file.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let order = Order::read(file.to_string().as_bytes()).unwrap();
    Vouched::assumed(order, at("2027-01-01T00:00:00Z"))
}
