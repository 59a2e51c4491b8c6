//! How contents become the user's files.
//!
//! A file appears under its name when all of it is there and durable, and not before. The small
//! files of a list share a barrier: a disk that syncs in 10 ms would else take 20 s for 2,000. A
//! second name of a content that is complete needs none: its bytes are durable already.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sutler_cache::ReadError;
use sutler_cache::export::{ExportError, ExportHow};
use sutler_node::failure::{Failure, Kind};
use sutler_node::local::{Body, Ready};
use sutler_node::report::Fetched;
use tempfile::{NamedTempFile, TempPath};

/// Times that a content is fetched because the store's own copy went bad before it was written out.
const EXPORT_ATTEMPTS: u32 = 3;

/// Bytes of a content that is written by itself: a barrier of its own costs less than its copy.
const ALONE_BYTES: u64 = 1 << 20;

/// Files that share a barrier, and a sync of their folder: as many as share one in the store.
const BATCH_MAX: usize = 1_024;

/// Bytes from which a barrier is due before.
const BATCH_BYTES_MAX: u64 = 64 << 20;

/// A file of a list by its name, and what became of it.
pub(crate) type Settled = (String, Result<Fetched, Failure>);

/// Small files of a list that are written and not yet durable.
pub(crate) struct Batch<'a> {
    folder: &'a Path,
    how: ExportHow,
    waiting: Vec<(Written, String, Fetched)>,
    waiting_bytes: u64,
}

/// How far a file is.
enum Written {
    /// Its bytes are durable, and it has its name.
    Named,
    /// Its bytes are durable under a second name of the store's file, which is to replace what has
    /// the name.
    Linked(TempPath),
    /// Its bytes wait for the barrier.
    Copied(TempPath),
}

impl<'a> Batch<'a> {
    /// Begins with no file in the folder that all of them go to.
    pub(crate) const fn new(folder: &'a Path, how: ExportHow) -> Self {
        Self { folder, how, waiting: Vec::new(), waiting_bytes: 0 }
    }

    /// Writes a content to the file `name`. Returns the files that are durable now: often none,
    /// now and then many.
    ///
    /// # Errors
    ///
    /// Why this one was not written.
    pub(crate) fn write(
        &mut self,
        mut ready: Ready,
        name: &str,
        again: &mut dyn FnMut() -> Result<Ready, Failure>,
    ) -> Result<Vec<Settled>, Failure> {
        let out = self.folder.join(name);
        if ready.report.bytes > ALONE_BYTES {
            let report = write_out(ready, &out, self.how, again)?;
            return Ok(vec![(name.to_owned(), Ok(report))]);
        }
        if self.how == ExportHow::HardLink
            && let Some(written) = linked(&ready.body, &out)
        {
            return Ok(self.wait(written, name, ready.report));
        }
        let mut file = beside(&out)?;
        if !pour(&mut ready.body, ready.report.bytes, &mut file, &out)? {
            let report = write_out(again()?, &out, self.how, again)?;
            return Ok(vec![(name.to_owned(), Ok(report))]);
        }
        if !cfg!(target_os = "linux") {
            file.as_file().sync_all().map_err(|error| not_to(&out, &error))?;
        }
        let written = Written::Copied(file.into_temp_path());
        Ok(self.wait(written, name, ready.report))
    }

    /// Has a file wait, unless it was the last that was waited for.
    fn wait(&mut self, written: Written, name: &str, report: Fetched) -> Vec<Settled> {
        self.waiting_bytes += report.bytes;
        self.waiting.push((written, name.to_owned(), report));
        let full = self.waiting.len() >= BATCH_MAX || self.waiting_bytes >= BATCH_BYTES_MAX;
        if full { self.settle() } else { Vec::new() }
    }

    /// Makes every waiting file durable, under its name, and returns what became of each.
    pub(crate) fn settle(&mut self) -> Vec<Settled> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        if waiting.is_empty() {
            return Vec::new();
        }
        let copied = waiting.iter().any(|(written, ..)| matches!(written, Written::Copied(_)));
        let durable = if copied { self.barrier() } else { Ok(()) };
        let mut settled: Vec<Settled> = Vec::with_capacity(waiting.len());
        for (written, name, report) in waiting {
            let out = self.folder.join(&name);
            let named = match written {
                Written::Named => Ok(()),
                Written::Linked(beside) => {
                    let path = beside.to_path_buf();
                    let named = beside.persist(&out).map_err(|error| not_to(&out, &error.error));
                    // Two names of one file stay both: then it was the store's file already.
                    drop(fs::remove_file(path));
                    named
                }
                Written::Copied(beside) => durable.clone().and_then(|()| {
                    beside.persist(&out).map_err(|error| not_to(&out, &error.error))
                }),
            };
            settled.push((name, named.map(|()| report)));
        }
        if let Err(failure) = sync_folder(self.folder) {
            for (_, named) in &mut settled {
                *named = Err(failure.clone());
            }
        }
        settled
    }

    /// Makes the bytes of all waiting files durable.
    fn barrier(&self) -> Result<(), Failure> {
        #[cfg(target_os = "linux")]
        {
            let failed = |error: &io::Error| not_to(self.folder, error);
            let folder = fs::File::open(self.folder).map_err(|error| failed(&error))?;
            rustix::fs::syncfs(&folder).map_err(|error| failed(&error.into()))?;
        }
        // Elsewhere each was synced when it was written.
        Ok(())
    }
}

