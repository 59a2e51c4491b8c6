//! `sutler halt`: control stops something for 72 hours, with its own key.

use clap::Args;
use jiff::Timestamp;
use sutler_control::change::{Change, ChangeError};
use sutler_control::{Sha256, State};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::audience::Audience;
use sutler_orders::halts::{Halt, Halts};
use sutler_orders::text::{DeviceName, Utc};
use sutler_protocol::ContentId;
use sutler_protocol::name::Label;

use crate::command::publish::change_failure;
use crate::output::{Output, Stop};
use crate::signing::{SignArgs, key_failure, settle, state};

const EXAMPLES: &str = "\
Examples:
  sutler halt --org-dir ./acme --reason \"printers fail\"
  sutler halt 3f9a…c1 --site cologne --reason \"ticket 4711\" --json
It lapses after 72 hours unless an approver countersigns it, and an approver's resume outranks it.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HaltArgs {
    /// The contents. All of them if none is named.
    #[arg(value_name = "CONTENT")]
    contents: Vec<ContentId>,
    /// Only these sites; may be given several times.
    #[arg(long = "site", value_name = "SITE")]
    sites: Vec<Label>,
    /// Only these devices, SITE/ID; may be given several times.
    #[arg(long = "device", value_name = "SITE/ID")]
    devices: Vec<DeviceName>,
    #[command(flatten)]
    sign: SignArgs,
}

impl HaltArgs {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let now = Timestamp::now();
        let folder = self.sign.open()?;
        let state = state(&folder)?;
        let note = self.sign.note(&state, "halt", now);
        let halt = Halt {
            id: id(&state, now),
            contents: self.contents.clone(),
            audience: Audience {
                sites: self.sites.clone(),
                devices: self.devices.clone(),
                ..Audience::default()
            },
            at: Utc::of(now),
            by: note.by.clone(),
            reason: note.reason.clone(),
        };
        let (named, lapses) = (halt.id.clone(), halt.lapses());
        let mut change = Change::new(&state, folder.organisation(), note, now);
        change.order::<Halts, Stop>(None, |halts| {
            // What has lapsed says nothing any more.
            halts.halts.retain(|halt| halt.lapses() > Utc::of(now));
            halts.halts.push(halt);
            Ok(())
        })?;
        let mut draft = change.draft().map_err(|error: ChangeError| change_failure(&error))?;
        let keys = folder.online_keys().map_err(|error| key_failure(&error))?;
        for key in &keys.halts {
            draft
                .sign(key, Some(&state))
                .map_err(|error| Failure::from_error(Kind::Refused, &error))?;
        }
        output
            .line(format_args!("halt {named}, until {lapses} unless an approver countersigns"))?;
        settle(&folder, Some(&state), &draft, output).map(drop)
    }
}

/// Returns a name that no other halt has.
fn id(state: &State, now: Timestamp) -> Label {
    let mut digest = Sha256::new();
    digest.update(now.to_string().as_bytes());
    digest.update(state.timestamp.bytes());
    let text = digest.finish().to_string();
    let hex = text.rsplit(':').next().unwrap_or_default();
    format!("halt-{}", &hex[..12]).parse().expect("letters and digits are a label")
}
