//! `sutler explain`: why a device does with a content what it does, gate by gate.
//!
//! On the device it reads what the agent showed last, whether one runs or not. At control it has what the device
//! reported, which is the answer without the gates, and evaluates for itself what leads there.

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use sutler_agent::view::{AnswerView, GateView, View, ViewError};
use sutler_control::judgement::{self, Published};
use sutler_control::reports;
use sutler_node::failure::{Failure, Kind};
use sutler_orders::report::{Report, ToldAnswer};
use sutler_orders::text::DeviceName;
use sutler_orders::{Answer, Content};
use sutler_protocol::ContentId;

use crate::access::DataArgs;
use crate::command::report;
use crate::output::{Output, Stop, printable, table};
use crate::signing;

const EXAMPLES: &str = "\
Examples:
  sutler explain CVE-2026-12345 --data /var/lib/sutler
  sutler explain bash_5.2-3_amd64.deb --data ./anna
  sutler explain 4f1a09c2 --data ./anna --json | jq '.[0].gates[] | select(.verdict == \"blocked\")'
  sutler explain lab/anna CVE-2026-12345 --data ./control
  sutler explain CVE-2026-12345 --data ./control lab/anna

On a device it shows the gates that its agent asked. With a DEVICE, on control's data, it shows what the device
reported, and the gates as control finds them: from the orders that are published now, and from what the device
said of itself. The device alone decides, and knows more: its clock, windows that it missed, its versions.";

#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "sutler explain [OPTIONS] --data <DIR> [DEVICE] <CONTENT|NAME|CVE>"
)]
pub(crate) struct Explain {
    /// A content's id, or at least 8 digits of its beginning; its file name; or a CVE id. At control the device as well,
    /// SITE/ID, before or behind it.
    #[arg(value_name = "DEVICE|CONTENT|NAME|CVE", required = true, num_args = 1..=2)]
    named: Vec<String>,
    #[command(flatten)]
    data: DataArgs,
}

/// What is to be explained, and at control of which device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    device: Option<DeviceName>,
    what: String,
}

/// What control has to say of a content on a device.
#[derive(Debug, Serialize)]
struct Explained {
    device: String,
    /// The version of the orders that the gates are by.
    orders: u64,
    /// What the device reported; absent if it has not told of the content.
    told: Option<Told>,
    /// What control finds.
    #[serde(flatten)]
    found: AnswerView,
}

/// What a device reported of a content.
#[derive(Debug, Serialize)]
struct Told {
    written: String,
    /// The version of the orders that the device knew.
    orders: Option<u64>,
    state: String,
    reason: Option<String>,
}

impl Explain {
    pub(crate) fn run(&self, output: Output) -> Result<(), Stop> {
        let Question { device, what } = Question::of(&self.named)?;
        if let Some(device) = &device {
            return self.at_control(device, &what, output);
        }
        let view = shown(&self.data)?;
        let answers = view.about(&what);
        if answers.is_empty() {
            let what = format!("the orders that this device knows name no {what}");
            return Err(Failure::new(Kind::UnknownContent, what)
                .with_help("`sutler status` says how old they are")
                .into());
        }
        for answer in &answers {
            head(answer, output)?;
            rest(answer, output)?;
        }
        output.line(format_args!("as of {}", view.written))?;
        output.json(&answers)
    }

    fn at_control(&self, device: &DeviceName, what: &str, output: Output) -> Result<(), Stop> {
        let data = self.data.folder();
        let folder = signing::open(data.root())?;
        let (organisation, state) = (folder.organisation().clone(), signing::state(&folder)?);
        drop(folder);
        let denials = judgement::denials(&data.orders()).map_err(|error| {
            Failure::because(Kind::File, "read the denials that control holds", &error)
        })?;
        let reports = data.root().join("reports");
        let told = reports::read_device(&reports, &organisation, device);
        let told = told.map_err(|error| report::failure(&error))?.ok_or_else(|| {
            Failure::new(Kind::Usage, format!("{device} has not reported here"))
                .with_help("`sutler report device` lists those that have")
        })?;
        let contents = state.contents().filter_map(|(path, file)| Content::of(&path, file).ok());
        let meant: Vec<Content> = contents.filter(|content| is_meant(content, what)).collect();
        if meant.is_empty() {
            let what = format!("nothing of the name {what} is published");
            return Err(Failure::new(Kind::UnknownContent, what)
                .with_help("`sutler manifest show` lists what is")
                .into());
        }
        let published = Published::of(&state, &organisation, &denials);
        let ids: BTreeSet<ContentId> = meant.iter().map(|content| content.bytes.blake3).collect();
        let answers = published.answers(&told, &ids, jiff::tz::db(), Timestamp::now());
        let explained: Vec<Explained> = answers
            .iter()
            .filter_map(|(id, answer)| {
                let content = meant.iter().find(|content| content.bytes.blake3 == *id)?;
                Some(Explained::of(&told, content, answer, published.version()))
            })
            .collect();
        explained.iter().try_for_each(|one| one.show(output))?;
        output.json(&explained)
    }
}

