//! `sutler org init|follow|intermediate|issue`: an organisation's folder and certificate authority, control's
//! below it, and their members.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use sutler_node::failure::{Failure, Kind};
use sutler_protocol::manifest::bounds::ROOT_BYTES_MAX;
use sutler_swarm::identity::{
    Authority, AuthorityCreateError, AuthorityOpenError, INTERMEDIATE_LIFETIME, IssueError,
    LEAF_LIFETIME, Label, Member, Organisation, Validity, random_label, read_roots,
};

use crate::command::found::Found;
use crate::output::{Output, Stop};
use crate::remote::{ControlUrl, Remote};
use crate::signing;

#[derive(Debug, Subcommand)]
pub(crate) enum Org {
    /// Make the organisation's certificate authority in a new folder.
    Init(Init),
    /// Make a folder for an admin of an organisation whose control runs on another machine.
    Follow(Follow),
    /// Make the authority by which control names the nodes and agents that join.
    Intermediate(Intermediate),
    /// Make a key and a certificate for control, a node or an agent.
    Issue(Issue),
}

const INIT_EXAMPLES: &str = "\
Examples:
  sutler org init ./acme-ca --org acme
  sutler org init ./home --org home --preset solo
  sutler org init ./acme --org acme --preset team --root anna.pub --root ben.pub --root cleo.pub \\
      --approver all=dora.pub,emil.pub:2 --key anna.key --key ben.key
  sutler org init ./city --org city --preset enterprise --root anna.pub --root ben.pub --root cleo.pub \\
      --root dirk.pub --root eva.pub --directorate lab=hana.pub,hugo.pub:2 --approver lab=dora.pub";

const FOLLOW_EXAMPLES: &str = "\
Examples:
  sutler org follow ./acme --org acme --root ./1.root.json --control http://control.example.com:8080
The root is repository/metadata/1.root.json of the folder in which the organisation was made. Have it from
somebody whom you trust: all that is taken over from control is believed because of it.";

const INTERMEDIATE_EXAMPLES: &str = "\
Examples:
  sutler org intermediate ./acme-ca --out /srv/control/authority";

const ISSUE_EXAMPLES: &str = "\
Examples:
  sutler org issue ./acme-ca --site paris --role node --out /srv/sutler/identity
  sutler org issue ./acme-ca --site paris --role agent --out ./laptop/identity --days 30
  sutler org issue ./acme-ca --role control --id c1 --out /srv/control/identity";

#[derive(Debug, Args)]
#[command(after_help = INIT_EXAMPLES)]
pub(crate) struct Init {
    /// The folder to make. Whoever can read it can name members: keep it offline.
    org_dir: PathBuf,
    /// The organisation's name: lower-case letters, digits, dots and dashes.
    #[arg(long, value_name = "NAME")]
    org: Organisation,
    #[command(flatten)]
    found: Found,
}

#[derive(Debug, Args)]
#[command(after_help = FOLLOW_EXAMPLES)]
pub(crate) struct Follow {
    /// The folder to make.
    org_dir: PathBuf,
    /// The organisation's name.
    #[arg(long, value_name = "NAME")]
    org: Organisation,
    /// The organisation's first root.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Control's repository over HTTP.
    #[arg(long, value_name = "URL", env = "SUTLER_CONTROL")]
    control: ControlUrl,
}

#[derive(Debug, Args)]
#[command(after_help = INTERMEDIATE_EXAMPLES)]
pub(crate) struct Intermediate {
    /// The folder that `sutler org init` made.
    org_dir: PathBuf,
    /// The folder to make. Whoever can read it can name nodes and agents, and nobody else.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What to call it, in certificates. A random name unless given.
    #[arg(long)]
    id: Option<Label>,
    /// How long it is valid, in days [default: 395].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

#[derive(Debug, Args)]
#[command(after_help = ISSUE_EXAMPLES)]
pub(crate) struct Issue {
    /// The folder that `sutler org init` made.
    org_dir: PathBuf,
    /// The site that the member belongs to; control has none.
    #[arg(long, required_if_eq_any([("role", "node"), ("role", "agent")]))]
    site: Option<Label>,
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
    /// The control plane.
    Control,
}

impl Org {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Init(init) => init.run(output),
            Self::Follow(follow) => follow.run(output),
            Self::Intermediate(intermediate) => intermediate.run(output),
            Self::Issue(issue) => issue.run(output),
        }
    }
}

impl Init {
    fn run(self, output: Output) -> Result<(), Stop> {
        let organisation = if self.found.is_wanted() {
            self.with_manifest(output)?
        } else {
            create(&self.org_dir, self.org)?.organisation().clone()
        };
        output.line(format_args!(
            "organisation {organisation} in {}: keep this folder offline",
            self.org_dir.display()
        ))?;
        output.json(&json!({
            "organisation": organisation.as_str(), "folder": self.org_dir.display().to_string(),
        }))
    }

    fn with_manifest(&self, output: Output) -> Result<Organisation, Stop> {
        make(&self.org_dir, |beside| {
            let organisation = create(beside, self.org.clone())?.organisation().clone();
            self.found.run(beside, output)?;
            Ok(organisation)
        })
    }
}

