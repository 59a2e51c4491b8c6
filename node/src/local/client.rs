//! The command's half of the local socket.
//!
//! Each request has a connection of its own, so that an answer that is not read to its end can
//! spoil nothing after it. There is no time-out: the owner may work for long, and the user can
//! interrupt the command.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;

use sutler_cache::import::ImportFrom;

use super::frame::{self, REPLY_BYTES_MAX};
use super::message::{AddFile, AddUrl, FetchRequest, Reply, Request, VERSION};
use super::socket::{self, ConnectError};
use super::{Body, OnProgress, Ready, StoreOwner};
use crate::data::DataFolder;
use crate::failure::{Failure, Kind};
use crate::report::{Added, Collected, ContentRow, Inspected, Rebuilt, Verified};
use crate::status::Status;

/// Bytes copied from the user's file to the socket at a time.
const COPY_BYTES: usize = 256 * 1024;

/// The process that owns the store of a data folder, as a command sees it.
#[derive(Clone, Debug)]
pub struct LocalClient {
    data: DataFolder,
}

impl LocalClient {
    /// Returns a client of whoever owns the store of `data`, after finding that somebody answers.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if nobody does, or somebody who should not.
    pub fn connect(data: DataFolder) -> Result<Self, ConnectError> {
        socket::connect(&data)?;
        Ok(Self { data })
    }

    fn ask(&self, request: &Request) -> Result<UnixStream, Failure> {
        let mut stream = socket::connect(&self.data)
            .map_err(|error| Failure::from_error(Kind::Store, &error))?;
        let request = serde_json::json!({ "version": VERSION, "request": request });
        frame::write(&mut stream, &request).map_err(|error| lost(&error))?;
        Ok(stream)
    }

    /// Asks, hands what is not the end to `on_part`, and returns the end.
    fn call(
        &self,
        request: &Request,
        on_part: &mut dyn FnMut(Reply) -> ControlFlow<()>,
    ) -> Result<Reply, Failure> {
        let mut stream = self.ask(request)?;
        end(&mut stream, on_part)
    }
}

/// Reads replies up to the one that ends the request.
fn end(
    stream: &mut UnixStream,
    on_part: &mut dyn FnMut(Reply) -> ControlFlow<()>,
) -> Result<Reply, Failure> {
    loop {
        match frame::read(stream, REPLY_BYTES_MAX) {
            Ok(Some(Reply::Failed(failure))) => return Err(failure),
            Ok(Some(part @ (Reply::Progress(_) | Reply::Row(_)))) => {
                if on_part(part).is_break() {
                    return Err(Failure::new(Kind::Interrupted, "interrupted"));
                }
            }
            Ok(Some(reply)) => return Ok(reply),
            Ok(None) => return Err(lost(&io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(Failure::because(Kind::Store, LOST, &error)),
        }
    }
}

/// What a command says when the owner ends in the middle of an answer.
const LOST: &str = "lost the process that owns the store";

fn lost(error: &io::Error) -> Failure {
    Failure::because(Kind::Store, LOST, error)
}

fn unexpected(reply: &Reply) -> Failure {
    Failure::new(Kind::Internal, format!("the owner of the store answered {reply:?}"))
}

/// Forwards progress, and takes any other part for none.
fn forward(progress: OnProgress<'_>) -> impl FnMut(Reply) -> ControlFlow<()> {
    |part| match part {
        Reply::Progress(part) => progress(part),
        _ => ControlFlow::Continue(()),
    }
}

/// Takes no parts.
fn no_parts(_: Reply) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

impl StoreOwner for LocalClient {
    fn add(&self, request: &AddFile, from: ImportFrom<'_>) -> Result<Added, Failure> {
        let mut stream = self.ask(&Request::Add(request.clone()))?;
        let copied = match from {
            ImportFrom::File { mut file, .. } => copy(&mut file, &mut stream, request.bytes),
            ImportFrom::Stream(body) => copy(body, &mut stream, request.bytes),
        };
        if let Err(failure) = copied {
            // An owner that refuses hangs up in the middle of the bytes, after it said why. A file
            // that is too short makes it wait for the rest: it is told by the end of the stream.
            drop(stream.shutdown(std::net::Shutdown::Write));
            return Err(match end(&mut stream, &mut no_parts) {
                Err(said) if failure.kind != Kind::File && said.what != LOST => said,
                _ => failure,
            });
        }
        match end(&mut stream, &mut no_parts)? {
            Reply::Added(added) => Ok(added),
            other => Err(unexpected(&other)),
        }
    }

    fn add_url(&self, request: &AddUrl, progress: OnProgress<'_>) -> Result<Added, Failure> {
        match self.call(&Request::AddUrl(request.clone()), &mut forward(progress))? {
            Reply::Added(added) => Ok(added),
            other => Err(unexpected(&other)),
        }
    }

    fn fetch(&self, request: &FetchRequest, progress: OnProgress<'_>) -> Result<Ready, Failure> {
        let mut stream = self.ask(&Request::Fetch(request.clone()))?;
        match end(&mut stream, &mut forward(progress))? {
            Reply::Fetched(report) => {
                let bytes = if request.stream { report.bytes } else { 0 };
                Ok(Ready { report, body: Body::Stream(Box::new(stream.take(bytes))) })
            }
            other => Err(unexpected(&other)),
        }
    }

    fn list(&self, row: &mut dyn FnMut(ContentRow)) -> Result<(), Failure> {
        let mut rows = |part| {
            if let Reply::Row(part) = part {
                row(part);
            }
            ControlFlow::Continue(())
        };
        match self.call(&Request::List, &mut rows)? {
            Reply::Listed => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn verify(&self, progress: OnProgress<'_>) -> Result<Verified, Failure> {
        match self.call(&Request::Verify, &mut forward(progress))? {
            Reply::Verified(verified) => Ok(verified),
            other => Err(unexpected(&other)),
        }
    }

    fn gc(&self, bytes_max: Option<u64>) -> Result<Collected, Failure> {
        match self.call(&Request::Gc { bytes_max }, &mut no_parts)? {
            Reply::Collected(collected) => Ok(collected),
            other => Err(unexpected(&other)),
        }
    }

    fn rebuild_index(&self) -> Result<Rebuilt, Failure> {
        match self.call(&Request::RebuildIndex, &mut no_parts)? {
            Reply::Rebuilt(rebuilt) => Ok(rebuilt),
            other => Err(unexpected(&other)),
        }
    }

    fn inspect(&self, content: &str) -> Result<Inspected, Failure> {
        let content = content.to_owned();
        match self.call(&Request::Inspect { content }, &mut no_parts)? {
            Reply::Inspected(inspected) => Ok(inspected),
            other => Err(unexpected(&other)),
        }
    }

    fn status(&self) -> Result<Status, Failure> {
        match self.call(&Request::Status, &mut no_parts)? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }
}

/// Copies exactly `bytes` of `body` to the owner. Kind `file` if the body is at fault.
fn copy(body: &mut dyn Read, to: &mut UnixStream, bytes: u64) -> Result<(), Failure> {
    use std::io::Write;
    let mut buffer = vec![0; COPY_BYTES];
    let mut left = bytes;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = body
            .read(&mut buffer[..wanted])
            .map_err(|error| Failure::because(Kind::File, "read the file", &error))?;
        if read == 0 {
            let what = format!("the file ended {left} bytes early: it was cut while it was read");
            return Err(Failure::new(Kind::File, what));
        }
        to.write_all(&buffer[..read]).map_err(|error| lost(&error))?;
        left -= read as u64;
    }
    Ok(())
}
