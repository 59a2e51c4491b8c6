//! `sutler publish`: contents of this month, named by the import key.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use sutler::http::join;
use sutler_control::State;
use sutler_control::change::{Change, ChangeError};
use sutler_control::repository::PutError;
use sutler_node::failure::{Failure, Kind};
use sutler_node::report::Progress;
use sutler_orders::Content;
use sutler_orders::content::{About, Cve, Hooks, Severity};
use sutler_orders::text::{Line, Utc};
use sutler_protocol::manifest::{TargetFile, TargetPath};
use sutler_protocol::name::Label;
use sutler_protocol::{ContentId, HashList, HashListBuilder, Sha256Digest};

use crate::command::add::is_url;
use crate::output::{Output, Stop, printable};
use crate::progress::Bars;
use crate::remote::{Lacking, Remote};
use crate::signing::{SignArgs, settle, state};

const EXAMPLES: &str = "\
Examples:
  sutler publish bash_5.2.deb --kind deb --vendor Debian --severity high --cve CVE-2026-12345 --key anna.key
  sutler publish tool.run --no-restart --no-interruption --key anna.key --json
  sutler publish tool.run --key anna.key --control http://control.example.com:8080
With --control the orders are published first, then control is brought the bytes of each file and the hash list of
each URL. If that is cut short, the same command brings what is missing.";

/// Bytes that are hashed at a time.
const BLOCK_BYTES: usize = 512 * 1024;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Publish {
    /// Files whose bytes the repository serves, or http(s) URLs from which devices get them.
    #[arg(required = true, value_name = "FILE|URL")]
    what: Vec<String>,
    /// What the devices' config has a command for. That of the file's name unless given, else `file`.
    #[arg(long)]
    kind: Option<Label>,
    /// Who made it.
    #[arg(long)]
    vendor: Option<Line>,
    /// What it is a part of.
    #[arg(long)]
    product: Option<Line>,
    /// Its version, as its vendor counts.
    #[arg(long = "content-version", value_name = "VERSION")]
    version: Option<Line>,
    /// What it does, in a line.
    #[arg(long)]
    title: Option<Line>,
    /// severe, high, medium, low or unknown.
    #[arg(long, default_value = "unknown")]
    severity: Severity,
    /// A weakness that it mends, CVE-2026-12345; may be given several times.
    #[arg(long)]
    cve: Vec<Cve>,
    /// A content that it takes the place of; may be given several times.
    #[arg(long, value_name = "CONTENT")]
    supersedes: Vec<ContentId>,
    /// A content that has to be installed before it; may be given several times.
    #[arg(long, value_name = "CONTENT")]
    requires: Vec<ContentId>,
    /// It never wants a restart.
    #[arg(long)]
    no_restart: bool,
    /// Nothing stops while it is installed.
    #[arg(long)]
    no_interruption: bool,
    #[command(flatten)]
    sign: SignArgs,
}

/// A content that was read to its end.
struct Hashed {
    about: About,
    sha256: [u8; 32],
    length: u64,
    /// The file, where the bytes are served from here.
    file: Option<PathBuf>,
    list: Vec<u8>,
}

