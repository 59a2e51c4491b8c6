//! What strangers see: the repository as plain files, and doors for submissions and for the bytes that they name. Off unless
//! an address is given.
//!
//! Reading needs no name: what lies there is signed, and says nothing that devices of the organisation are
//! not to know; beside it, how many devices there are, and how many have heard of a stop. Handing in needs none either: the signatures on the orders are an admin's authority, never
//! the connection that carried them. Nothing else changes anything here.

mod places;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use sutler_swarm::gateway::causes;
use tokio_util::sync::CancellationToken;
use tower_http::services::ServeDir;
use tower_http::timeout::TimeoutLayer;

use self::places::{PLACES_MAX, Places, STILL_MAX};
use super::desk::{Desk, DeskError};
use super::{counting, intake, spreading};
use crate::bounds::SUBMISSION_BYTES_MAX;
use crate::organisation::PublishError;
use crate::submission::Refused;
use crate::uploads::Uploads;
use crate::whereabouts::whereabouts;

/// How long a request may take to be answered; the bytes of a large content come behind its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A listening socket that does not answer yet.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    routes: Router,
}

impl HttpServer {
    /// Listens at `address`, for the organisation in `folder` and what comes for `desk` and `uploads`.
    ///
    /// # Errors
    ///
    /// What the system says: the address is in use, or not this machine's.
    pub fn bind(
        address: SocketAddr,
        folder: &Path,
        desk: Desk,
        uploads: Uploads,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let files = |name: &str| {
            let files = folder.join("repository").join(name);
            ServeDir::new(files).append_index_html_on_directories(false)
        };
        let runs = json!({ "folder": whereabouts(folder) }).to_string();
        let routes = Router::new()
            .nest_service("/metadata", files("metadata"))
            .nest_service("/targets", files("targets"))
            .nest_service("/lists", files("lists"))
            .layer(middleware::from_fn(only_what_is_published))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/control", get(move || async move { runs }))
            .route("/orders", post(submit))
            .with_state(desk)
            .merge(counting::routes(folder.to_owned()))
            .merge(spreading::routes(folder.to_owned()))
            .layer(DefaultBodyLimit::max(SUBMISSION_BYTES_MAX as usize))
            .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, ANSWER_TIMEOUT));
        // Around what may take 30 s: the bytes of a content come for as long as they are many.
        let routes = intake::routes(uploads, routes);
        Ok(Self { listener, address, routes })
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
    /// Dropping the future closes the socket and its connections; a submission that was handed in is
    /// published all the same.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let listener = Places::new(listener, PLACES_MAX, STILL_MAX);
        tokio::select! {
            // Cancel-safe: a token stays cancelled.
            () = shutdown.cancelled() => Ok(()),
            // Dropped with its connections.
            served = axum::serve(listener, self.routes).into_future() => served,
        }
    }
}

/// Keeps back what is only being written.
async fn only_what_is_published(request: Request, next: Next) -> Response {
    let extension = Path::new(request.uri().path()).extension();
    if extension.is_some_and(|extension| extension == "new") {
        return StatusCode::NOT_FOUND.into_response();
    }
    next.run(request).await
}

/// Takes a submission to the desk.
async fn submit(State(desk): State<Desk>, body: Bytes) -> Response {
    match desk.submit(body.to_vec()).await {
        Ok(published) => {
            let audit = json!({
                "seq": published.audit.seq, "blake3": published.audit.chain.to_string(),
            });
            let answer = json!({ "version": published.version, "audit": audit });
            (StatusCode::OK, answer.to_string()).into_response()
        }
        Err(error) => {
            let mut answer = json!({ "error": causes(&error) });
            // Whoever handed it in may put it on top of what was published meanwhile.
            if let DeskError::Publish(PublishError::Refused(Refused::Version { .. })) = error {
                answer["refused"] = "version".into();
            }
            (status(&error), answer.to_string()).into_response()
        }
    }
}

/// Returns whose fault it is, as HTTP says it.
fn status(error: &DeskError) -> StatusCode {
    match error {
        DeskError::Submission(_) => StatusCode::BAD_REQUEST,
        DeskError::Publish(PublishError::Refused(_)) => StatusCode::CONFLICT,
        DeskError::Publish(_) | DeskError::Audit(_) | DeskError::Folder(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        DeskError::Busy | DeskError::Closed => StatusCode::SERVICE_UNAVAILABLE,
    }
}
