//! An organisation of one admin, its control as its operators run it, and what is handed in there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value};
use sutler_control::decision::{self, Decision, Verdict};
use sutler_control::{Change, Folder, Note, Passphrase, key};
use sutler_orders::audience::Audience;
use sutler_orders::denial::Denial;
use sutler_orders::text::Utc;
use sutler_protocol::ContentId;
use sutler_protocol::manifest::{SigningKey, json};
use sutler_swarm::identity::{Authority, LEAF_LIFETIME, Member, Validity};

use crate::ground::Ground;
use crate::process::Daemon;
use crate::program::Program;
use crate::scale::Mtu;

/// The scope of an organisation that one admin runs.
const SCOPE: &str = "all";

/// Bytes of each content that is decided about: their number is what matters here.
const CONTENT_BYTES: u64 = 100;

/// Connections beside those of the agents that are asked for.
const CONNECTIONS_SPARE: usize = 64;

/// An organisation and its control, which runs until it is dropped.
pub(crate) struct House {
    folder: PathBuf,
    key: SigningKey,
    contents: Vec<(String, ContentId)>,
    control: Daemon,
    address: SocketAddr,
    http: SocketAddr,
    join: SocketAddr,
}

impl House {
    /// Makes an organisation with so many published contents, of which nothing is decided, and starts its
    /// control for so many agents.
    pub(crate) fn start(ground: &Ground, contents: usize, agents: usize) -> anyhow::Result<Self> {
        let program = Program::find()?;
        let folder = ground.path("house");
        let passphrase = ground.secret("passphrase", "correct horse battery staple")?;
        let run = |arguments: &[&str]| -> anyhow::Result<()> {
            let mut command = program.plain();
            command.args(arguments).arg("--passphrase-file").arg(&passphrase);
            done(&mut command)
        };
        let path = folder.to_str().context("a folder whose name is text")?;
        run(&["org", "init", path, "--org", "bench", "--preset", "solo"])?;
        let own = ["org", "issue", path, "--role", "control", "--id", "c1", "--out"];
        done(program.plain().args(own).arg(folder.join("identity")))?;
        let below = ["org", "intermediate", path, "--out"];
        done(program.plain().args(below).arg(folder.join("authority")))?;
        let files = ground.folder("contents")?;
        let mut known = Vec::with_capacity(contents);
        for number in 0..contents {
            let name = format!("{number}.bin");
            let file = ground.noise(&format!("contents/{name}"), CONTENT_BYTES, number as u64)?;
            known.push((name, ContentId::of(&fs::read(file)?)));
        }
        let admin = folder.join("keys/laptop.key");
        let mut publish = program.plain();
        publish.args(["publish", "--org-dir", path, "--severity", "low"]).current_dir(&files);
        publish.arg("--key").arg(&admin).arg("--passphrase-file").arg(&passphrase);
        publish.args(known.iter().map(|(name, _)| name));
        done(&mut publish)?;
        let config = ground.path("control.toml");
        fs::write(&config, control_config(agents + CONNECTIONS_SPARE))?;
        let mut command = program.command("control", &folder);
        command.args(["--listen", "127.0.0.1:0", "--config"]).arg(&config);
        let marks = ["listening ", "repository http://", "join "];
        let (control, [address, http, join]) = Daemon::saying_all(&mut command, marks)?;
        let key = key::open(&admin, &Passphrase::read(&passphrase)?)?;
        let (address, http, join) = (address.parse()?, http.parse()?, join.parse()?);
        Ok(Self { folder, key, contents: known, control, address, http, join })
    }

    /// Returns control's process.
    pub(crate) const fn control(&self) -> &Daemon {
        &self.control
    }

    /// Returns where orders are watched.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where machines join.
    pub(crate) const fn join_address(&self) -> SocketAddr {
        self.join
    }

