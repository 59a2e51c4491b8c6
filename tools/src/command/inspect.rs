//! `sutler inspect`: contents, hash lists, records and frames in words.
//!
//! A file is what it says it is: a record by its first bytes, a hash list by its name in a store,
//! and otherwise the bytes of a content. Frames have no such mark and are asked for.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};
use sutler_cache::record::{Record, SLOT_BYTES};
use sutler_node::failure::{Failure, Kind};
use sutler_node::report::Inspected;
use sutler_node::size::ByteCount;
use sutler_protocol::frame::{self, Answer, LENGTH_BYTES, Request};
use sutler_protocol::hash_list::{HASH_BYTES, HASH_LIST_BYTES_MAX};
use sutler_protocol::{ChunkRanges, ContentId, HashList, HashListBuilder};

use crate::access::{Absent, DataArgs};
use crate::output::{Output, Stop, printable};

/// What a record starts with; see FORMAT.md of the store.
const RECORD_MAGIC: &[u8] = b"sutlrec\n";

/// Bytes read at a time where a file is hashed.
const READ_BYTES: usize = 1 << 20;

/// Frames shown of one file, at most.
const FRAMES_MAX: usize = 10_000;

const EXAMPLES: &str = "\
Examples:
  sutler inspect ./bash_5.2.deb
  sutler inspect 5b12…9c --data ./node --hashes
  sutler inspect ./node/store/contents/5b/5b12…9c.rec
  sutler inspect --as frames ./capture.bin";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// A file, or the id of a content in the store of --data.
    #[arg(value_name = "FILE|CONTENT_ID")]
    what: PathBuf,
    /// The data folder with the content.
    #[arg(long, value_name = "DIR", env = "SUTLER_DATA")]
    data: Option<PathBuf>,
    /// What to take a file for, instead of finding out.
    #[arg(long = "as", value_enum, value_name = "KIND")]
    kind: Option<FileKind>,
    /// Print the hash of every chunk, too.
    #[arg(long)]
    hashes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FileKind {
    /// Any bytes.
    Content,
    /// A record of a store, HEX.rec.
    Record,
    /// A hash list of a store, HEX.list.
    List,
    /// Frames of the wire, one behind the other, each with its length.
    Frames,
}

