//! How far a stop has got, told to the admin who signed it on a machine of their own.

use serde_json::Value;

use crate::{World, soon};

/// The line that says how far a stop has got.
fn spread(lines: &[Value]) -> &Value {
    lines.iter().find(|line| line.get("sites_done").is_some()).unwrap()
}

#[test]
fn control_says_how_far_a_denial_has_got_and_names_no_device() {
    let world = World::new();
    world.write("numbers.bin", 2_000);
    world.done("anna", "publish numbers.bin --key anna.key");
    // Nobody has reported.
    let said = world.done("anna", "pause numbers.bin --scope one --key dora.key");
    assert!(said.contains("no device that it is for has reported to control"), "{said}");
    world.done("anna", "resume numbers.bin --scope one --key dora.key");
    world.done("anna", "approve numbers.bin --scope one --key dora.key");
    let device = world.device();

    let lines = world.json("anna", "deny numbers.bin --scope one --key dora.key --watch");
    let done = spread(&lines);
    assert_eq!((&done["sites_done"], &done["sites"]), (&1.into(), &1.into()), "{lines:?}");
    assert_eq!((&done["devices_done"], &done["devices"]), (&1.into(), &1.into()), "{lines:?}");
    assert_eq!(done["could_install"], 0, "{lines:?}");
    let version = world.published("approvals-one");
    world.done("anna", "resume numbers.bin --scope one --key dora.key --yes 1");

    // A device that is away has not heard of it.
    device.kill();
    let said = world.done("anna", "deny numbers.bin --scope one --key dora.key");
    assert!(said.contains("0 of 1 sites have it; "), "{said}");
    // Whoever asks learns no name, and nothing of what was not stopped.
    let place = format!("spread/one/{}/1", version + 2);
    soon("it is said", || world.asked(&place).contains("\"devices\":1"));
    assert!(!world.asked(&place).contains("d1"));
    assert_eq!(world.code(&place), "200");
    let approved = format!("spread/one/{}/1", version - 1);
    let others = ["spread/one/1000/1", "spread/none/1/1", "spread/one/0/1", "spread/one/x/1"];
    for place in others.into_iter().chain([&approved[..], "spread/%2e%2e/1/1", "spread/one"]) {
        let code = world.code(place);
        assert!(["404", "400"].contains(&&code[..]), "{place}: {code}");
    }
}
