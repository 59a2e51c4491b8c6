//! Contestants in turn, their medians and ratios, for people (a Markdown table) and for programs.

use std::fmt::Write as _;

use anyhow::ensure;
use serde_json::{Value, json};

/// Runs that count, at least.
pub(crate) const RUNS_MIN: usize = 5;

const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;

/// What one run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Seconds from the start of the first client to the end of the last.
    pub(crate) elapsed_s: f64,
    /// Processor seconds of all clients.
    pub(crate) client_cpu_s: f64,
    /// Processor seconds of the server during the run.
    pub(crate) server_cpu_s: f64,
    /// The most memory of the largest client, in bytes.
    pub(crate) client_rss_bytes: u64,
    /// The most memory of the server since its start, in bytes.
    pub(crate) server_rss_bytes: u64,
}

/// One side of a comparison.
pub(crate) struct Contestant<'a> {
    name: String,
    bytes: u64,
    run: Box<dyn FnMut() -> anyhow::Result<Sample> + 'a>,
}

/// A contestant's runs.
pub(crate) struct Row {
    name: String,
    bytes: u64,
    /// The first run, which does not count: caches are cold, chunks are read for the first time.
    first: Sample,
    samples: Vec<Sample>,
}

/// A comparison of all contestants of a job.
pub(crate) struct Table {
    title: String,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    notes: Vec<String>,
}

/// How many times as fast one is as another.
struct Ratio {
    what: String,
    times: f64,
    wanted: String,
}

impl<'a> Contestant<'a> {
    /// Returns a contestant whose run moves `bytes` bytes in all; none where time alone is measured.
    pub(crate) fn new(
        name: impl Into<String>,
        bytes: u64,
        run: impl FnMut() -> anyhow::Result<Sample> + 'a,
    ) -> Self {
        Self { name: name.into(), bytes, run: Box::new(run) }
    }
}

impl Table {
    /// Runs each contestant once without counting, then all of them in turn, `runs` times.
    pub(crate) fn of(
        title: impl Into<String>,
        runs: usize,
        mut contestants: Vec<Contestant<'_>>,
    ) -> anyhow::Result<Self> {
        let title = title.into();
        let mut rows = Vec::new();
        for contestant in &mut contestants {
            eprintln!("{title}: {}, first run", contestant.name);
            let (name, bytes) = (contestant.name.clone(), contestant.bytes);
            rows.push(Row { name, bytes, first: (contestant.run)()?, samples: Vec::new() });
        }
        for run in 1..=runs {
            for (contestant, row) in contestants.iter_mut().zip(&mut rows) {
                let sample = (contestant.run)()?;
                eprintln!("{title}: {}, run {run}: {:.3} s", row.name, sample.elapsed_s);
                row.samples.push(sample);
            }
        }
        ensure!(rows.iter().all(|row| !row.samples.is_empty()), "at least one run");
        Ok(Self { title, rows, ratios: Vec::new(), notes: Vec::new() })
    }

    /// Compares two contestants by name: how many times as fast the first is, as the median over
    /// the turns, in which both met the same machine.
    pub(crate) fn compare(&mut self, fast: &str, slow: &str, wanted: &str) {
        let (Some(one), Some(other)) = (self.row(fast), self.row(slow)) else { return };
        let rates = |row: &Row, sample: &Sample| row.bytes as f64 / sample.elapsed_s;
        let turns = one.samples.iter().zip(&other.samples);
        let times = median(turns.map(|(a, b)| rates(one, a) / rates(other, b)));
        let (what, wanted) = (format!("{fast} / {slow}"), wanted.to_owned());
        self.ratios.push(Ratio { what, times, wanted });
    }

    /// Adds a sentence below the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a sentence for each contestant: what a run took of the processors.
    pub(crate) fn note_cpu(&mut self) {
        let cpu = |row: &Row| {
            let (server, clients) = (
                row.median(|sample| sample.server_cpu_s),
                row.median(|sample| sample.client_cpu_s),
            );
            format!("Processor, {}: server {server:.2} s, clients {clients:.2} s.", row.name)
        };
        self.notes.extend(self.rows.iter().map(cpu).collect::<Vec<_>>());
    }

