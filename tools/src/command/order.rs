//! `sutler order list|show|sign|submit|drop`: orders that wait for signatures.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use sutler_control::appointment::{Appointment, Signers};
use sutler_control::draft::Draft;
use sutler_control::organisation::{read_draft, write_draft};
use sutler_control::rebase::{History, RebaseError, rebase};
use sutler_control::repository::ReadError;
use sutler_control::{Folder, Note, State};
use sutler_node::failure::{Failure, Kind};
use sutler_protocol::manifest::{Believed, RoleName, TargetFile, TargetPath};

use crate::command::manifest::{lines_of, order_lines, show_diff};
use crate::output::{Output, Stop, printable, table};
use crate::signing::{Office, OrgArgs, SignArgs, draft_failure, publish, settle, state};

#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// List the orders that wait.
    List(List),
    /// Show what a draft says, and who has signed it.
    Show(One),
    /// Sign a draft; published when nothing is lacking.
    Sign(Sign),
    /// Publish a draft that lacks nothing.
    Submit(Submit),
    /// Put a draft on top of what somebody else has published meanwhile; it is signed anew.
    Rebase(Sign),
    /// Show what a draft changes.
    Diff(One),
    /// Give a draft up.
    Drop(Drop),
}

const LIST_EXAMPLES: &str = "\
Examples:
  sutler order list --org-dir ./acme";
const SHOW_EXAMPLES: &str = "\
Examples:
  sutler order show 3f9a
  sutler order diff 3f9a
  sutler order show ./carried.json --json";
const SIGN_EXAMPLES: &str = "\
Examples:
  sutler order sign 3f9a --key ben.key
  sutler order rebase 3f9a --key ben.key
  sutler order sign ./carried.json --key ben.key --out ./signed-by-ben.json";
const SUBMIT_EXAMPLES: &str = "\
Examples:
  sutler order submit 3f9a
  sutler order submit ./signed-by-anna.json ./signed-by-ben.json";
const DROP_EXAMPLES: &str = "\
Examples:
  sutler order drop 3f9a";

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct List {
    #[command(flatten)]
    org: OrgArgs,
}

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(crate) struct One {
    /// The draft: the beginning of its name, or a file.
    #[arg(value_name = "DRAFT|FILE")]
    draft: String,
    #[command(flatten)]
    org: OrgArgs,
}

#[derive(Debug, Args)]
#[command(after_help = SIGN_EXAMPLES)]
pub(crate) struct Sign {
    /// The draft: the beginning of its name, or a file.
    #[arg(value_name = "DRAFT|FILE")]
    draft: String,
    /// Write it there, to be carried on, and do not publish it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: SignArgs,
}

#[derive(Debug, Args)]
#[command(after_help = SUBMIT_EXAMPLES)]
pub(crate) struct Submit {
    /// The draft, or copies of it that were signed apart.
    #[arg(required = true, value_name = "DRAFT|FILE")]
    drafts: Vec<String>,
    #[command(flatten)]
    org: OrgArgs,
}

#[derive(Debug, Args)]
#[command(after_help = DROP_EXAMPLES)]
pub(crate) struct Drop {
    /// The draft: the beginning of its name.
    draft: String,
    #[command(flatten)]
    org: OrgArgs,
}

impl OrderCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::List(list) => list.run(output),
            Self::Show(show) => show.run(output),
            Self::Sign(sign) => sign.run(output),
            Self::Submit(submit) => submit.run(output),
            Self::Rebase(rebase) => rebase.rebase(output),
            Self::Diff(diff) => diff.diff(output),
            Self::Drop(drop) => drop.run(output),
        }
    }
}

impl List {
    fn run(self, output: Output) -> Result<(), Stop> {
        let folder = self.org.open()?;
        let state = published(&folder)?;
        let mut shown = table(["draft", "by", "what", "lacks"]);
        for name in folder.drafts().map_err(|error| draft_failure(&error))? {
            let draft = folder.draft(&name).map_err(|error| draft_failure(&error))?;
            let (by, what) = note(&draft);
            let lacks = lacks(&draft, state.as_ref());
            output.json(&json!({ "draft": name, "by": by, "what": what, "lacks": lacks }))?;
            shown.add_row([name, printable(&by), printable(&what), lacks.join(", ")]);
        }
        output.table(&shown)
    }
}

