//! The proxy's socket: lets clients in, bounds what each may cost, and lets them finish at the end.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::clients::{Admitted, Clients};
use super::server::Server;
use super::settings::HttpProxyConfig;
use super::strict::Strict;

/// Bytes of a request's head, at most.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Header fields of a request, at most.
const HEADERS_MAX: usize = 64;

/// How long clients may finish what is open when the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The pause after a connection that could not be taken, because there are no file handles left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that does not answer yet.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) address: SocketAddr,
    clients: Clients,
    patience: Patience,
}

/// How long a client may keep us waiting.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For the head of a request, and between two.
    head: Duration,
    /// Taking nothing of what is sent to it.
    write: Duration,
}

impl Listener {
    pub(super) fn bind(address: SocketAddr, config: &HttpProxyConfig) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let patience = Patience {
            head: Duration::from_millis(config.head_timeout_ms.get()),
            write: Duration::from_millis(config.write_timeout_ms.get()),
        };
        Ok(Self { socket, address, clients: Clients::new(config), patience })
    }

    /// Answers until `shutdown`, then lets open requests finish for a bounded time.
    pub(super) async fn run(
        self,
        server: Arc<Server>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.socket)?;
        let mut open = JoinSet::new(); // Owns every connection: none outlives this function.
        loop {
            tokio::select! {
                // Cancel-safe: a token stays cancelled.
                () = shutdown.cancelled() => break,
                // Cancel-safe: a task is taken out only when it is returned.
                Some(_) = open.join_next() => {}
                // Cancel-safe: a connection is taken only when it is returned.
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => match self.clients.admit(address.ip()) {
                        Ok(admitted) => {
                            let (server, shutdown) = (server.clone(), shutdown.clone());
                            open.spawn(serve(stream, admitted, server, self.patience, shutdown));
                        }
                        Err(why) => {
                            server.tally.connections_refused.add(1);
                            debug!(client = %address.ip(), ?why, "not let in");
                        }
                    },
                    Err(error) => {
                        debug!(%error, "no connection could be taken");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let drained = async { while open.join_next().await.is_some() {} };
        if timeout(DRAIN_MAX, drained).await.is_err() {
            open.shutdown().await;
        }
        Ok(())
    }
}

/// Answers the requests of one connection, one after the other.
async fn serve(
    stream: TcpStream,
    admitted: Admitted,
    server: Arc<Server>,
    patience: Patience,
    shutdown: CancellationToken,
) {
    // Not worth a word: it only makes small replies later.
    drop(stream.set_nodelay(true));
    let client = admitted.address;
    let answering = service_fn(|request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request, client).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(Strict::new(stream, patience.write)), answering)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // Cancel-safe: a token stays cancelled.
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%client, %error, "a connection ended");
    }
    drop(admitted);
}