impl Publish {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let now = Timestamp::now();
        let folder = self.sign.open()?;
        let state = state(&folder)?;
        let note = self.sign.note(&state, &format!("publish {} contents", self.what.len()), now);
        let mut change = Change::new(&state, folder.organisation(), note, now);
        let (mut contents, mut said) = (Vec::new(), Vec::new());
        for what in &self.what {
            let read = self.read(what, now)?;
            // What is published already may still lack its bytes at control.
            let known = folder.control().and_then(|_| published(&state, &read));
            let (path, file) = match known {
                Some(known) => known,
                None => change
                    .content(&read.about, read.sha256, read.length)
                    .inspect(|(path, _)| {
                        let (name, length) = (&read.about.name, read.length);
                        said.push(format!("publish {name}, {length} bytes, as {path}"));
                    })
                    .map_err(|error| change_failure(&error))?,
            };
            contents.push((path, file, read));
        }
        let mut is_published = true;
        if !said.is_empty() {
            let draft = change.draft().map_err(|error| change_failure(&error))?;
            let draft = self.sign.signed(&folder, Some(&state), draft, &said)?;
            if folder.control().is_none() {
                // The bytes first: what is named is there. Nobody is led to them until it is.
                for (path, file, read) in &contents {
                    put(&folder, path, file, read)?;
                }
            }
            is_published = settle(&folder, Some(&state), &draft, output)?;
        }
        match folder.control() {
            Some(control) if is_published => bring(control, &contents)?,
            Some(_) => eprintln!("once it is published, the same command brings its bytes"),
            None => {}
        }
        for (path, _, read) in &contents {
            let name = printable(read.about.name.as_str());
            output.line(format_args!("{}  {:>12}  {name}", read.about.blake3, read.length))?;
            output.json(&json!({
                "content": read.about.blake3.to_string(), "bytes": read.length,
                "name": read.about.name.as_str(), "path": path.as_str(),
            }))?;
        }
        Ok(())
    }

    fn read(&self, what: &str, now: Timestamp) -> Result<Hashed, Failure> {
        if is_url(what) {
            return self.read_url(what, now);
        }
        let path = Path::new(what);
        let failed = |error| Failure::because(Kind::File, format!("read {what}"), &error);
        // Before it is opened: to open a pipe is to wait for its writer.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(Failure::new(Kind::File, format!("{what} is not a regular file")));
        }
        let mut file = File::open(path).map_err(failed)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut hashing = Hashing::new();
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            match file.read(&mut block) {
                Ok(0) => break,
                Ok(read) => hashing.update(&block[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.about(what, name, hashing, Vec::new(), now)
            .map(|read| Hashed { file: Some(path.to_owned()), ..read })
    }

    fn read_url(&self, url: &str, now: Timestamp) -> Result<Hashed, Failure> {
        let unreachable = |error: &dyn std::error::Error| {
            Failure::because(Kind::Unreachable, format!("download {url}"), error)
        };
        let parsed = url::Url::parse(url)
            .map_err(|error| Failure::because(Kind::Usage, format!("read {url}"), &error))?;
        let name = parsed.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or("");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::because(Kind::Internal, "set up HTTP", &error))?;
        let mut hashing = Hashing::new();
        runtime.block_on(async {
            let client = reqwest::Client::builder()
                .connect_timeout(std::time::Duration::from_secs(10))
                .read_timeout(std::time::Duration::from_secs(30))
                .build();
            let client = client.map_err(|error| unreachable(&error))?;
            let response = client.get(parsed.clone()).send().await;
            let response = response.and_then(reqwest::Response::error_for_status);
            let mut response = response.map_err(|error| unreachable(&error))?;
            while let Some(piece) = response.chunk().await.map_err(|error| unreachable(&error))? {
                hashing.update(&piece);
            }
            Ok::<(), Failure>(())
        })?;
        let origin = url.parse().map_err(|error| {
            Failure::because(Kind::Usage, format!("name {url} as an origin"), &error)
        })?;
        self.about(url, name, hashing, vec![origin], now)
    }

    fn about(
        &self,
        what: &str,
        name: &str,
        hashing: Hashing,
        origins: Vec<Line>,
        now: Timestamp,
    ) -> Result<Hashed, Failure> {
        let (length, sha256, hashes) = hashing.finish(what)?;
        let usage = |error: &dyn std::error::Error| {
            Failure::because(Kind::Usage, format!("publish {what} as {name:?}"), error)
        };
        let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
        let kind = self.kind.clone().or_else(|| ending.and_then(|ending| ending.parse().ok()));
        let about = About {
            format: sutler_orders::order::FORMAT,
            blake3: hashes.id(),
            name: name.parse().map_err(|error| usage(&error))?,
            kind: kind.unwrap_or_else(|| "file".parse().expect("a label")),
            published: Utc::of(now),
            origins,
            vendor: self.vendor.clone(),
            product: self.product.clone(),
            version: self.version.clone(),
            title: self.title.clone(),
            severity: self.severity,
            severity_by: None,
            severity_reason: None,
            cve: self.cve.clone(),
            supersedes: self.supersedes.clone(),
            requires: self.requires.clone(),
            no_restart: self.no_restart,
            no_interruption: self.no_interruption,
            applies: None,
            hooks: Hooks::default(),
        };
        let list = hashes.as_bytes().to_vec();
        Ok(Hashed { about, sha256: *sha256.as_bytes(), length, file: None, list })
    }
}

/// What is computed of a content while it is read.
struct Hashing {
    hashes: HashListBuilder,
    sha256: sutler_control::Sha256,
    length: u64,
}

impl Hashing {
    fn new() -> Self {
        Self { hashes: HashListBuilder::new(), sha256: sutler_control::Sha256::new(), length: 0 }
    }

