//! A device in an organisation with one scope, as JSON that a test changes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use serde_json::{Value, json};
use sutler_orders::answer::{Reason, State, Step};
use sutler_orders::audience::Audience;
use sutler_orders::content::{About, Bytes};
use sutler_orders::denial::{BelievedDenial, Denial};
use sutler_orders::evaluate::{Device, Direction, Local, Now, Presence, Progress};
use sutler_orders::windows::Zones;
use sutler_orders::{
    Answer, Body, Content, Facts, Order, Orders, Scope, Statement, Vouched, evaluate,
};
use sutler_protocol::{ContentId, Sha256Digest};

/// Monday the 9th of March 2026, 10:00 in Cologne.
pub(crate) const NOON: &str = "2026-03-09T09:00:00Z";

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) facts: Facts,
    pub(crate) device: Device,
    pub(crate) contents: BTreeMap<u8, Value>,
    pub(crate) items: Vec<Value>,
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) reach: Value,
    pub(crate) countersigned: Value,
    pub(crate) resumed: Value,
    pub(crate) withdrawn: Value,
    pub(crate) standing: Vec<Value>,
    pub(crate) policies: Vec<Value>,
    pub(crate) windows: Value,
    pub(crate) rings: Option<Value>,
    pub(crate) halts: Vec<Value>,
    pub(crate) denials: Vec<Value>,
    pub(crate) orders_issued: String,
    pub(crate) statement: Option<(String, String)>,
    pub(crate) clock: String,
    pub(crate) is_confirmed: bool,
    pub(crate) zone: Option<&'static str>,
}

/// The bytes of content number `n`.
pub(crate) fn bytes(n: u8) -> Bytes {
    let (blake3, sha256) = (ContentId::from_bytes([n; 32]), Sha256Digest::from_bytes([n; 32]));
    Bytes { blake3, sha256, length: u64::from(n) }
}

pub(crate) fn id(n: u8) -> String {
    bytes(n).blake3.to_string()
}

/// A content's `custom.sutler`.
pub(crate) fn content(n: u8, more: &Value) -> Value {
    merged(
        json!({
            "format": 1, "blake3": id(n), "name": format!("{n}.deb"), "kind": "deb",
            "published": "2026-03-01T00:00:00Z",
        }),
        more,
    )
}

/// An approval of a content.
pub(crate) fn install(n: u8, more: &Value) -> Value {
    decide("install", n, &merged(json!({ "kind": "deb" }), more))
}

pub(crate) fn decide(action: &str, n: u8, more: &Value) -> Value {
    merged(
        json!({
            "action": action, "blake3": id(n), "sha256": id(n), "length": n, "by": "Anna",
            "at": "2026-03-02T00:00:00Z",
        }),
        more,
    )
}

pub(crate) fn policy(name: &str, more: &Value) -> Value {
    merged(json!({ "name": name, "by": "Anna", "at": "2026-03-02T00:00:00Z" }), more)
}