    /// Returns the organisation's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the root that devices begin to believe.
    pub(crate) fn root(&self) -> anyhow::Result<Bytes> {
        Ok(fs::read(self.folder.join("repository/metadata/1.root.json"))?.into())
    }

    /// Issues the identities of agents: in the folder `identity` of each of `data`.
    pub(crate) fn agents(&self, data: impl Iterator<Item = PathBuf>) -> anyhow::Result<()> {
        let authority = Authority::open(&self.folder)?;
        for (number, data) in data.enumerate() {
            fs::create_dir_all(&data)?;
            let member = Member::Agent { site: "here".parse()?, id: format!("a{number}").parse()? };
            authority.issue(member, Validity::from_now(LEAF_LIFETIME), &data.join("identity"))?;
        }
        Ok(())
    }

    /// Decides about contents, by their numbers; returns what is to be handed in.
    pub(crate) fn decide(
        &self,
        verdict: Verdict,
        contents: std::ops::Range<usize>,
    ) -> anyhow::Result<Vec<u8>> {
        let folder = Folder::open(&self.folder)?;
        let (state, now) = (folder.state()?, Timestamp::now());
        let names: Vec<String> =
            self.contents[contents].iter().map(|(name, _)| name.clone()).collect();
        let (by, what) = ("laptop".parse()?, verdict.as_str().parse()?);
        let note = Note { by, at: Utc::of(now), what, reason: None };
        let mut change = Change::new(&state, folder.organisation(), note, now);
        let decision = Decision {
            verdict,
            scope: SCOPE.parse()?,
            audience: Audience::default(),
            not_before: None,
            not_after: None,
            schedule: None,
        };
        let contents = decision::contents(&state, &names)?;
        decision.apply(&mut change, &contents)?;
        let mut draft = change.draft()?;
        draft.sign(&self.key, Some(&state))?;
        Ok(draft.submission().write())
    }

    /// Returns a denial of a content that travels by itself.
    pub(crate) fn denial(&self, content: usize) -> anyhow::Result<Bytes> {
        let now = Timestamp::now();
        let denial = Denial {
            organisation: "bench".parse()?,
            scope: SCOPE.parse()?,
            id: format!("d{}", now.as_nanosecond()).parse()?,
            issued: Utc::of(now),
            contents: vec![self.contents[content].1],
            audience: Audience::default(),
            by: "laptop".parse()?,
            reason: None,
        };
        let signature = self.key.sign(&json::canonical(&denial.write()?)?);
        Ok(denial.envelope(&[(signature.keyid, signature.sig)])?.into())
    }

    /// Signs the timestamp anew as control does every hour, and returns its version.
    pub(crate) fn resign(&self) -> anyhow::Result<u64> {
        let folder = Folder::open(&self.folder)?;
        let keys = folder.online_keys()?;
        let state = folder.resign(&keys, &Map::new(), Timestamp::now())?;
        Ok(state.timestamp.version().number())
    }

    /// Hands orders in as anybody may, and returns the version of the timestamp that they were published
    /// with.
    pub(crate) fn submit(&self, body: &[u8]) -> anyhow::Result<u64> {
        let mut stream = TcpStream::connect(self.http)?;
        let (host, len) = (self.http, body.len());
        write!(
            stream,
            "POST /orders HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
        )?;
        stream.write_all(body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "control refused: {body}");
        let body: Value = serde_json::from_str(body)?;
        body["version"].as_u64().context("an answer has a version")
    }
}

fn control_config(connections_max: usize) -> String {
    let transport = Mtu::Ethernet.transport();
    let (initial, max) = (transport.mtu_initial, transport.mtu_max);
    format!(
        "[control]\nhttp = \"127.0.0.1:0\"\njoin = \"127.0.0.1:0\"\n\
         [limits]\nconnections_max = {connections_max}\n\
         [transport]\nmtu_initial = {initial}\nmtu_max = {max}\n"
    )
}

/// Runs a command to its end; what it says is shown only where it fails.
fn done(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(())
}
