//! `sutler org`: an organisation's authority, and identities for its nodes and agents.
//!
//! Drives [`sutler_swarm::identity::Authority`]. It prints nothing: what was done is returned, with
//! a `Display` for people and `Serialize` for `--json`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::{Serialize, Serializer};
use sutler_swarm::identity::{
    Authority, AuthorityCreateError, AuthorityOpenError, IssueError, LEAF_LIFETIME, Label, Member,
    Organisation, PeerName, Validity,
};

const DAY_SECS: u64 = 24 * 60 * 60;

/// What to do with an organisation.
#[derive(Debug, Subcommand)]
pub(crate) enum OrgCommand {
    /// Make an organisation's certificate authority.
    #[command(after_help = "\
Example:
  sutler org init ./acme-ca --org acme

Whoever holds the folder decides who is a member. Keep it offline, and a copy of it elsewhere.")]
    Init(InitArgs),
    /// Make a key and a certificate for a node or an agent.
    #[command(after_help = "\
Examples:
  sutler org issue ./acme-ca --site leeds --role node --out /var/lib/sutler/identity
  sutler org issue ./acme-ca --site leeds --role agent --id pc-017 --days 30 --out ./pc-017

The folder then goes to its machine by a way that nobody else can read.")]
    Issue(IssueArgs),
}

/// The arguments of `sutler org init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Folder to make; it must be absent or empty
    org_dir: PathBuf,
    /// The organisation's name: a-z, 0-9, and . - _ within
    #[arg(long = "org", value_name = "NAME")]
    organisation: Organisation,
}

/// The arguments of `sutler org issue`.
#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// Folder that `sutler org init` made
    org_dir: PathBuf,
    /// Name of the site that the machine belongs to
    #[arg(long)]
    site: Label,
    /// What the machine does
    #[arg(long)]
    role: SiteRole,
    /// What to call it at its site [default: 16 random hex digits]
    #[arg(long)]
    id: Option<Label>,
    /// Days until the certificate ends
    #[arg(long, value_name = "DAYS", default_value_t = LEAF_LIFETIME.as_secs() / DAY_SECS)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_650))]
    days: u64,
    /// Folder to make; it must be absent or empty. A node or agent looks in DATA/identity
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The roles that live at a site; control is not issued from here.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SiteRole {
    /// The on-site manager
    Node,
    /// The client on a managed device
    Agent,
}

/// What was done.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum OrgDone {
    /// An authority was made.
    Made {
        /// Whose it is.
        #[serde(serialize_with = "as_text")]
        organisation: Organisation,
        /// Its folder.
        dir: PathBuf,
    },
    /// An identity was issued.
    Issued {
        /// The member's full name.
        #[serde(serialize_with = "as_text")]
        name: PeerName,
        /// Days until its certificate ends.
        days: u64,
        /// Its folder.
        dir: PathBuf,
    },
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrgError {
    /// No authority was made.
    #[error("make the organisation's authority")]
    Create(#[from] AuthorityCreateError),
    /// There is no usable authority.
    #[error("open the organisation's authority")]
    Open(#[from] AuthorityOpenError),
    /// No identity was issued.
    #[error("issue an identity")]
    Issue(#[from] IssueError),
}

impl OrgCommand {
    /// Does it.
    ///
    /// # Errors
    ///
    /// [`OrgError`]; nothing was written then.
    pub(crate) fn run(self) -> Result<OrgDone, OrgError> {
        match self {
            Self::Init(args) => init(args),
            Self::Issue(args) => issue(args),
        }
    }
}

fn init(args: InitArgs) -> Result<OrgDone, OrgError> {
    let authority = Authority::create(&args.org_dir, args.organisation)?;
    Ok(OrgDone::Made { organisation: authority.organisation().clone(), dir: args.org_dir })
}

fn issue(args: IssueArgs) -> Result<OrgDone, OrgError> {
    let authority = Authority::open(&args.org_dir)?;
    let id = args.id.unwrap_or_else(Label::random);
    let member = match args.role {
        SiteRole::Node => Member::Node { site: args.site, id },
        SiteRole::Agent => Member::Agent { site: args.site, id },
    };
    let validity = Validity::from_now(Duration::from_secs(args.days * DAY_SECS));
    let name = authority.issue(member, validity, &args.out)?;
    Ok(OrgDone::Issued { name, days: args.days, dir: args.out })
}

impl fmt::Display for OrgDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { organisation, dir } => {
                write!(f, "organisation {organisation}: authority made in {}", dir.display())
            }
            Self::Issued { name, days, dir } => {
                write!(f, "{name}: identity made in {}, valid for {days} days", dir.display())
            }
        }
    }
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
