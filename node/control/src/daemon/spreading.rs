//! `GET /spread/SCOPE/VERSION/ORDERS`: how far a stop has got that was published, for admins elsewhere who signed it.
//!
//! Numbers, and the instant at which the first device could still install; no name of a device. It can be asked of what
//! was published alone, so that nobody finds out by it what a device has that they name. Reading all reports takes a while:
//! one answer is made at a time, and at most one a second; it is good for some seconds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use sutler_protocol::manifest::Version;
use sutler_protocol::name::Label;
use sutler_swarm::gateway::causes;
use tracing::warn;

use crate::judgement::{self, Published};
use crate::organisation::Folder;
use crate::reports;
use crate::spread::spread;
use crate::stopping::stop_of;

/// How long an answer is good.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// The least time between the end of one answer and the beginning of another.
const PAUSE: Duration = Duration::from_secs(1);

/// Which stop is meant: the scope whose approvals brought it, their version, and that of the orders.
type Question = (Label, u64, u64);

/// Says how far stops have got in an organisation's folder. Cheap to clone.
#[derive(Clone)]
struct Spreading {
    folder: PathBuf,
    /// Held while an answer is made.
    answers: Arc<Mutex<Answers>>,
}

/// The answers that are fresh: few, because they come one a second.
#[derive(Default)]
struct Answers {
    known: BTreeMap<Question, (Instant, Answer)>,
    /// When the last one was ready.
    last: Option<Instant>,
}

/// What is said: the text, or that no such stop was published.
type Answer = Option<String>;

/// Why there is no answer now.
enum Unanswered {
    /// Another one is being made.
    Busy,
    /// It cannot be had.
    Failed,
}

/// Returns what answers how far a stop has got in the organisation in `folder`.
pub(super) fn routes(folder: PathBuf) -> Router {
    let spreading = Spreading { folder, answers: Arc::default() };
    Router::new().route("/spread/{scope}/{version}/{orders}", get(answer)).with_state(spreading)
}

async fn answer(
    State(spreading): State<Spreading>,
    Path((scope, version, orders)): Path<(String, u64, u64)>,
) -> Response {
    let Ok(scope) = scope.parse::<Label>() else { return StatusCode::NOT_FOUND.into_response() };
    let question = (scope, version, orders);
    match tokio::task::spawn_blocking(move || spreading.text(question)).await {
        Ok(Ok(Some(text))) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(Unanswered::Busy)) => {
            ([(header::RETRY_AFTER, "1")], StatusCode::SERVICE_UNAVAILABLE).into_response()
        }
        Ok(Err(Unanswered::Failed)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Spreading {
    fn text(&self, question: Question) -> Result<Answer, Unanswered> {
        let mut answers = match self.answers.try_lock() {
            Ok(answers) => answers,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Unanswered::Busy),
        };
        answers.known.retain(|_, (at, _)| at.elapsed() < FRESH_FOR);
        if let Some((_, answer)) = answers.known.get(&question) {
            return Ok(answer.clone());
        }
        if answers.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return Err(Unanswered::Busy);
        }
        let answer = self.find(&question);
        let now = Instant::now();
        answers.last = Some(now);
        let answer = answer.map_err(|error| {
            warn!(error = causes(&*error), "it cannot be told how far a stop has got");
            Unanswered::Failed
        })?;
        answers.known.insert(question, (now, answer.clone()));
        Ok(answer)
    }

    fn find(
        &self,
        (scope, version, orders): &Question,
    ) -> Result<Answer, Box<dyn std::error::Error>> {
        let Some(version) = Version::new(*version) else { return Ok(None) };
        let folder = Folder::open(&self.folder)?;
        let state = folder.state()?;
        let organisation = folder.organisation().clone();
        let found = stop_of(folder.repository(), &state, scope, version, *orders)?;
        // Whoever publishes meanwhile does not wait for the reports to be read.
        drop(folder);
        let Some((stop, before)) = found else { return Ok(None) };
        let denials = judgement::denials(&self.folder.join("orders"))?;
        let before = Published::of(&before, &organisation, &denials);
        let reports = reports::read(&self.folder.join("reports"), &organisation)?;
        let spread = spread(&reports, &stop, &before, jiff::tz::db(), Timestamp::now());
        Ok(Some(serde_json::to_string(&spread)?))
    }
}
