//! What order files are refused for: each error names the document, the field and the rule.

use std::error::Error as _;

use serde_json::{Value, json};
use sutler_orders::bounds::{ITEMS_MAX, ORDER_BYTES_MAX};
use sutler_orders::content::{About, Content};
use sutler_orders::denial::SignedDenial;
use sutler_orders::order::Place;
use sutler_orders::{Approvals, Body, Halts, Order, OrderError, Policies, Rings, Schedules, Sites};
use sutler_protocol::manifest::{TargetFile, TargetPath};

const BLAKE3: &str = "55409142cced2ec79897459f170b6d22565daf883710b4ad7aeeddaef54244b4";
const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn file(kind: &str, scope: Option<&str>, body: &Value) -> Value {
    let mut file = json!({
        "_type": kind, "format": 1, "organisation": "example", "seq": 1, "issued": "2026-03-01T09:00:00Z",
    });
    let fields = file.as_object_mut().unwrap();
    fields.extend(scope.map(|scope| ("scope".to_owned(), scope.into())));
    fields.extend(body.as_object().unwrap().clone());
    file
}

fn read<B: Body>(file: &Value) -> Result<Order<B>, OrderError> {
    Order::read(file.to_string().as_bytes())
}

/// What an error says, with its cause.
fn said(error: &OrderError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn item(more: &Value) -> Value {
    let mut item = json!({
        "action": "install", "blake3": BLAKE3, "sha256": SHA256, "length": 3, "kind": "deb",
        "by": "Anna", "at": "2026-03-01T09:00:00Z",
    });
    item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    item
}

fn approvals(item: &Value) -> Value {
    file("approvals", Some("desktops"), &json!({ "items": [item] }))
}

#[test]
fn an_approval_is_refused_by_field_and_rule() {
    assert!(read::<Approvals>(&approvals(&item(&json!({})))).is_ok());
    for (more, expected) in [
        (json!({ "sha256": "ab" }), "approvals: read its field items[0].sha256: "),
        (json!({ "action": "maybe" }), "approvals: read its field items[0].action: "),
        (json!({ "reason": "a\nb" }), "approvals: read its field items[0].reason: a line has no"),
        (json!({ "reason": null }), "approvals: check its field items[0].reason: null says"),
        (json!({ "for": { "sites": [] } }), "items[0].for.sites: an empty list means nothing"),
        (json!({ "for": { "sites": ["a", "b c"] } }), "items[0].for.sites[1]: "),
        (json!({ "for": { "rule": "hostname == 'a'" } }), "items[0].for.rule: a rule knows no"),
        (json!({ "length": -1 }), "approvals: read its field items[0].length: "),
        (
            json!({ "not_before": "2026-03-02T00:00:00Z", "not_after": "2026-03-02T00:00:00Z" }),
            "approvals: check its field items[0].not_after: it is not later than not_before",
        ),
        (json!({ "action": "deny", "patch_now": true }), "check its field items[0].action: "),
        (json!({ "action": "pause", "not_after": "2026-03-02T00:00:00Z" }), "items[0].action: "),
        // T24
        (
            json!({ "hooks": { "install": ["-x"] } }),
            "items[0].hooks.install[0].argument: an argument does",
        ),
    ] {
        let error = read::<Approvals>(&approvals(&item(&more))).expect_err(&more.to_string());
        assert!(said(&error).contains(expected), "{more}: {}", said(&error));
    }
}

#[test]
fn a_head_is_checked_before_anything_else() {
    let good = approvals(&item(&json!({})));
    for (field, value, expected) in [
        ("_type", json!("standing"), "approvals: its field _type is \"standing\" instead of"),
        ("format", json!(2), "approvals: its field format is 2 instead of 1"),
        ("seq", json!(0), "approvals: check its field seq: it is 0, not 1 to"),
        ("organisation", json!("Example"), "approvals: read its field organisation: "),
        ("issued", json!("yesterday"), "approvals: read its field issued: an instant is written"),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let error = read::<Approvals>(&bad).unwrap_err();
        assert!(said(&error).contains(expected), "{}", said(&error));
    }
    let error = read::<Approvals>(&file("approvals", None, &json!({ "items": [] }))).unwrap_err();
    assert!(said(&error).contains("check its field scope"), "{}", said(&error));
    let error =
        read::<Halts>(&file("halts", Some("desktops"), &json!({ "halts": [] }))).unwrap_err();
    assert!(said(&error).contains("orders of this kind have no scope"), "{}", said(&error));
    for text in ["", "[]", "{}", "{\"_type\":\"halts\",\"_type\":\"halts\"}"] {
        assert!(Order::<Halts>::read(text.as_bytes()).is_err(), "{text}");
    }
}

// T5, T10: as many items as a file may have, with the longest reasons that still fit, and one more.
#[test]
fn an_order_file_of_10_000_items_is_read_and_a_longer_one_is_refused_as_a_whole() {
    let items = |count: usize, reason: &str| {
        let items = vec![item(&json!({ "reason": reason })); count];
        file("approvals", Some("desktops"), &json!({ "items": items }))
    };
    let most = read::<Approvals>(&items(ITEMS_MAX, &"x".repeat(500))).unwrap();
    assert_eq!(most.body.items.len(), 10_000);
    // It is written as it was read, so that an admin can go on with it.
    assert!(most.write().unwrap().len() as u64 <= ORDER_BYTES_MAX);
    let error = read::<Approvals>(&items(ITEMS_MAX + 1, "x")).unwrap_err();
    let said = said(&error);
    assert!(
        said.contains("approvals: ") && said.contains("items") && said.contains("10000"),
        "{said}"
    );
    let mut long = items(1, "x").to_string().into_bytes();
    long.resize(ORDER_BYTES_MAX as usize + 1, b' ');
    let error = Order::<Approvals>::read(&long).unwrap_err();
    assert!(matches!(error, OrderError::TooLong { .. }), "{error}");
}

// T12
#[test]
fn an_order_of_another_organisation_or_scope_does_not_belong() {
    let order: Order<Approvals> = read(&approvals(&item(&json!({})))).unwrap();
    let (ours, theirs) = ("example".parse().unwrap(), "elsewhere".parse().unwrap());
    let (desktops, servers) = ("desktops".parse().unwrap(), "servers".parse().unwrap());
    assert!(order.belongs(Place { organisation: &ours, scope: Some(&desktops) }).is_ok());
    for (organisation, scope, field) in [
        (&theirs, Some(&desktops), "organisation: it is \"example\" instead of \"elsewhere\""),
        (&ours, Some(&servers), "scope: it is \"desktops\" instead of \"servers\""),
        (&ours, None, "scope: "),
    ] {
        let error = order.belongs(Place { organisation, scope }).unwrap_err();
        assert!(said(&error).contains(field), "{}", said(&error));
    }
}

#[test]
fn ten_thousand_items_are_read_and_one_more_is_refused() {
    let items = |count: usize| {
        let items: Vec<Value> = (0..count).map(|_| item(&json!({}))).collect();
        file("approvals", Some("desktops"), &json!({ "items": items }))
    };
    assert_eq!(read::<Approvals>(&items(10_000)).unwrap().body.items.len(), 10_000);
    let error = read::<Approvals>(&items(10_001)).unwrap_err();
    assert!(
        said(&error).contains("items: it has 10001 entries, and 10000 are"),
        "{}",
        said(&error)
    );
}

#[test]
fn names_that_are_there_twice_are_refused() {
    let ring = json!({ "name": "pilot" });
    let error = read::<Rings>(&file("rings", None, &json!({ "rings": [ring, ring] }))).unwrap_err();
    assert!(said(&error).contains("rings: \"pilot\" is there twice"), "{}", said(&error));
    let network = json!([{ "cidr": "10.0.0.0/8" }]);
    let site = |name: &str| json!({ "name": name, "zone": "Europe/Berlin", "networks": network });
    let sites = file("sites", None, &json!({ "sites": [site("a"), site("b")] }));
    let error = read::<Sites>(&sites).unwrap_err();
    assert!(said(&error).contains("\"10.0.0.0/8\" is there twice"), "{}", said(&error));
}

#[test]
fn a_zone_is_a_name_and_never_an_offset() {
    let site = |zone: &str| {
        read::<Sites>(&file("sites", None, &json!({ "sites": [{ "name": "a", "zone": zone }] })))
    };
    for good in ["Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC", "America/Port-au-Prince"]
    {
        assert!(site(good).is_ok(), "{good}");
    }
    for bad in
        ["+01:00", "CET", "Etc/GMT+5", "europe/berlin", "Europe/../x", "/etc/passwd", "Europe/"]
    {
        assert!(site(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_window_comes_by_a_rule_or_by_patch_tuesday() {
    let window = |more: &Value| {
        let mut window = json!({ "start": "2026-03-14T22:00:00", "duration_minutes": 60 });
        window.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let schedule = json!({
            "name": "s", "windows": [window], "by": "Anna", "at": "2026-03-01T09:00:00Z",
        });
        let body = json!({ "schedules": [schedule] });
        read::<Schedules>(&file("schedules", Some("desktops"), &body)).map_err(|error| said(&error))
    };
    let rule = "FREQ=MONTHLY;BYDAY=2SA";
    assert!(window(&json!({ "rule": rule })).is_ok());
    assert!(window(&json!({ "patch_tuesday_plus_days": 4, "zone": "device" })).is_ok());
    for (more, expected) in [
        (json!({}), "one of rule and patch_tuesday_plus_days is there"),
        (json!({ "rule": rule, "patch_tuesday_plus_days": 4 }), "one of rule"),
        (json!({ "patch_tuesday_plus_days": 28 }), "it is 28, not 0 to 27"),
        (json!({ "rule": "FREQ=HOURLY" }), "schedules[0].windows[0].rule: FREQ is DAILY"),
        (json!({ "rule": rule, "zone": "+02:00" }), "windows[0].zone: a zone is site, device"),
        (json!({ "rule": rule, "duration_minutes": 0 }), "it is 0, not 1 to 10080"),
        (json!({ "rule": rule, "start": "2026-02-30T22:00:00" }), "windows[0].start: a local time"),
        (
            json!({ "rule": rule, "start": "2026-03-14T22:00:00Z" }),
            "windows[0].start: a local time",
        ),
        (json!({ "rule": rule, "enforce_start": true, "missed": "run" }), "windows[0].missed: "),
    ] {
        let error = window(&more).expect_err(&more.to_string());
        assert!(error.contains(expected), "{more}: {error}");
    }
}

#[test]
fn a_policy_says_minutes_within_a_week() {
    let policy = |minutes: u64| {
        let policy = json!({
            "name": "p", "max_run_minutes": minutes, "by": "Anna", "at": "2026-03-01T09:00:00Z",
        });
        read::<Policies>(&file("policies", Some("desktops"), &json!({ "policies": [policy] })))
    };
    assert!(policy(30).is_ok());
    assert!(policy(0).is_err());
    assert!(policy(10_081).is_err());
}

fn about(more: &Value) -> Value {
    let mut about = json!({
        "format": 1, "blake3": BLAKE3, "name": "a.deb", "kind": "deb", "published": "2026-03-01T09:00:00Z",
    });
    about.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    about
}

#[test]
fn a_content_is_refused_by_field_and_rule() {
    assert!(About::read(&about(&json!({}))).is_ok());
    for (more, expected) in [
        (json!({ "surprise": 1 }), "surprise"),
        (json!({ "name": "a/b" }), "check its field name: a file's name is no path"),
        (json!({ "name": "-rf" }), "check its field name: a file's name does not look like"),
        (json!({ "severity": "critical" }), "read its field severity: "),
        (json!({ "cve": ["2026-1"] }), "read its field cve[0]: a weakness is written CVE-"),
        (
            json!({ "origins": ["file:///etc/passwd"] }),
            "check its field origins[0].url: an origin is",
        ),
        (json!({ "requires": [BLAKE3] }), "check its field requires: a content is not its own"),
        (json!({ "applies": "os.matches('x')" }), "read its field applies: a rule has no"),
    ] {
        let error = About::read(&about(&more)).expect_err(&more.to_string());
        assert!(said(&error).contains(expected), "{more}: {}", said(&error));
    }
}

#[test]
fn a_content_is_what_its_path_its_hashes_and_its_custom_say_together() {
    let target = |custom: &Value| -> TargetFile {
        serde_json::from_value(json!({
            "length": 3, "hashes": { "sha256": SHA256 }, "custom": { "sutler": custom },
        }))
        .unwrap()
    };
    let path = |text: String| TargetPath::from(text.as_str());
    let good = path(format!("content/2026-03/{BLAKE3}/a.deb"));
    let content = Content::of(&good, &target(&about(&json!({})))).unwrap();
    assert_eq!((content.bytes.length, content.about.name.as_str()), (3, "a.deb"));
    assert_eq!(content.about.path("2026-03"), good);
    assert_eq!(About::month(content.about.published), "2026-03");
    for bad in [
        format!("content/2026-13/{BLAKE3}/a.deb"),
        format!("content/2026-03/{BLAKE3}/b.deb"),
        format!("content/2026-03/{}/a.deb", "00".repeat(32)),
        format!("content/2026-03/x/{BLAKE3}/a.deb"),
        "a.deb".to_owned(),
    ] {
        assert!(Content::of(&path(bad.clone()), &target(&about(&json!({})))).is_err(), "{bad}");
    }
    let mut plain = target(&about(&json!({})));
    plain.custom = None;
    assert!(Content::of(&good, &plain).is_err());
}

#[test]
fn a_denial_that_is_none_is_refused_by_field_and_rule() {
    let denial = |more: &Value| {
        let mut signed = json!({
            "_type": "denial", "format": 1, "organisation": "example", "scope": "desktops", "id": "d-1",
            "issued": "2026-03-01T09:00:00Z", "contents": [BLAKE3], "by": "Bert",
        });
        signed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        SignedDenial::parse(json!({ "signatures": [], "signed": signed }).to_string().as_bytes())
    };
    assert!(denial(&json!({})).is_ok());
    for more in [
        json!({ "contents": [] }),
        json!({ "contents": [BLAKE3, BLAKE3] }),
        json!({ "surprise": 1 }),
        json!({ "_type": "approvals" }),
        json!({ "reason": 1.5 }),
    ] {
        assert!(denial(&more).is_err(), "{more}");
    }
    assert!(SignedDenial::parse(&vec![b' '; 70_000]).is_err());
}