impl Inspect {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        if !self.what.exists() {
            return self.in_store(output);
        }
        let kind = match self.kind {
            Some(kind) => kind,
            None => recognise(&self.what)?,
        };
        match kind {
            FileKind::Content => self.content(output),
            FileKind::Record => self.record(output),
            FileKind::List => self.list(output),
            FileKind::Frames => self.frames(output),
        }
    }

    fn in_store(&self, output: Output) -> Result<(), Stop> {
        let text = self.what.to_string_lossy();
        let id: ContentId = text.parse().map_err(|_| {
            let what = format!("{text} is neither a file nor a content id");
            Failure::new(Kind::File, what)
        })?;
        let Some(data) = &self.data else {
            let failure = Failure::new(Kind::Usage, format!("which store has {id}?"));
            return Err(failure.with_help("name its data folder: --data DIR").into());
        };
        let access = DataArgs::of(data.clone()).open(Absent::Fail)?;
        let inspected = access.owner().inspect(&id.to_string())?;
        self.show(output, &inspected)?;
        Ok(access.close()?)
    }

    fn content(&self, output: Output) -> Result<(), Stop> {
        let failed = |error: io::Error| unreadable(&self.what, &error);
        let mut file = File::open(&self.what).map_err(failed)?;
        let mut hashes = HashListBuilder::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                bytes => hashes.update(&buffer[..bytes]),
            }
        }
        let hashes = hashes.finish().map_err(|error| Failure::from_error(Kind::File, &error))?;
        let geometry = hashes.geometry();
        let name = self.what.file_name().map(|name| name.to_string_lossy().into_owned());
        self.show(
            output,
            &Inspected {
                content: hashes.id().to_string(),
                bytes: geometry.len(),
                chunk_bytes: geometry.chunk_bytes(),
                chunks: geometry.chunks(),
                had: runs(&ChunkRanges::full(geometry.chunks())),
                complete: true,
                name,
                sha256: None,
                origins: Vec::new(),
                hashes: texts(hashes.as_bytes()),
            },
        )
    }

    fn record(&self, output: Output) -> Result<(), Stop> {
        let (generation, record) = read_record(&self.what)?;
        let origins: Vec<Value> = record
            .about
            .origins
            .iter()
            .map(|origin| {
                json!({ "url": origin.url, "etag": origin.etag,
                        "last_modified": origin.last_modified })
            })
            .collect();
        let sha256 = record.about.sha256.map(|digest| digest.to_string());
        output.line(format_args!("record of  {}", record.id))?;
        output.line(format_args!("generation {generation}"))?;
        output.line(format_args!("bytes      {}", record.len))?;
        output.line(format_args!("complete   {}", yes_no(record.complete)))?;
        output.line(format_args!("had        {}", show_runs(&runs(&record.had))))?;
        if let Some(name) = &record.about.name {
            output.line(format_args!("name       {}", printable(name)))?;
        }
        if let Some(sha256) = &sha256 {
            output.line(format_args!("digest     {sha256}, {:?}", record.sha256))?;
        }
        for origin in &record.about.origins {
            output.line(format_args!("origin     {}", printable(&origin.url)))?;
        }
        output.line(format_args!("last used  day {} since 1970", record.last_access.0))?;
        output.json(&json!({
            "kind": "record", "content": record.id.to_string(), "generation": generation,
            "bytes": record.len, "complete": record.complete, "had": runs(&record.had),
            "name": record.about.name, "sha256": sha256, "origins": origins,
            "last_access_day": record.last_access.0,
        }))
    }

    fn list(&self, output: Output) -> Result<(), Stop> {
        let bytes = read_at_most(&self.what, HASH_LIST_BYTES_MAX)?;
        let stem = self.what.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let id: Option<ContentId> = stem.and_then(|stem| stem.parse().ok());
        let hashes = texts(&bytes);
        // The record beside it has the length, without which nothing can be checked.
        let verdict = match (id, read_record(&self.what.with_extension("rec"))) {
            (Some(id), Ok((_, record))) => match HashList::verify(&bytes, id, record.len) {
                Ok(_) => Ok(true),
                Err(error) => Err(error.to_string()),
            },
            _ => Ok(false),
        };
        let merges = verdict == Ok(true);
        output.line(format_args!("hash list of {} chunks", hashes.len()))?;
        match (&verdict, id) {
            (Ok(true), Some(id)) => output.line(format_args!("merges to    {id}"))?,
            (Err(why), _) => output.line(format_args!("wrong        {why}"))?,
            _ => output.line("not checked: neither its content's id nor its length is known")?,
        }
        if self.hashes {
            hashes.iter().try_for_each(|hash| output.line(hash))?;
        }
        output.json(&json!({
            "kind": "list", "content": id.map(|id| id.to_string()), "chunks": hashes.len(),
            "merges": merges, "hashes": hashes,
        }))?;
        match verdict {
            Ok(_) => Ok(()),
            Err(why) => {
                let what = format!("{} is not the hash list it is called", self.what.display());
                Err(Failure { causes: vec![why], ..Failure::new(Kind::Corrupt, what) }.into())
            }
        }
    }

    fn frames(&self, output: Output) -> Result<(), Stop> {
        let bytes = read_at_most(&self.what, FRAMES_MAX * 1024)?;
        let mut rest = bytes.as_slice();
        let mut offset = 0;
        while let Some((field, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let wrong = |cause: &dyn std::error::Error| {
                Failure::because(Kind::Corrupt, format!("read the frame at byte {offset}"), cause)
            };
            let len = frame::length(*field).map_err(|error| wrong(&error))?;
            let body = after.get(..len).ok_or_else(|| {
                wrong(&io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends inside it"))
            })?;
            let text = if let Ok(request) = frame::decode::<Request>(body) {
                format!("{request:?}")
            } else {
                let answer = frame::decode::<Answer>(body).map_err(|error| wrong(&error))?;
                format!("{answer:?}")
            };
            output.line(format_args!("{offset:>8}  {len:>5} bytes  {}", printable(&text)))?;
            output
                .json(&json!({ "kind": "frame", "offset": offset, "bytes": len, "frame": text }))?;
            rest = &after[len..];
            offset += LENGTH_BYTES + len;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let what = format!("{} bytes at the end are no frame", rest.len());
        Err(Failure::new(Kind::Corrupt, what).into())
    }

    fn show(&self, output: Output, inspected: &Inspected) -> Result<(), Stop> {
        output.line(format_args!("content   {}", inspected.content))?;
        if let Some(name) = &inspected.name {
            output.line(format_args!("name      {}", printable(name)))?;
        }
        let bytes = inspected.bytes;
        output.line(format_args!("bytes     {bytes} ({})", ByteCount(bytes)))?;
        output.line(format_args!(
            "chunks    {} of {} bytes",
            inspected.chunks, inspected.chunk_bytes
        ))?;
        output.line(format_args!("had       {}", show_runs(&inspected.had)))?;
        output.line(format_args!("complete  {}", yes_no(inspected.complete)))?;
        if let Some(sha256) = &inspected.sha256 {
            output.line(format_args!("digest    {sha256}"))?;
        }
        for origin in &inspected.origins {
            output.line(format_args!("origin    {}", printable(origin)))?;
        }
        if self.hashes {
            for (position, hash) in inspected.hashes.iter().enumerate() {
                output.line(format_args!("{position:>8}  {hash}"))?;
            }
        }
        output.json(&Tagged { kind: "content", content: inspected })
    }
}

/// A content with what it is.
#[derive(Serialize)]
struct Tagged<'a> {
    kind: &'static str,
    #[serde(flatten)]
    content: &'a Inspected,
}

fn recognise(path: &Path) -> Result<FileKind, Failure> {
    let mut head = vec![0; SLOT_BYTES + RECORD_MAGIC.len()];
    let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut filled = 0;
    while filled < head.len() {
        match file.read(&mut head[filled..]).map_err(|error| unreadable(path, &error))? {
            0 => break,
            bytes => filled += bytes,
        }
    }
    // The first slot of a record may be torn while the second is good.
    let has_magic = |at: usize| head.get(at..).is_some_and(|head| head.starts_with(RECORD_MAGIC));
    Ok(if has_magic(0) || has_magic(SLOT_BYTES) {
        FileKind::Record
    } else if path.extension().is_some_and(|extension| extension == "list") {
        FileKind::List
    } else {
        FileKind::Content
    })
}

fn read_record(path: &Path) -> Result<(u64, Record), Failure> {
    let bytes = read_at_most(path, 2 * SLOT_BYTES)?;
    Record::read(&bytes).map_err(|error| {
        Failure::because(Kind::Corrupt, format!("read the record {}", path.display()), &error)
    })
}

fn read_at_most(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max as u64).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::because(Kind::File, format!("read {}", path.display()), error)
}

/// Returns the hashes in a list as text.
fn texts(list: &[u8]) -> Vec<String> {
    let (hashes, _) = list.as_chunks::<HASH_BYTES>();
    hashes.iter().map(|hash| ContentId::from_bytes(*hash).to_string()).collect()
}

fn runs(chunks: &ChunkRanges) -> Vec<(u32, u32)> {
    chunks.runs().map(|run| (run.start().0, run.last().0)).collect()
}

fn show_runs(runs: &[(u32, u32)]) -> String {
    let show = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    match runs {
        [] => "nothing".to_owned(),
        runs => runs.iter().map(show).collect::<Vec<_>>().join(", "),
    }
}

const fn yes_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
