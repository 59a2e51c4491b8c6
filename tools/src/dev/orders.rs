//! What `sutler dev` orders: that the ring installs whatever was moved. To install is to write down what for.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf, absolute};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sutler_agent::command::Template;
use sutler_agent::config::{AgentConfig, InstallConfig};
use sutler_cache::{Content as Held, Store};
use sutler_control::change::Change;
use sutler_control::daemon::desk::Desk;
use sutler_control::decision::{Decision, Verdict};
use sutler_control::{Folder, Sha256, reports};
use sutler_node::data::DataFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_orders::answer::State;
use sutler_orders::audience::Audience;
use sutler_orders::content::{About, Content, Hooks, Severity};
use sutler_orders::order::FORMAT;
use sutler_orders::text::{Line, Utc};
use sutler_protocol::name::Label;
use sutler_protocol::{ContentId, Sha256Digest};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cast::AGENTS;
use super::organisation::{self, note, scope, signer};
use super::summary::Row;

/// What the agents have a command for.
const KIND: &str = "file";

/// Where programs are looked for.
const PROGRAMS: [&str; 2] = ["/usr/bin", "/bin"];

/// How long nothing may be recorded before that is a failure: a loaded machine takes seconds for one.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often control's reports are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Files that are ordered at a time: an agent goes through all that it may still install before each of its steps.
pub(crate) const AT_A_TIME: usize = 20;

/// Bytes that are read at a time.
const BLOCK_BYTES: u64 = 1 << 20;

/// Bytes of a published name, at most: as many as the repository takes.
const NAME_BYTES_MAX: usize = 180;

/// A content that both agents have.
#[derive(Clone, Debug)]
struct Moved {
    id: ContentId,
    name: String,
}

/// Returns how an agent of `data` installs: it makes an empty file in DATA/recorded that is called like the content's
/// id, and looks for it.
///
/// # Errors
///
/// Kind `file` if the folder cannot be made, or the machine has no `touch` and `test`.
pub(crate) fn recording(data: &DataFolder) -> Result<AgentConfig, Failure> {
    let folder = data.root().join("recorded");
    let failed = |error: &dyn std::error::Error| {
        Failure::because(Kind::File, format!("record in {}", folder.display()), error)
    };
    fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    let path = absolute(&folder).map_err(|error| failed(&error))?;
    let path = path.to_str().ok_or_else(|| failed(&std::io::Error::other("it is no UTF-8")))?;
    // A brace of the path's own is one, and no place for a name.
    let record = format!("{}/{{content}}", path.replace('{', "{{").replace('}', "}}"));
    let template = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Template::parse(&words).map_err(|error| failed(&error))
    };
    let install = InstallConfig {
        kind: kind(),
        command: template(&[&program("touch")?, &record])?,
        detect: template(&[&program("test")?, "-e", &record])?,
        max_run_minutes: NonZeroU32::MIN,
    };
    Ok(AgentConfig { observe_only: false, install: vec![install], ..AgentConfig::default() })
}

/// Publishes what was moved, of which `store` has the bytes, and approves it for the ring; returns the contents.
///
/// # Errors
///
/// Kind `internal`, for whatever keeps control from taking it.
pub(crate) async fn approve(
    folder: PathBuf,
    store: Store,
    rows: &[Row],
    desk: &Desk,
) -> Result<BTreeSet<ContentId>, Failure> {
    let mut moved: Vec<Moved> = Vec::new();
    for row in rows {
        let id = row.agent_a.content.parse::<ContentId>().map_err(|error| failed(&error))?;
        if moved.iter().all(|other| other.id != id) {
            moved.push(Moved { id, name: publishable(&row.file) });
        }
    }
    let contents = moved.iter().map(|one| one.id).collect();
    let signed = spawn_blocking(move || sign(&folder, &store, &moved)).await;
    let submission = signed.map_err(|error| failed(&error))??;
    desk.submit(submission).await.map_err(|error| failed(&error))?;
    Ok(contents)
}

