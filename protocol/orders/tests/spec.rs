//! Section 8 of `SPEC.md` against the code: every example of the page is read, says what the page says, and is
//! written again as it was.

use std::collections::BTreeMap;

use serde_json::Value;
use sutler_orders::admission::Revocations;
use sutler_orders::content::{About, Severity};
use sutler_orders::denial::SignedDenial;
use sutler_orders::order::Place;
use sutler_orders::report::SignedReport;
use sutler_orders::{
    Approvals, Body, Halts, Order, Policies, Rings, Schedules, Sites, Standing, State,
};
use sutler_protocol::manifest::json;

const SPEC: &str = include_str!("../../SPEC.md");

/// The examples of the page by name.
fn examples() -> BTreeMap<&'static str, String> {
    let mut examples = BTreeMap::new();
    let mut open: Option<(&str, String)> = None;
    for line in SPEC.lines() {
        match &mut open {
            None => open = line.strip_prefix("```json ").map(|name| (name, String::new())),
            Some(_) if line == "```" => {
                let (name, text) = open.take().unwrap();
                assert!(examples.insert(name, text).is_none(), "{name} stands in SPEC.md twice");
            }
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    examples
}

fn read<B: Body>() -> Order<B> {
    let text = &examples()[B::KIND.as_str()];
    let order = Order::<B>::read(text.as_bytes()).unwrap();
    let written: Value = serde_json::from_slice(&order.write().unwrap()).unwrap();
    let mut said: Value = serde_json::from_str(text).unwrap();
    add_defaults(&mut said);
    assert_eq!(written, said);
    order
}

/// Adds what a writer says although it may be left out.
fn add_defaults(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(add_defaults),
        Value::Object(fields) => {
            let defaults = [
                ("cidr", "peering", Value::from("site")),
                ("cidr", "cost", 0.into()),
                ("duration_minutes", "missed", "wait".into()),
                ("veto_hours", "soak_hours", 0.into()),
            ];
            for (beside, name, default) in defaults {
                if fields.contains_key(beside) && !fields.contains_key(name) {
                    fields.insert(name.to_owned(), default);
                }
            }
            fields.values_mut().for_each(add_defaults);
        }
        _ => {}
    }
}

#[test]
fn every_order_file_of_the_page_is_read_and_written_again() {
    let approvals = read::<Approvals>();
    assert_eq!(approvals.head.seq, 7);
    assert_eq!(approvals.body.items[0].audience.sites.len(), 2);
    let (organisation, scope) = ("example".parse().unwrap(), "desktops".parse().unwrap());
    let place = Place { organisation: &organisation, scope: Some(&scope) };
    assert!(approvals.belongs(place).is_ok());
    assert_eq!(read::<Standing>().body.policies[0].veto_hours, 72);
    assert_eq!(read::<Policies>().body.policies.len(), 2);
    assert_eq!(read::<Schedules>().body.schedules[0].windows.len(), 2);
    assert_eq!(read::<Sites>().body.sites[0].networks[1].cost, 10);
    assert_eq!(read::<Rings>().body.rings[1].name.as_str(), "production");
    assert_eq!(read::<Halts>().body.halts[0].lapses().to_string(), "2026-03-15T10:00:00Z");
    assert_eq!(read::<Revocations>().body.revocations.len(), 1);
}

#[test]
fn the_content_and_the_denial_of_the_page_are_read_and_written_again() {
    let said: Value = serde_json::from_str(&examples()["content"]).unwrap();
    let about = About::read(&said).unwrap();
    assert_eq!(about.severity, Severity::High);
    assert_eq!(about.write().unwrap(), said);

    let said: Value = serde_json::from_str(&examples()["denial"]).unwrap();
    let envelope = serde_json::json!({ "signatures": [], "signed": said }).to_string();
    let denial = SignedDenial::parse(envelope.as_bytes()).unwrap();
    assert_eq!(denial.claimed_scope().as_str(), "desktops");
}

#[test]
fn the_report_of_the_page_is_read_and_written_again() {
    let said: Value = serde_json::from_str(&examples()["report"]).unwrap();
    let envelope = serde_json::json!({ "chain": ["00"], "signature": "ff", "signed": said });
    let signed = SignedReport::parse(envelope.to_string().as_bytes()).unwrap();
    assert_eq!(signed.message(), json::canonical(&said).unwrap());
    let signer = "spiffe://example/site/cologne/agent/anna-3".parse().unwrap();
    let report = signed.of(&signer, None).unwrap();
    assert_eq!(report.answers[0].state, State::Failed);
    let written = report.envelope(&[vec![0]], &[0xff]).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), envelope);
}

#[test]
fn every_example_of_the_page_has_its_test() {
    let tested = [
        "approvals",
        "content",
        "denial",
        "halts",
        "policies",
        "report",
        "revocations",
        "rings",
        "schedules",
        "sites",
        "standing",
    ];
    assert_eq!(examples().into_keys().collect::<Vec<_>>(), tested);
}

#[test]
fn an_unknown_field_anywhere_is_refused_by_its_path() {
    for (name, text) in examples() {
        if matches!(name, "content" | "denial" | "report") {
            continue;
        }
        let value: Value = serde_json::from_str(&text).unwrap();
        for path in objects(&value, "") {
            let mut changed = value.clone();
            let place = changed.pointer_mut(&path).unwrap().as_object_mut().unwrap();
            place.insert("surprise".to_owned(), 1.into());
            let error = read_named(name, &changed).expect_err(&path);
            let said = format!("{error}: {}", std::error::Error::source(&error).unwrap());
            assert!(said.contains("surprise") && said.starts_with(name), "{name}{path}: {said}");
        }
    }
}

fn read_named(name: &str, value: &Value) -> Result<(), sutler_orders::OrderError> {
    let bytes = value.to_string().into_bytes();
    match name {
        "approvals" => Order::<Approvals>::read(&bytes).map(drop),
        "standing" => Order::<Standing>::read(&bytes).map(drop),
        "policies" => Order::<Policies>::read(&bytes).map(drop),
        "schedules" => Order::<Schedules>::read(&bytes).map(drop),
        "sites" => Order::<Sites>::read(&bytes).map(drop),
        "rings" => Order::<Rings>::read(&bytes).map(drop),
        "halts" => Order::<Halts>::read(&bytes).map(drop),
        "revocations" => Order::<Revocations>::read(&bytes).map(drop),
        other => panic!("{other} is no order file"),
    }
}

/// Returns the JSON pointers of all objects in a value.
fn objects(value: &Value, at: &str) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let below =
                fields.iter().flat_map(|(name, value)| objects(value, &format!("{at}/{name}")));
            std::iter::once(at.to_owned()).chain(below).collect()
        }
        Value::Array(values) => {
            let below = values.iter().enumerate();
            below
                .flat_map(|(position, value)| objects(value, &format!("{at}/{position}")))
                .collect()
        }
        _ => Vec::new(),
    }
}
