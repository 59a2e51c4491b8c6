//! Control's own folder, and folders that lack what control has kept.

use std::fs;
use std::time::{Duration, Instant};

use crate::{World, draft, exit, text};

/// How long control waits for a folder that somebody else has.
const OWNED_MAX: Duration = Duration::from_secs(10);

// R155
#[test]
fn control_named_for_its_own_folder_is_met_as_if_it_were_not_named() {
    let world = World::new();
    let began = Instant::now();
    let output = world
        .command("org", "site add lab --tz Europe/Berlin --key anna.key --key ben.key")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(world.published("sites"), 1);
    // By another name of the same folder, and with what needs control's own keys.
    std::os::unix::fs::symlink("org", world.path("link")).unwrap();
    world.done("link", "site add hall --tz Europe/Berlin --key anna.key --key ben.key");
    world.done("link", "halt --reason fails");
    assert!(began.elapsed() < OWNED_MAX, "nobody waits for anybody");
    // Whoever is elsewhere still goes over control.
    assert_eq!(world.json("anna", "site list").len(), 2);
    world.done("anna", "site add depot --tz UTC --key anna.key --key ben.key");
    assert_eq!(world.published("sites"), 3);
}

// T10
#[test]
fn a_draft_is_put_on_top_by_whoever_lacks_the_version_that_it_was_made_from() {
    let world = World::new();
    world.done("anna", "site add lab --tz Europe/Berlin --key anna.key --key ben.key");
    let begun = draft(&world.json("anna", "site add yard --tz Europe/Berlin"));
    let source = world.path("anna/drafts").join(format!("{begun}.json"));
    fs::copy(source, world.path("carried.json")).unwrap();
    for site in ["hall", "depot"] {
        let add = format!("site add {site} --tz Europe/Berlin --key anna.key --key ben.key");
        world.done("ben", &add);
    }
    // A folder that begins to follow now has never seen it.
    let root = "org/repository/metadata/1.root.json";
    world.done("", &format!("org follow new --org acme --root {root}"));
    assert!(!world.path("new/repository/metadata/1.sites.json").exists());
    let rebase = "order rebase carried.json --key anna.key --key ben.key";
    let mut alone = world.command("new", rebase);
    let output = alone.env_remove("SUTLER_CONTROL").output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(exit::REFUSED), "{said}");
    assert!(said.contains("sites: version 1") && said.contains("--control URL"), "{said}");
    assert_eq!(world.published("sites"), 3);

    // It can be carried on from there, too.
    world.done("new", &format!("{rebase} --out rebased.json"));
    assert_eq!(world.published("sites"), 3);
    let said = world.done("new", rebase);
    assert!(said.contains("published sites version 4"), "{said}");
    let sites = world.json("anna", "site list");
    let mut names: Vec<&str> = sites.iter().map(|site| site["site"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["depot", "hall", "lab", "yard"]);
    // What changed is shown there as well.
    let diff = world.json("new", "manifest diff sites 1 2");
    assert!(diff[0]["new"].to_string().contains("hall"), "{diff:?}");

    // What control shows in its place is not taken: neither another version, nor what nobody has signed.
    let at = |version: u64| world.path(&format!("org/repository/metadata/{version}.sites.json"));
    let first = fs::read_to_string(at(1)).unwrap();
    let changed = first.replacen("\"expires\":\"2", "\"expires\":\"3", 1);
    assert_ne!(changed, first);
    let second = fs::read_to_string(at(2)).unwrap();
    for (shown, why) in [(changed, "who sign for the role now"), (second, "of another version")] {
        fs::write(at(1), shown).unwrap();
        let said = world.refused("new", rebase, exit::REFUSED);
        assert!(said.contains(why), "{said}");
    }
}
