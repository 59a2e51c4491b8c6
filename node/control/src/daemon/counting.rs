//! `GET /fleet`: how many devices have reported, by site and by scope, for admins elsewhere who sign an order.
//!
//! Numbers, and the names of sites and scopes, which the orders beside it have as well; no name of a device. Reading all
//! reports takes a while, so that one count is good for some seconds, and one is made at a time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sutler_swarm::gateway::causes;
use tracing::warn;

use crate::fleet::Fleet;
use crate::organisation::Folder;
use crate::reports;

/// How long a count is good.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// Counts the fleet of an organisation's folder. Cheap to clone.
#[derive(Clone)]
struct Counting {
    folder: PathBuf,
    /// Held while it is counted.
    counted: Arc<Mutex<Option<(Instant, String)>>>,
}

/// Returns what answers how many devices the organisation in `folder` has.
pub(super) fn routes(folder: PathBuf) -> Router {
    let counting = Counting { folder, counted: Arc::default() };
    Router::new().route("/fleet", get(fleet)).with_state(counting)
}

async fn fleet(State(counting): State<Counting>) -> Response {
    match tokio::task::spawn_blocking(move || counting.text()).await {
        Ok(Some(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(None) => ([(header::RETRY_AFTER, "1")], StatusCode::SERVICE_UNAVAILABLE).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Counting {
    /// Returns the count as JSON; nothing while somebody else counts, or if it cannot be had.
    fn text(&self) -> Option<String> {
        let mut counted = match self.counted.try_lock() {
            Ok(counted) => counted,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if let Some((at, text)) = &*counted
            && at.elapsed() < FRESH_FOR
        {
            return Some(text.clone());
        }
        let text = self.count()?;
        *counted = Some((Instant::now(), text.clone()));
        Some(text)
    }

    fn count(&self) -> Option<String> {
        let folder = Folder::open(&self.folder).map_err(|error| uncounted(&error)).ok()?;
        let state = folder.state().map_err(|error| uncounted(&error)).ok()?;
        let organisation = folder.organisation().clone();
        // Whoever publishes meanwhile does not wait for the reports to be read.
        drop(folder);
        let reports = reports::read(&self.folder.join("reports"), &organisation);
        let reports = reports.map_err(|error| uncounted(&error)).ok()?;
        serde_json::to_string(&Fleet::of(&state, &reports)).ok()
    }
}

fn uncounted(error: &dyn std::error::Error) {
    warn!(error = causes(error), "the fleet cannot be counted");
}
