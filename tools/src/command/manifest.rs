//! `sutler manifest show|diff`: what devices will see, for people.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sutler_control::{Note, State};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::Content;
use sutler_protocol::manifest::{RoleName, Signed, Targets, Version};

use crate::output::{Output, Stop, printable, table};
use crate::signing::{OrgArgs, state};

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Show every role, content and order that is published.
    Show(Show),
    /// Show what changed in a role between two versions.
    Diff(Diff),
}

const SHOW_EXAMPLES: &str = "\
Examples:
  sutler manifest show --org-dir ./acme
  sutler manifest show --json";
const DIFF_EXAMPLES: &str = "\
Examples:
  sutler manifest diff approvals-all 3 4
  sutler manifest diff content-2026-11 1 --json";

#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(crate) struct Show {
    #[command(flatten)]
    org: OrgArgs,
}

#[derive(Debug, Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(crate) struct Diff {
    /// The role, such as approvals-all.
    role: String,
    /// The earlier version.
    from: u64,
    /// The later one [default: what is published].
    to: Option<u64>,
    #[command(flatten)]
    org: OrgArgs,
}

impl ManifestCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Show(show) => show.run(output),
            Self::Diff(diff) => diff.run(output),
        }
    }
}

impl Show {
    fn run(self, output: Output) -> Result<(), Stop> {
        let folder = self.org.open()?;
        let state = state(&folder)?;
        let issued = state.timestamp.issued().map(|issued| issued.to_string()).unwrap_or_default();
        output.line(format_args!(
            "organisation {}, issued {issued}, until {}",
            folder.organisation(),
            state.timestamp.expires()
        ))?;
        output.json(&json!({
            "organisation": folder.organisation().as_str(),
            "orders": state.timestamp.version().number(), "issued": issued,
            "until": state.timestamp.expires().to_string(),
        }))?;
        roles(&state, output)?;
        let mut shown = table(["content", "bytes", "severity", "name"]);
        for (path, file) in state.contents() {
            let content = Content::of(&path, file);
            let content = content.map_err(|error| Failure::from_error(Kind::Store, &error))?;
            let about = &content.about;
            let id = content.bytes.blake3.to_string();
            let cells = [id.clone(), file.length.to_string(), about.severity.to_string()];
            shown.add_row(cells.into_iter().chain([printable(about.name.as_str())]));
            output.json(&json!({
                "content": id, "bytes": file.length, "name": about.name.as_str(),
                "severity": about.severity.as_str(), "path": path.as_str(),
            }))?;
        }
        output.table(&shown)?;
        for (path, bytes) in &state.orders {
            let text = String::from_utf8_lossy(bytes);
            output.line(format_args!("{path}:"))?;
            for line in text.lines() {
                output.line(format_args!("  {}", printable(line)))?;
            }
            let order: Value = serde_json::from_slice(bytes)
                .map_err(|error| Failure::because(Kind::Store, format!("read {path}"), &error))?;
            output.json(&json!({ "path": path.as_str(), "order": order }))?;
        }
        Ok(())
    }
}

fn roles(state: &State, output: Output) -> Result<(), Stop> {
    let mut shown = table(["role", "version", "expires", "by", "what", "why"]);
    let targets = (RoleName::targets(), &state.targets);
    let roles = state.roles.iter().map(|(role, document)| (role.clone(), document));
    for (role, document) in [targets].into_iter().chain(roles) {
        let note = Note::of(document.document());
        let (by, what, why) = note.map_or_else(Default::default, |note| {
            let why = note.reason.map(|reason| reason.to_string()).unwrap_or_default();
            (note.by.to_string(), note.what.to_string(), why)
        });
        output.json(&json!({
            "role": role.as_str(), "version": document.version().number(),
            "expires": document.expires().to_string(), "by": by, "what": what, "reason": why,
        }))?;
        let cells =
            [role.to_string(), document.version().to_string(), document.expires().to_string()];
        shown.add_row(cells.into_iter().chain([by, what, why].map(|text| printable(&text))));
    }
    output.table(&shown)
}

impl Diff {
    fn run(self, output: Output) -> Result<(), Stop> {
        let folder = self.org.open()?;
        let state = state(&folder)?;
        let role = match self.role.as_str() {
            "targets" => Some(RoleName::targets()),
            name => RoleName::delegated(name),
        };
        let unknown = || Failure::new(Kind::Usage, format!("there is no role {}", self.role));
        let role = role.ok_or_else(unknown)?;
        let published = if role == RoleName::targets() {
            &state.targets
        } else {
            state.roles.get(&role).ok_or_else(unknown)?
        };
        let lines = |number: u64| -> Result<Vec<String>, Failure> {
            let missing = || Failure::new(Kind::Usage, format!("{role} has no version {number}"));
            let version = Version::new(number).ok_or_else(missing)?;
            let bytes = folder.document(&state, &role, version)?;
            let signed = Signed::<Targets>::parse(bytes.ok_or_else(missing)?)
                .map_err(|error| Failure::from_error(Kind::Store, &error))?;
            let document =
                signed.proposed().map_err(|error| Failure::from_error(Kind::Store, &error))?;
            let mut lines = lines_of(&document);
            for (path, file) in document.files() {
                // The bytes of a content are not here to be looked at.
                if !path.as_str().starts_with("content/")
                    && let Some(bytes) = folder.file(&path, file)?
                {
                    lines.extend(order_lines(path.as_str(), &bytes));
                }
            }
            Ok(lines)
        };
        let (from, to) =
            (lines(self.from)?, lines(self.to.unwrap_or(published.version().number()))?);
        show_diff(role.as_str(), &from, &to, output)
    }
}

/// Prints the lines that one has and the other has not.
pub(crate) fn show_diff(
    role: &str,
    from: &[String],
    to: &[String],
    output: Output,
) -> Result<(), Stop> {
    let gone: Vec<&String> = from.iter().filter(|line| !to.contains(line)).collect();
    let new: Vec<&String> = to.iter().filter(|line| !from.contains(line)).collect();
    for (sign, lines) in [("-", &gone), ("+", &new)] {
        for line in lines {
            output.line(format_args!("{sign} {}", printable(line)))?;
        }
    }
    output.json(&json!({ "role": role, "gone": gone, "new": new }))
}

/// Returns what a document says, one value a line.
pub(crate) fn lines_of(document: &Targets) -> Vec<String> {
    text(&serde_json::to_value(document).expect("documents are JSON"))
}

/// Returns what an order file says, one value a line.
pub(crate) fn order_lines(path: &str, bytes: &[u8]) -> Vec<String> {
    let value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    text(&value).into_iter().map(|line| format!("{path} {line}")).collect()
}

/// Returns each value of a document with its path, one a line.
fn text(value: &Value) -> Vec<String> {
    fn walk(path: &str, value: &Value, lines: &mut Vec<String>) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (name, value) in members {
                    walk(&format!("{path}.{name}"), value, lines);
                }
            }
            // An entry of a list is one thing: it has no name but what it says.
            Value::Array(values) if !values.is_empty() => {
                lines.extend(values.iter().map(|value| format!("{path}[] {value}")));
            }
            value => lines.push(format!("{path} {value}")),
        }
    }
    let mut lines = Vec::new();
    walk("", value, &mut lines);
    lines
}
