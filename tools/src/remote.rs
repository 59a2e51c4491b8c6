//! Control on another machine, as an admin's commands meet it: they take over what it publishes before a change,
//! and hand in what was signed.
//!
//! It is believed in nothing that the folder's own root does not lead to; what it says of what was handed in is
//! shown, and found out by what it publishes. The bytes of contents are brought once they are published: what was cut
//! short is brought again from its start.

use std::fs::File;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sutler::http::{Client, HttpError, Metadata, Reply, SetUpError, join};
use sutler_control::bounds::ORDER_BYTES_MAX;
use sutler_control::fleet::Fleet;
use sutler_control::repository::{CatchUpError, FileError, ReadError, RoleError, Source};
use sutler_control::spread::Spread;
use sutler_control::whereabouts::whereabouts;
use sutler_control::{Folder, State, Submission};
use sutler_node::failure::{Failure, Kind};
use sutler_protocol::manifest::bounds::TARGETS_BYTES_MAX;
use sutler_protocol::manifest::drive::{self, DriveError};
use sutler_protocol::manifest::{
    self, Answer, Fault, Fetch, Refusal, RoleName, Signed, TargetFile, TargetPath, Targets, Version,
};
use sutler_protocol::name::Label;

use crate::output::printable;

/// Bytes of a count of the fleet: numbers of some 1,000 sites in 100 scopes.
const FLEET_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bytes of an answer of a few words or numbers.
const WORDS_BYTES_MAX: u64 = 4 * 1024;

/// How often control is asked that counts for somebody else, and how long is waited in between.
const TRIES: usize = 15;
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Where control's repository is, an http or https URL without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlUrl(String);

/// Control on another machine.
#[derive(Debug)]
pub(crate) struct Remote {
    url: ControlUrl,
    client: Client,
}

/// Why what was handed in was not taken, and what helps.
#[derive(Debug)]
pub(crate) struct NotTaken {
    pub(crate) failure: Failure,
    pub(crate) then: Then,
}

/// What may be done about orders that were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Somebody was first: put them on top of what that one has published.
    Rebase,
    /// Hand them in again: control did not come to look at them, or its answer was lost.
    Again,
    /// Nothing: control will never take them.
    Nothing,
}

/// Something of a content that control may lack.
pub(crate) struct Lacking<'a> {
    /// The content's name, for people.
    pub(crate) name: &'a str,
    /// Where it belongs, below control's URL.
    pub(crate) place: String,
    /// What it is, from where the file stands on.
    pub(crate) open: File,
    /// How many bytes it has.
    pub(crate) length: u64,
}

/// The repository that control shows.
struct Shown<'a> {
    client: &'a Client,
    metadata: Metadata<'a>,
    targets: String,
}

/// What control says of itself.
#[derive(Deserialize)]
struct Runs {
    folder: Option<String>,
}

/// What control says of something that it did not take.
#[derive(Default, Deserialize)]
struct Said {
    error: String,
    #[serde(default)]
    refused: Option<String>,
}