/// Makes all of a folder beside its place, and gives it its name at the end: what was cut short is no
/// organisation.
fn make<T>(dir: &Path, fill: impl FnOnce(&Path) -> Result<T, Stop>) -> Result<T, Stop> {
    let failed = |error: std::io::Error| {
        let what = format!("make {}", dir.display());
        Failure::because(Kind::of_io(&error, Kind::File), what, &error)
    };
    if dir.exists() {
        let exists = AuthorityCreateError::Exists { dir: dir.to_owned() };
        return Err(not_created(&exists).into());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(failed)?;
    let staging =
        tempfile::Builder::new().prefix(".sutler-new-").tempdir_in(parent).map_err(failed)?;
    let beside = staging.path().join("org");
    let made = fill(&beside)?;
    std::fs::rename(&beside, dir).map_err(failed)?;
    std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    Ok(made)
}

impl Follow {
    fn run(self, output: Output) -> Result<(), Stop> {
        let read = |error| {
            let what = format!("read {}", self.root.display());
            Failure::because(Kind::File, what, &error)
        };
        let mut root = Vec::new();
        let file = std::fs::File::open(&self.root).map_err(read)?;
        file.take(ROOT_BYTES_MAX).read_to_end(&mut root).map_err(read)?;
        let state = make(&self.org_dir, |beside| {
            let about = json!({ "format": 1, "organisation": self.org.as_str() });
            let write = || {
                std::fs::create_dir_all(beside.join("repository"))?;
                std::fs::write(beside.join("org.json"), about.to_string())
            };
            write().map_err(|error: std::io::Error| {
                Failure::because(Kind::of_io(&error, Kind::File), "make the folder", &error)
            })?;
            let folder = signing::open(beside)?;
            Ok(Remote::new(&self.control)?.catch_up(&folder, Some(&root.into()))?)
        })?;
        let (org, folder, version) =
            (self.org.as_str(), self.org_dir.display(), state.timestamp.version());
        output.line(format_args!("organisation {org} in {folder}, as of timestamp {version}"))?;
        output.json(&json!({
            "organisation": org, "folder": folder.to_string(), "timestamp": version.number(),
        }))
    }
}

fn create(dir: &Path, organisation: Organisation) -> Result<Authority, Failure> {
    Authority::create(dir, organisation).map_err(|error| not_created(&error))
}

fn not_created(error: &AuthorityCreateError) -> Failure {
    let kind = match error {
        AuthorityCreateError::Write { source, .. } => Kind::of_io(source, Kind::File),
        AuthorityCreateError::Exists { .. } => Kind::File,
        AuthorityCreateError::Certificate(_) => Kind::Internal,
    };
    Failure::from_error(kind, error)
}

impl Intermediate {
    fn run(self, output: Output) -> Result<(), Stop> {
        let authority = open(&self.org_dir)?;
        let id = self.id.unwrap_or_else(random_label);
        let lifetime = lifetime(self.days, INTERMEDIATE_LIFETIME);
        authority
            .intermediate(&id, Validity::from_now(lifetime), &self.out)
            .map_err(|error| not_issued(&error))?;
        let (organisation, days) = (authority.organisation(), in_days(lifetime));
        output.line(format_args!(
            "intermediate {id} of {organisation} in {}, valid for {days} days: hand it to control",
            self.out.display()
        ))?;
        output.json(&json!({
            "organisation": organisation.as_str(), "id": id.as_str(),
            "folder": self.out.display().to_string(), "days": days,
        }))
    }
}

impl Issue {
    fn run(self, output: Output) -> Result<(), Stop> {
        let authority = open(&self.org_dir)?;
        let id = self.id.unwrap_or_else(random_label);
        let member = match (self.role, self.site) {
            (MemberRole::Node, Some(site)) => Member::Node { site, id },
            (MemberRole::Agent, Some(site)) => Member::Agent { site, id },
            (MemberRole::Control, None) => Member::Control { id },
            (MemberRole::Control, Some(_)) => {
                return Err(Failure::new(Kind::Usage, "control belongs to no site").into());
            }
            (MemberRole::Node | MemberRole::Agent, None) => {
                return Err(Failure::new(Kind::Usage, "name the member's --site").into());
            }
        };
        let lifetime = lifetime(self.days, LEAF_LIFETIME);
        let name = authority
            .issue(member, Validity::from_now(lifetime), &self.out)
            .map_err(|error| not_issued(&error))?;
        let days = in_days(lifetime);
        output.line(format_args!("{name} in {}, valid for {days} days", self.out.display()))?;
        output.json(&json!({
            "name": name.to_string(), "folder": self.out.display().to_string(), "days": days,
        }))
    }
}

/// Opens the authority in `org_dir`.
pub(crate) fn open(org_dir: &Path) -> Result<Authority, Failure> {
    Authority::open(org_dir).map_err(|error| not_opened(&error))
}

fn not_opened(error: &AuthorityOpenError) -> Failure {
    let kind = match error {
        AuthorityOpenError::Exposed { .. } | AuthorityOpenError::KeyMismatch { .. } => {
            Kind::Refused
        }
        _ => Kind::File,
    };
    Failure::from_error(kind, error)
}

pub(crate) fn not_issued(error: &IssueError) -> Failure {
    let kind = match error {
        IssueError::Write { source, .. } => Kind::of_io(source, Kind::File),
        IssueError::Exists { .. } => Kind::File,
        IssueError::OutlivesAuthority { .. } => Kind::Usage,
        IssueError::ByIntermediate => Kind::Refused,
        IssueError::Certificate(_) => Kind::Internal,
    };
    Failure::from_error(kind, error)
}

/// Returns the roots that members of the organisation in `org_dir` believe: one at least, the first of which is its
/// own.
pub(crate) fn roots(org_dir: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    read_roots(org_dir).map_err(|error| not_opened(&error))
}

fn lifetime(days: Option<u32>, otherwise: Duration) -> Duration {
    days.map_or(otherwise, |days| Duration::from_hours(24) * days)
}

fn in_days(lifetime: Duration) -> u64 {
    lifetime.as_secs() / (24 * 60 * 60)
}
