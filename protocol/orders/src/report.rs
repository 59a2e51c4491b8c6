//! A device's report: who it is, which orders it knows, and its answer about every content.
//!
//! It is signed with the key of the device's certificate, and has that certificate beside it, so that whoever
//! has the organisation's roots can check it wherever it comes from. The signing itself is the caller's:
//! here is what is signed, and how it is written down.
//!
//! Always true: each report of a device has a higher number than those before, so that one which comes
//! again, or late, is told from news (T26).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sutler_protocol::ContentId;
use sutler_protocol::frame::REPORT_BYTES_MAX;
use sutler_protocol::manifest::json::{self, CanonicalError};
use sutler_protocol::name::{Label, Member, Organisation, PeerName};

use crate::answer::{Reason, State};
use crate::bounds::TAGS_MAX;
use crate::order::{
    Breach, FORMAT, Kind, OrderError, RuleError, at_most, begins_well, each_once, from_value,
};
use crate::text::{DeviceName, Line, Utc, is_false, maybe, one};

/// What the signature of a report is for: it goes into what is signed.
pub const PURPOSE: &str = "report 1";

/// Answers of one report: with their longest details they fit the wire's bound.
pub const ANSWERS_MAX: usize = 2_000;

/// Bytes of an answer's detail, at most.
pub const DETAIL_BYTES_MAX: usize = 200;

/// Certificates beside a report, and bytes of each.
const CHAIN_MAX: usize = 8;
const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a signature: of the longest that a certificate's key makes.
const SIGNATURE_BYTES_MAX: usize = 512;

/// What a device says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Whose device it is.
    #[serde(with = "one")]
    pub organisation: Organisation,
    /// Which.
    #[serde(with = "one")]
    pub device: DeviceName,
    /// Higher than that of each report before; it may leave numbers out.
    pub number: u64,
    /// When it was written, by the device's clock.
    pub written: Utc,
    /// The program that wrote it, and its version.
    pub program: Line,
    /// What the device knows of itself.
    pub facts: ToldFacts,
    /// The newest statement of control that it has verified. Absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<ToldStatement>,
    /// Whether it only looks.
    #[serde(default, skip_serializing_if = "is_false")]
    pub observes: bool,
    /// Its answers, each content once.
    pub answers: Vec<ToldAnswer>,
    /// Answers that found no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// What a device knows of itself. What it does not know is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToldFacts {
    /// The operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<Line>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Line>,
    /// The processor's architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Line>,
    /// The language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Line>,
    /// The name that the machine gives itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<Line>,
    /// What its config says of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Line>,
    /// The first ring that it may be in. Absent: every ring may take it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub first_ring: Option<Label>,
}

/// A statement of control, as a device knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToldStatement {
    /// The timestamp's version.
    pub version: u64,
    /// When control signed it, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Utc>,
    /// Whether it has expired, so that nothing new is started.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stale: bool,
}

/// A device's answer about one content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToldAnswer {
    /// BLAKE3 of the bytes, in 64 hex digits.
    #[serde(with = "one")]
    pub content: ContentId,
    /// How far it is.
    #[serde(with = "one")]
    pub state: State,
    /// Why it is no further.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub reason: Option<Reason>,
    /// What a person would want to know, such as how a command ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Line>,
    /// How often its command was tried.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u64,
}

/// A report as received, with the certificates and the signature beside it: nothing in it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReport {
    report: Report,
    message: Vec<u8>,
    /// The signer's certificate, then any intermediates, in DER.
    pub chain: Vec<Vec<u8>>,
    /// The signature over [`SignedReport::message`], for [`PURPOSE`].
    pub signature: Vec<u8>,
}