impl One {
    fn run(self, output: Output) -> Result<(), Stop> {
        let folder = self.org.open()?;
        let state = published(&folder)?;
        let draft = find(&folder, &self.draft)?;
        let (by, what) = note(&draft);
        let (id, lacks) = (draft.id(), lacks(&draft, state.as_ref()));
        output.line(format_args!("draft {id} by {}: {}", printable(&by), printable(&what)))?;
        for lack in &lacks {
            output.line(format_args!("  lacks {lack}"))?;
        }
        let (roles, paths) = draft.parts();
        let appointments = Appointment::of(&draft, state.as_ref());
        for appointment in &appointments {
            output.line(format_args!("  {}", printable(&appointment.to_string())))?;
        }
        let mut files = serde_json::Map::new();
        for path in paths {
            let bytes =
                draft.file(path).map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
            output.line(format_args!("{path}:"))?;
            for line in bytes.lines() {
                output.line(format_args!("  {}", printable(line)))?;
            }
            files.insert(path.to_owned(), bytes.into());
        }
        let roles: Vec<String> = roles.iter().map(ToString::to_string).collect();
        output.json(&json!({
            "draft": id, "by": by, "what": what, "lacks": lacks, "roles": roles, "files": files,
            "signers": appointments.iter().map(appointed).collect::<Vec<_>>(),
        }))
    }
}

impl Sign {
    fn run(self, output: Output) -> Result<(), Stop> {
        let folder = self.how.open()?;
        let state = published(&folder)?;
        let draft = find(&folder, &self.draft)?;
        let (by, what) = note(&draft);
        let said = [format!("draft {} by {by}: {what}", draft.id())];
        self.conclude(&folder, state.as_ref(), draft, &said, output)
    }

    /// Signs a draft, and publishes it, or keeps it, or writes it where it is to be carried on from.
    fn conclude(
        &self,
        folder: &Office,
        state: Option<&State>,
        draft: Draft,
        said: &[String],
        output: Output,
    ) -> Result<(), Stop> {
        let Some(out) = &self.out else {
            return self.how.finish(folder, state, draft, said, output).map(drop);
        };
        let draft = self.how.signed(folder, state, draft, said)?;
        write_draft(out, &draft).map_err(|error| draft_failure(&error))?;
        output.line(format_args!("draft {} in {}", draft.id(), out.display()))?;
        output.json(&json!({ "draft": draft.id(), "file": out.display().to_string() }))
    }
}

impl Sign {
    /// Makes the draft anew from what is published now, and signs that.
    fn rebase(self, output: Output) -> Result<(), Stop> {
        let folder = self.how.open()?;
        let state = state(&folder)?;
        let old = find(&folder, &self.draft)?;
        // What control does not give is said rather than that it is not here.
        let failed = RefCell::new(None);
        let given = |answer: Result<Option<Bytes>, Failure>| {
            answer.unwrap_or_else(|failure| failed.replace(Some(failure)).and(None))
        };
        let document = |role: &RoleName, version| given(folder.document(&state, role, version));
        let file = |path: &TargetPath, file: &TargetFile| given(folder.file(path, file));
        let history = History { document: &document, file: &file };
        let draft = rebase(&old, &state, &history, Timestamp::now());
        let draft = draft.map_err(|error| {
            failed.take().unwrap_or_else(|| not_rebased(&error, folder.control().is_some()))
        })?;
        let (by, what) = note(&draft);
        let said = [format!("draft {}, once {}, by {by}: {what}", draft.id(), old.id())];
        self.conclude(&folder, Some(&state), draft, &said, output)?;
        folder.remove_draft(&old.id()).map_err(|error| draft_failure(&error))?;
        Ok(())
    }
}

