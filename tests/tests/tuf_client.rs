//! `sutler-tuf` as the conformance suite drives it: over HTTP, with a folder of metadata and one of
//! target files; and against a repository that python-tuf wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sutler_tests::program;
use sutler_tests::vendor::origin::{Conduct, Origin};

#[path = "../../protocol/tests/manifest/repository.rs"]
#[expect(dead_code, reason = "what the manifest's own tests use, and more than is used here")]
mod repository;

use repository::{Repository, hashes, in_days};

const TOP: [&str; 3] = ["targets", "snapshot", "timestamp"];

/// A client with its folders, and the server that it asks.
struct Client {
    folder: tempfile::TempDir,
    origin: Origin,
}

impl Client {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["served/metadata", "served/targets", "metadata", "targets"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let origin = Origin::serve(folder.path().join("served"));
        Self { folder, origin }
    }

    /// A client of a repository, which trusts its first root.
    fn of(repository: &Repository) -> Self {
        let client = Self::new();
        fs::write(client.path("root.json"), &repository.published["root"][0]).unwrap();
        client.serve(repository);
        succeeded(&client.init());
        client
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Serves what the repository has published.
    fn serve(&self, repository: &Repository) {
        let served = self.path("served/metadata");
        fs::remove_dir_all(&served).unwrap();
        fs::create_dir(&served).unwrap();
        for (place, bytes) in &repository.places {
            fs::write(served.join(place), bytes).unwrap();
        }
    }

    /// Serves a target file that the repository names.
    fn serve_target(&self, path: &str, content: &[u8], named: &[u8]) {
        let hash = hashes(named)["sha256"].as_str().unwrap().to_owned();
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.path("served/targets").join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{hash}.{name}")), content).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program::sutler_tuf());
        command.arg("--metadata-dir").arg(self.path("metadata")).args(arguments);
        command.output().unwrap()
    }

    fn init(&self) -> Output {
        self.run(&["init", self.path("root.json").to_str().unwrap()])
    }

    fn refresh(&self) -> Output {
        self.run(&["--metadata-url", &self.origin.url("metadata/"), "refresh"])
    }

    fn download(&self, names: &[&str]) -> Output {
        let (metadata, targets) = (self.origin.url("metadata"), self.origin.url("targets"));
        let folder = self.path("targets");
        let mut arguments = vec!["--metadata-url", &metadata, "--target-base-url", &targets];
        arguments.extend(names.iter().flat_map(|name| ["--target-name", name]));
        arguments.extend(["--target-dir", folder.to_str().unwrap(), "download"]);
        self.run(&arguments)
    }

    /// The versions that are trusted, by the names of their files.
    fn versions(&self) -> BTreeMap<String, u64> {
        let mut versions = BTreeMap::new();
        for (name, bytes) in files(&self.path("metadata")) {
            if let Some(role) = name.strip_suffix(".json") {
                let document: Value = serde_json::from_slice(&bytes).unwrap();
                let version = document["signed"]["version"].as_u64().unwrap();
                versions.insert(role.to_owned(), version);
            }
        }
        versions
    }

    fn downloaded(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.path("targets"))
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn succeeded(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

/// Asserts that the command failed, and returns what it said.
fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// A repository as of today: the client has the system's clock.
fn today() -> Repository {
    let mut repository = Repository::new();
    let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    for role in ["root", "targets", "snapshot", "timestamp"] {
        repository[role]["expires"] = json!(expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    repository.published.clear();
    repository.publish(&["root", "targets", "snapshot", "timestamp"]);
    repository
}

#[test]
fn metadata_is_kept_as_it_came_under_names_without_versions() {
    let mut repository = today();
    let client = Client::of(&repository);
    succeeded(&client.refresh());
    for role in ["root", "timestamp", "snapshot", "targets"] {
        let kept = fs::read(client.path("metadata").join(format!("{role}.json"))).unwrap();
        assert_eq!(kept, repository.newest(role), "{role}");
    }
    assert_eq!(client.versions().len(), 4);

    repository.publish(&["root", "targets", "snapshot", "timestamp"]);
    client.serve(&repository);
    succeeded(&client.refresh());
    assert!(client.versions().values().all(|version| *version == 2));
    // Said again, it changes nothing.
    succeeded(&client.init());
    assert_eq!(client.versions()["root"], 2);
}

#[test]
fn nothing_is_asked_for_before_the_root_that_was_handed_over_holds() {
    let repository = today();
    let client = Client::new();
    client.serve(&repository);
    let unsigned = repository::edit(&repository.newest("root"), |document| {
        document["signatures"][0]["sig"] = json!("00");
    });
    fs::write(client.path("root.json"), unsigned).unwrap();
    assert!(failed(&client.init()).contains("verify the root that was kept"));
    assert!(failed(&client.refresh()).contains("no root was handed to"));
    assert!(client.origin.all_asked().is_empty());
}

// T1, T3
#[test]
fn a_replay_and_an_expired_timestamp_are_refused_and_change_nothing() {
    let mut repository = today();
    repository.publish(&["timestamp"]);
    let client = Client::of(&repository);
    succeeded(&client.refresh());
    let old = repository.published["timestamp"][0].clone();
    repository.places.insert("timestamp.json".into(), old);
    client.serve(&repository);
    let said = failed(&client.refresh());
    assert!(said.contains("its field version is 1, and 2 was believed before"), "{said}");

    repository["timestamp"]["expires"] = in_days(-9000);
    repository.publish(&["timestamp"]);
    client.serve(&repository);
    assert!(failed(&client.refresh()).contains("timestamp: it expired at"));
    assert_eq!(client.versions()["timestamp"], 2);
}

// T2
#[test]
fn metadata_that_was_cut_is_not_believed_again() {
    let repository = today();
    let client = Client::of(&repository);
    succeeded(&client.refresh());
    let file = client.path("metadata/timestamp.json");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    client.origin.forget();
    let said = failed(&client.refresh());
    assert!(said.contains("timestamp.json is not the one that was kept"), "{said}");
    assert!(client.origin.all_asked().is_empty());
}

#[test]
fn a_target_file_is_downloaded_once_whole_and_checked() {
    let mut repository = today();
    repository.delegate("targets", "odd role", &json!({ "paths": ["pool/*/*"] }));
    repository["odd role"]["expires"] = repository["targets"]["expires"].clone();
    for (role, path) in [("targets", "top #1?"), ("odd role", "pool/a/b c.deb")] {
        repository.add_target(role, path, path.as_bytes());
    }
    repository.publish(&["odd role", "targets", "snapshot", "timestamp"]);
    let place = "1.odd%20role.json";
    let role = repository.places.remove(place).unwrap();
    repository.places.insert("1.odd role.json".into(), role);
    let client = Client::of(&repository);
    for path in ["top #1?", "pool/a/b c.deb"] {
        client.serve_target(path, path.as_bytes(), path.as_bytes());
    }
    succeeded(&client.download(&["top #1?", "pool/a/b c.deb"]));
    let expected = [("pool%2Fa%2Fb%20c.deb", "pool/a/b c.deb"), ("top%20%231%3F", "top #1?")];
    let expected = expected.map(|(name, content)| (name.to_owned(), content.as_bytes().to_vec()));
    assert_eq!(client.downloaded(), expected.into());
    assert!(client.versions().contains_key("odd%20role"));

    assert_eq!(client.origin.asked_below("targets").requests, 2);
    client.origin.forget();
    succeeded(&client.download(&["pool/a/b c.deb"]));
    assert_eq!(client.origin.asked_below("targets").requests, 0);
}

// T7
#[test]
fn the_first_name_that_fails_ends_a_download() {
    let mut repository = today();
    for path in ["first", "longer", "other", "last"] {
        repository.add_target("targets", path, path.as_bytes());
    }
    repository.publish(&TOP);
    let client = Client::of(&repository);
    for (path, content) in
        [("first", "first"), ("longer", "longer and longer"), ("other", "0ther"), ("last", "last")]
    {
        client.serve_target(path, content.as_bytes(), path.as_bytes());
    }
    assert!(failed(&client.download(&["first", "longer", "last"])).contains("more than 6 bytes"));
    let said = failed(&client.download(&["other", "last"]));
    assert!(said.contains("its sha256 is another one"), "{said}");
    assert!(failed(&client.download(&["missing", "last"])).contains("nobody names a target file"));
    assert_eq!(client.downloaded().into_keys().collect::<Vec<_>>(), ["first"]);

    // A file that is here and no longer the right one is replaced.
    fs::write(client.path("targets/first"), "changed").unwrap();
    succeeded(&client.download(&["first", "last"]));
    assert_eq!(client.downloaded()["first"], b"first");
    assert_eq!(client.downloaded().len(), 2);
}

#[test]
fn a_repository_that_fails_otherwise_than_by_404_ends_the_refresh() {
    let repository = today();
    let client = Client::of(&repository);
    client.origin.behave("metadata/2.root.json", Conduct::Status(500));
    let said = failed(&client.refresh());
    assert!(said.contains("fetch 2.root.json: the repository answered 500"), "{said}");
    assert_eq!(client.versions().len(), 1);
}

// T5
#[test]
fn a_repository_that_sends_for_ever_is_left_at_the_bound() {
    let repository = today();
    let client = Client::of(&repository);
    let endless = fs::File::create(client.path("served/metadata/timestamp.json")).unwrap();
    endless.set_len(64 * 1024 * 1024).unwrap();
    let said = failed(&client.refresh());
    assert!(said.contains("more than the 16384 bytes that it may have"), "{said}");
    // What the system's buffers took in, and no more.
    let sent = client.origin.asked("metadata/timestamp.json").bytes;
    assert!(sent < 32 * 1024 * 1024, "{sent}");
}

#[test]
fn a_mistake_in_the_arguments_ends_with_1() {
    let client = Client::new();
    for arguments in [&["refresh"][..], &["download"], &["init"], &["--nonsense"], &[]] {
        failed(&client.run(arguments));
    }
    succeeded(&client.run(&["--help"]));
}

#[test]
fn a_repository_that_python_tuf_wrote_is_believed_delegations_and_all() {
    let Some(python) = program::python() else {
        let test = "a_repository_that_python_tuf_wrote_is_believed_delegations_and_all";
        return sutler_tests::skip(test, "cargo xtask test has not set up python-tuf");
    };
    let client = Client::new();
    let served = client.path("served");
    fs::remove_dir_all(&served).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/write_repository.py");
    let written = Command::new(python).arg(script).arg(&served).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    fs::copy(served.join("metadata/1.root.json"), client.path("root.json")).unwrap();

    succeeded(&client.init());
    succeeded(&client.refresh());
    let top = client.versions();
    assert_eq!(top.into_values().collect::<Vec<_>>(), [3, 3, 3, 3]);
    let paths = [
        "top.txt",
        "pool/a/one.deb",
        "pool/a/two words.deb",
        "pool/b/three.deb",
        "hashed.bin",
        "bins/x",
        "bins/y",
        "bins/z",
        // Two names that look alike: what was signed is the one that was written.
        "forms/caf\u{e9}",
        "forms/cafe\u{301}",
    ];
    succeeded(&client.download(&paths));
    let downloaded = client.downloaded();
    assert_eq!(downloaded.len(), paths.len());
    for path in paths {
        let content = format!("the content of {path}").into_bytes();
        assert!(downloaded.values().any(|file| *file == content), "{path}");
    }
    // Only what a search led to was fetched.
    let versions = client.versions();
    assert!(versions.contains_key("deeper") && !versions.contains_key("never"), "{versions:?}");
    for missing in ["pool/c.deb", "unused/x", "bins/longer"] {
        assert!(failed(&client.download(&[missing])).contains("nobody names"), "{missing}");
    }
}
