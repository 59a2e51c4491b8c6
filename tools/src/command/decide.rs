//! `sutler approve|deny|pause|resume|patch-now`: what a scope's approvers decide about contents.

use clap::Args;
use jiff::Timestamp;
use sutler_control::change::{Change, ChangeError};
use sutler_control::decision::{self, DecideError, Decision, Verdict};
use sutler_control::{State, halting};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::Content;
use sutler_orders::audience::Audience;
use sutler_orders::text::{DeviceName, Utc};
use sutler_protocol::name::Label;

use crate::command::halt::halting_failure;
use crate::command::publish::change_failure;
use crate::command::spread::{Watch, WatchArgs};
use crate::output::{Output, Stop};
use crate::signing::{SignArgs, state};

macro_rules! examples {
    ($verb:literal $(, $more:literal)?) => {
        concat!(
            "Examples:\n  sutler ",
            $verb,
            " bash_5.2.deb --scope all --key anna.key\n  sutler ",
            $verb,
            " CVE-2026-12345 --scope prod --key anna.key --reason \"ticket 4711\" --json",
            $($more)?
        )
    };
}

#[derive(Debug, Args)]
#[command(after_help = examples!("approve"))]
pub(crate) struct Approve {
    #[command(flatten)]
    decide: Decide,
    #[command(flatten)]
    timing: Timing,
}

#[derive(Debug, Args)]
#[command(after_help = examples!("deny", "\nIt says how far it has got, as devices report to control, with --watch until all have it."))]
pub(crate) struct Deny {
    #[command(flatten)]
    decide: Decide,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Args)]
#[command(after_help = examples!("pause", "\nIt says how far it has got, as devices report to control, with --watch until all have it."))]
pub(crate) struct Pause {
    #[command(flatten)]
    decide: Decide,
    #[command(flatten)]
    watch: WatchArgs,
}

const RESUME: &str = "\
Examples:
  sutler resume bash_5.2.deb --scope all --key anna.key
  sutler resume --until 2026-12-01T08:00:00Z --scope all --key anna.key --reason \"a false alarm\"
With --until it is control's halts that are outranked, for the named contents or for all, until that instant; what
approvers have paused or denied stays so, and a halt that is countersigned later holds. It can start installations: above
10 % of the fleet their number is asked for, as by approve, or given as --yes.";

#[derive(Debug, Args)]
#[command(after_help = RESUME)]
pub(crate) struct Resume {
    /// Contents: by BLAKE3, by name, or by a weakness that they mend. With --until, all if none is named.
    #[arg(required_unless_present = "until", value_name = "CONTENT|NAME|CVE")]
    contents: Vec<String>,
    /// Let them go on until this instant, 2026-11-28T20:00:00Z, although control halts them.
    #[arg(long, value_name = "INSTANT", conflicts_with_all = ["sites", "devices"])]
    until: Option<Utc>,
    #[command(flatten)]
    of: Scoped,
}

#[derive(Debug, Args)]
#[command(after_help = examples!("patch-now"))]
pub(crate) struct PatchNow {
    #[command(flatten)]
    decide: Decide,
}

#[derive(Debug, Args)]
struct Decide {
    /// Contents: by BLAKE3, by name, or by a weakness that they mend.
    #[arg(required = true, value_name = "CONTENT|NAME|CVE")]
    contents: Vec<String>,
    #[command(flatten)]
    of: Scoped,
}

/// Whose decision it is, and for whom.
#[derive(Debug, Args)]
struct Scoped {
    /// The scope whose approvers decide.
    #[arg(long)]
    scope: Label,
    /// Only these sites of the scope; may be given several times.
    #[arg(long = "site", value_name = "SITE")]
    sites: Vec<Label>,
    /// Only these devices, SITE/ID; may be given several times.
    #[arg(long = "device", value_name = "SITE/ID")]
    devices: Vec<DeviceName>,
    #[command(flatten)]
    sign: SignArgs,
}

#[derive(Debug, Default, Args)]
struct Timing {
    /// Nothing starts before it, 2026-11-28T20:00:00Z.
    #[arg(long, value_name = "INSTANT")]
    not_before: Option<Utc>,
    /// Nothing starts from it on.
    #[arg(long, value_name = "INSTANT")]
    not_after: Option<Utc>,
    /// A schedule of the scope. Absent: the one of the device's policy.
    #[arg(long, value_name = "NAME")]
    schedule: Option<Label>,
}