/// Why bytes are no report, or none that is news.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is no such document, or breaks a rule.
    #[error("read the report")]
    Order(#[from] OrderError),
    /// What was signed has no canonical form, so nobody can have signed it.
    #[error("write the report in the canonical form")]
    Canonical(#[source] CanonicalError),
    /// Its signer is not the device that it is about (T26).
    #[error("the report is about {organisation}'s {device}, and {signer} signed it")]
    Foreign {
        /// Whose device it is about.
        organisation: Organisation,
        /// Which.
        device: DeviceName,
        /// Who signed it.
        signer: PeerName,
    },
    /// It was here before, or one that is newer was (T26).
    #[error("the report has the number {found}, and {known} is known already")]
    Old {
        /// Its number.
        found: u64,
        /// The highest that is known of the device.
        known: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    chain: Vec<String>,
    signature: String,
    signed: Map<String, Value>,
}

/// How a report is written: what names it first.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    format: u64,
    #[serde(flatten)]
    report: &'a Report,
}

impl Report {
    /// Returns what has to be signed, for [`PURPOSE`]: the canonical form.
    ///
    /// # Errors
    ///
    /// [`ReportError`] if it breaks a rule.
    pub fn message(&self) -> Result<Vec<u8>, ReportError> {
        json::canonical(&Value::Object(self.fields()?)).map_err(ReportError::Canonical)
    }

    /// Returns the report as it travels, with what vouches for it.
    ///
    /// # Errors
    ///
    /// [`ReportError`] if it would be refused.
    pub fn envelope(&self, chain: &[Vec<u8>], signature: &[u8]) -> Result<Vec<u8>, ReportError> {
        let document = Kind::Report;
        let chain = chain.iter().map(|der| hex(der)).collect();
        let envelope = Envelope { chain, signature: hex(signature), signed: self.fields()? };
        let mut bytes = serde_json::to_vec(&envelope)
            .map_err(|source| OrderError::Json { document, source })?;
        bytes.push(b'\n');
        SignedReport::parse(&bytes)?;
        Ok(bytes)
    }

    fn fields(&self) -> Result<Map<String, Value>, ReportError> {
        let document = Kind::Report;
        self.rules().map_err(|breach| breach.of(document))?;
        let written = Written { kind: document.as_str(), format: FORMAT, report: self };
        let value = serde_json::to_value(written)
            .map_err(|source| OrderError::Json { document, source })?;
        match value {
            Value::Object(fields) => Ok(fields),
            _ => Err(OrderError::NoObject { document }.into()),
        }
    }

    fn rules(&self) -> Result<(), Breach> {
        if self.number == 0 {
            let rule = RuleError::Range { found: 0, min: 1, max: u64::MAX };
            return Err(Breach::new("number", rule));
        }
        at_most("facts.tags", self.facts.tags.len(), TAGS_MAX)?;
        at_most("answers", self.answers.len(), ANSWERS_MAX)?;
        each_once("answers", self.answers.iter().map(|answer| answer.content))?;
        let is_long = |answer: &ToldAnswer| {
            answer.detail.as_ref().is_some_and(|detail| detail.as_str().len() > DETAIL_BYTES_MAX)
        };
        if self.answers.iter().any(is_long) {
            let demand = "a detail has at most 200 bytes";
            return Err(Breach::new("answers", RuleError::Demand { demand }));
        }
        Ok(())
    }
}

impl SignedReport {
    /// Reads a report, and believes nothing of it.
    ///
    /// # Errors
    ///
    /// [`ReportError`], naming the field and the rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let document = Kind::Report;
        let (found, bytes_max) = (bytes.len() as u64, u64::from(REPORT_BYTES_MAX));
        if found > bytes_max {
            return Err(OrderError::TooLong { document, found, bytes_max }.into());
        }
        let value = json::read(bytes).map_err(|source| OrderError::Json { document, source })?;
        let Envelope { chain, signature, signed } = from_value(document, value)?;
        at_most("chain", chain.len(), CHAIN_MAX).map_err(|breach| breach.of(document))?;
        let refuse = |field: &str| {
            let demand = "it is written in hex digits, within its bound";
            Breach::new(field, RuleError::Demand { demand }).of(document)
        };
        let chain = chain.iter().map(|text| unhex(text, CERTIFICATE_BYTES_MAX));
        let chain = chain.collect::<Option<Vec<_>>>().ok_or_else(|| refuse("chain"))?;
        let signature =
            unhex(&signature, SIGNATURE_BYTES_MAX).ok_or_else(|| refuse("signature"))?;
        let message = json::canonical(&Value::Object(signed.clone()));
        let message = message.map_err(ReportError::Canonical)?;
        let mut fields = signed;
        begins_well(document, &mut fields)?;
        let report: Report = from_value(document, Value::Object(fields))?;
        report.rules().map_err(|breach| breach.of(document))?;
        Ok(Self { report, message, chain, signature })
    }

    /// Returns what was signed, for [`PURPOSE`].
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Takes the report for that of `signer`, whose signature the caller has checked, if it is about nobody
    /// else and newer than the number `known` of the last one.
    ///
    /// # Errors
    ///
    /// [`ReportError::Foreign`], [`ReportError::Old`] (T26).
    pub fn of(self, signer: &PeerName, known: Option<u64>) -> Result<Report, ReportError> {
        let report = self.report;
        let is_own = *signer.organisation() == report.organisation
            && matches!(signer.member(), Member::Agent { site, id }
                if *site == report.device.site && *id == report.device.id);
        if !is_own {
            let Report { organisation, device, .. } = report;
            return Err(ReportError::Foreign { organisation, device, signer: signer.clone() });
        }
        match known {
            Some(known) if report.number <= known => {
                Err(ReportError::Old { found: report.number, known })
            }
            _ => Ok(report),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
}

fn digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).unwrap_or('0')
}

