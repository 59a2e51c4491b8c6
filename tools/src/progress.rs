//! Progress bars on stderr, where a person watches; nothing at all elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sutler_node::report::Progress;

use crate::output::printable;

/// Characters of a subject that a bar shows.
const SUBJECT_CHARS: usize = 40;

/// One bar for each subject that makes progress.
#[derive(Debug)]
pub(crate) struct Bars {
    all: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        let target = if stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self { all: MultiProgress::with_draw_target(target), bars: BTreeMap::new() }
    }

    /// Shows how far a subject has come.
    pub(crate) fn show(&mut self, label: &str, progress: &Progress) {
        self.show_as(label, label, progress);
    }

    /// Shows how far the subject `key` has come, under a label that may change.
    pub(crate) fn show_as(&mut self, key: &str, label: &str, progress: &Progress) {
        let all = &self.all;
        let bar = self.bars.entry(key.to_owned()).or_insert_with(|| {
            let bar = all.add(ProgressBar::no_length());
            bar.set_style(style(false));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let label: String = printable(label).chars().take(SUBJECT_CHARS).collect();
        if bar.prefix() != label {
            bar.set_prefix(label);
        }
        if bar.length() != progress.bytes {
            if let Some(bytes) = progress.bytes {
                bar.set_length(bytes);
            }
            bar.set_style(style(progress.bytes.is_some()));
        }
        bar.set_position(progress.bytes_had);
    }

    /// Takes the bar of a subject away.
    pub(crate) fn end(&mut self, label: &str) {
        if let Some(bar) = self.bars.remove(label) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{prefix:40} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}"
    } else {
        "{prefix:40} {spinner} {decimal_bytes} {decimal_bytes_per_sec}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
