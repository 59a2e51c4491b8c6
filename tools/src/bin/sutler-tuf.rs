//! A TUF client as the public conformance suite drives one: `init`, `refresh` and `download`.
//!
//! It is the shell around [`sutler_protocol::manifest`] and [`sutler_cache::trust`]: HTTP, the system's
//! clock, and a folder for target files. It exits with 0, or with 1 and the reason on stderr.
//!
//! Always true: a target file appears under its name whole and checked, or not at all.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Parser as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sutler::http::{Client, join};
use sutler_cache::trust::{CreateError, TrustStore};
use sutler_protocol::ContentId;
use sutler_protocol::manifest::drive;
use sutler_protocol::manifest::{Check, Found, Kept, TargetPath, Trusted};

/// Characters that a file's name has as they are.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Bytes of a target file's name: below what every disk allows.
const NAME_BYTES_MAX: usize = 200;

/// Updates TUF metadata and downloads what it names.
#[derive(clap::Parser)]
#[command(name = "sutler-tuf", version)]
struct Arguments {
    /// Folder of the metadata that is trusted
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Where the repository's metadata is
    #[arg(long)]
    metadata_url: Option<String>,
    /// What to download; may be given several times
    #[arg(long, allow_hyphen_values = true)]
    target_name: Vec<String>,
    /// Where the repository's target files are
    #[arg(long)]
    target_base_url: Option<String>,
    /// Folder for what is downloaded
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Trusts a root that was handed over
    Init {
        /// The root's file
        root: PathBuf,
    },
    /// Brings the metadata up to date
    Refresh,
    /// Brings the metadata up to date, then downloads target files
    Download,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            // Where it cannot be said there is nobody to hear it.
            drop(error.print());
            return code;
        }
    };
    if let Err(error) = run(&arguments) {
        eprintln!("sutler-tuf: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Init { root } => init(&arguments.metadata_dir, root),
        Command::Refresh => refresh(arguments, &Client::new()?).map(drop),
        Command::Download => download(arguments),
    }
}

/// Trusts a root. Said again with the same root, or with one that is no newer, it changes nothing.
fn init(folder: &Path, root: &Path) -> anyhow::Result<()> {
    let root = std::fs::read(root).with_context(|| format!("read {}", root.display()))?;
    let root = Bytes::from(root);
    match TrustStore::create(folder, &root) {
        Ok(_) => return Ok(()),
        Err(CreateError::Exists) => {}
        Err(error) => return Err(error.into()),
    }
    let given = Trusted::load(&Kept { root, ..Kept::default() })?;
    let (_, kept) = TrustStore::open(folder)?;
    if given.root().version() > Trusted::load(&kept)?.root().version() {
        bail!("another root is trusted already; a refresh brings newer ones");
    }
    Ok(())
}

/// What a download goes on with.
struct Refreshed {
    trusted: Trusted,
    store: TrustStore,
    now: jiff::Timestamp,
}

fn refresh(arguments: &Arguments, client: &Client) -> anyhow::Result<Refreshed> {
    let url = metadata_url(arguments)?;
    let (mut store, kept) = TrustStore::open(&arguments.metadata_dir)?;
    let mut trusted = Trusted::load(&kept)?;
    let now = jiff::Timestamp::now();
    drive::refresh(&mut trusted, &mut client.metadata(url), &mut store, now)?;
    Ok(Refreshed { trusted, store, now })
}

fn metadata_url(arguments: &Arguments) -> anyhow::Result<&str> {
    arguments.metadata_url.as_deref().context("--metadata-url is missing")
}

fn download(arguments: &Arguments) -> anyhow::Result<()> {
    let base_url = arguments.target_base_url.as_deref().context("--target-base-url is missing")?;
    let folder = arguments.target_dir.as_deref().context("--target-dir is missing")?;
    if arguments.target_name.is_empty() {
        bail!("--target-name is missing");
    }
    let client = Client::new()?;
    let Refreshed { mut trusted, mut store, now } = refresh(arguments, &client)?;
    let mut metadata = client.metadata(metadata_url(arguments)?);
    for name in &arguments.target_name {
        let path = TargetPath::from(name.as_str());
        let found = drive::find(&mut trusted, path, &mut metadata, &mut store, now)?
            .with_context(|| format!("nobody names a target file {name:?}"))?;
        let file = folder.join(file_name(name));
        if !is_there(&file, &found)? {
            let url = join(base_url, &trusted.place_of(&found));
            save(&client, &url, &found, folder, &file)
                .with_context(|| format!("download {name:?} from {url}"))?;
        }
    }
    Ok(())
}

/// Writes a target file beside its place and gives it its name once it is the right one.
fn save(
    client: &Client,
    url: &str,
    found: &Found,
    folder: &Path,
    file: &Path,
) -> anyhow::Result<()> {
    let mut check = Check::new(found.file.length, &found.file.hashes)?;
    let mut beside = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("write to {}", folder.display()))?;
    client.read(url, |piece| {
        check.update(piece)?;
        beside.write_all(piece)?;
        anyhow::Ok(())
    })?;
    check.finish()?;
    beside.as_file().sync_data()?;
    beside.persist(file).with_context(|| format!("write {}", file.display()))?;
    Ok(())
}

/// Returns whether the file is there already, and is the right one.
fn is_there(file: &Path, found: &Found) -> anyhow::Result<bool> {
    let mut open = match File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    let mut check = Check::new(found.file.length, &found.file.hashes)?;
    let mut piece = vec![0; 64 * 1024];
    loop {
        match open.read(&mut piece).with_context(|| format!("read {}", file.display()))? {
            0 => return Ok(check.finish().is_ok()),
            read if check.update(&piece[..read]).is_err() => return Ok(false),
            _ => {}
        }
    }
}

/// Returns the one name that a target file has in its folder, whatever its path: never hidden, and
/// without a folder of its own.
fn file_name(path: &str) -> String {
    let quoted = utf8_percent_encode(path, QUOTED).to_string();
    if quoted.len() > NAME_BYTES_MAX {
        return format!("%-{}", ContentId::of(path.as_bytes()));
    }
    match quoted.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => quoted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // T14
    #[test]
    fn a_target_file_has_one_name_and_stays_in_its_folder() {
        for (path, name) in [
            ("a.deb", "a.deb"),
            ("pool/a b.deb", "pool%2Fa%20b.deb"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
            ("..", "%2E."),
            ("/abs", "%2Fabs"),
            (".hidden", "%2Ehidden"),
            ("%2E", "%252E"),
        ] {
            assert_eq!(file_name(path), name);
        }
        let long = file_name(&"x".repeat(201));
        assert!(long.starts_with("%-") && long.len() == 66);
    }
}
