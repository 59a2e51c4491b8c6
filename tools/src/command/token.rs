//! `sutler token new`: an admin's word, in one string, that machines of a site may join.
//!
//! It is signed with the key of the organisation's authority, or with an admin's own: control honours those of the
//! admins that the published targets name at the moment when a machine asks.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use serde_json::json;
use sutler_control::key;
use sutler_control::members::RootFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_protocol::join::ROOT_BYTES_MAX;
use sutler_protocol::manifest::SigningKey;
use sutler_swarm::enrol::token::{TTL_MAX, USES_MAX, hex, sha256};
use sutler_swarm::enrol::{Grant, JoinRole, Token};
use sutler_swarm::identity::{Authority, Label, Organisation};

use super::org;
use crate::output::{Output, Stop};
use crate::signing::{self, PassphraseArgs, key_failure};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token by which machines of a site may join.
    New(New),
}

const NEW_EXAMPLES: &str = "\
Examples:
  sutler token new --org-dir ./acme --site paris --role agent --at control.acme.example:7440 --uses 40
  sutler token new --org-dir ./acme --site paris --role node --id n1 --at 192.0.2.7:7440 --net 192.0.2.0/24
  sutler token new --org-dir ./acme --site paris --role agent --at 192.0.2.7:7440 --ttl 7d --hold
  sutler token new --org-dir ./acme --site paris --role agent --at 192.0.2.7:7440 --key anna.key

By --key an admin signs: the folder then needs org.json, ca.pem and the repository, and no authority's key. Such a
token is good for as long as the published targets name the admin; removing an admin ends their tokens.";

#[derive(Debug, Args)]
#[command(after_help = NEW_EXAMPLES)]
pub(crate) struct New {
    /// The folder that `sutler org init` made; the token is signed with the authority's key in it, unless by --key.
    #[arg(long, value_name = "DIR", env = "SUTLER_ORG_DIR", default_value = ".")]
    org_dir: PathBuf,
    /// The site that joiners belong to.
    #[arg(long)]
    site: Label,
    /// What they become.
    #[arg(long)]
    role: TokenRole,
    /// Where they ask: control's enrolment port, or a node's that passes on to it. Tried in order.
    #[arg(long, value_name = "HOST:PORT", required = true)]
    at: Vec<String>,
    /// What the one joiner is called. Each is given a name of its own unless told.
    #[arg(long, conflicts_with = "uses")]
    id: Option<Label>,
    /// How many machines may join by it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(USES_MAX)))]
    uses: u32,
    /// How long it is good for, such as 30m, 24h or 7d; at most 30d.
    #[arg(long, default_value = "24h", value_parser = duration)]
    ttl: Duration,
    /// A network that requests have to come from; through a node they come from the node's address.
    #[arg(long, value_name = "CIDR")]
    net: Vec<IpNet>,
    /// Let each machine wait until `sutler device accept`.
    #[arg(long)]
    hold: bool,
    /// The root.json that joiners begin to believe [default: the newest in the folder's repository].
    #[arg(long, value_name = "FILE")]
    root_json: Option<PathBuf>,
    /// An admin's key file to sign with, instead of the authority's key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Who signs a token.
enum Maker {
    /// The organisation's own authority.
    Authority(Box<Authority>),
    /// An admin of the organisation.
    Admin(Organisation, SigningKey),
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum TokenRole {
    /// Serves a site.
    Node,
    /// Runs on a managed device.
    Agent,
}

impl TokenCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::New(new) => new.run(output),
        }
    }
}