impl FromStr for ControlUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("it is written http://HOST:PORT or https://HOST:PORT".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it ends with a host or a path".to_owned());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl Remote {
    pub(crate) fn new(url: &ControlUrl) -> Result<Self, Failure> {
        let client = Client::new()
            .map_err(|error: SetUpError| Failure::from_error(Kind::Internal, &error))?;
        Ok(Self { url: url.clone(), client })
    }

    /// Brings an organisation's folder up to date, and returns what is published. A folder in which nothing is yet
    /// begins with the root `first`.
    pub(crate) fn catch_up(
        &self,
        folder: &Folder,
        first: Option<&Bytes>,
    ) -> Result<State, Failure> {
        let metadata = self.client.metadata(&join(&self.url.0, "metadata"));
        let targets = join(&self.url.0, "targets");
        let mut shown = Shown { client: &self.client, metadata, targets };
        let state = folder.repository().catch_up(&mut shown, first, Timestamp::now());
        state.map_err(|error| self.not_caught_up(&error))
    }

    /// Hands signed orders in.
    pub(crate) fn submit(&self, submission: &Submission) -> Result<(), NotTaken> {
        let url = join(&self.url.0, "orders");
        let what = format!("hand the orders in at {url}");
        let reply = self.client.post(&url, submission.write()).map_err(|error| NotTaken {
            failure: Failure::because(Kind::Unreachable, &what, &error),
            then: Then::Again,
        })?;
        taken(&what, &reply)
    }

    /// Brings control what it lacks of a content: its bytes from a file, or its hash list. Returns whether it lacked it.
    pub(crate) fn bring(
        &self,
        lacking: Lacking<'_>,
        sent: impl FnMut(u64),
    ) -> Result<bool, Failure> {
        let url = join(&self.url.0, &lacking.place);
        let what = format!("bring {} to {url}", lacking.name);
        let unreachable = |error: &HttpError| Failure::because(Kind::Unreachable, &what, error);
        if self.client.has(&url).map_err(|error| unreachable(&error))? {
            return Ok(false);
        }
        let reply = self.client.put(&url, lacking.open, lacking.length, sent);
        let reply = reply.map_err(|error| unreachable(&error))?;
        if reply.status.is_success() {
            return Ok(true);
        }
        taken(&what, &reply).map(|()| true).map_err(|NotTaken { failure, .. }| failure)
    }

    /// Returns how many devices control has heard of.
    pub(crate) fn fleet(&self) -> Result<Fleet, Failure> {
        self.ask("fleet", "how many devices there are", FLEET_BYTES_MAX)
    }

    /// Returns how far a stop has got that this version of a scope's approvals brought, and this version of the orders
    /// at the latest.
    pub(crate) fn spread(
        &self,
        scope: &Label,
        version: u64,
        orders: u64,
    ) -> Result<Spread, Failure> {
        let place = format!("spread/{scope}/{version}/{orders}");
        self.ask(&place, "how far it has got", WORDS_BYTES_MAX)
    }

    /// Returns whether this control runs on the very folder: it has control's keys then, and control says that it is the
    /// one.
    pub(crate) fn runs_on(&self, folder: &Folder) -> bool {
        let has_keys = folder.path().join("online").join("timestamp.key").exists();
        let here = whereabouts(folder.path()).filter(|_| has_keys);
        let Some(here) = here else { return false };
        let there = self.client.get(&join(&self.url.0, "control"), WORDS_BYTES_MAX);
        // Whoever does not say so is met as another machine.
        let Ok(Answer::Document(bytes)) = there else { return false };
        serde_json::from_slice::<Runs>(&bytes).is_ok_and(|runs| runs.folder == Some(here))
    }

    /// Returns a role's document of an earlier version, if control has it and those who sign for the role now have signed
    /// it.
    pub(crate) fn document(
        &self,
        state: &State,
        role: &RoleName,
        version: Version,
    ) -> Result<Option<Bytes>, Failure> {
        let url = join(&join(&self.url.0, "metadata"), &role.place(Some(version)));
        let what = format!("fetch {role} {version} from {url}");
        let answer = self.client.get(&url, TARGETS_BYTES_MAX);
        let answer = answer.map_err(|error| Failure::because(Kind::Unreachable, &what, &error))?;
        let Answer::Document(bytes) = answer else { return Ok(None) };
        let keys = if *role == RoleName::targets() {
            Some(state.root.keys_of(manifest::Kind::Targets))
        } else {
            state.keys_of(role)
        };
        let refused = |error: &dyn std::error::Error| {
            Failure::because(Kind::Refused, &what, error)
                .with_help("it has to be signed by those who sign for the role now")
        };
        let signed = Signed::<Targets>::parse(bytes.clone()).map_err(|error| refused(&error))?;
        let Some(keys) = keys else { return Ok(None) };
        let believed = signed.verify(&keys).map_err(|error| refused(&error))?;
        if believed.version() != version {
            return Err(Failure::new(Kind::Refused, format!("{what}: it is of another version")));
        }
        Ok(Some(bytes))
    }

    /// Returns an order file as a document names it, if control has it.
    pub(crate) fn file(
        &self,
        path: &TargetPath,
        file: &TargetFile,
    ) -> Result<Option<Bytes>, Failure> {
        let place = path.place(file.hashes.prefix().as_deref());
        let url = join(&join(&self.url.0, "targets"), &place);
        let what = format!("fetch {path} from {url}");
        let answer = self.client.get(&url, file.length.min(ORDER_BYTES_MAX));
        let answer = answer.map_err(|error| Failure::because(Kind::Unreachable, &what, &error))?;
        let Answer::Document(bytes) = answer else { return Ok(None) };
        if bytes.len() as u64 != file.length || file.hashes.check(&bytes).is_err() {
            return Err(Failure::new(Kind::Refused, format!("{what}: it is another file")));
        }
        Ok(Some(bytes))
    }

    /// Asks control something that it counts. It does so for one at a time, and is asked again for a while.
    fn ask<T: DeserializeOwned>(
        &self,
        place: &str,
        about: &str,
        bytes_max: u64,
    ) -> Result<T, Failure> {
        let url = join(&self.url.0, place);
        let what = format!("ask {url} {about}");
        let mut tries = 1;
        let answer = loop {
            match self.client.get(&url, bytes_max) {
                Err(HttpError::Status(StatusCode::SERVICE_UNAVAILABLE)) if tries < TRIES => {
                    tries += 1;
                    thread::sleep(TRY_EVERY);
                }
                answer => break answer,
            }
        };
        let answer = answer.map_err(|error| Failure::because(Kind::Unreachable, &what, &error))?;
        let Answer::Document(bytes) = answer else {
            return Err(Failure::new(Kind::Refused, format!("{what}: it does not say")));
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::because(Kind::Refused, &what, &error))
    }

    fn not_caught_up(&self, error: &CatchUpError<HttpError>) -> Failure {
        let kind = match error {
            CatchUpError::Here(_) => Kind::Store,
            CatchUpError::Write(error) => Kind::of_io(&error.source, Kind::File),
            CatchUpError::NotFirst { .. } => Kind::Usage,
            CatchUpError::Expired { .. } => Kind::Refused,
            CatchUpError::There(error) => match error {
                ReadError::Documents(DriveError::Fetch { .. })
                | ReadError::Role { source: RoleError::Read(_), .. }
                | ReadError::File { source: FileError::Read(_), .. } => Kind::Unreachable,
                _ => Kind::Refused,
            },
        };
        let what = format!("bring the folder up to date from {}", self.url.0);
        let failure = Failure::because(kind, what, error);
        match error {
            CatchUpError::Expired { .. } => failure.with_help(
                "control signs every hour: it does not run, or something between hides what is newer",
            ),
            CatchUpError::There(ReadError::Documents(DriveError::Refused(Refusal {
                fault: Fault::Rollback { .. } | Fault::PinRollback { .. },
                ..
            }))) => failure.with_help(
                "control shows an older state than this folder has seen: was it set back, or is it another one?",
            ),
            _ => failure,
        }
    }
}