impl Approve {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        self.decide.of.run(Verdict::Install, &self.decide.contents, &self.timing, None, output)
    }
}

impl Deny {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        self.decide.run(Verdict::Deny, Some(self.watch), output)
    }
}

impl Pause {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        self.decide.run(Verdict::Pause, Some(self.watch), output)
    }
}

impl Resume {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let timing = Timing::default();
        match self.until {
            Some(until) => self.of.outrank(&self.contents, until, output),
            None => self.of.run(Verdict::Resume, &self.contents, &timing, None, output),
        }
    }
}

impl PatchNow {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        self.decide.run(Verdict::PatchNow, None, output)
    }
}

impl Decide {
    fn run(&self, verdict: Verdict, watch: Option<WatchArgs>, output: Output) -> Result<(), Stop> {
        self.of.run(verdict, &self.contents, &Timing::default(), watch, output)
    }
}

impl Scoped {
    /// Decides. `watch` says that it stops something, so that it is shown how far it has got.
    fn run(
        &self,
        verdict: Verdict,
        contents: &[String],
        timing: &Timing,
        watch: Option<WatchArgs>,
        output: Output,
    ) -> Result<(), Stop> {
        let now = Timestamp::now();
        let folder = self.sign.open()?;
        let state = state(&folder)?;
        let decision = Decision {
            verdict,
            scope: self.scope.clone(),
            audience: Audience {
                sites: self.sites.clone(),
                devices: self.devices.clone(),
                ..Audience::default()
            },
            not_before: timing.not_before,
            not_after: timing.not_after,
            schedule: timing.schedule.clone(),
        };
        let what = format!("{} {}", verdict.as_str(), contents.join(" "));
        let note = self.sign.note(&state, &what, now);
        let mut change = Change::new(&state, folder.organisation(), note, now);
        let contents = meant(&state, contents)?;
        decision.apply(&mut change, &contents).map_err(|error| failure(&error))?;
        let said = decision.said(&state, &contents);
        let draft = change.draft().map_err(|error| change_failure(&error))?;
        let is_published = self.sign.finish(&folder, Some(&state), draft, &said, output)?;
        let Some(args) = watch.filter(|_| is_published) else { return Ok(()) };
        let contents: Vec<_> = contents.iter().map(|content| content.bytes.blake3).collect();
        let stopped = (&contents[..], Some(&self.scope), &decision.audience);
        let watch = Watch::of(folder, &state, stopped)?;
        watch.map_or(Ok(()), |watch| watch.show(args, output))
    }

    /// Lets contents go on although control halts them.
    fn outrank(&self, contents: &[String], until: Utc, output: Output) -> Result<(), Stop> {
        let now = Timestamp::now();
        let folder = self.sign.open()?;
        let state = state(&folder)?;
        let named = if contents.is_empty() { "everything".to_owned() } else { contents.join(" ") };
        let what = format!("resume {named} until {until}, whatever control halts");
        let note = self.sign.note(&state, &what, now);
        let mut change = Change::new(&state, folder.organisation(), note, now);
        let contents = meant(&state, contents)?;
        halting::resume(&mut change, &self.scope, &contents, until)
            .map_err(|error| halting_failure(&error))?;
        let draft = change.draft().map_err(|error| change_failure(&error))?;
        let said = [what, format!("scope {}", self.scope)];
        self.sign.finish(&folder, Some(&state), draft, &said, output).map(drop)
    }
}

fn meant(state: &State, named: &[String]) -> Result<Vec<Content>, Failure> {
    decision::contents(state, named).map_err(|error| failure(&error))
}

fn failure(error: &DecideError) -> Failure {
    match error {
        DecideError::Change(error) => change_failure(error),
        DecideError::Unknown { .. } => Failure::from_error(Kind::UnknownContent, error)
            .with_help("`sutler manifest show` lists what is published"),
        DecideError::Ambiguous { .. } | DecideError::NothingToResume { .. } => {
            Failure::from_error(Kind::Usage, error)
        }
    }
}

impl From<ChangeError> for Stop {
    fn from(error: ChangeError) -> Self {
        Self::Failed(change_failure(&error))
    }
}