impl New {
    fn run(self, output: Output) -> Result<(), Stop> {
        let maker = self.maker()?;
        let root_json = self.root_json()?;
        let roots = org::roots(&self.org_dir)?;
        let now = UnixTime::now().as_secs();
        let expires = UnixTime::since_unix_epoch(Duration::from_secs(now) + self.ttl);
        let grant = Grant {
            organisation: maker.organisation().clone(),
            site: self.site,
            role: match self.role {
                TokenRole::Node => JoinRole::Node,
                TokenRole::Agent => JoinRole::Agent,
            },
            name: self.id,
            uses: self.uses,
            expires,
            networks: self.net,
            hold: self.hold,
            addresses: self.at,
            root_sha256: sha256(&root_json),
            authority_sha256: sha256(&roots[0]),
        };
        let mut refused = None;
        let token = Token::make(grant, |statement| {
            maker.sign(statement).map_err(|failure| refused = Some(failure)).unwrap_or_default()
        });
        if let Some(failure) = refused {
            return Err(failure.into());
        }
        let token = token.map_err(|error| Failure::from_error(Kind::Usage, &error))?;
        output.line(&*token.text())?;
        let expires = i64::try_from(expires.as_secs()).ok();
        let expires = expires.and_then(|secs| Timestamp::from_second(secs).ok());
        output.json(&json!({
            "token": *token.text(), "id": hex(&token.id()), "site": token.grant().site.as_str(),
            "role": token.grant().role, "uses": self.uses, "hold": self.hold,
            "expires": expires.map(|expires| expires.to_string()),
        }))
    }

    fn maker(&self) -> Result<Maker, Failure> {
        let Some(path) = &self.key else {
            return org::open(&self.org_dir).map(Box::new).map(Maker::Authority);
        };
        let folder = signing::open(&self.org_dir)?;
        let state = signing::state(&folder)?;
        let passphrase = self.passphrase.get(&format!("Passphrase of {}", path.display()))?;
        let key = key::open(path, &passphrase).map_err(|error| key_failure(&error))?;
        if !state.admins().values().any(|id| id == key.id()) {
            let what = format!("sign a token with {}: it is no admin's key", path.display());
            let help = "`sutler key status` says whom the published targets name";
            return Err(Failure::new(Kind::Refused, what).with_help(help));
        }
        Ok(Maker::Admin(folder.organisation().clone(), key))
    }

    fn root_json(&self) -> Result<Vec<u8>, Failure> {
        let Some(path) = &self.root_json else {
            let metadata = self.org_dir.join("repository/metadata");
            let newest = RootFolder::new(&metadata).newest().map(|(_, root)| root);
            return newest.ok_or_else(|| {
                let what =
                    format!("{} has no root.json that joiners could believe", metadata.display());
                Failure::new(Kind::File, what).with_help("name one with --root-json FILE")
            });
        };
        let root = fs::read(path).map_err(|error| {
            Failure::because(
                Kind::of_io(&error, Kind::File),
                format!("read {}", path.display()),
                &error,
            )
        })?;
        if root.is_empty() || root.len() > ROOT_BYTES_MAX {
            let what = format!("{} is no root.json", path.display());
            return Err(Failure::new(Kind::File, what));
        }
        Ok(root)
    }
}

impl Maker {
    fn organisation(&self) -> &Organisation {
        match self {
            Self::Authority(authority) => authority.organisation(),
            Self::Admin(organisation, _) => organisation,
        }
    }

    fn sign(&self, statement: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Authority(authority) => {
                authority.sign_statement(statement).map_err(|error| org::not_issued(&error))
            }
            Self::Admin(_, key) => Ok(key.sign_raw(statement)),
        }
    }
}

/// Reads a duration such as `90s`, `30m`, `24h` or `7d`.
pub(crate) fn duration(text: &str) -> anyhow::Result<Duration> {
    let unit = text.char_indices().next_back().map_or(0, |(unit, _)| unit);
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().context("a duration is a number and s, m, h or d")?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => anyhow::bail!("a duration is a number and s, m, h or d"),
    };
    let duration = Duration::from_secs(number.saturating_mul(unit));
    if duration.is_zero() || duration > TTL_MAX {
        anyhow::bail!("from 1s to {}d", TTL_MAX.as_secs() / 86_400);
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_a_bound() {
        assert_eq!(duration("24h").unwrap(), Duration::from_hours(24));
        assert_eq!(duration("7d").unwrap(), Duration::from_hours(7 * 24));
        for wrong in ["", "h", "24", "0s", "31d", "-1h", "1w", "é", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
