//! `sutler device revoke`: a node or device that is let in no longer.

use clap::Args;
use jiff::Timestamp;
use sutler_control::change::{Change, ChangeError};
use sutler_orders::admission::{Revocation, Revocations};
use sutler_orders::text::Utc;
use sutler_protocol::name::PeerName;

use crate::command::publish::change_failure;
use crate::output::{Output, Stop};
use crate::signing::{SignArgs, state};

const EXAMPLES: &str = "\
Examples:
  sutler device revoke spiffe://acme/site/cologne/agent/laptop-7 --key anna.key --reason stolen";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Revoke {
    /// Its full name, as its certificate has it.
    #[arg(value_name = "spiffe://ORG/site/S/agent/ID")]
    member: PeerName,
    /// A certificate that was issued from this instant on is good again. None is, if absent.
    #[arg(long, value_name = "INSTANT")]
    until: Option<Utc>,
    #[command(flatten)]
    sign: SignArgs,
}

impl Revoke {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let now = Timestamp::now();
        let folder = self.sign.open()?;
        let state = state(&folder)?;
        let what = format!("revoke {}", self.member);
        let note = self.sign.note(&state, &what, now);
        let revocation = Revocation {
            member: self.member.clone(),
            until: self.until,
            by: note.by.clone(),
            at: note.at,
            reason: note.reason.clone(),
        };
        let mut change = Change::new(&state, folder.organisation(), note, now);
        change.order::<Revocations, Stop>(None, |revocations| {
            revocations.revocations.retain(|other| other.member != revocation.member);
            revocations.revocations.push(revocation);
            Ok(())
        })?;
        let draft = change.draft().map_err(|error: ChangeError| change_failure(&error))?;
        self.sign.finish(&folder, Some(&state), draft, &[what], output).map(drop)
    }
}