/// Writes a fetched content to the user's file. Where the store's copy went bad meanwhile, it is
/// fetched again.
pub(crate) fn write_out(
    mut ready: Ready,
    out: &Path,
    how: ExportHow,
    again: &mut dyn FnMut() -> Result<Ready, Failure>,
) -> Result<Fetched, Failure> {
    for _ in 1..EXPORT_ATTEMPTS {
        let content = match &ready.body {
            Body::Content(content) => content,
            Body::Stream(_) => break,
        };
        match content.export(out, how) {
            Ok(()) => return Ok(ready.report),
            Err(ExportError::Read(ReadError::Corrupt { .. }) | ExportError::Incomplete { .. }) => {
                ready = again()?;
            }
            Err(error) => return Err(not_written(&error)),
        }
    }
    match ready.body {
        Body::Content(content) => {
            content.export(out, how).map_err(|error| not_written(&error))?;
        }
        body @ Body::Stream(_) => copy_out(body, ready.report.bytes, out)?,
    }
    Ok(ready.report)
}

fn not_written(error: &ExportError) -> Failure {
    let kind = match error {
        ExportError::Write { source, .. } => Kind::of_io(source, Kind::File),
        ExportError::Obstructed { .. } => Kind::File,
        _ => Kind::Store,
    };
    Failure::from_error(kind, error)
}

/// Copies a stream to the user's file, which appears when all of it is durable.
fn copy_out(mut body: Body, bytes: u64, out: &Path) -> Result<(), Failure> {
    let mut file = beside(out)?;
    if !pour(&mut body, bytes, &mut file, out)? {
        return Err(Failure::new(Kind::Store, "the store's copy has gone bad"));
    }
    file.as_file().sync_all().map_err(|error| not_to(out, &error))?;
    file.persist(out).map_err(|error| not_to(out, &error.error))?;
    sync_folder(folder_of(out))
}

/// Makes an empty file beside the user's, with the rights that the user's umask gives.
fn beside(out: &Path) -> Result<NamedTempFile, Failure> {
    tempfile::Builder::new()
        .prefix(".sutler-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder_of(out))
        .map_err(|error| not_to(out, &error))
}

/// Gives the store's file the user's name, or one beside it if that is taken; `None` where it has
/// to be copied.
fn linked(body: &Body, out: &Path) -> Option<Written> {
    let Body::Content(content) = body else { return None };
    match content.link(out) {
        Ok(()) => return Some(Written::Named),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(_) => return None,
    }
    let named = tempfile::Builder::new()
        .prefix(".sutler-")
        .make_in(folder_of(out), |path| content.link(path));
    named.ok().map(|beside| Written::Linked(beside.into_temp_path()))
}

/// Fills a file with a body. Returns whether the body was good: a store's copy may have gone bad.
fn pour(
    body: &mut Body,
    bytes: u64,
    file: &mut NamedTempFile,
    out: &Path,
) -> Result<bool, Failure> {
    match body {
        Body::Content(content) => match content.write_to(file.as_file_mut()) {
            Ok(()) => Ok(true),
            Err(ExportError::Read(ReadError::Corrupt { .. })) => Ok(false),
            Err(error) => Err(not_written(&error)),
        },
        Body::Stream(stream) => {
            let copied =
                io::copy(stream, file.as_file_mut()).map_err(|error| not_to(out, &error))?;
            if copied == bytes {
                return Ok(true);
            }
            let failure = Failure::new(Kind::Store, "lost the process that owns the store");
            Err(failure.with_help("run the same command again"))
        }
    }
}

fn sync_folder(folder: &Path) -> Result<(), Failure> {
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| not_to(folder, &error))
}

fn folder_of(out: &Path) -> &Path {
    out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn not_to(out: &Path, error: &io::Error) -> Failure {
    Failure::because(Kind::of_io(error, Kind::File), format!("write {}", out.display()), error)
}
