//! What is asked before a signature, and that nothing but the answer signs anything (R155).

use std::fs;

use sutler_tests::terminal::{END_OF_INPUT, Terminal};

use crate::{World, exit, text};

const QUESTION: &str = "To sign, type how many devices: ";

impl World {
    /// Every file of an admin's folder with its bytes, but for what the folder follows control by.
    fn own_files(&self, admin: &str) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for part in ["", "drafts"] {
            let Ok(entries) = fs::read_dir(self.path(admin).join(part)) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
                files.push((path.display().to_string(), fs::read(path).unwrap()));
            }
        }
        files.sort();
        files
    }

    /// Answers the question of a command at a terminal, and returns its exit code and all that it showed.
    fn answered(&self, admin: &str, arguments: &str, answer: &str) -> (Option<i32>, String) {
        let mut terminal = Terminal::start(self.command(admin, arguments));
        terminal.wait_for(QUESTION);
        terminal.type_in(answer);
        terminal.end()
    }
}

/// An organisation with one device and one content that is published, not approved.
fn world() -> (World, sutler_tests::running::Running) {
    let world = World::new();
    world.write("numbers.bin", 2_000);
    world.done("anna", "publish numbers.bin --key anna.key");
    let device = world.device();
    (world, device)
}

// R155
#[test]
fn at_a_terminal_the_number_alone_signs_and_every_other_answer_changes_nothing() {
    let (world, _device) = world();
    let approve = "approve numbers.bin --scope one --key dora.key";
    let before = (world.published("snapshot"), world.own_files("anna"));
    for answer in ["2\n", "\n", "yes\n", "11\n", "-1\n", END_OF_INPUT] {
        let (code, shown) = world.answered("anna", approve, answer);
        assert_eq!(code, Some(exit::REFUSED), "{answer:?}: {shown}");
        assert!(shown.contains("1 of 1 devices, at 1 sites"), "{answer:?}: {shown}");
        assert!(shown.contains("another number was typed"), "{answer:?}: {shown}");
        let after = (world.published("snapshot"), world.own_files("anna"));
        assert_eq!(after, before, "{answer:?}: {shown}");
    }
    assert_eq!(world.published("approvals-one"), 0);
    let (code, shown) = world.answered("anna", approve, "1\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("published approvals-one version 1"), "{shown}");
    assert_eq!(world.published("approvals-one"), 1);
}

// R155, T30
#[test]
fn to_let_things_go_on_is_asked_about_as_an_approval_and_a_halt_is_not() {
    let (world, _device) = world();
    world.done("anna", "approve numbers.bin --scope one --key dora.key --yes 1");
    let output = world.command("org", "halt --reason fails").output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("it stops 1 content, 8000 bytes for each device; from "), "{said}");
    assert!(said.contains("1 of 1 devices, at 1 sites"), "{said}");
    let halt = said.split_whitespace().find_map(|word| word.strip_prefix("halt-")).unwrap();
    let halt = halt.trim_end_matches(',');

    // Whoever holds it up sees as much, and is asked nothing.
    let confirm = format!("halt --confirm halt-{halt} --scope one --key dora.key");
    let output = world.command("anna", &confirm).output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("it stops 1 content, 8000 bytes for each device; from "), "{said}");
    assert!(said.contains("1 of 1 devices, at 1 sites") && !said.contains(QUESTION), "{said}");

    let resume = "resume --until 2999-01-01T00:00:00Z --scope one --key dora.key";
    let said = world.refused("anna", resume, exit::REFUSED);
    assert!(said.contains("it starts 1 content, 8000 bytes for each device; from "), "{said}");
    assert!(said.contains("1 of 1 devices, at 1 sites") && said.contains("--yes 1"), "{said}");
    world.refused("anna", &format!("{resume} --yes 2"), exit::REFUSED);
    let (code, shown) = world.answered("anna", resume, "7\n");
    assert_eq!(code, Some(exit::REFUSED), "{shown}");
    let version = world.published("approvals-one");
    world.done("anna", &format!("{resume} --yes 1"));
    assert_eq!(world.published("approvals-one"), version + 1);

    // So is a draft that another one has begun, whatever it does.
    let draft = crate::draft(&world.json("ben", "resume --until 2998-01-01T00:00:00Z --scope one"));
    let said = world.refused("ben", &format!("order sign {draft} --key dora.key"), exit::REFUSED);
    assert!(said.contains("it starts 1 content, 8000 bytes"), "{said}");
    world.done("ben", &format!("order sign {draft} --key dora.key --yes 1"));
}