impl One {
    fn diff(self, output: Output) -> Result<(), Stop> {
        let folder = self.org.open()?;
        let state = state(&folder)?;
        let draft = find(&folder, &self.draft)?;
        for role in draft.parts().0 {
            let published = match role.as_str() {
                "root" => None,
                "targets" => Some(state.targets.document()),
                _ => state.roles.get(&role).map(Believed::document),
            };
            let Some(new) = draft.role(&role) else { continue };
            let mut before = published.map(lines_of).unwrap_or_default();
            let mut after = lines_of(&new);
            for path in draft.parts().1 {
                let old = state.orders.get(&TargetPath::from(path));
                before.extend(old.iter().flat_map(|bytes| order_lines(path, bytes)));
                after.extend(draft.file(path).iter().flat_map(|bytes| order_lines(path, bytes)));
            }
            show_diff(role.as_str(), &before, &after, output)?;
        }
        Ok(())
    }
}

impl Submit {
    fn run(self, output: Output) -> Result<(), Stop> {
        let folder = self.org.open()?;
        let state = published(&folder)?;
        let mut drafts = self.drafts.iter().map(|name| find(&folder, name));
        let mut draft = drafts.next().expect("clap wants one")?;
        for copy in drafts {
            draft.merge(&copy?).map_err(|error| Failure::from_error(Kind::Refused, &error))?;
        }
        let lacks = lacks(&draft, state.as_ref());
        if !lacks.is_empty() {
            // What was merged is kept: nobody has to sign twice.
            settle(&folder, state.as_ref(), &draft, output)?;
            let what = format!("submit the draft {}: it lacks {}", draft.id(), lacks.join(", "));
            return Err(Failure::new(Kind::Refused, what).into());
        }
        publish(&folder, &draft, output)
    }
}

impl Drop {
    fn run(self, output: Output) -> Result<(), Stop> {
        let folder = self.org.open()?;
        let id = folder.draft(&self.draft).map_err(|error| draft_failure(&error))?.id();
        folder.remove_draft(&id).map_err(|error| draft_failure(&error))?;
        output.line(format_args!("draft {id} is given up"))?;
        output.json(&json!({ "dropped": id }))
    }
}

/// Returns what is published, or nothing before the first time.
fn published(folder: &Folder) -> Result<Option<State>, Failure> {
    match folder.state() {
        Ok(state) => Ok(Some(state)),
        Err(ReadError::Empty) => Ok(None),
        Err(error) => Err(Failure::from_error(Kind::Store, &error)),
    }
}

/// Finds a draft by its name, else as a file.
fn find(folder: &Folder, name: &str) -> Result<Draft, Failure> {
    let path = Path::new(name);
    let draft = if path.is_file() { read_draft(path) } else { folder.draft(name) };
    draft.map_err(|error| draft_failure(&error))
}

fn appointed(appointment: &Appointment) -> Value {
    let signers = |signers: &Signers| {
        let Signers { threshold, names, reaches } = signers;
        json!({ "threshold": threshold, "names": names, "reaches": reaches })
    };
    let Appointment { role, now, before } = appointment;
    json!({
        "role": role, "now": now.as_ref().map(signers), "before": before.as_ref().map(signers),
    })
}

/// Says why a draft cannot be put on top, and what helps.
fn not_rebased(error: &RebaseError, asked_control: bool) -> Failure {
    let failure = Failure::from_error(Kind::Refused, error);
    match error {
        RebaseError::NoBase { .. } | RebaseError::NoBaseFile { .. } if !asked_control => failure
            .with_help(
                "control has every version: name it by --control URL, or rebase on its machine",
            ),
        _ => {
            failure.with_help("`sutler order show` says what it wanted; give the command once more")
        }
    }
}

/// Returns who made a draft, and what it does.
fn note(draft: &Draft) -> (String, String) {
    let roles = draft.parts().0;
    let note = roles.iter().find_map(|role| Note::of(&draft.role(role)?));
    note.map_or_else(
        || {
            let names: Vec<&str> = roles.iter().map(RoleName::as_str).collect();
            (String::new(), format!("the organisation's first {}", names.join(" and ")))
        },
        |note| (note.by.to_string(), note.what.to_string()),
    )
}

fn lacks(draft: &Draft, state: Option<&State>) -> Vec<String> {
    let lacks = draft.lacks(state).into_iter().filter(|lack| !lack.is_nothing());
    lacks.map(|lack| lack.to_string()).collect()
}