impl Question {
    /// Tells the device from the content: it has a slash in its name. If both could be it, the first is.
    fn of(named: &[String]) -> Result<Self, Failure> {
        let device = |name: &String| name.parse::<DeviceName>();
        match named {
            [what] => Ok(Self { device: None, what: what.clone() }),
            [first, second] => match (device(first), device(second)) {
                (Ok(device), _) => Ok(Self { device: Some(device), what: second.clone() }),
                (_, Ok(device)) => Ok(Self { device: Some(device), what: first.clone() }),
                (Err(error), Err(_)) => {
                    let what = format!("neither {first} nor {second} is a device");
                    Err(Failure::because(Kind::Usage, what, &error)
                        .with_help("a device is written SITE/ID; without one, name one content"))
                }
            },
            _ => Err(Failure::new(Kind::Usage, "name a content, and at control a device")),
        }
    }
}

/// Returns whether a content is the one that `what` means, as on a device.
fn is_meant(content: &Content, what: &str) -> bool {
    let is_hex = what.len() >= 8 && what.bytes().all(|byte| byte.is_ascii_hexdigit());
    content.about.name.as_str() == what
        || content.about.cve.iter().any(|cve| cve.as_str() == what)
        || is_hex && content.bytes.blake3.to_string().starts_with(&what.to_ascii_lowercase())
}

impl Explained {
    fn of(report: &Report, content: &Content, answer: &Answer, orders: u64) -> Self {
        let id = content.bytes.blake3;
        let told: Option<&ToldAnswer> = report.answers.iter().find(|told| told.content == id);
        let about = &content.about;
        Self {
            device: report.device.to_string(),
            orders,
            told: told.map(|told| Told {
                written: report.written.to_string(),
                orders: report.statement.as_ref().map(|statement| statement.version),
                state: told.state.to_string(),
                reason: told.reason.map(|reason| reason.to_string()),
            }),
            found: AnswerView {
                content: id.to_string(),
                name: about.name.to_string(),
                title: about.title.as_ref().map(ToString::to_string),
                cve: about.cve.iter().map(ToString::to_string).collect(),
                state: answer.state.to_string(),
                reason: answer.reason.map(|reason| reason.to_string()),
                detail: told.and_then(|told| told.detail.as_ref()).map(ToString::to_string),
                attempts: told.map_or(0, |told| told.attempts),
                gates: answer.gates.iter().map(GateView::from).collect(),
            },
        }
    }

    fn show(&self, output: Output) -> Result<(), Stop> {
        head(&self.found, output)?;
        let said = match &self.told {
            Some(told) => {
                let orders = match told.orders {
                    Some(version) => format!("by the orders {version}"),
                    None => "without orders".to_owned(),
                };
                let answer = answer(&told.state, told.reason.as_deref());
                format!("{answer}, as it said on {} {orders}", told.written)
            }
            None => "it has not told of it".to_owned(),
        };
        output.line(format_args!("  {}  {}", printable(&self.device), printable(&said)))?;
        output.line(format_args!("  control's own evaluation, by the orders {}:", self.orders))?;
        rest(&self.found, output)
    }
}

/// Returns what the agent of a data folder showed last.
pub(crate) fn shown(data: &DataArgs) -> Result<View, Failure> {
    View::read(&data.folder().agent()).map_err(|error| {
        let failure = Failure::from_error(Kind::File, &error);
        match error {
            ViewError::Absent { .. } => {
                failure.with_help("`sutler agent` shows it from its first look on")
            }
            _ => failure,
        }
    })
}

fn answer(state: &str, reason: Option<&str>) -> String {
    reason.map_or_else(|| state.to_owned(), |reason| format!("{state}, {reason}"))
}

fn head(answer: &AnswerView, output: Output) -> Result<(), Stop> {
    output.line(printable(&answer.name))?;
    output.line(format_args!("  content   {}", printable(&answer.content)))
}

fn rest(found: &AnswerView, output: Output) -> Result<(), Stop> {
    let said = answer(&found.state, found.reason.as_deref());
    output.line(format_args!("  state     {}", printable(&said)))?;
    if let Some(detail) = &found.detail {
        output.line(format_args!("  detail    {}", printable(detail)))?;
    }
    if found.attempts > 0 {
        output.line(format_args!("  attempts  {}", found.attempts))?;
    }
    let mut gates = table(["", "GATE", "VERDICT", "WHAT IT LOOKED AT"]);
    for (position, gate) in found.gates.iter().enumerate() {
        let verdict = match &gate.reason {
            Some(reason) => format!("{}: {reason}", gate.verdict),
            None => gate.verdict.clone(),
        };
        let number = (position + 1).to_string();
        gates.add_row(
            [number, gate.gate.clone(), verdict, gate.input.clone()].map(|t| printable(&t)),
        );
    }
    output.table(&gates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_known_by_its_slash_wherever_it_stands() {
        let of = |named: &[&str]| {
            let named: Vec<String> = named.iter().map(ToString::to_string).collect();
            let asked = Question::of(&named).ok()?;
            Some((asked.device.map(|device| device.to_string()), asked.what))
        };
        let at = |device: &str, what: &str| Some((Some(device.to_owned()), what.to_owned()));
        assert_eq!(of(&["CVE-2026-1"]), Some((None, "CVE-2026-1".to_owned())));
        assert_eq!(of(&["lab/anna", "CVE-2026-1"]), at("lab/anna", "CVE-2026-1"));
        assert_eq!(of(&["CVE-2026-1", "lab/anna"]), at("lab/anna", "CVE-2026-1"));
        assert_eq!(of(&["lab/anna", "lab/ben"]), at("lab/anna", "lab/ben"));
        // A name with a slash is still a name where it is alone.
        assert_eq!(of(&["lab/anna"]), Some((None, "lab/anna".to_owned())));
        assert_eq!(of(&["bash.deb", "CVE-2026-1"]), None);
    }
}
