//! CONNECT: passes a client's bytes to port 443 of a host and back, unread.
//!
//! apt sends its `https` sources to the HTTP proxy, too, so that without this a machine with one
//! such source could not use the proxy at all. What goes through a tunnel is not cached.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use sutler_swarm::gateway::causes;
use sutler_swarm::origin::TunnelError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tracing::debug;
use url::Url;

use super::body::ReplyBody;
use super::failed::Failed;
use super::reply;
use super::server::Server;

/// How long a tunnel may be idle.
const IDLE_MAX: Duration = Duration::from_mins(5);

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Opens a tunnel, and answers when it is open.
pub(super) async fn open(
    server: &Arc<Server>,
    request: Request<Incoming>,
    url: Url,
) -> Response<ReplyBody> {
    let host = match server.origins.tunnel(&url).await {
        Ok(host) => host,
        Err(error) => {
            let why = causes(&error);
            return reply::refuse(&match error {
                TunnelError::Refused(_) | TunnelError::Address(_) => Failed::Forbidden(why),
                _ => Failed::Trouble(why),
            });
        }
    };
    server.tally.tunnels.add(1);
    let passing = async move {
        match hyper::upgrade::on(request).await {
            Ok(client) => pass(TokioIo::new(client), host).await,
            Err(error) => debug!(%error, "the client left before its tunnel was open"),
        }
    };
    server.reader.tasks.spawn(passing);
    Response::new(ReplyBody::empty())
}

/// Passes bytes both ways until either side ends or nothing moves for too long.
async fn pass(mut client: impl AsyncRead + AsyncWrite + Unpin, host: TcpStream) {
    let moved = Arc::new(AtomicU64::new(0));
    let mut host = Counted { stream: host, moved: moved.clone() };
    tokio::select! {
        passed = copy_bidirectional(&mut client, &mut host) => {
            if let Err(error) = passed {
                debug!(%error, "a tunnel broke");
            }
        }
        // Dropped with the connections of both sides.
        () = idle(&moved) => debug!("an idle tunnel is closed"),
    }
}

/// Returns when nothing was moved for too long.
async fn idle(moved: &AtomicU64) {
    let (mut before, mut idle) = (0, Duration::ZERO);
    while idle < IDLE_MAX {
        tokio::time::sleep(LOOK).await;
        let now = moved.load(Ordering::Relaxed);
        idle = if now == before { idle + LOOK } else { Duration::ZERO };
        before = now;
    }
}

/// A connection that counts what moves through it.
struct Counted {
    stream: TcpStream,
    moved: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