fn unhex(text: &str, bytes_max: usize) -> Option<Vec<u8>> {
    if text.len() > 2 * bytes_max || !text.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    text.as_bytes().chunks(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            organisation: "acme".parse().unwrap(),
            device: "cologne/anna".parse().unwrap(),
            number: 17,
            written: "2026-11-27T20:00:00Z".parse().unwrap(),
            program: "sutler 0.1.0".parse().unwrap(),
            facts: ToldFacts::default(),
            statement: None,
            observes: false,
            answers: vec![ToldAnswer {
                content: ContentId::of(b"x"),
                state: State::Staged,
                reason: Some(Reason::OutsideWindow),
                detail: None,
                attempts: 0,
            }],
            left_out: 0,
        }
    }

    fn agent(name: &str) -> PeerName {
        name.parse().unwrap()
    }

    #[test]
    fn what_is_signed_is_what_is_read() {
        let report = report();
        let bytes = report.envelope(&[vec![1, 0xab]], &[2, 3]).unwrap();
        let read = SignedReport::parse(&bytes).unwrap();
        assert_eq!((&read.chain[..], &read.signature[..]), (&[vec![1, 0xab]][..], &[2, 3][..]));
        assert_eq!(read.message(), report.message().unwrap());
        assert_eq!(read.of(&agent("spiffe://acme/site/cologne/agent/anna"), None).unwrap(), report);
    }

    // T26
    #[test]
    fn a_report_of_somebody_else_is_refused() {
        let bytes = report().envelope(&[], &[]).unwrap();
        for signer in [
            "spiffe://other/site/cologne/agent/anna",
            "spiffe://acme/site/berlin/agent/anna",
            "spiffe://acme/site/cologne/agent/ben",
            "spiffe://acme/site/cologne/node/anna",
            "spiffe://acme/control/anna",
        ] {
            let error = SignedReport::parse(&bytes).unwrap().of(&agent(signer), None).unwrap_err();
            assert!(matches!(error, ReportError::Foreign { .. }), "{signer}: {error}");
        }
    }

    // T26
    #[test]
    fn a_report_that_comes_again_or_late_is_told_from_news() {
        let bytes = report().envelope(&[], &[]).unwrap();
        let signer = agent("spiffe://acme/site/cologne/agent/anna");
        let of = |known| SignedReport::parse(&bytes).unwrap().of(&signer, known);
        for known in [17, 18] {
            assert!(matches!(of(Some(known)), Err(ReportError::Old { found: 17, .. })));
        }
        assert_eq!(of(Some(16)).unwrap().number, 17);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let bytes = report().envelope(&[], &[]).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [
            ("\"staged\"", "\"ready\""),
            ("\"number\":17", "\"number\":0"),
            ("\"number\":17", "\"number\":17,\"more\":1"),
            ("\"chain\":[]", "\"chain\":[\"ABCD\"]"),
            ("\"chain\":[]", "\"chain\":[\"abc\"]"),
            ("\"format\":1", "\"format\":2"),
            ("\"_type\":\"report\"", "\"_type\":\"halts\""),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            SignedReport::parse(changed.as_bytes()).unwrap_err();
        }
        let long = "x".repeat(REPORT_BYTES_MAX as usize + 1);
        SignedReport::parse(long.as_bytes()).unwrap_err();
        SignedReport::parse(b"").unwrap_err();
    }

    #[test]
    fn the_largest_report_fits_the_wire() {
        let one = |number: usize| ToldAnswer {
            content: ContentId::of(&number.to_be_bytes()),
            state: State::NotApplicable,
            reason: Some(Reason::PackageDbBroken),
            detail: Some("x".repeat(DETAIL_BYTES_MAX).parse().unwrap()),
            attempts: u64::MAX,
        };
        let answers = (0..ANSWERS_MAX).map(one).collect();
        let largest = Report { answers, ..report() };
        let chain = vec![vec![7; CERTIFICATE_BYTES_MAX]; CHAIN_MAX];
        largest.envelope(&chain, &[7; SIGNATURE_BYTES_MAX]).unwrap();
    }
}
