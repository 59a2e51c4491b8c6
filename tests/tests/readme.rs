//! The README keeps its word: every command block in it runs, and its tables are those of the program.
//!
//! A block of cargo commands is for the reader's own clone. There the program is already built, so
//! the test runs `sutler` in place of `cargo run --release --`, and asks `xtask` whether it knows a
//! task instead of running all tests within a test. The other blocks are the tour: one shell runs them in
//! order, in an empty folder.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sutler_agent::config::AgentConfig;
use sutler_control::daemon::config::ControlConfig;
use sutler_node::config::Config;
use sutler_tests::sutler;

const README: &str = include_str!("../../README.md");

/// What a program prints once it stands and only waits for Ctrl-C.
const DEV_STANDS: &str = "sutler fetch ";

/// The kinds of blocks: commands, what a command prints, and a config.
const KINDS: [&str; 3] = ["sh", "text", "toml"];

/// Returns the lines of each block of commands.
fn blocks() -> Vec<Vec<&'static str>> {
    blocks_of("sh")
}

fn blocks_of(kind: &str) -> Vec<Vec<&'static str>> {
    let mut blocks = Vec::new();
    let mut open = None;
    for line in README.lines() {
        match &mut open {
            None if line.trim_start().starts_with("```") => {
                let found = line.trim_start_matches('`');
                assert!(KINDS.contains(&found), "no test knows of {line}");
                open = Some((found, Vec::new()));
            }
            None => {}
            Some(_) if line == "```" => {
                blocks.extend(open.take().filter(|(found, _)| *found == kind).map(|open| open.1));
            }
            Some((_, block)) => block.push(line),
        }
    }
    assert!(open.is_none(), "the last block does not end");
    blocks
}

fn is_cargo(block: &[&str]) -> bool {
    block.iter().all(|line| line.starts_with("cargo "))
}

/// Returns the cells of the table whose header begins with `first`, row by row.
fn table(first: &str) -> Vec<Vec<&'static str>> {
    let lines = README.lines().skip_while(|line| !line.starts_with(&format!("| {first} |")));
    lines
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("start {command:?}: {error}"))
}

/// Fails with all that was said, unless it went well.
fn expect_success(what: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{said}\n{complaint}", output.status);
    said
}

fn xtask() -> PathBuf {
    let program = sutler().with_file_name("xtask");
    assert!(program.is_file(), "build xtask first, or run the tests by: cargo xtask test");
    program
}

#[test] // R154
fn the_tour_runs_from_its_first_block_to_its_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut script =
        "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    let tour: Vec<_> = blocks().into_iter().filter(|block| !is_cargo(block)).collect();
    assert!(tour.len() > 5, "the tour was not found");
    for line in tour.into_iter().flatten() {
        // `$PWD/target/release` is the reader's clone; here the program comes from $PATH.
        script.push_str(line);
        script.push('\n');
    }
    let path = folder.path().join("tour.sh");
    fs::write(&path, script).unwrap();
    let bin = sutler().parent().unwrap().to_owned();
    let search = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = run(Command::new("timeout")
        .args(["--kill-after=5", "120", "bash", "-x"])
        .arg(&path)
        .current_dir(folder.path())
        .env("PATH", search)
        .env("HOME", folder.path())
        .env("TMPDIR", folder.path()));
    let said = expect_success("the tour", &output);
    assert!(said.contains("\"verified\":true"), "{said}");
}

#[test] // D6
fn the_first_command_stands_until_ctrl_c_and_ends_well() {
    let first = blocks().into_iter().next().unwrap();
    assert_eq!(first, ["cargo run --release -- dev"]);
    let mut dev = Command::new(sutler())
        .arg("dev")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = BufReader::new(dev.stdout.take().unwrap());
    while !said.contains(DEV_STANDS) {
        assert_ne!(stdout.read_line(&mut said).unwrap(), 0, "it ended before it stood:\n{said}");
    }
    let vendor = said.lines().find(|line| line.starts_with("vendor: ")).unwrap();
    assert!(vendor.ends_with("1.00 x") || vendor.ends_with("own)"), "{vendor}");
    let interrupted = run(Command::new("kill").args(["-INT", &dev.id().to_string()]));
    expect_success("kill", &interrupted);
    stdout.read_to_string(&mut said).unwrap();
    assert!(dev.wait().unwrap().success(), "{said}");
}

#[test]
fn every_cargo_command_of_the_page_exists_with_its_options() {
    let commands: Vec<&str> =
        blocks().into_iter().filter(|block| is_cargo(block)).flatten().collect();
    assert!(commands.contains(&"cargo xtask test") && commands.contains(&"cargo xtask check"));
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (help, options) = match words[..] {
            ["cargo", "run", "--release", "--", task, ref options @ ..] => {
                (run(Command::new(sutler()).args([task, "--help"])), options)
            }
            ["cargo", "xtask", task, ref options @ ..] => {
                (run(Command::new(xtask()).args(["help", task])), options)
            }
            ["cargo", "build", "--release"] => continue,
            _ => panic!("this test does not know how to check {command:?}"),
        };
        let help = expect_success(command, &help);
        for option in options.iter().filter(|option| option.starts_with("--")) {
            assert!(help.contains(option), "{command}: there is no {option}\n{help}");
        }
    }
}

#[test] // R155
fn the_table_of_exit_codes_is_the_one_that_help_prints() {
    let help = expect_success("--help", &run(Command::new(sutler()).arg("--help")));
    let rows = table("Code");
    assert!(rows.len() > 5, "the table was not found");
    for row in &rows {
        let [code, kind, meaning] = row[..] else { panic!("{row:?} has not three cells") };
        let found = help.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.starts_with(&[code, kind]) && words[2..].join(" ") == meaning
        });
        assert!(found, "help has no line {code} {kind} {meaning}");
    }
    let codes = help.lines().filter(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|code| code.parse::<u8>().is_ok()) && words.next().is_some()
    });
    assert_eq!(codes.count(), rows.len(), "{help}");
}

#[test]
fn every_config_of_the_page_is_one() {
    let configs: Vec<String> = blocks_of("toml").iter().map(|block| block.join("\n")).collect();
    assert!(!configs.is_empty());
    for text in &configs {
        let agent = Config::parse_with::<AgentConfig>(text, AgentConfig::NAME).map(drop);
        let control = Config::parse_with::<ControlConfig>(text, "control").map(drop);
        agent.and(control).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    }
    let first = Config::parse(&configs[0]).unwrap();
    assert_eq!(first.origin.allow.len(), 2);
}

#[test]
fn every_folder_of_the_map_and_every_page_that_is_linked_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = table("Folder");
    assert!(folders.len() > 5, "the map was not found");
    for row in folders {
        assert!(root.join(row[0].trim_matches('`')).is_dir(), "{}", row[0]);
    }
    for link in README.split("](").skip(1) {
        let page = link.split(')').next().unwrap();
        assert!(root.join(page).exists(), "{page}");
    }
}
