//! How a drive ends: with a content, without, or for nothing; and what is told on the way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sutler_cache::QuarantineKey;
use sutler_protocol::fetch::{Fetch, Reason, SourceId, SourceReport, Status};
use tracing::debug;

use super::{Drive, Outcome, checkpointed};
use crate::fetch::introduce::{Useless, no_source};
use crate::fetch::report::{FetchReport, Progress, SourceKind};
use crate::fetch::{FetchError, SourceAddress, blocking};
use crate::gateway::{Filled, causes};

/// How long a finished fetch waits until its peers have heard of what did not verify.
const REPORTS_WAIT: Duration = Duration::from_secs(1);

impl Drive<'_> {
    /// Returns what the drive came to, if it is over.
    pub(super) async fn outcome(&mut self) -> Result<Option<Outcome>, FetchError> {
        if let Some(claimant) = self.wrong_length {
            let address = self.sources[claimant.0 as usize].address.clone();
            return Ok(Some(Outcome::WrongLength(Some(address))));
        }
        let now = Instant::now();
        let status = match &self.machine {
            Some(machine) => machine.status(now),
            None if self.introductions.is_empty() => Status::Stuck,
            None => Status::Running,
        };
        match status {
            Status::Done => self.complete().await.map(Some),
            Status::Stuck if self.introductions.is_empty() => self.stuck().await.map(Some),
            _ => Ok(None),
        }
    }

    async fn complete(&mut self) -> Result<Outcome, FetchError> {
        checkpointed(&mut self.checkpoint).await?;
        self.checkpoint = None;
        let Some(content) = self.content.clone() else { return Err(FetchError::CutOff) };
        let (store, finished) = (self.fetcher.store.clone(), content.clone());
        let completed = blocking(move || store.complete(&[finished])).await?;
        self.publish();
        match completed {
            Ok(()) => Ok(Outcome::Complete(content)),
            Err(source) => {
                let (content, claimed) = (self.wanted.content, self.wanted.about.sha256);
                Err(FetchError::of_completing(content, claimed, source))
            }
        }
    }

    async fn stuck(&mut self) -> Result<Outcome, FetchError> {
        let Some(machine) = &self.machine else {
            return self.without_list().await;
        };
        // A length that was believed before this process began, and that everybody contradicts.
        let is_length_open = self
            .content
            .as_ref()
            .is_some_and(|content| !content.had().contains(content.geometry().last()));
        // An origin's file that has changed says nothing of the length of what it was.
        let is_disputed = machine.reports().any(|(id, report)| {
            self.sources[id.0 as usize].kind != SourceKind::Vendor
                && report.left.as_ref().is_some_and(Reason::disputes_length)
        });
        let is_contradicted = is_disputed
            || self.sources.iter().any(|source| {
                source.useless.as_ref().is_some_and(|why| why.reason == "claims another length")
            });
        if is_length_open && is_contradicted {
            // Whoever claimed it could not show it, and somebody says otherwise.
            let claimant = self.claimant.filter(|_| !self.was_known);
            let claimant = claimant.map(|id| self.sources[id.0 as usize].address.clone());
            if self.was_known || claimant.is_some() {
                return Ok(Outcome::WrongLength(claimant));
            }
        }
        if let Some(content) = self.content.clone() {
            blocking(move || content.checkpoint()).await?.map_err(FetchError::Checkpoint)?;
        }
        Err(no_source(self.wanted.content.to_string(), self.reasons()))
    }

    /// No source had a hash list: what an origin sends is believed when the whole agrees.
    async fn without_list(&mut self) -> Result<Outcome, FetchError> {
        let mut reasons = self.reasons_of(|source| matches!(source, SourceAddress::Peer(_)));
        let files = self.fetcher.files();
        for index in 0..self.sources.len() {
            let SourceAddress::Origin(url) = self.sources[index].address.clone() else { continue };
            let key = QuarantineKey::Content(self.wanted.content);
            let progress = self.progress;
            let filled = |filled: Filled| {
                progress.send_modify(|progress| {
                    progress.have_bytes = filled.have;
                    progress.len = filled.len;
                });
            };
            let (about, mut received) = (&self.wanted.about, 0);
            let files = files.as_ref().map_err(|_| FetchError::NoOrigins)?;
            let mut filled = filled;
            match files.whole(key, &url, about, None, &mut filled, &mut received).await {
                Ok(imported) => {
                    self.sources[index].inline_bytes = received;
                    return Ok(Outcome::Complete(imported.content));
                }
                Err(error) if error.is_of_origin() => {
                    let reason = causes(&error);
                    reasons.push((url.to_string(), Useless::bad(&reason)));
                }
                Err(error) => return Err(error),
            }
        }
        Err(no_source(self.wanted.content.to_string(), reasons))
    }

    fn reasons(&self) -> Vec<(String, Useless)> {
        self.reasons_of(|_| true)
    }

    /// Returns why some sources are of no use: one that did nothing wrong lacks what is missing.
    fn reasons_of(&self, asked: impl Fn(&SourceAddress) -> bool) -> Vec<(String, Useless)> {
        let lacks = || Useless::bad("has nothing of what is missing");
        self.sources
            .iter()
            .filter(|source| asked(&source.address))
            .map(|source| {
                (source.address.to_string(), source.useless.clone().unwrap_or_else(lacks))
            })
            .collect()
    }

    pub(super) fn publish(&self) {
        let (Some(machine), Some(content)) = (&self.machine, &self.content) else { return };
        let geometry = content.geometry();
        let missing: u64 = machine
            .missing()
            .runs()
            .map(|run| {
                let bytes = geometry.bytes(run);
                bytes.end - bytes.start
            })
            .sum();
        let sources = machine
            .reports()
            .map(|(id, report)| {
                let source = &self.sources[id.0 as usize];
                (source.address.to_string(), report.good_bytes + source.inline_bytes)
            })
            .collect();
        self.progress.send_replace(Progress {
            have_bytes: geometry.len() - missing,
            len: Some(geometry.len()),
            is_upstream: false,
            sources,
        });
    }

    /// Waits a little until those who sent damaged chunks have heard of them: it helps the next one
    /// who asks, and would be cut off otherwise.
    pub(super) async fn see_reports_off(&mut self) {
        let heard = async { while self.reports.join_next().await.is_some() {} };
        if tokio::time::timeout(REPORTS_WAIT, heard).await.is_err() {
            debug!("a peer did not take the report of a mismatch");
        }
    }

    /// Adds what each source gave to the report.
    pub(super) fn report(&self, report: &mut FetchReport) {
        let mut gave: BTreeMap<SourceId, SourceReport> =
            self.machine.iter().flat_map(Fetch::reports).collect();
        for (source, id) in self.sources.iter().zip(0..) {
            let mut gave = gave.remove(&SourceId(id)).unwrap_or_default();
            gave.good_bytes += source.inline_bytes;
            report.add(source.kind, source.address.to_string(), gave);
        }
    }
}
