//! The client of origins: one question, its redirects, and the body of the reply.
//!
//! Redirects are followed by hand. Each hop is a new URL from a stranger: it passes the allow-list
//! again, and its connection passes the guard of addresses again.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Response;
use reqwest::dns::Resolve;
use reqwest::header::{self, HeaderValue};
use tokio::time::{Instant, timeout};
use tracing::debug;
use url::Url;

use crate::origin::OriginFile;
use crate::origin::allow::{AllowList, Permitted, Reach, Refused, Shown};
use crate::origin::body::{OriginBody, head_timeout};
use crate::origin::config::OriginConfig;
use crate::origin::dial::{Dial, SystemResolver, tls};
use crate::origin::error::{OriginConfigError, OriginError, OriginProblem};
use crate::origin::pace::Patience;
use crate::origin::pause::Pauses;
use crate::origin::proxy::{Proxies, ProxyEnvironment};
use crate::origin::reply::{RangeRequest, Reading, ReplyFault, Rest, Verdict, judge};
use crate::origin::validators::Validators;

/// Redirects followed for one question. Mirrors need one or two: to a country's mirror, to HTTPS.
pub const REDIRECTS_MAX: u32 = 5;

/// The status that is about us, not about the file.
const TOO_MANY_REQUESTS: u16 = 429;

/// The status that says that nothing changed.
const NOT_MODIFIED: u16 = 304;

/// Bytes of a header that is kept as text, at most.
const TEXT_BYTES_MAX: usize = 256;

/// What a file that is held has become.
#[derive(Debug)]
pub enum Refreshed {
    /// It is still the same.
    Same,
    /// It is another, or its origin cannot tell: this is it, from its start.
    New(Box<OriginBody>),
}

/// The origins that may be asked, and the connections to them. Cheap to clone.
#[derive(Clone)]
pub struct Origins {
    shared: Arc<Shared>,
}

struct Shared {
    allow: AllowList,
    dial: Dial,
    patience: Patience,
    head_timeout: Duration,
    /// Never held across an `.await`.
    pauses: Mutex<Pauses>,
}

impl Origins {
    /// Makes the client that a config describes, with this process's proxy variables.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the config, at once.
    pub fn new(config: &OriginConfig) -> Result<Self, OriginConfigError> {
        Self::with(
            config,
            &ProxyEnvironment::of_process(),
            &(Arc::new(SystemResolver) as Arc<dyn Resolve>),
        )
    }

    /// Makes the client with an environment and a resolver of the caller's.
    ///
    /// What the resolver answers is judged like any other answer.
    ///
    /// # Errors
    ///
    /// As [`Origins::new`].
    pub fn with(
        config: &OriginConfig,
        environment: &ProxyEnvironment,
        resolver: &Arc<dyn Resolve>,
    ) -> Result<Self, OriginConfigError> {
        let mut problems = Vec::new();
        let allow = AllowList::new(&config.allow).unwrap_or_else(|wrong| {
            problems.extend(wrong.into_iter().map(|(position, problem)| OriginProblem::Entry {
                position,
                url: config.allow[position].url.clone(),
                problem,
            }));
            AllowList::default()
        });
        let proxies = Proxies::new(config, environment, &mut problems);
        let tls = tls(config, allow.needs_tls() || proxies.need_tls(), &mut problems);
        let dial = tls.map(|tls| Dial::new(config, proxies, resolver, &tls));
        match dial {
            Some(Ok(dial)) if problems.is_empty() => {
                let patience = Patience::new(config);
                let connect = Duration::from_millis(config.connect_timeout_ms.get());
                let head_timeout = head_timeout(connect, patience);
                let pauses = Mutex::default();
                Ok(Self {
                    shared: Arc::new(Shared { allow, dial, patience, head_timeout, pauses }),
                })
            }
            Some(Err(problem)) => {
                problems.push(problem);
                Err(OriginConfigError { problems })
            }
            _ => Err(OriginConfigError { problems }),
        }
    }

    /// Checks that a URL may be asked for. Makes no connection.
    ///
    /// # Errors
    ///
    /// [`Refused`] says why it may not.
    pub fn permits(&self, url: &Url) -> Result<(), Refused> {
        self.shared.allow.check(url).map(drop)
    }

    /// Asks what an origin says about a file: length, validators, whether it does ranges.
    ///
    /// Asks for the first byte rather than by `HEAD`, which some origins answer differently.
    /// Cancel-safe: nothing is kept of a dropped call.
    ///
    /// # Errors
    ///
    /// [`OriginError`], as for reading.
    pub async fn probe(&self, url: &Url) -> Result<OriginFile, OriginError> {
        let request = RangeRequest::bytes(0..1, Validators::default());
        match self.ask(url, &request).await {
            Ok(body) => Ok(body.file().clone()),
            // An empty file has no first byte.
            Err(error) => match error.fault() {
                Some(
                    ReplyFault::PastEnd { len: Some(0) } | ReplyFault::WrongLength { got: 0, .. },
                ) => {
                    let validators = Validators { len: Some(0), ..Validators::default() };
                    Ok(OriginFile::at(url.clone(), validators, false))
                }
                _ => Err(error),
            },
        }
    }

