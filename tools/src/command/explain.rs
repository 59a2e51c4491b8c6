//! `sutler explain`: why a device does with a content what it does, gate by gate. It reads what the agent showed
//! last, whether one runs or not.

use clap::Args;
use sutler_agent::view::{AnswerView, View, ViewError};
use sutler_node::failure::{Failure, Kind};

use crate::access::DataArgs;
use crate::output::{Output, Stop, printable, table};

const EXAMPLES: &str = "\
Examples:
  sutler explain CVE-2026-12345 --data /var/lib/sutler
  sutler explain bash_5.2-3_amd64.deb --data ./anna
  sutler explain 4f1a09c2 --data ./anna --json | jq '.[0].gates[] | select(.verdict == \"blocked\")'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Explain {
    /// A content's id, or at least 8 digits of its beginning; its file name; or a CVE id.
    #[arg(value_name = "CONTENT|NAME|CVE")]
    what: String,
    #[command(flatten)]
    data: DataArgs,
}

impl Explain {
    pub(crate) fn run(&self, output: Output) -> Result<(), Stop> {
        let view = shown(&self.data)?;
        let answers = view.about(&self.what);
        if answers.is_empty() {
            let what = format!("the orders that this device knows name no {}", self.what);
            return Err(Failure::new(Kind::UnknownContent, what)
                .with_help("`sutler status` says how old they are")
                .into());
        }
        for answer in &answers {
            explain(answer, output)?;
        }
        output.line(format_args!("as of {}", view.written))?;
        output.json(&answers)
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

fn explain(answer: &AnswerView, output: Output) -> Result<(), Stop> {
    output.line(printable(&answer.name))?;
    output.line(format_args!("  content   {}", printable(&answer.content)))?;
    let reason = answer.reason.as_deref().map(|reason| format!(", {reason}")).unwrap_or_default();
    output.line(format_args!("  state     {}{}", printable(&answer.state), printable(&reason)))?;
    if let Some(detail) = &answer.detail {
        output.line(format_args!("  detail    {}", printable(detail)))?;
    }
    if answer.attempts > 0 {
        output.line(format_args!("  attempts  {}", answer.attempts))?;
    }
    let mut gates = table(["", "GATE", "VERDICT", "WHAT IT LOOKED AT"]);
    for (position, gate) in answer.gates.iter().enumerate() {
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