    /// Returns the row of a contestant.
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Returns the table in Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "### {}\n\n| | s | MB/s | slowest - fastest | first run | CPU-s a GiB: client | server | \
             RSS MiB: client | server |\n|---|---|---|---|---|---|---|---|---|\n",
            self.title
        );
        for row in &self.rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", row.markdown());
        }
        if !self.ratios.is_empty() {
            text.push_str("\n| Ratio of rates, median of turns | | wanted |\n|---|---|---|\n");
        }
        for Ratio { what, times, wanted } in &self.ratios {
            let _ = writeln!(text, "| {what} | {times:.2} x | {wanted} |");
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    /// Returns the table with every run.
    pub(crate) fn json(&self) -> Value {
        let ratios: Vec<Value> = self
            .ratios
            .iter()
            .map(
                |ratio| json!({ "what": ratio.what, "times": ratio.times, "wanted": ratio.wanted }),
            )
            .collect();
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({ "title": self.title, "rows": rows, "ratios": ratios, "notes": self.notes })
    }
}

impl Row {
    /// Returns the median of a figure over the runs that count.
    pub(crate) fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure))
    }

    /// Returns the most memory that the server held, in bytes.
    pub(crate) fn server_rss_bytes(&self) -> u64 {
        self.all().map(|sample| sample.server_rss_bytes).max().unwrap_or(0)
    }

    fn all(&self) -> impl Iterator<Item = &Sample> {
        std::iter::once(&self.first).chain(&self.samples)
    }

    fn markdown(&self) -> String {
        // What moves no bytes has no rate.
        let per_gib = |seconds: f64| match self.bytes {
            0 => "-".to_owned(),
            bytes => format!("{:.2}", seconds / (bytes as f64 / GIB)),
        };
        let rate = |seconds: f64| match self.bytes {
            0 => "-".to_owned(),
            bytes => format!("{:.0}", bytes as f64 / seconds / 1e6),
        };
        let elapsed = self.median(|sample| sample.elapsed_s);
        let each = |pick: fn(f64, f64) -> f64, start| {
            self.samples.iter().map(|sample| sample.elapsed_s).fold(start, pick)
        };
        let (fastest, slowest) = (each(f64::min, f64::MAX), each(f64::max, 0.0));
        let client_rss = self.all().map(|sample| sample.client_rss_bytes).max().unwrap_or(0);
        format!(
            "| {} | {elapsed:.3} | {} | {} - {} | {} | {} | {} | {:.0} | {:.0} |",
            self.name,
            rate(elapsed),
            rate(slowest),
            rate(fastest),
            rate(self.first.elapsed_s),
            per_gib(self.median(|sample| sample.client_cpu_s)),
            per_gib(self.median(|sample| sample.server_cpu_s)),
            client_rss as f64 / MIB,
            self.server_rss_bytes() as f64 / MIB,
        )
    }

    fn json(&self) -> Value {
        let sample = |sample: &Sample| {
            json!({
                "elapsed_s": sample.elapsed_s,
                "client_cpu_s": sample.client_cpu_s,
                "server_cpu_s": sample.server_cpu_s,
                "client_rss_bytes": sample.client_rss_bytes,
                "server_rss_bytes": sample.server_rss_bytes,
            })
        };
        let samples: Vec<Value> = self.samples.iter().map(sample).collect();
        json!({
            "name": self.name,
            "bytes": self.bytes,
            "median_s": self.median(|sample| sample.elapsed_s),
            "first": sample(&self.first),
            "samples": samples,
        })
    }
}

/// Returns the middle of some values.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contestants_take_turns_and_the_first_run_does_not_count() {
        let turns = std::cell::RefCell::new(Vec::new());
        let contestant = |name: &'static str, seconds: f64| {
            let turns = &turns;
            Contestant::new(name, 1_000_000, move || {
                turns.borrow_mut().push(name);
                let is_first = turns.borrow().len() <= 2;
                let elapsed_s = if is_first { 100.0 } else { seconds };
                Ok(Sample { elapsed_s, ..Sample::default() })
            })
        };
        let contestants = vec![contestant("ours", 0.5), contestant("theirs", 1.0)];
        let mut table = Table::of("a job", 3, contestants).unwrap();
        table.compare("ours", "theirs", "at least 1.4 x");
        assert_eq!(*turns.borrow(), ["ours", "theirs"].repeat(4));
        assert!(table.markdown().contains("| ours / theirs | 2.00 x | at least 1.4 x |"));
        assert!((table.row("ours").unwrap().median(|sample| sample.elapsed_s) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_median_is_the_middle() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < 1e-9);
    }
}
