//! Several organisations on one machine: each with a control of its own, in a folder of its own (R161).

use std::fs;
use std::process::Command;

use super::{Site, soon};

/// The exit code for what is not accepted.
const REFUSED: i32 = 4;

impl Site {
    /// Hands what `file` says in at the door of a control, and returns the status of its answer.
    fn hand_in(&self, url: &str, file: &str) -> String {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--output", "answer", "--write-out", "%{http_code}"]);
        curl.arg("--data-binary").arg(format!("@{file}")).arg(format!("{url}/orders"));
        let output = curl.current_dir(self.folder.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The documents and files that are published, by their paths.
    fn repository(&self) -> Vec<String> {
        let mut find = Command::new("find");
        find.args(["metadata", "targets", "lists"]).current_dir(self.path("org/repository"));
        let output = find.args(["-type", "f"]).output().unwrap();
        let mut paths: Vec<String> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        paths.sort();
        paths
    }
}

// R161
#[test]
fn two_organisations_on_one_machine_share_no_root_no_key_and_no_path() {
    let (acme, beta) = (Site::of("acme"), Site::of("beta"));
    let (ours, theirs) = (acme.control("127.0.0.1:0"), beta.control("127.0.0.1:0"));
    // The same name, bytes, scope and role in both.
    let id = acme.publish("numbers.bin");
    assert_eq!(beta.publish("numbers.bin"), id);
    for site in [&acme, &beta] {
        site.done("approve numbers.bin --scope all --key org/keys/laptop.key --reason tested");
        soon("it is written down", || site.log().contains("approvals-all 1"));
    }
    let root = "org/repository/metadata/1.root.json";
    assert_ne!(acme.read(root), beta.read(root));
    for key in ["snapshot", "timestamp"] {
        let key = format!("org/online/{key}.key");
        assert_ne!(acme.read(&key), beta.read(&key));
    }
    // Paths of the same form lead to each organisation's own files.
    let approvals = |site: &Site| {
        let is_ours = |path: &&String| path.starts_with("targets/approvals/");
        let path = site.repository().iter().find(is_ours).unwrap().clone();
        site.read(&format!("org/repository/{path}"))
    };
    let says = |site, name: &str| String::from_utf8(approvals(site)).unwrap().contains(name);
    assert!(says(&acme, "\"acme\"") && !says(&acme, "beta"));
    assert!(says(&beta, "\"beta\"") && !says(&beta, "acme"));

    // A client of one believes nothing that the other serves, and their machines do not speak.
    fs::create_dir(acme.path("client")).unwrap();
    let mut init = Command::new(sutler_tests::program::sutler_tuf());
    init.args(["--metadata-dir", "client", "init"]).arg(acme.path(root));
    assert!(init.current_dir(acme.folder.path()).status().unwrap().success());
    assert!(!acme.refresh(&theirs.says("repository ")));
    assert!(acme.refresh(&ours.says("repository ")));
    let address = theirs.address();
    acme.fails(&format!("fetch {id} --data device --from {address} --out no.bin"), REFUSED);
    acme.done(&format!("fetch {id} --data device --from {} --out got.bin", ours.address()));

    // What one organisation's admin signed is not published in the other, nor is his key anybody's there.
    let before = (beta.published(), beta.repository());
    for role in ["targets", "approvals-all"] {
        let is_its = |path: &String| path.ends_with(&format!(".{role}.json"));
        let path = acme.repository().into_iter().rfind(is_its).unwrap();
        let document = String::from_utf8(acme.read(&format!("org/repository/{path}"))).unwrap();
        let submission = serde_json::json!({ "format": 1, "documents": { role: document } });
        fs::write(acme.path("submission.json"), submission.to_string()).unwrap();
        assert_eq!(acme.hand_in(&theirs.says("repository "), "submission.json"), "409", "{role}");
    }
    fs::copy(acme.path("org/keys/laptop.key"), beta.path("stranger.key")).unwrap();
    beta.fails("deny numbers.bin --scope all --key stranger.key", REFUSED);
    assert_eq!((beta.published(), beta.repository()), before);
}

// R161
#[test]
fn control_does_not_start_in_one_organisations_folder_as_anothers() {
    let (acme, beta) = (Site::of("acme"), Site::of("beta"));
    fs::remove_dir_all(beta.path("org/identity")).unwrap();
    let identity = acme.path("org/identity");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(identity).arg(beta.path("org/identity"));
    assert!(copy.status().unwrap().success());
    let before = beta.repository();
    let said = beta.fails("control --data org --config control.toml --listen 127.0.0.1:0", REFUSED);
    assert!(said.contains("acme") && said.contains("beta"), "{said}");
    assert_eq!(beta.repository(), before);
}
