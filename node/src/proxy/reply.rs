//! Replies: what was found becomes status, headers and body.

use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use sutler_cache::Content;
use sutler_swarm::origin::OriginBody;

use super::body::{Reader, ReplyBody};
use super::failed::Failed;
use super::flight::{Flight, Label};
use super::kind;
use super::range::{self, Part, Version};

/// What HTTP calls us.
const VIA: &str = "1.1 sutler";

/// A file that a client is given.
pub(super) struct Found {
    /// Its bytes.
    pub(super) from: From,
    /// What its origin said of it.
    pub(super) label: Label,
    /// How it was come by.
    pub(super) mark: Mark,
}

/// Where a file's bytes are.
pub(super) enum From {
    /// In the store; and what keeps them there where nothing is kept.
    Store(Content, Option<Arc<dyn Send + Sync>>),
    /// On their way; in which epoch.
    Flight(Flight, u32),
    /// At the origin, for this client alone.
    Origin(Box<OriginBody>),
    /// Nowhere: only what is known of the file was asked for.
    Nowhere,
}

/// How a file was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It was held.
    Hit,
    /// It was held, and its origin said that it is still right.
    Checked,
    /// It was held, and its origin is in trouble: so many seconds old.
    Stale(u64),
    /// It comes from elsewhere.
    Miss,
}

/// Whether a client wants the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// It does.
    Bytes,
    /// It asked for the headers alone.
    Head,
}

impl Mark {
    const fn name(self) -> &'static str {
        match self {
            Self::Hit => "HIT from sutler",
            Self::Checked => "REVALIDATED from sutler",
            Self::Stale(_) => "STALE from sutler",
            Self::Miss => "MISS from sutler",
        }
    }
}

/// Returns the reply that gives a file, or the part of it that the request's headers ask for.
pub(super) async fn give(
    found: Found,
    path: &str,
    request: &HeaderMap,
    want: Want,
    reader: &Reader,
) -> Response<ReplyBody> {
    let Found { from, label, mark } = found;
    let version =
        Version { etag: label.etag.as_deref(), last_modified: label.last_modified.as_deref() };
    // An origin's own reply is passed on from its start.
    let len = label.len;
    let part = match from {
        From::Origin(_) => Part::Whole,
        _ => range::part(request, version, len),
    };
    let mut reply = Response::new(ReplyBody::empty());
    let (start, end) = match part {
        Part::Whole => (0, len),
        Part::Bytes { start, end } => {
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
            let len = len.unwrap_or_default();
            set(&mut reply, header::CONTENT_RANGE, &format!("bytes {start}-{}/{len}", end - 1));
            (start, Some(end))
        }
        Part::NotModified => {
            *reply.status_mut() = StatusCode::NOT_MODIFIED;
            describe(&mut reply, path, &label, mark);
            return reply;
        }
        Part::Unsatisfiable => {
            *reply.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            let len = len.unwrap_or_default();
            set(&mut reply, header::CONTENT_RANGE, &format!("bytes */{len}"));
            describe(&mut reply, path, &label, mark);
            return reply;
        }
    };
    describe(&mut reply, path, &label, mark);
    if let Some(end) = end {
        reply.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    }
    if want == Want::Head || end == Some(start) {
        return reply;
    }
    let body = match from {
        From::Store(content, keep) => {
            let end = end.unwrap_or(content.geometry().len());
            match reader.content(content, start, end, keep).await {
                Ok(body) => body,
                Err(error) => return refuse(&Failed::Store(error.to_string())),
            }
        }
        From::Flight(flight, epoch) => reader.flight(flight, epoch, start, end),
        From::Origin(body) => reader.relay(*body, end),
        From::Nowhere => ReplyBody::empty(),
    };
    *reply.body_mut() = body;
    reply
}

fn describe(reply: &mut Response<ReplyBody>, path: &str, label: &Label, mark: Mark) {
    set(reply, header::ACCEPT_RANGES, "bytes");
    set(reply, header::VIA, VIA);
    reply.headers_mut().insert("x-cache", HeaderValue::from_static(mark.name()));
    if let Some(etag) = &label.etag {
        set(reply, header::ETAG, etag);
    }
    if let Some(last_modified) = &label.last_modified {
        set(reply, header::LAST_MODIFIED, last_modified);
    }
    if reply.status() != StatusCode::NOT_MODIFIED {
        set(reply, header::CONTENT_TYPE, kind::media_type(path));
    }
    if let Mark::Stale(age) = mark {
        reply.headers_mut().insert(header::AGE, HeaderValue::from(age));
        set(reply, header::WARNING, "110 sutler \"Response is Stale\"");
    }
}

/// Sets a header whose value may have come from an origin.
fn set(reply: &mut Response<ReplyBody>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

/// Returns the reply that says why there is no file.
pub(super) fn refuse(failed: &Failed) -> Response<ReplyBody> {
    let mut reply = text(failed.status(), &failed.text());
    if let Some(seconds) = failed.retry_after() {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

/// Returns a reply of some lines of text.
pub(super) fn text(status: StatusCode, text: &str) -> Response<ReplyBody> {
    let body = format!("{text}\n");
    let mut reply = Response::new(ReplyBody::empty());
    *reply.status_mut() = status;
    set(&mut reply, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(&mut reply, header::VIA, VIA);
    reply.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *reply.body_mut() = ReplyBody::of(body);
    reply
}