    fn update(&mut self, piece: &[u8]) {
        self.hashes.update(piece);
        self.sha256.update(piece);
        self.length += piece.len() as u64;
    }

    fn finish(self, what: &str) -> Result<(u64, Sha256Digest, HashList), Failure> {
        let hashes = self
            .hashes
            .finish()
            .map_err(|error| Failure::because(Kind::Usage, format!("hash {what}"), &error))?;
        Ok((self.length, self.sha256.finish(), hashes))
    }
}

fn put(
    folder: &sutler_control::Folder,
    path: &TargetPath,
    target: &TargetFile,
    read: &Hashed,
) -> Result<(), Failure> {
    let content = read.about.blake3;
    let done = match &read.file {
        Some(source) => {
            let mut file = File::open(source).map_err(|error| {
                Failure::because(Kind::File, format!("read {}", source.display()), &error)
            })?;
            folder.repository().put(path, target, content, &mut file)
        }
        None => folder.repository().put_list(content, read.length, &read.list),
    };
    done.map_err(|error| {
        let kind = match &error {
            PutError::Read { .. } | PutError::Mismatch { .. } | PutError::Other { .. } => {
                Kind::File
            }
            PutError::TooLong { .. } => Kind::Usage,
            PutError::Write(error) => Kind::of_io(&error.source, Kind::File),
        };
        Failure::from_error(kind, &error)
    })
}

/// Returns the content that is published and of which the same is said, but for when.
fn published(state: &State, read: &Hashed) -> Option<(TargetPath, TargetFile)> {
    let is_same = |content: &Content| {
        let about = About { published: content.about.published, ..read.about.clone() };
        let bytes = &content.bytes;
        about == content.about
            && bytes.length == read.length
            && bytes.sha256 == Sha256Digest::from_bytes(read.sha256)
    };
    let mut all = state.contents();
    let found = all.find(|(path, file)| Content::of(path, file).is_ok_and(|one| is_same(&one)));
    found.map(|(path, file)| (path, file.clone()))
}

/// Brings control what it lacks of published contents.
fn bring(control: &Remote, contents: &[(TargetPath, TargetFile, Hashed)]) -> Result<(), Failure> {
    let mut bars = Bars::new();
    for (path, file, read) in contents {
        let name = read.about.name.as_str();
        let Some(lacking) = lacking(name, path, file, read)? else { continue };
        let mut progress =
            Progress { subject: name.to_owned(), bytes_had: 0, bytes: Some(lacking.length) };
        let brought = control.bring(lacking, |bytes_had| {
            progress.bytes_had = bytes_had;
            bars.show(name, &progress);
        });
        bars.end(name);
        brought.map_err(|failure| match failure.kind {
            Kind::Unreachable | Kind::NoSpace => failure.with_help(
                "the orders are published: the same command once more brings what is missing",
            ),
            _ => failure,
        })?;
    }
    Ok(())
}

/// Returns what control may lack of a content: its bytes, or the hash list of one that its origins have. That of one chunk is
/// its name.
fn lacking<'a>(
    name: &'a str,
    path: &TargetPath,
    file: &TargetFile,
    read: &Hashed,
) -> Result<Option<Lacking<'a>>, Failure> {
    let content = read.about.blake3;
    if let Some(source) = &read.file {
        let open = File::open(source).map_err(|error| {
            Failure::because(Kind::File, format!("read {}", source.display()), &error)
        })?;
        let place = join("targets", &path.place(file.hashes.prefix().as_deref()));
        return Ok(Some(Lacking { name, place, open, length: read.length }));
    }
    if HashList::of_one_chunk(content, read.length).is_some() {
        return Ok(None);
    }
    let list = || {
        let mut list = tempfile::tempfile()?;
        list.write_all(&read.list)?;
        list.rewind()?;
        Ok(list)
    };
    let open = list().map_err(|error: io::Error| {
        Failure::because(Kind::of_io(&error, Kind::File), "write a hash list", &error)
    })?;
    let length = read.list.len() as u64;
    Ok(Some(Lacking { name, place: format!("lists/{content}"), open, length }))
}

/// Says why a change cannot be made.
pub(crate) fn change_failure(error: &ChangeError) -> Failure {
    let kind = match error {
        ChangeError::NoRole { .. } | ChangeError::Order { .. } | ChangeError::Propose { .. } => {
            Kind::Usage
        }
        ChangeError::Published { .. } => Kind::Store,
        ChangeError::Last { .. } => Kind::Internal,
    };
    Failure::from_error(kind, error)
}
