//! `/metrics` and `/healthz`, for monitoring. Off unless an address is given, and nothing else is
//! ever served here: no content, no name of a content, nothing that changes anything.

use std::io;
use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Kind};
use crate::metrics::Meter;

/// The content type that Prometheus expects of this text.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A listening socket that does not answer yet.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    meter: Meter,
}

impl HttpServer {
    /// Listens at `address`.
    ///
    /// # Errors
    ///
    /// Kind `unreachable` if the address is in use or not this machine's.
    pub fn bind(address: SocketAddr, meter: Meter) -> Result<Self, Failure> {
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address, meter })
        };
        bind().map_err(|error: io::Error| {
            let what = format!("listen at {address} for /metrics and /healthz");
            Failure::because(Kind::Unreachable, what, &error)
        })
    }

    /// Returns the address that is listened at.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`.
    ///
    /// # Errors
    ///
    /// The runtime does not take the socket.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket and its connections.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let routes = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .with_state(self.meter);
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        // Not drained: whoever scrapes comes again, and an idle connection must not hold a node up.
        tokio::select! {
            // Cancel-safe: a token stays cancelled.
            () = shutdown.cancelled() => Ok(()),
            // Dropped with its connections.
            served = axum::serve(listener, routes).into_future() => served,
        }
    }
}

/// Reads the numbers where blocking is allowed: the index lies on the disk.
async fn metrics(State(meter): State<Meter>) -> Response {
    match tokio::task::spawn_blocking(move || meter.text()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
