//! A directorate that changes its own staff: the root's holders name its heads, and are not asked again.

use std::fs;

use serde_json::Value;

use super::{Site, soon};

/// The exit code of what is refused.
const REFUSED: i32 = 4;

/// An enterprise of five root keys, whose scope `lab` is left to Hana; she has named Dora.
fn enterprise() -> Site {
    let site = Site::in_folder();
    let roots = ["anna", "ben", "cleo", "dirk", "eva"];
    for name in roots.iter().chain(&["hana", "dora", "finn"]) {
        site.done(&format!("key new --out {name}.key"));
    }
    let roots = roots.map(|name| format!("--root {name}.pub")).join(" ");
    let covers = "--covers lab={\"sites\":[\"lab\"]}";
    let said = site.done(&format!(
        "org init org --org acme --preset enterprise {roots} --directorate lab=hana.pub \
         --approver lab=dora.pub {covers} --key anna.key --key ben.key --key cleo.key"
    ));
    // Hana has not said yet who approves.
    assert!(said.contains("1 more signature for staff-lab"), "{said}");
    let drafts = site.done("order list --json");
    let draft: Value = serde_json::from_str(drafts.lines().next().unwrap()).unwrap();
    let draft = draft["draft"].as_str().unwrap();
    site.done(&format!("order sign {draft} --key hana.key"));
    site.with_members();
    site
}

// R16: DESIGN's preset `enterprise`.
#[test]
fn a_directorate_replaces_an_approver_and_devices_follow() {
    let site = enterprise();
    let control = site.control("127.0.0.1:0");
    let node = site.node(&control.address());
    let _agent = site.agent(&node.address());
    let staged = |name: &str| {
        let said = site.done("report patch --data org --json");
        said.lines().any(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            row["name"] == name && row["devices"]["staged"] == 1
        })
    };
    let publish = |name: &str| {
        fs::write(site.path(name), name.repeat(1_000)).unwrap();
        site.done(&format!("publish {name} --severity low --key anna.key"));
    };

    publish("first.bin");
    site.done("approve first.bin --scope lab --key dora.key --yes 1");
    soon("what Dora approved is staged", || staged("first.bin"));

    // Dora goes, Finn comes. Hana alone says so, and Finn stands by what is approved.
    site.done("key rotate approvals-lab --with finn.pub --key hana.key --key finn.key");
    let status = site.done("key status");
    let line = |role: &str| status.lines().find(|line| line.contains(role)).unwrap().to_owned();
    assert!(line("approvals-lab").contains("1 of finn"), "{status}");
    assert!(line("targets").contains(" 1 "), "{status}");
    publish("second.bin");
    let refused = site.run("approve second.bin --scope lab --key dora.key --yes 1");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(REFUSED), "{said}");
    site.done("approve second.bin --scope lab --key finn.key --yes 1");
    soon("what Finn approved is staged", || staged("second.bin"));
    assert!(staged("first.bin"));

    // Dora is known to nobody any more, and Hana is to the root's holders alone.
    assert_eq!(site.run("admin remove dora --orders keep").status.code(), Some(2));
    let remove = site.run("admin remove hana --orders keep --key hana.key");
    let said = String::from_utf8_lossy(&remove.stderr);
    assert!(said.contains("staff-lab") && !remove.status.success(), "{said}");
}
