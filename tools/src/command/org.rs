//! `sutler org init|issue`: an organisation's certificate authority and its members.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use sutler_node::failure::{Failure, Kind};
use sutler_swarm::identity::{
    Authority, AuthorityCreateError, AuthorityOpenError, IssueError, LEAF_LIFETIME, Label, Member,
    Organisation, Validity,
};

use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
pub(crate) enum Org {
    /// Make the organisation's certificate authority in a new folder.
    Init(Init),
    /// Make a key and a certificate for a node or an agent.
    Issue(Issue),
}

const INIT_EXAMPLES: &str = "\
Examples:
  sutler org init ./acme-ca --org acme";

const ISSUE_EXAMPLES: &str = "\
Examples:
  sutler org issue ./acme-ca --site paris --role node --out /srv/sutler/identity
  sutler org issue ./acme-ca --site paris --role agent --out ./laptop/identity --days 30";

#[derive(Debug, Args)]
#[command(after_help = INIT_EXAMPLES)]
pub(crate) struct Init {
    /// The folder to make. Whoever can read it can name members: keep it offline.
    org_dir: PathBuf,
    /// The organisation's name: lower-case letters, digits, dots and dashes.
    #[arg(long, value_name = "NAME")]
    org: Organisation,
}

#[derive(Debug, Args)]
#[command(after_help = ISSUE_EXAMPLES)]
pub(crate) struct Issue {
    /// The folder that `sutler org init` made.
    org_dir: PathBuf,
    /// The site that the member belongs to.
    #[arg(long)]
    site: Label,
    /// What the member is.
    #[arg(long)]
    role: MemberRole,
    /// The folder to make, DATA/identity.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The member's own name within the site. A random one unless given.
    #[arg(long)]
    id: Option<Label>,
    /// How long the certificate is valid, in days [default: 90].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum MemberRole {
    /// Serves a site.
    Node,
    /// Runs on a managed device.
    Agent,
}

impl Org {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Init(init) => init.run(output),
            Self::Issue(issue) => issue.run(output),
        }
    }
}

impl Init {
    fn run(self, output: Output) -> Result<(), Stop> {
        let authority = Authority::create(&self.org_dir, self.org).map_err(|error| {
            let kind = match &error {
                AuthorityCreateError::Write { source, .. } => Kind::of_io(source, Kind::File),
                AuthorityCreateError::Exists { .. } => Kind::File,
                AuthorityCreateError::Certificate(_) => Kind::Internal,
            };
            Failure::from_error(kind, &error)
        })?;
        let organisation = authority.organisation();
        output.line(format_args!(
            "organisation {organisation} in {}: keep this folder offline",
            self.org_dir.display()
        ))?;
        output.json(&json!({
            "organisation": organisation.as_str(), "folder": self.org_dir.display().to_string(),
        }))
    }
}

impl Issue {
    fn run(self, output: Output) -> Result<(), Stop> {
        let authority = Authority::open(&self.org_dir).map_err(|error| {
            let kind = match &error {
                AuthorityOpenError::Exposed { .. } | AuthorityOpenError::KeyMismatch { .. } => {
                    Kind::Refused
                }
                _ => Kind::File,
            };
            Failure::from_error(kind, &error)
        })?;
        let (site, id) = (self.site, self.id.unwrap_or_else(Label::random));
        let member = match self.role {
            MemberRole::Node => Member::Node { site, id },
            MemberRole::Agent => Member::Agent { site, id },
        };
        let lifetime = self.days.map_or(LEAF_LIFETIME, |days| Duration::from_hours(24) * days);
        let name = authority.issue(member, Validity::from_now(lifetime), &self.out);
        let name = name.map_err(|error| {
            let kind = match &error {
                IssueError::Write { source, .. } => Kind::of_io(source, Kind::File),
                IssueError::Exists { .. } => Kind::File,
                IssueError::OutlivesAuthority { .. } => Kind::Usage,
                IssueError::Certificate(_) => Kind::Internal,
            };
            Failure::from_error(kind, &error)
        })?;
        let days = lifetime.as_secs() / (24 * 60 * 60);
        output.line(format_args!("{name} in {}, valid for {days} days", self.out.display()))?;
        output.json(&json!({
            "name": name.to_string(), "folder": self.out.display().to_string(), "days": days,
        }))
    }
}
