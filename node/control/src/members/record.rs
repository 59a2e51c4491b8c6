//! What control remembers of one key that asked to join.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use sutler_swarm::enrol::token::{TokenId, hex};
use sutler_swarm::identity::{KeyHash, PeerName};

/// The version of a record that this code writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// One key that asked to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the machine is called.
    pub name: PeerName,
    /// Its key.
    pub key: KeyHash,
    /// By which token it joined; absent for one whose identity was issued by hand.
    pub token: Option<TokenId>,
    /// How far it has come.
    pub standing: Standing,
    /// Its certificate, then any intermediates, as PEM.
    pub chain: Option<String>,
    /// Where the request came from.
    pub from: IpAddr,
    /// When it came.
    pub asked: Timestamp,
    /// Who changed it last by hand, and when.
    pub changed: Option<Changed>,
}

/// How far a machine has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It waits for somebody to accept it.
    Held,
    /// It may have its certificate, and has not come for it.
    Accepted,
    /// It has its certificate.
    Member,
    /// It is given nothing any more: retired, replaced or turned down.
    Retired,
}

/// A change by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// Who made it.
    pub by: String,
    /// When.
    pub at: String,
}

/// The record as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    format: u32,
    name: String,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    standing: Standing,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    from: IpAddr,
    asked: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<Changed>,
}

impl Record {
    /// Returns the record of a key that asked just now.
    pub(super) fn new(
        name: PeerName,
        key: KeyHash,
        token: Option<TokenId>,
        standing: Standing,
        from: IpAddr,
        now: UnixTime,
    ) -> Self {
        let asked = instant(now);
        Self { name, key, token, standing, chain: None, from, asked, changed: None }
    }

    /// Says who changed it, and when.
    pub(super) fn signed_off(self, by: &str, now: UnixTime) -> Self {
        let by = by.chars().take(64).collect();
        Self { changed: Some(Changed { by, at: instant(now).to_string() }), ..self }
    }

    pub(super) fn write(&self) -> String {
        let file = RecordFile {
            format: FORMAT,
            name: self.name.to_string(),
            key: hex(&self.key),
            token: self.token.map(|token| hex(&token)),
            standing: self.standing,
            chain: self.chain.clone(),
            from: self.from,
            asked: self.asked.to_string(),
            changed: self.changed.clone(),
        };
        serde_json::to_string_pretty(&file).expect("texts and numbers are JSON") + "\n"
    }

    /// Reads a record; `None` if it is none of this format.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let file: RecordFile = serde_json::from_slice(text).ok()?;
        if file.format != FORMAT {
            return None;
        }
        Some(Self {
            name: file.name.parse().ok()?,
            key: unhex(&file.key)?,
            token: match file.token {
                Some(token) => Some(unhex(&token)?),
                None => None,
            },
            standing: file.standing,
            chain: file.chain,
            from: file.from,
            asked: file.asked.parse().ok()?,
            changed: file.changed,
        })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Accepted => "accepted",
            Self::Member => "member",
            Self::Retired => "retired",
        })
    }
}

/// An instant that no calendar has is shown as 1970.
fn instant(time: UnixTime) -> Timestamp {
    let secs = i64::try_from(time.as_secs()).ok();
    secs.and_then(|secs| Timestamp::from_second(secs).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let name = "spiffe://acme/site/leeds/agent/a1".parse().unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_795_000_000));
        let from = IpAddr::from([192, 0, 2, 1]);
        let new = Record::new(name, [7; 32], Some([9; 32]), Standing::Held, from, now);
        let changed =
            Record { chain: Some("PEM".to_owned()), ..new.clone() }.signed_off("ann", now);
        for record in [new, changed] {
            assert_eq!(Record::read(record.write().as_bytes()), Some(record));
        }
        for text in ["", "{}", r#"{"format": 2}"#] {
            assert_eq!(Record::read(text.as_bytes()), None);
        }
    }
}