    /// Reads some bytes of a file: exactly these, or an error.
    ///
    /// An origin that sends the whole file instead is read as far as needed, if `bytes` starts
    /// within [`SKIP_BYTES_MAX`](crate::origin::reply::SKIP_BYTES_MAX) of its start. Cancel-safe: nothing is kept of a dropped
    /// call.
    ///
    /// # Errors
    ///
    /// [`OriginError`]. Its [`fault`](OriginError::fault) is [`ReplyFault::WholeOnly`] where
    /// [`Origins::whole`] helps, [`ReplyFault::Changed`] or [`ReplyFault::WrongLength`] where the
    /// file is not the one that was recorded.
    pub async fn read(
        &self,
        url: &Url,
        bytes: Range<u64>,
        validators: &Validators,
    ) -> Result<OriginBody, OriginError> {
        if bytes.is_empty() {
            self.permits(url).map_err(|source| refused(url, source))?;
            let file = OriginFile::at(url.clone(), validators.clone(), true);
            let nothing = Reading {
                skip: 0,
                take: Some(0),
                rest: Rest::Nothing,
                ranges: true,
                file: validators.clone(),
            };
            return Ok(OriginBody::new(None, file, &nothing, self.shared.patience));
        }
        self.ask(url, &RangeRequest::bytes(bytes, validators.clone())).await
    }

    /// Reads some bytes of a file, or all of it where the origin gives no parts: the body's
    /// [`ranges`](OriginFile::ranges) tell which it is. `bytes` must not be empty. Cancel-safe:
    /// nothing is kept of a dropped call.
    ///
    /// # Errors
    ///
    /// [`OriginError`], as for [`Origins::read`], but never [`ReplyFault::WholeOnly`].
    pub async fn part_or_whole(
        &self,
        url: &Url,
        bytes: Range<u64>,
        validators: &Validators,
    ) -> Result<OriginBody, OriginError> {
        self.ask(url, &RangeRequest::bytes(bytes, validators.clone()).or_whole()).await
    }

    /// Reads a file from `from` to its end, for who takes it in order and resumes where it broke
    /// off. Its length may be unknown; an origin without ranges sends what is before `from` again,
    /// which is dropped. Cancel-safe: nothing is kept of a dropped call.
    ///
    /// # Errors
    ///
    /// As [`Origins::read`].
    pub async fn whole(
        &self,
        url: &Url,
        from: u64,
        validators: &Validators,
    ) -> Result<OriginBody, OriginError> {
        self.ask(url, &RangeRequest::from(from, validators.clone())).await
    }

    /// Asks whether a file is still the one that `held` was recorded of, and reads it from its
    /// start if it is not. Without an `ETag` or a date in `held` it is read in any case.
    ///
    /// Cancel-safe: nothing is kept of a dropped call.
    ///
    /// # Errors
    ///
    /// As [`Origins::read`].
    pub async fn refresh(&self, url: &Url, held: &Validators) -> Result<Refreshed, OriginError> {
        self.question(url, &RangeRequest::from(0, Validators::default()), Some(held)).await
    }

    /// Returns the reach of a host that some entry of the allow-list names, at whatever port and
    /// path, for a tunnel that nobody looks into.
    ///
    /// # Errors
    ///
    /// [`Refused`] if none does, or if the host is an address that the entry does not cover.
    pub fn permits_host(&self, url: &Url) -> Result<Reach, Refused> {
        self.shared.allow.check_host(url)
    }

    pub(crate) fn dial(&self) -> &Dial {
        &self.shared.dial
    }

    /// Asks without a condition.
    async fn ask(&self, url: &Url, request: &RangeRequest) -> Result<OriginBody, OriginError> {
        match self.question(url, request, None).await? {
            Refreshed::New(body) => Ok(*body),
            // `question` reads `304` as this only where it gave a condition.
            Refreshed::Same => Err(OriginError::Fault {
                url: Shown::from(url),
                source: ReplyFault::Status { status: NOT_MODIFIED },
            }),
        }
    }

