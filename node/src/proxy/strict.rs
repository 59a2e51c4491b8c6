//! A client's connection, read strictly and written with a deadline.
//!
//! The HTTP library forgives what other parsers read otherwise: a line that ends without a carriage
//! return, above all. Two parsers that read one request differently are how requests are smuggled
//! (T25), so whatever comes here before a tunnel is open is checked byte by byte first. That is
//! possible because requests with a body are refused: every byte that comes belongs to a head.
//!
//! A client that takes nothing for too long is given up; until then it holds one
//! connection and some blocks of memory, and nothing else waits for it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// A client's connection.
#[derive(Debug)]
pub(super) struct Strict {
    stream: TcpStream,
    lines: Lines,
    /// How long a client may take nothing of what is sent to it.
    stall_max: Duration,
    stall: Pin<Box<Sleep>>,
    is_stalled: bool,
}

/// What a connection's bytes were so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    last: u8,
    /// Bytes of this line so far, without its end; more than the word counts are not counted.
    column: usize,
    /// Whether the first line of this head is like [`CONNECT`] so far.
    is_like_connect: bool,
    /// Whether the last head asked for a tunnel; what follows it is no HTTP.
    is_tunnel: bool,
    /// Whether the head has begun.
    in_head: bool,
}

/// The beginning of a head that asks for a tunnel.
const CONNECT: &[u8] = b"CONNECT ";

impl Strict {
    pub(super) fn new(stream: TcpStream, stall_max: Duration) -> Self {
        let stall = Box::pin(sleep(stall_max));
        Self { stream, lines: Lines::default(), stall_max, stall, is_stalled: false }
    }

    /// Judges how a write went: one that waits for too long fails.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.is_stalled = false;
            return written;
        }
        if !self.is_stalled {
            self.is_stalled = true;
            let stall_max = self.stall_max;
            self.stall.as_mut().reset(Instant::now() + stall_max);
        }
        ready!(self.stall.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Strict {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.lines.read(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        // Nothing of it reaches the parser: what comes next cannot be a request of anybody.
        buffer.set_filled(before);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "not strictly HTTP")))
    }
}

impl AsyncWrite for Strict {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Lines {
    /// Reads on; returns whether it can be nothing but heads whose lines end as they should.
    pub(super) fn read(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| self.is_tunnel || self.step(*byte))
    }

    fn step(&mut self, byte: u8) -> bool {
        let last = std::mem::replace(&mut self.last, byte);
        match byte {
            b'\n' if last == b'\r' => self.line_ended(),
            // A line feed alone, and a carriage return alone, end a line for some.
            b'\n' | 0 => return false,
            _ if last == b'\r' => return false,
            b'\r' => {}
            _ => {
                // A line that goes on with a blank is the line before it, for some.
                if self.in_head && self.column == 0 && matches!(byte, b' ' | b'\t') {
                    return false;
                }
                if !self.in_head {
                    let fits = CONNECT.get(self.column).is_none_or(|expected| *expected == byte);
                    self.is_like_connect = fits && (self.is_like_connect || self.column == 0);
                }
                self.column += 1;
            }
        }
        true
    }

    fn line_ended(&mut self) {
        let is_empty = std::mem::take(&mut self.column) == 0;
        if !self.in_head {
            // Empty lines before a head are allowed (RFC 9112, section 2.2).
            self.in_head = !is_empty;
        } else if is_empty {
            self.is_tunnel = self.is_like_connect;
            self.in_head = false;
        }
        if !self.in_head {
            self.is_like_connect = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(bytes: &[u8]) -> bool {
        // However the bytes are cut, the answer is the same.
        let whole = Lines::default().read(bytes);
        let mut single = Lines::default();
        let by_one = bytes.iter().all(|byte| single.read(&[*byte]));
        assert_eq!(whole, by_one);
        whole
    }

    // T25
    #[test]
    fn only_lines_that_every_parser_ends_alike_are_read() {
        for good in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: \xff\r\n",
        ] {
            assert!(reads(good), "{}", good.escape_ascii());
        }
        for bad in [
            &b"GET / HTTP/1.1\nHost: a\n\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
            b"CONNECTED a:443 HTTP/1.1\r\nHost: a\r\n\r\n\x16\x03\0\n",
            b"GET /CONNECT  HTTP/1.1\r\nCONNECT : a\r\n\r\n\n",
        ] {
            assert!(!reads(bad), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_follows_the_head_of_a_tunnel_is_not_ours_to_judge() {
        assert!(reads(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n\x16\x03\x01\n\0\r\r"));
        assert!(reads(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nCONNECT a:443 HTTP/1.1\r\n\r\n\n"));
        // Its own head is.
        assert!(!reads(b"CONNECT a:443 HTTP/1.1\nHost: a\r\n\r\n"));
    }
}