/// Says whether orders were taken, by control's answer.
fn taken(what: &str, reply: &Reply) -> Result<(), NotTaken> {
    if reply.status == StatusCode::OK {
        return Ok(());
    }
    let said: Said = serde_json::from_slice(&reply.body).unwrap_or_default();
    let (kind, then) = match reply.status {
        StatusCode::CONFLICT if said.refused.as_deref() == Some("version") => {
            (Kind::Refused, Then::Rebase)
        }
        status if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
            (Kind::Refused, Then::Nothing)
        }
        StatusCode::INSUFFICIENT_STORAGE => (Kind::NoSpace, Then::Again),
        _ => (Kind::Unreachable, Then::Again),
    };
    let mut failure = Failure::new(kind, what);
    let error = if said.error.is_empty() { "it gives no reason" } else { &said.error };
    failure.causes.push(format!("control answered {}: {}", reply.status, printable(error)));
    Err(NotTaken { failure, then })
}

impl drive::Repository for Shown<'_> {
    type Error = HttpError;

    fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, HttpError> {
        drive::Repository::fetch(&mut self.metadata, fetch)
    }
}

impl Source for Shown<'_> {
    fn fetch_file(&mut self, place: &str, bytes_max: u64) -> Result<Answer, HttpError> {
        self.client.get(&join(&self.targets, place), bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_is_at_a_url_and_nowhere_else() {
        let url = |text: &str| text.parse::<ControlUrl>().map(|url| url.0);
        assert_eq!(url("http://c.example.com:8080/"), Ok("http://c.example.com:8080".to_owned()));
        assert_eq!(url("https://c.example.com/a"), Ok("https://c.example.com/a".to_owned()));
        for text in
            ["c.example.com", "ftp://c", "/srv/control", "http://c?x", "http:", "http://c#x"]
        {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_control_answers_says_what_helps() {
        let then = |status: StatusCode, body: &'static str| {
            let reply = Reply { status, body: Bytes::from_static(body.as_bytes()) };
            taken("hand in", &reply).map_err(|not| (not.failure.to_string(), not.then))
        };
        let full = Reply { status: StatusCode::INSUFFICIENT_STORAGE, body: Bytes::new() };
        assert_eq!(taken("bring", &full).unwrap_err().failure.kind, Kind::NoSpace);
        assert_eq!(then(StatusCode::OK, "{}"), Ok(()));
        let (said, next) = then(
            StatusCode::CONFLICT,
            r#"{"error":"publish x: version 3, and 4 comes next","refused":"version"}"#,
        )
        .unwrap_err();
        assert_eq!(next, Then::Rebase);
        assert!(said.contains("409") && said.contains("4 comes next"), "{said}");
        let refused = then(StatusCode::CONFLICT, r#"{"error":"x"}"#).unwrap_err();
        assert_eq!(refused.1, Then::Nothing);
        let (said, next) = then(StatusCode::BAD_GATEWAY, "<html>\u{1b}").unwrap_err();
        assert_eq!(next, Then::Again);
        assert!(said.contains("gives no reason"), "{said}");
        assert_eq!(then(StatusCode::REQUEST_TIMEOUT, "").unwrap_err().1, Then::Again);
    }
}
