//! The door for the bytes of published contents: `PUT /targets/PLACE` and `PUT /lists/BLAKE3`.
//!
//! What comes is written and measured on a thread that may wait for the disk. Whoever sends nothing for a while, or too
//! slowly for what it is, is sent away: there are few places.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use serde_json::json;
use sutler_protocol::ContentId;
use sutler_protocol::hash_list::HASH_LIST_BYTES_MAX;
use sutler_swarm::gateway::causes;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tower_http::timeout::TimeoutLayer;
use tracing::info;

use crate::repository::PutError;
use crate::uploads::{Upload, UploadError, Uploads};

/// How long nothing may come.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Bytes that come a second, on the whole: a bad line, and not somebody who holds a place.
const RATE_MIN: u64 = 16 * 1024;

/// How long a list may take.
const LIST_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a body is read that nobody wants.
const PASSED_OVER_FOR: Duration = Duration::from_secs(5);

/// Pieces that wait for the disk.
const PIECES_MAX: usize = 4;

/// When whoever finds no place may come again, in seconds.
const RETRY_AFTER: &str = "5";

/// Why bytes did not come to their end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("nothing came for {} seconds, or too little", IDLE_MAX.as_secs())]
    Slow,
    #[error("the bytes end before their end")]
    Cut,
}

/// Returns what takes bytes in, and gives every other request to `others`.
pub(super) fn routes(uploads: Uploads, others: Router) -> Router {
    let lists = Router::new()
        .route("/lists/{content}", put(take_list).fallback_service(others.clone()))
        .layer(DefaultBodyLimit::max(HASH_LIST_BYTES_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, LIST_TIMEOUT));
    Router::new()
        .route("/targets/{*place}", put(take_bytes).fallback_service(others.clone()))
        .merge(lists)
        .with_state(uploads)
        .fallback_service(others)
}

async fn take_list(
    State(uploads): State<Uploads>,
    Path(content): Path<String>,
    body: Bytes,
) -> Response {
    let Ok(content) = content.parse::<ContentId>() else {
        return answer(StatusCode::NOT_FOUND, "a list is named by the BLAKE3 of its content");
    };
    match spawn_blocking(move || uploads.put_list(content, &body)).await {
        Ok(Ok(())) => taken(),
        Ok(Err(error)) => refused(&error),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Takes a content in. Cancel-safe: what came of it is given up.
async fn take_bytes(State(uploads): State<Uploads>, request: Request) -> Response {
    // As it was sent: places are quoted for a URL.
    let place = request.uri().path().strip_prefix("/targets/").unwrap_or_default().to_owned();
    let Some(announced) = length(request.headers()) else {
        pass_over(request).await;
        return answer(StatusCode::LENGTH_REQUIRED, "its length has to be said");
    };
    let began = spawn_blocking(move || uploads.begin(&place, announced)).await;
    let upload = match began {
        Ok(Ok(upload)) => upload,
        Ok(Err(error)) => {
            pass_over(request).await;
            return refused(&error);
        }
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    let until = IDLE_MAX + Duration::from_secs(upload.length() / RATE_MIN);
    let (pieces, comes) = channel(PIECES_MAX);
    // Ends with its pieces, which this owns.
    let writing = spawn_blocking(move || write(upload, comes));
    let received = receive(request.into_body(), pieces, Instant::now() + until).await;
    let settled = match (writing.await, received) {
        (Ok(Ok(upload)), Ok(())) => spawn_blocking(move || upload.settle()).await,
        (Ok(Ok(upload)), Err(broken)) => {
            // Its place is free before the answer is there.
            drop(spawn_blocking(move || drop(upload)).await);
            let status = match broken {
                Broken::Slow => StatusCode::REQUEST_TIMEOUT,
                Broken::Cut => StatusCode::BAD_REQUEST,
            };
            return answer(status, &broken.to_string());
        }
        (Ok(Err(error)), _) => Ok(Err(error)),
        (Err(defect), _) => Err(defect),
    };
    match settled {
        Ok(Ok(())) => taken(),
        Ok(Err(error)) => refused(&error.into()),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Writes what comes, and returns the upload at its end.
fn write(mut upload: Upload, mut comes: Receiver<Bytes>) -> Result<Upload, PutError> {
    while let Some(piece) = comes.blocking_recv() {
        upload.take(&piece)?;
    }
    Ok(upload)
}

/// Passes a body's bytes on. Where the other side takes no more, it says why.
async fn receive(mut body: Body, pieces: Sender<Bytes>, until: Instant) -> Result<(), Broken> {
    loop {
        let wait = until.min(Instant::now() + IDLE_MAX);
        let frame = timeout_at(wait, poll_fn(|context| Pin::new(&mut body).poll_frame(context)));
        match frame.await {
            Err(_) => return Err(Broken::Slow),
            Ok(None) => return Ok(()),
            Ok(Some(Err(_))) => return Err(Broken::Cut),
            Ok(Some(Ok(frame))) => {
                // Trailers are nobody's bytes.
                let Ok(piece) = frame.into_data() else { continue };
                if pieces.send(piece).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Lets a body that is on its way come, for a while: whoever is still sending does not hear an answer. Who waits for leave
/// to send has not begun.
async fn pass_over(request: Request) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let (mut body, until) = (request.into_body(), Instant::now() + PASSED_OVER_FOR);
    loop {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let Ok(Some(Ok(_))) = timeout_at(until, frame).await else { return };
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn taken() -> Response {
    (StatusCode::CREATED, json!({ "taken": true }).to_string()).into_response()
}

fn answer(status: StatusCode, error: &str) -> Response {
    (status, json!({ "error": error }).to_string()).into_response()
}

/// Says why nothing was taken, and whose fault it is.
fn refused(error: &UploadError) -> Response {
    let status = match error {
        UploadError::Here { .. } => StatusCode::OK,
        UploadError::Unknown { .. } => StatusCode::NOT_FOUND,
        UploadError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        UploadError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        UploadError::Length { .. }
        | UploadError::List { .. }
        | UploadError::Put(
            PutError::Mismatch { .. } | PutError::Other { .. } | PutError::TooLong { .. },
        ) => StatusCode::BAD_REQUEST,
        UploadError::Put(_) | UploadError::Store { .. } | UploadError::Disk { .. } => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let error = causes(error);
    info!(error, "an upload was refused");
    let mut response = answer(status, &error);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = header::HeaderValue::from_static(RETRY_AFTER);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
