//! When an agent reports, and what: every change of an answer or of the orders that it obeys, though not more often than
//! a bound, and once in a while in any case.
//!
//! The orders count because whoever stops something wants to know who has heard of it: where nothing is left to stop,
//! no answer changes.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use sutler_orders::answer::State;
use sutler_orders::report::{
    ANSWERS_MAX, DETAIL_BYTES_MAX, PURPOSE, Report, ReportError, ToldAnswer, ToldFacts,
    ToldStatement,
};
use sutler_orders::text::{Line, Utc};
use sutler_protocol::ContentId;
use sutler_swarm::identity::{Identity, SignError};
use sutler_swarm::orders::{NotTaken, Outbox};

use crate::core::{Core, PROGRAM};
use crate::plan::Said;

/// Remembers what was reported, and when.
#[derive(Default)]
pub(crate) struct Reporting {
    last: Option<(Duration, News)>,
    /// Whether something changed since.
    is_untold: bool,
}

/// What makes a report worth sending.
#[derive(Clone, PartialEq, Eq)]
struct News {
    answers: Vec<ToldAnswer>,
    /// The `seq` of each order file that is obeyed.
    seqs: BTreeMap<String, u64>,
}

/// Why a report was not put on its way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportingError {
    #[error("write down the number of the report")]
    Number(#[source] std::io::Error),
    #[error("write the report")]
    Write(#[from] ReportError),
    #[error("sign the report")]
    Sign(#[from] SignError),
    #[error("put the report on its way")]
    Put(#[from] NotTaken),
}

impl Reporting {
    /// Reports if it is time to; says whether it did. The time is the clock's, and that since the start; two reports
    /// are `apart` at least. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`ReportingError`]; it is tried again when the next report is due.
    pub(crate) fn report(
        &mut self,
        core: &mut Core,
        said: &[(ContentId, Said)],
        identity: &Identity,
        outbox: &Outbox,
        (now, elapsed): (Timestamp, Duration),
        apart: Duration,
    ) -> Result<bool, ReportingError> {
        let (answers, left_out) = told(said);
        let news = News { answers, seqs: core.seqs().clone() };
        if !self.is_due(&news, core.config().report_every(), elapsed, apart) {
            self.is_untold = self.last.as_ref().is_none_or(|(_, last)| *last != news);
            return Ok(false);
        }
        let answers = news.answers.clone();
        // Also where it fails: a disk that refuses is not asked all the time.
        (self.last, self.is_untold) = (Some((elapsed, news)), false);
        let number = core.next_report(now).map_err(ReportingError::Number)?;
        let written = Utc::of(now);
        let statement = core.statement_view(written).map(|statement| ToldStatement {
            version: statement.version,
            issued: statement.issued,
            stale: statement.stale,
        });
        let facts = core.facts();
        let report = Report {
            organisation: facts.organisation.clone(),
            device: facts.device.clone(),
            number,
            written,
            program: PROGRAM.parse().expect("the program's name is a line"),
            facts: ToldFacts {
                os: line(&facts.os),
                version: line(&facts.version),
                architecture: line(&facts.architecture),
                language: line(&facts.language),
                host_name: line(&facts.host_name),
                tags: facts.tags.iter().filter_map(|tag| line(tag)).collect(),
                first_ring: facts.first_ring.clone(),
            },
            statement,
            observes: core.observes(),
            answers,
            left_out,
        };
        let attested = identity.attest(PURPOSE, &report.message()?)?;
        outbox.put(&report.envelope(&attested.chain, &attested.signature)?)?;
        Ok(true)
    }

    /// Returns whether there was news that had to wait.
    pub(crate) const fn is_untold(&self) -> bool {
        self.is_untold
    }

    fn is_due(&self, news: &News, every: Duration, elapsed: Duration, apart: Duration) -> bool {
        self.last.as_ref().is_none_or(|(at, last)| {
            let passed = elapsed.saturating_sub(*at);
            passed >= every || passed >= apart && last != news
        })
    }
}

/// Returns the answers as they are told, and how many find no room. What is of no use here goes first.
fn told(said: &[(ContentId, Said)]) -> (Vec<ToldAnswer>, u64) {
    let mut answers: Vec<&(ContentId, Said)> = said.iter().collect();
    answers.sort_by_key(|(content, said)| (said.state == State::NotApplicable, *content));
    let left_out = answers.len().saturating_sub(ANSWERS_MAX) as u64;
    let told = answers.into_iter().take(ANSWERS_MAX).map(|(content, said)| ToldAnswer {
        content: *content,
        state: said.state,
        reason: said.reason,
        detail: said.detail.as_deref().and_then(detail),
        attempts: said.attempts,
    });
    (told.collect(), left_out)
}

fn line(text: &str) -> Option<Line> {
    text.parse().ok()
}

/// Returns the last of what is told of a command, in one line.
fn detail(text: &str) -> Option<Line> {
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let shown = shown.trim();
    let mut start = shown.len().saturating_sub(DETAIL_BYTES_MAX);
    while !shown.is_char_boundary(start) {
        start += 1;
    }
    line(&shown[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(state: State) -> Said {
        Said { state, reason: None, detail: Some("é\n".repeat(200)), attempts: 1 }
    }

    #[test]
    fn a_change_is_told_soon_and_no_change_once_in_a_while() {
        let minutes = Duration::from_mins;
        let apart = Duration::from_secs(10);
        let content = ContentId::of(b"x");
        let news = |state, seq| News {
            answers: told(&[(content, said(state))]).0,
            seqs: [("approvals/qa/approvals.json".to_owned(), seq)].into(),
        };
        let staged = news(State::Staged, 1);
        let mut reporting = Reporting::default();
        assert!(reporting.is_due(&staged, minutes(60), minutes(5), apart));
        reporting.last = Some((minutes(5), staged.clone()));
        for (news, after, is_due) in [
            (&staged, minutes(59), false),
            (&staged, minutes(60), true),
            (&news(State::Installed, 1), apart.saturating_sub(Duration::from_millis(1)), false),
            (&news(State::Installed, 1), apart, true),
            // A denial of what is installed already changes no answer, and is confirmed all the same.
            (&news(State::Staged, 2), apart, true),
        ] {
            let due = reporting.is_due(news, minutes(60), minutes(5) + after, apart);
            assert_eq!(due, is_due, "{after:?}");
        }
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let one = |number: usize| {
            let state = if number == 0 { State::NotApplicable } else { State::Needed };
            (ContentId::of(&number.to_be_bytes()), said(state))
        };
        let many: Vec<_> = (0..=ANSWERS_MAX).map(one).collect();
        let (answers, left_out) = told(&many);
        assert_eq!((answers.len(), left_out), (ANSWERS_MAX, 1));
        assert!(answers.iter().all(|answer| answer.state == State::Needed));
        let detail = answers[0].detail.as_ref().unwrap().as_str();
        assert!(detail.len() <= DETAIL_BYTES_MAX && detail.ends_with('é'), "{detail}");
    }
}
