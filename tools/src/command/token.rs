//! `sutler token new`: an admin's word, in one string, that machines of a site may join.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use serde_json::json;
use sutler_control::members::RootFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_protocol::join::ROOT_BYTES_MAX;
use sutler_swarm::enrol::token::{TTL_MAX, USES_MAX, hex, sha256};
use sutler_swarm::enrol::{Grant, JoinRole, Token};
use sutler_swarm::identity::Label;

use super::org;
use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token by which machines of a site may join.
    New(New),
}

const NEW_EXAMPLES: &str = "\
Examples:
  sutler token new --org-dir ./acme --site paris --role agent --at control.acme.example:7440 --uses 40
  sutler token new --org-dir ./acme --site paris --role node --id n1 --at 192.0.2.7:7440 --net 192.0.2.0/24
  sutler token new --org-dir ./acme --site paris --role agent --at 192.0.2.7:7440 --ttl 7d --hold";

#[derive(Debug, Args)]
#[command(after_help = NEW_EXAMPLES)]
pub(crate) struct New {
    /// The folder that `sutler org init` made; the token is signed with the key in it.
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
        let authority = org::open(&self.org_dir)?;
        let root_json = self.root_json()?;
        let roots = org::roots(&authority)?;
        let now = UnixTime::now().as_secs();
        let expires = UnixTime::since_unix_epoch(Duration::from_secs(now) + self.ttl);
        let grant = Grant {
            organisation: authority.organisation().clone(),
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
            let signed = authority.sign_statement(statement);
            signed.map_err(|error| refused = Some(error)).unwrap_or_default()
        });
        if let Some(error) = refused {
            return Err(org::not_issued(&error).into());
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