    /// Asks, follows redirects, and judges the reply.
    async fn question(
        &self,
        url: &Url,
        request: &RangeRequest,
        held: Option<&Validators>,
    ) -> Result<Refreshed, OriginError> {
        let held = held.filter(|held| held.etag.is_some() || held.last_modified.is_some());
        let mut here = self.shared.allow.check(url).map_err(|source| refused(url, source))?;
        for _ in 0..=REDIRECTS_MAX {
            self.respect_pause(here.url())?;
            let response = self.send(&here, request, held).await?;
            let (status, headers) = (response.status(), response.headers());
            if held.is_some() && status.as_u16() == NOT_MODIFIED {
                return Ok(Refreshed::Same);
            }
            let path = here.url().path();
            match judge(request, path, status, headers) {
                Verdict::Read(reading) => {
                    let file = OriginFile {
                        validators: reading.file.clone(),
                        ranges: reading.ranges,
                        final_url: here.url().clone(),
                        content_type: plain(headers, &header::CONTENT_TYPE),
                        cache_control: plain(headers, &header::CACHE_CONTROL),
                    };
                    // A body that is not wanted is not waited for.
                    let response = (reading.take != Some(0)).then_some(response);
                    let body = OriginBody::new(response, file, &reading, self.shared.patience);
                    return Ok(Refreshed::New(Box::new(body)));
                }
                Verdict::Redirect(target) => here = self.follow(&here, &target)?,
                Verdict::Refuse(source) => {
                    self.note_pause(here.url(), &source);
                    return Err(OriginError::Fault { url: Shown::from(here.url()), source });
                }
            }
        }
        Err(OriginError::RedirectLoop { url: Shown::from(url), max: REDIRECTS_MAX })
    }

    /// Sends the question over one connection, and waits for the reply's head.
    async fn send(
        &self,
        permitted: &Permitted,
        request: &RangeRequest,
        held: Option<&Validators>,
    ) -> Result<Response, OriginError> {
        let url = permitted.url();
        let mut asked = self
            .shared
            .dial
            .client(permitted)
            .get(url.clone())
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(range) = request.range() {
            asked = asked.header(header::RANGE, range);
        }
        // A recorded validator that is no header value is not sent: it would not match anyway.
        if let Some(Ok(validator)) = request.if_range().map(HeaderValue::from_str) {
            asked = asked.header(header::IF_RANGE, validator);
        }
        for (name, condition) in [
            (header::IF_NONE_MATCH, held.and_then(|held| held.etag.as_deref())),
            (header::IF_MODIFIED_SINCE, held.and_then(|held| held.last_modified.as_deref())),
        ] {
            if let Some(Ok(condition)) = condition.map(HeaderValue::from_str) {
                asked = asked.header(name, condition);
            }
        }
        match timeout(self.shared.head_timeout, asked.send()).await {
            Ok(Ok(response)) => {
                debug!(url = %Shown::from(url), status = response.status().as_u16(), "origin replied");
                Ok(response)
            }
            Ok(Err(error)) => Err(OriginError::of_request(Shown::from(url), error)),
            Err(_) => {
                Err(OriginError::Silent { url: Shown::from(url), after: self.shared.head_timeout })
            }
        }
    }

    /// Refuses to ask an origin that asked to be left alone.
    fn respect_pause(&self, url: &Url) -> Result<(), OriginError> {
        let origin = url.origin().ascii_serialization();
        let mut pauses = self.shared.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        match pauses.left(&origin, Instant::now().into_std()) {
            None => Ok(()),
            left => {
                let source = ReplyFault::Busy { status: TOO_MANY_REQUESTS, retry_after: left };
                Err(OriginError::Fault { url: Shown::from(url), source })
            }
        }
    }

    fn note_pause(&self, url: &Url, fault: &ReplyFault) {
        if let ReplyFault::Busy { status: TOO_MANY_REQUESTS, retry_after: Some(pause) } = fault {
            let origin = url.origin().ascii_serialization();
            let mut pauses = self.shared.pauses.lock().unwrap_or_else(PoisonError::into_inner);
            pauses.pause(origin, *pause, Instant::now().into_std());
        }
    }

    /// Checks where a redirect leads.
    fn follow(&self, from: &Permitted, target: &str) -> Result<Permitted, OriginError> {
        let to = from.url().join(target).map_err(|error| OriginError::RedirectRefused {
            from: Shown::from(from.url()),
            to: Shown::unreadable(),
            source: Refused::Unreadable(error),
        })?;
        self.shared.allow.check(&to).map_err(|source| OriginError::RedirectRefused {
            from: Shown::from(from.url()),
            to: Shown::from(&to),
            source,
        })
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origins").field("allow", &self.shared.allow).finish_non_exhaustive()
    }
}

/// Returns a header that came once, as text of a sane length.
fn plain(headers: &header::HeaderMap, name: &header::HeaderName) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok().filter(|value| value.len() <= TEXT_BYTES_MAX)?;
    values.next().is_none().then(|| value.to_owned())
}

fn refused(url: &Url, source: Refused) -> OriginError {
    OriginError::Refused { url: Shown::from(url), source }
}
