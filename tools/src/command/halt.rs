//! `sutler halt`: control stops something for 72 hours, with its own key; an approver lets a halt hold beyond them.

use clap::Args;
use jiff::Timestamp;
use sutler_control::halting::{self, HaltingError};
use sutler_control::{Change, Sha256, State};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::audience::Audience;
use sutler_orders::halts::Halt;
use sutler_orders::text::{DeviceName, Utc};
use sutler_protocol::ContentId;
use sutler_protocol::name::Label;

use crate::command::publish::change_failure;
use crate::command::spread::{Watch, WatchArgs};
use crate::output::{Output, Stop};
use crate::signing::{Office, SignArgs, key_failure, settle, state};

const EXAMPLES: &str = "\
Examples:
  sutler halt --org-dir ./acme --reason \"printers fail\"
  sutler halt 3f9a…c1 --site cologne --reason \"ticket 4711\" --json
  sutler halt --org-dir ./acme --reason \"printers fail\" --watch
  sutler halt --confirm halt-0a1b2c3d4e5f --scope all --key anna.key --reason \"not fixed yet\"
It lapses after 72 hours unless an approver countersigns it by --confirm, and an approver's `sutler resume --until`
outranks it. A countersigned halt holds for the devices that the scope reaches, for as long as control goes on naming
it; what has to hold whatever control does is paused or denied.
It says how much it stops on how many devices, then how far it has got; a device has heard of it once its report
names these orders.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HaltArgs {
    /// The contents. All of them if none is named.
    #[arg(value_name = "CONTENT", conflicts_with = "confirm")]
    contents: Vec<ContentId>,
    /// Only these sites; may be given several times.
    #[arg(long = "site", value_name = "SITE", conflicts_with = "confirm")]
    sites: Vec<Label>,
    /// Only these devices, SITE/ID; may be given several times.
    #[arg(long = "device", value_name = "SITE/ID", conflicts_with = "confirm")]
    devices: Vec<DeviceName>,
    /// Countersign this halt of control's as an approver, so that it does not lapse.
    #[arg(long, value_name = "HALT", requires = "scope")]
    confirm: Option<Label>,
    /// The scope whose approvers countersign.
    #[arg(long, requires = "confirm")]
    scope: Option<Label>,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl HaltArgs {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let now = Timestamp::now();
        let office = self.sign.open()?;
        let state = state(&office)?;
        match (&self.confirm, &self.scope) {
            (Some(halt), Some(scope)) => self.confirm(&office, &state, halt, scope, now, output),
            _ => self.halt(office, &state, now, output),
        }
    }

    fn confirm(
        &self,
        office: &Office,
        state: &State,
        halt: &Label,
        scope: &Label,
        now: Timestamp,
        output: Output,
    ) -> Result<(), Stop> {
        let note = self.sign.note(state, &format!("countersign {halt}"), now);
        let mut change = Change::new(state, office.organisation(), note, now);
        let halt = halting::countersign(state, &mut change, scope, halt)
            .map_err(|error| halting_failure(&error))?;
        let said = said(&halt, scope);
        let draft = change.draft().map_err(|error| change_failure(&error))?;
        self.sign.finish(office, Some(state), draft, &said, output).map(drop)
    }

    fn halt(
        &self,
        office: Office,
        state: &State,
        now: Timestamp,
        output: Output,
    ) -> Result<(), Stop> {
        let note = self.sign.note(state, "halt", now);
        let audience = Audience {
            sites: self.sites.clone(),
            devices: self.devices.clone(),
            ..Audience::default()
        };
        let halt = Halt {
            id: id(state, now),
            contents: self.contents.clone(),
            audience: audience.clone(),
            at: Utc::of(now),
            by: note.by.clone(),
            reason: note.reason.clone(),
        };
        let (named, lapses) = (halt.id.clone(), halt.lapses());
        let mut change = Change::new(state, office.organisation(), note, now);
        halting::add(state, &mut change, halt).map_err(|error| change_failure(&error))?;
        let mut draft = change.draft().map_err(|error| change_failure(&error))?;
        self.sign.agree(&office, state, &draft)?;
        let keys = office.online_keys().map_err(|error| key_failure(&error))?;
        for key in &keys.halts {
            draft
                .sign(key, Some(state))
                .map_err(|error| Failure::from_error(Kind::Refused, &error))?;
        }
        output
            .line(format_args!("halt {named}, until {lapses} unless an approver countersigns"))?;
        if !settle(&office, Some(state), &draft, output)? {
            return Ok(());
        }
        let stopped = (&self.contents[..], None, &audience);
        let watch = Watch::of(office, state, stopped)?;
        watch.map_or(Ok(()), |watch| watch.show(self.watch, output))
    }
}

/// Returns what an approver has to see before countersigning.
fn said(halt: &Halt, scope: &Label) -> Vec<String> {
    let what = match halt.contents.len() {
        0 => "every content".to_owned(),
        count => format!("{count} contents"),
    };
    let whom = if halt.audience.is_everybody() {
        "every device".to_owned()
    } else {
        serde_json::to_string(&halt.audience).expect("names and rules are JSON")
    };
    let why = halt.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    vec![
        format!("countersign {} of {} by {}{why}: {what} for {whom}", halt.id, halt.at, halt.by),
        format!("scope {scope}: it does not lapse on {} any more", halt.lapses()),
    ]
}

pub(crate) fn halting_failure(error: &HaltingError) -> Failure {
    match error {
        HaltingError::Change(error) => change_failure(error),
        HaltingError::Unknown { .. } | HaltingError::Over { .. } => {
            Failure::from_error(Kind::Usage, error)
        }
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