/// Waits until every agent has reported that it has recorded each of `contents`, or until `stop`.
///
/// # Errors
///
/// Kind `internal` if that does not happen.
pub(crate) async fn recorded(
    folder: &Path,
    contents: &BTreeSet<ContentId>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let all = contents.len() * AGENTS.len();
    let (mut most, mut since) = (0, Instant::now());
    loop {
        let (folder, wanted) = (folder.to_owned(), contents.clone());
        let counted = spawn_blocking(move || count(&folder, &wanted)).await;
        let counted = counted.map_err(|error| failed(&error))??;
        if counted >= all {
            return Ok(());
        }
        if counted > most {
            (most, since) = (counted, Instant::now());
        } else if since.elapsed() > PATIENCE {
            let seconds = PATIENCE.as_secs();
            let what = format!("{counted} of {all} are recorded, and no more in {seconds} s");
            return Err(Failure::new(Kind::Internal, what)
                .with_help("`sutler explain NAME --data DIR/agent-a` says why"));
        }
        tokio::select! {
            // Cancel-safe: a token stays cancelled.
            () = stop.cancelled() => return Ok(()),
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Returns how often the newest reports say that one of `contents` is installed.
fn count(folder: &Path, contents: &BTreeSet<ContentId>) -> Result<usize, Failure> {
    let reports = reports::read(&folder.join("reports"), &organisation::name());
    let reports = reports.map_err(|error| failed(&error))?;
    let answers = reports.iter().flat_map(|report| &report.answers);
    let is_there = answers
        .filter(|answer| answer.state == State::Installed && contents.contains(&answer.content));
    Ok(is_there.count())
}

/// Signs that the contents are published and approved, and keeps their hash lists where control serves them. Their
/// bytes stay where they are, in the stores of node and agents: a demonstration does not copy them.
fn sign(path: &Path, store: &Store, moved: &[Moved]) -> Result<Vec<u8>, Failure> {
    let now = Timestamp::now();
    let folder = Folder::open(path).map_err(|error| failed(&error))?;
    let state = folder.state().map_err(|error| failed(&error))?;
    let note = note(&format!("publish and approve {} contents", moved.len()), now);
    let mut change = Change::new(&state, folder.organisation(), note, now);
    let mut contents = Vec::new();
    for one in moved {
        let held = store.content(one.id).map_err(|error| failed(&error))?;
        let held = held.ok_or_else(|| {
            Failure::new(Kind::Internal, format!("agent A has no {} any more", one.name))
        })?;
        let (length, sha256) = (held.geometry().len(), sha256(&held)?);
        let about = about(one, &held, now)?;
        let (path, file) =
            change.content(&about, *sha256.as_bytes(), length).map_err(|error| failed(&error))?;
        let list = held.hashes().as_bytes();
        folder.repository().put_list(one.id, length, list).map_err(|error| failed(&error))?;
        contents.push(Content::of(&path, &file).map_err(|error| failed(&error))?);
    }
    let decision = Decision {
        verdict: Verdict::Install,
        scope: scope(),
        audience: Audience::default(),
        not_before: None,
        not_after: None,
        schedule: None,
    };
    decision.apply(&mut change, &contents).map_err(|error| failed(&error))?;
    let mut draft = change.draft().map_err(|error| failed(&error))?;
    let key = signer(path).map_err(|error| failed(&error))?;
    draft.sign(&key, Some(&state)).map_err(|error| failed(&error))?;
    Ok(draft.submission().write())
}

fn about(moved: &Moved, held: &Held, now: Timestamp) -> Result<About, Failure> {
    let origins = held.about().origins;
    Ok(About {
        format: FORMAT,
        blake3: moved.id,
        name: moved.name.parse::<Line>().map_err(|error| failed(&error))?,
        kind: kind(),
        published: Utc::of(now),
        origins: origins.iter().filter_map(|origin| origin.url.parse().ok()).collect(),
        vendor: None,
        product: None,
        version: None,
        title: None,
        severity: Severity::Unknown,
        severity_by: None,
        severity_reason: None,
        cve: Vec::new(),
        supersedes: Vec::new(),
        requires: Vec::new(),
        no_restart: true,
        no_interruption: true,
        applies: None,
        hooks: Hooks::default(),
    })
}

/// Returns the vendor's digest, or computes it from the bytes, each verified.
fn sha256(held: &Held) -> Result<Sha256Digest, Failure> {
    if let Some(sha256) = held.about().sha256 {
        return Ok(sha256);
    }
    let (length, mut digest) = (held.geometry().len(), Sha256::new());
    let mut block = Vec::new();
    let mut at = 0;
    while at < length {
        let end = length.min(at + BLOCK_BYTES);
        block.resize(usize::try_from(end - at).map_err(|error| failed(&error))?, 0);
        held.read(at..end, &mut block).map_err(|error| failed(&error))?;
        digest.update(&block);
        at = end;
    }
    Ok(digest.finish())
}

/// Returns a name that a repository can have: it is the same on every disk and in a URL.
fn publishable(file: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-._~+".contains(*c);
    let kept = file.chars().map(|c| if is_plain(&c) { c } else { '_' });
    let kept: String = kept.take(NAME_BYTES_MAX - 1).collect();
    if kept.starts_with(['-', '.']) || kept.is_empty() { format!("_{kept}") } else { kept }
}

fn program(name: &str) -> Result<String, Failure> {
    let mut paths = PROGRAMS.iter().map(|folder| format!("{folder}/{name}"));
    paths.find(|path| Path::new(path).exists()).ok_or_else(|| {
        Failure::new(Kind::File, format!("there is no {name} in {}", PROGRAMS.join(" or ")))
    })
}

fn kind() -> Label {
    KIND.parse().expect("letters are a label")
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::because(Kind::Internal, "order what was moved", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_one_that_a_repository_takes() {
        for (file, expected) in [
            ("bash_5.2+b1~x_amd64.deb", "bash_5.2+b1~x_amd64.deb"),
            ("my own file", "my_own_file"),
            ("-rf", "_-rf"),
            ("..", "_.."),
            ("größe", "gr__e"),
            ("", "_"),
        ] {
            assert_eq!(publishable(file), expected);
        }
        assert_eq!(publishable(&"x".repeat(300)).len(), NAME_BYTES_MAX - 1);
    }

    #[test]
    fn a_folder_with_braces_is_no_place_for_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let config = recording(&DataFolder::new(dir.path().join("a{file}b"))).unwrap();
        assert!(!config.install[0].command.wants_file());
        assert!(!config.observe_only && config.mistakes().is_empty());
    }
}
