//! `sutler report patch|device|site`: what devices say of themselves, from control's data.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Args, ValueEnum};
use comfy_table::Table;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sutler_control::State;
use sutler_control::reports::{self, Counts, ReadError, SILENT_AFTER, Tally};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::Content;
use sutler_protocol::ContentId;

use crate::access::DataArgs;
use crate::output::{Output, Stop, printable, table};
use crate::signing;

const EXAMPLES: &str = "\
Examples:
  sutler report patch --data ./control
  sutler report device --data ./control --csv > devices.csv
  sutler report site --data ./control --silent-days 7 --json

Works on the data of control, while it runs and while it does not. A device that has written no report for so
many days is `unknown`, whatever it said last.";

/// Returns the columns of a table whose last ones are the counts.
macro_rules! columns {
    ($($about:literal),*) => {
        [$($about,)* "needed", "staged", "installing", "installed", "failed", "not applicable", "unknown"]
    };
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// What each row is about.
    #[arg(value_enum)]
    by: By,
    #[command(flatten)]
    data: DataArgs,
    /// Print comma-separated values instead of a table or JSON.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// After how many days without a report nothing is known of a device [default: 3].
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=365))]
    silent_days: Option<u16>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// Each content: how many devices need, have or lack it.
    Patch,
    /// Each device: what it knows, and how far it is.
    Device,
    /// Each site.
    Site,
}

/// A report as a table: its columns, and its rows as text and as JSON.
pub(crate) struct Rows<const N: usize> {
    columns: [&'static str; N],
    rows: Vec<(Vec<String>, Value)>,
}

impl ReportArgs {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let data = self.data.folder();
        let silent_after = self
            .silent_days
            .map_or(SILENT_AFTER, |days| SignedDuration::from_hours(24 * i64::from(days)));
        match self.by {
            By::Patch => patches(data.root(), silent_after)?.show(self.csv, output),
            By::Device => by_device(&told(data.root(), silent_after)?.0).show(self.csv, output),
            By::Site => by_site(&told(data.root(), silent_after)?.0).show(self.csv, output),
        }
    }
}

/// Returns what devices say of each content to the control of a folder.
pub(crate) fn patches(path: &Path, silent_after: SignedDuration) -> Result<Rows<9>, Failure> {
    let (tally, state) = told(path, silent_after)?;
    Ok(by_patch(&tally, &names(&state)))
}

fn told(path: &Path, silent_after: SignedDuration) -> Result<(Tally, State), Failure> {
    let folder = signing::open(path)?;
    let organisation = folder.organisation().clone();
    let state = signing::state(&folder)?;
    // Whoever publishes meanwhile does not wait for the reports to be read.
    drop(folder);
    let reports =
        reports::read(&path.join("reports"), &organisation).map_err(|error| failure(&error))?;
    Ok((reports::tally(&reports, silent_after, Timestamp::now()), state))
}

impl<const N: usize> Rows<N> {
    /// Returns the report for people.
    pub(crate) fn table(&self) -> Table {
        let mut shown = table(self.columns);
        for (cells, _) in &self.rows {
            shown.add_row(cells.iter().map(|cell| printable(cell)));
        }
        shown
    }

    /// Returns the rows for scripts.
    pub(crate) fn into_values(self) -> Vec<Value> {
        self.rows.into_iter().map(|(_, row)| row).collect()
    }

    fn show(self, csv: bool, output: Output) -> Result<(), Stop> {
        if csv {
            output.line(self.columns.join(","))?;
            for (cells, _) in &self.rows {
                let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
                output.line(cells.join(","))?;
            }
        } else {
            output.table(&self.table())?;
        }
        self.rows.iter().try_for_each(|(_, row)| output.json(row))
    }
}

fn by_patch(tally: &Tally, names: &BTreeMap<ContentId, String>) -> Rows<9> {
    let rows = tally.contents.iter().map(|(id, counts)| {
        let name = names.get(id).cloned().unwrap_or_default();
        let cells = [vec![id.to_string(), name.clone()], cells(counts)].concat();
        (cells, json!({ "content": id.to_string(), "name": name, "devices": counts }))
    });
    Rows { columns: columns!["content", "name"], rows: rows.collect() }
}

fn by_device(tally: &Tally) -> Rows<11> {
    let rows = tally.devices.iter().map(|device| {
        let orders = match device.statement {
            Some(version) if device.stale => format!("{version} stale"),
            Some(version) => version.to_string(),
            None => "none".to_owned(),
        };
        let host_name = device.host_name.clone().unwrap_or_default();
        let about = vec![device.device.clone(), host_name, device.written.clone(), orders];
        ([about, cells(&device.answers)].concat(), json!(device))
    });
    Rows { columns: columns!["device", "host", "last report", "orders"], rows: rows.collect() }
}

fn by_site(tally: &Tally) -> Rows<10> {
    let rows = tally.sites.iter().map(|(site, (devices, silent, counts))| {
        let about = vec![site.clone(), devices.to_string(), silent.to_string()];
        let row = json!({ "site": site, "devices": devices, "silent": silent, "answers": counts });
        ([about, cells(counts)].concat(), row)
    });
    Rows { columns: columns!["site", "devices", "silent"], rows: rows.collect() }
}

fn cells(counts: &Counts) -> Vec<String> {
    let Counts { needed, staged, installing, installed, failed, not_applicable, unknown } = counts;
    [needed, staged, installing, installed, failed, not_applicable, unknown]
        .map(ToString::to_string)
        .into()
}

/// Returns a cell as RFC 4180 has it. What a spreadsheet would take for a formula is text.
fn quoted(cell: &str) -> String {
    let cell =
        if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}

/// Returns the names of published contents.
fn names(state: &State) -> BTreeMap<ContentId, String> {
    let contents = state.contents().filter_map(|(path, file)| Content::of(&path, file).ok());
    contents.map(|content| (content.bytes.blake3, content.about.name.to_string())).collect()
}

/// Says why the reports cannot be read.
pub(crate) fn failure(error: &ReadError) -> Failure {
    let kind = match error {
        ReadError::Disk { .. } => Kind::File,
        ReadError::Report { .. } | ReadError::Name { .. } => Kind::Corrupt,
    };
    Failure::from_error(kind, error)
}
