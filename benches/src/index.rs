//! An index of the size of Debian's main, verified and parsed, beside the programs that verify and
//! unpack it and know nothing of what it says.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use clap::Args;
use sutler_feed::release::verify_inrelease;
use sutler_feed::{Keyring, Packages};

use crate::ground::{Ground, Noise};
use crate::process::{Finished, finish};
use crate::scale::Scale;
use crate::table::{Contestant, Table};

/// Packages of Debian 12's main for amd64.
const PACKAGES: u64 = 63_441;

/// Bytes of a stanza, as many as there on average.
const STANZA_BYTES: usize = 789;

/// What indexes are packed by, with the arguments that vendors give.
const PACKINGS: [(&str, &[&str]); 3] = [
    ("xz", &["xz", "-6", "--stdout"]),
    ("gz", &["gzip", "-9", "--no-name", "--stdout"]),
    ("zst", &["zstd", "-19", "--quiet", "--stdout"]),
];

/// The chain from a key to the packages of an index, in files.
#[derive(Debug, Args)]
pub(crate) struct Chain {
    /// The vendor's keyring.
    #[arg(long)]
    keyring: PathBuf,
    /// The folder of the Release.
    #[arg(long)]
    folder: PathBuf,
    /// The index below it.
    #[arg(long)]
    name: String,
}

impl Chain {
    /// Verifies the Release and the index, and says how many packages it vouches for.
    pub(crate) fn read(&self) -> anyhow::Result<()> {
        let keyring = Keyring::read(&self.keyring)?;
        let inrelease = fs::read(self.folder.join("InRelease"))?;
        let release = verify_inrelease(&inrelease, &keyring, SystemTime::now())?;
        let index = release.index(&self.name).context("the Release names the index")?;
        let packages = Packages::read(fs::File::open(self.folder.join(&self.name))?, &index)?;
        ensure!(packages.len() as u64 == PACKAGES, "{packages:?}");
        println!("{}", packages.len());
        Ok(())
    }
}

/// Runs the comparison.
pub(crate) fn run(scale: &Scale) -> anyhow::Result<Vec<Table>> {
    let ground = Ground::new(scale.disk())?;
    let folder = ground.folder("dists")?;
    let plain = folder.join("Packages");
    fs::write(&plain, index())?;
    let bytes = fs::metadata(&plain)?.len();
    for (ending, command) in PACKINGS {
        let output = Command::new(command[0]).args(&command[1..]).arg(&plain).output()?;
        ensure!(output.status.success(), "{} failed", command[0]);
        fs::write(folder.join(format!("Packages.{ending}")), output.stdout)?;
    }
    let keyring = sign(&ground, &folder)?;
    let mut contestants = Vec::new();
    for (ending, _) in PACKINGS {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["role", "index", "--name", &format!("Packages.{ending}"), "--keyring"]);
        command.arg(&keyring).arg("--folder").arg(&folder);
        let read = move || Ok(finish(&mut command)?.into());
        contestants.push(Contestant::new(format!("sutler, {ending}"), bytes, read));
    }
    let programs = || Ok(by_programs(&keyring, &folder)?.into());
    contestants.push(Contestant::new("gpgv, sha256sum, xz -d", bytes, programs));
    let title = format!(
        "index: {PACKAGES} packages, {} MB plain, verified and parsed, {}",
        bytes / 1_000_000,
        scale.place()
    );
    let mut table = Table::of(title, scale.runs(), contestants)?;
    table.compare("sutler, xz", "gpgv, sha256sum, xz -d", "none; the programs do not parse");
    table.note("Wanted at most 64 MiB of memory. The rate is that of the plain index.");
    Ok(vec![table])
}

/// Does with programs what can be done with them: the signature, the digest, the plain text.
fn by_programs(keyring: &Path, folder: &Path) -> anyhow::Result<Finished> {
    let (inrelease, packed) = (folder.join("InRelease"), folder.join("Packages.xz"));
    let mut gpgv = Command::new("gpgv");
    let done = finish(gpgv.stderr(Stdio::null()).arg("--keyring").arg(keyring).arg(inrelease))?;
    let done = done.then(finish(Command::new("sha256sum").arg(&packed))?);
    Ok(done.then(finish(Command::new("xz").args(["--decompress", "--stdout"]).arg(&packed))?))
}

/// Makes a key, writes and signs a Release of what is in the folder, and returns the keyring.
fn sign(ground: &Ground, folder: &Path) -> anyhow::Result<PathBuf> {
    // Sockets lie in it, whose paths are short: not below the ground of a deep disk.
    let home = tempfile::tempdir()?;
    let gpg = |arguments: &[&str]| -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(home.path()).args(["--batch", "--quiet", "--no-tty"]);
        let output = command.args(arguments).current_dir(folder).output().context("run gpg")?;
        ensure!(output.status.success(), "gpg: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    };
    let name = "Bench <nobody@sutler.invalid>";
    gpg(&["--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never"])?;
    let mut text = format!("Date: {}\nSHA256:\n", httpdate::fmt_http_date(SystemTime::now()));
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let said = Command::new("sha256sum").arg(&path).output().context("run sha256sum")?.stdout;
        let hex = std::str::from_utf8(&said)?.get(..64).context("a digest")?.to_owned();
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        writeln!(text, " {hex} {} {name}", fs::metadata(&path)?.len())?;
    }
    fs::write(folder.join("Release"), text)?;
    gpg(&["--clear-sign", "--output", "InRelease", "Release"])?;
    let keyring = ground.path("keyring.gpg");
    fs::write(&keyring, gpg(&["--export"])?)?;
    let mut end = Command::new("gpgconf");
    // It would also end by itself, some time after its folder is gone.
    let _ = end.arg("--homedir").arg(home.path()).args(["--kill", "all"]).status();
    Ok(keyring)
}

/// Returns an index as long as Debian's main, and about as hard to pack: digests that differ
/// everywhere, beside words that come again and again.
fn index() -> Vec<u8> {
    let mut noise = Noise::new(PACKAGES);
    let words: Vec<String> = (0..8_000).map(|_| format!("{:x}", noise.word() >> 44)).collect();
    let mut text = String::with_capacity(PACKAGES as usize * STANZA_BYTES + STANZA_BYTES);
    for number in 0..PACKAGES {
        let start = text.len();
        let name = format!("{}-{number}", words[noise.word() as usize % words.len()]);
        let digest: String =
            (0..4).map(|_| noise.word()).fold(String::new(), |mut digest, word| {
                // Writing to a string cannot fail.
                let _ = write!(digest, "{word:016x}");
                digest
            });
        let size = noise.word() % 10_000_000;
        let _ = write!(
            text,
            "Package: {name}\nVersion: 1.{number}-1\nInstalled-Size: {}\nMaintainer: Debian \
             Developers <debian-devel@lists.debian.org>\nArchitecture: amd64\nFilename: \
             pool/main/{}/{name}/{name}_1.{number}-1_amd64.deb\nSize: {size}\nSHA256: {digest}\n\
             Section: net\nPriority: optional\nDepends: libc6 (>= 2.36)",
            size / 300,
            &name[..1]
        );
        while text.len() - start < STANZA_BYTES {
            text.push_str(", ");
            text.push_str(&words[noise.word() as usize % words.len()]);
        }
        text.push_str("\n\n");
    }
    text.into_bytes()
}