pub(crate) fn merged(mut value: Value, more: &Value) -> Value {
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

impl World {
    /// A device of Cologne that has staged content 1, in a window that is open, with nothing approved.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            facts: Facts {
                organisation: "example".parse().unwrap(),
                device: "cologne/anna-3".parse().unwrap(),
                os: "debian".to_owned(),
                version: "12".to_owned(),
                architecture: "amd64".to_owned(),
                language: "de-DE".to_owned(),
                host_name: "anna-3".to_owned(),
                tags: ["pilot".to_owned()].into(),
                first_ring: None,
            },
            device: Device::default(),
            contents: [(1, content(1, &json!({})))].into(),
            items: Vec::new(),
            scopes: vec!["desktops"],
            reach: json!({}),
            countersigned: json!([]),
            resumed: json!([]),
            withdrawn: Value::Null,
            standing: Vec::new(),
            policies: vec![policy(
                "all",
                &json!({ "mode": "download-and-install", "schedule": "daily" }),
            )],
            windows: json!([{
                "start": "2026-01-01T08:00:00", "rule": "FREQ=DAILY", "duration_minutes": 600,
            }]),
            rings: None,
            halts: Vec::new(),
            denials: Vec::new(),
            orders_issued: "2026-03-02T00:00:00Z".to_owned(),
            statement: Some((NOON.to_owned(), "2026-03-16T09:00:00Z".to_owned())),
            clock: NOON.to_owned(),
            is_confirmed: true,
            zone: Some("Europe/Berlin"),
        };
        world.staged(1);
        world
    }

    /// The same with content 1 approved.
    pub(crate) fn approved() -> Self {
        let mut world = Self::new();
        world.items.push(install(1, &json!({})));
        world
    }

    pub(crate) fn local(&mut self, n: u8) -> &mut Local {
        self.device.contents.entry(bytes(n).blake3).or_default()
    }

    pub(crate) fn staged(&mut self, n: u8) {
        let local = self.local(n);
        local.progress = Progress::Staged;
        local.presence = Presence::Missing;
        local.direction = Direction::Upwards;
        local.first_seen = Some(at("2026-03-01T01:00:00Z"));
    }

    fn file<B: Body>(&self, scope: Option<&str>, body: &Value) -> Vouched<Order<B>> {
        let mut file = json!({
            "_type": B::KIND.as_str(), "format": 1, "organisation": "example", "seq": 1,
            "issued": self.orders_issued,
        });
        file.as_object_mut().unwrap().extend(scope.map(|scope| ("scope".to_owned(), scope.into())));
        let file = merged(file, body).to_string();
        let order = Order::read(file.as_bytes()).unwrap_or_else(|error| {
            panic!(
                "{error}: {:?}\n{file}",
                std::error::Error::source(&error).map(ToString::to_string)
            )
        });
        Vouched::assumed(order, at("2026-09-01T00:00:00Z"))
    }

    /// The orders as the device believes them. An item's field `scope` says which scope it is in, if not the first.
    pub(crate) fn orders(&self) -> Orders {
        let scope = |position: usize, name: &&'static str| {
            let mine = |item: &&Value| match item.get("scope").and_then(Value::as_str) {
                Some(scope) => scope == *name,
                None => position == 0,
            };
            let clean = |item: &Value| {
                let mut item = item.clone();
                item.as_object_mut().unwrap().remove("scope");
                item
            };
            let items: Vec<Value> = self.items.iter().filter(mine).map(clean).collect();
            let mut approvals = json!({
                "items": items, "countersigned": self.countersigned, "resumed": self.resumed,
            });
            if !self.withdrawn.is_null() {
                approvals["withdrawn"] = self.withdrawn.clone();
            }
            let reach: Audience = serde_json::from_value(self.reach.clone()).unwrap();
            let schedule = json!({
                "name": "daily", "windows": self.windows, "by": "Anna", "at": "2026-03-02T00:00:00Z",
            });
            Scope {
                name: name.parse().unwrap(),
                reach: reach.clone().into(),
                schedules_reach: reach.into(),
                approvals: Some(self.file(Some(name), &approvals)),
                standing: (!self.standing.is_empty())
                    .then(|| self.file(Some(name), &json!({ "policies": self.standing }))),
                policies: Some(self.file(Some(name), &json!({ "policies": self.policies }))),
                schedules: Some(self.file(Some(name), &json!({ "schedules": [schedule] }))),
            }
        };
        let zone = |zone| json!({ "sites": [{ "name": "cologne", "zone": zone }] });
        Orders {
            contents: self
                .contents
                .iter()
                .map(|(n, about)| {
                    let about = About::read(about).unwrap();
                    let content = Content { bytes: bytes(*n), about };
                    Vouched::assumed(content, at("2026-09-01T00:00:00Z"))
                })
                .collect(),
            scopes: self.scopes.iter().enumerate().map(|(at, name)| scope(at, name)).collect(),
            sites: self.zone.map(|name| self.file(None, &zone(name))),
            rings: self.rings.as_ref().map(|rings| self.file(None, &json!({ "rings": rings }))),
            halts: (!self.halts.is_empty())
                .then(|| self.file(None, &json!({ "halts": self.halts }))),
            denials: self
                .denials
                .iter()
                .map(|denial| {
                    let denial: Denial = serde_json::from_value(denial.clone()).unwrap();
                    BelievedDenial::assumed(denial)
                })
                .collect(),
        }
    }

    pub(crate) fn evaluate(&self, orders: &Orders) -> BTreeMap<ContentId, Answer> {
        let database = TimeZoneDatabase::bundled();
        let site = &self.facts.device.site;
        let now = Now {
            clock: at(&self.clock),
            is_confirmed: self.is_confirmed,
            zones: Zones::of(orders.sites(), site, None, &database),
        };
        let statement = self.statement.as_ref();
        let statement = statement
            .map(|(issued, expires)| Statement { issued: at(issued), expires: at(expires) });
        evaluate(orders, &self.facts, &self.device, statement, &now)
    }

    pub(crate) fn answer(&self, n: u8) -> Answer {
        self.evaluate(&self.orders()).remove(&bytes(n).blake3).expect("an answer about the content")
    }

    /// State and reason of content 1, by their names.
    pub(crate) fn says(&self) -> (State, Option<Reason>) {
        let answer = self.answer(1);
        (answer.state, answer.reason)
    }

    /// Sets the clock, and the newest statement to the same instant.
    pub(crate) fn time(&mut self, text: &str) -> &mut Self {
        text.clone_into(&mut self.clock);
        let expires = at(text) + jiff::SignedDuration::from_hours(24 * 7);
        self.statement = Some((text.to_owned(), expires.to_string()));
        self
    }

    pub(crate) fn installs(&self) -> bool {
        matches!(self.answer(1).step, Step::Install { .. })
    }
}
