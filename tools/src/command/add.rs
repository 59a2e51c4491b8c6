//! `sutler add`: files and URLs into the store.
//!
//! The files are opened here, with the user's rights, even where another process owns the store.

use std::fs::{self, File, Metadata};
use std::ops::ControlFlow;
use std::path::Path;

use clap::{Args, ValueEnum};
use sutler_cache::Content;
use sutler_cache::import::{ImportFrom, ImportHow};
use sutler_node::failure::{Failure, Kind};
use sutler_node::local::{AddFile, AddUrl, LocalClient, StoreOwner};
use sutler_node::owner::OpenStore;
use sutler_node::report::Added;
use sutler_protocol::Sha256Digest;

use crate::access::{Absent, Access, DataArgs};
use crate::command::runtime;
use crate::output::{Output, Stop, printable};
use crate::progress::Bars;

const EXAMPLES: &str = "\
Examples:
  sutler add --data ./node bash_5.2.deb
  sutler add --data ./node --sha256 82130bb6…a1 ./bash_5.2.deb
  sutler add --data ./node https://deb.debian.org/debian/pool/main/b/bash/bash_5.2.deb";

/// Files that share a barrier, as many as the store groups itself.
const GROUP_MAX: usize = 256;

/// Bytes of files that share a barrier: with more, its wait is nothing beside their copying.
const GROUP_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Add {
    #[command(flatten)]
    data: DataArgs,
    /// Files or http(s) URLs. An interrupted download goes on from where it was if its origin can
    /// say that the file is still the same, or --sha256 can.
    #[arg(required = true, value_name = "FILE|URL")]
    what: Vec<String>,
    /// The SHA-256 that its vendor published; refused if the bytes have another. One file only.
    #[arg(long, value_name = "HEX")]
    sha256: Option<Sha256Digest>,
    /// How the bytes of files become the store's, where the disk can do it.
    #[arg(long, value_enum, default_value_t = How::Reflink)]
    how: How,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    /// Read and write.
    Copy,
    /// Share blocks until one side changes.
    Reflink,
    /// Share the file itself: never change it afterwards.
    HardLink,
}

impl Add {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        if self.sha256.is_some() && self.what.len() > 1 {
            let failure = Failure::new(Kind::Usage, "one --sha256 cannot fit several files");
            return Err(failure.with_help("add them one by one").into());
        }
        let access = self.data.open(Absent::Make)?;
        let (access, _runtime) = runtime::for_urls(access, &self.data, &self.what)?;
        let mut group = Group::default();
        let mut done = Ok(());
        for what in &self.what {
            done = match &access {
                _ if is_url(what) => self.url(&access, what).map(Some),
                Access::Own(store) => self.stage(store, Path::new(what), &mut group).map(|()| None),
                Access::Owner(client) => self.file(client, Path::new(what)).map(Some),
            }
            .map_err(Stop::from)
            .and_then(|added| added.map_or(Ok(()), |added| show(output, &added)))
            .and_then(|()| if group.is_full() { group.settle(&access, output) } else { Ok(()) });
            if done.is_err() {
                break;
            }
        }
        // What came before a failure is kept and told.
        let settled = group.settle(&access, output);
        done.and(settled)?;
        Ok(access.close()?)
    }

    fn url(&self, access: &Access, url: &str) -> Result<Added, Failure> {
        let sha256 = self.sha256.map(|digest| digest.to_string());
        let mut bars = Bars::new();
        let added =
            access.owner().add_url(&AddUrl { url: url.to_owned(), sha256 }, &mut |progress| {
                bars.show(url, &progress);
                ControlFlow::Continue(())
            });
        bars.end(url);
        added
    }

    /// Sends a file to the process that owns the store.
    fn file(&self, client: &LocalClient, path: &Path) -> Result<Added, Failure> {
        let (file, request) = self.open(path)?;
        client.add(&request, self.import(&file, path))
    }

    /// Puts a file into the store of this process, to be made durable with others.
    fn stage(&self, store: &OpenStore, path: &Path, group: &mut Group) -> Result<(), Failure> {
        let (file, request) = self.open(path)?;
        let (content, added) = store.stage(&request, self.import(&file, path))?;
        group.contents.push(content);
        group.added.push(added);
        Ok(())
    }

    /// Opens a file of the user's.
    fn open(&self, path: &Path) -> Result<(File, AddFile), Failure> {
        let failed =
            |error| Failure::because(Kind::File, format!("read {}", path.display()), &error);
        let regular = |meta: &Metadata| {
            let what = || format!("{} is not a regular file", path.display());
            if meta.is_file() { Ok(()) } else { Err(Failure::new(Kind::File, what())) }
        };
        // Before it is opened: to open a pipe is to wait for its writer.
        regular(&fs::metadata(path).map_err(failed)?)?;
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        regular(&meta)?;
        let request = AddFile {
            name: path.file_name().map(|name| name.to_string_lossy().into_owned()),
            bytes: meta.len(),
            sha256: self.sha256.map(|digest| digest.to_string()),
        };
        Ok((file, request))
    }

    fn import<'a>(&self, file: &'a File, path: &'a Path) -> ImportFrom<'a> {
        let how = match self.how {
            How::Copy => ImportHow::Copy,
            How::Reflink => ImportHow::Reflink,
            How::HardLink => ImportHow::HardLink,
        };
        ImportFrom::File { file, path, how }
    }
}

/// Files that are in the store and not yet durable.
#[derive(Default)]
struct Group {
    contents: Vec<Content>,
    added: Vec<Added>,
}

impl Group {
    fn is_full(&self) -> bool {
        let bytes: u64 = self.added.iter().map(|added| added.bytes).sum();
        self.added.len() >= GROUP_MAX || bytes >= GROUP_BYTES_MAX
    }

    /// Makes the files durable, and says so.
    fn settle(&mut self, access: &Access, output: Output) -> Result<(), Stop> {
        let (contents, added) =
            (std::mem::take(&mut self.contents), std::mem::take(&mut self.added));
        if let Access::Own(store) = access {
            store.settle(&contents)?;
        }
        added.iter().try_for_each(|added| show(output, added))
    }
}

/// Returns whether an argument is a URL; a file called so is written `./http:…`.
pub(crate) fn is_url(what: &str) -> bool {
    what.starts_with("http://") || what.starts_with("https://")
}

fn show(output: Output, added: &Added) -> Result<(), Stop> {
    let name = printable(added.name.as_deref().unwrap_or("-"));
    output.line(format_args!("{}  {:>12}  {name}", added.content, added.bytes))?;
    output.json(added)
}
