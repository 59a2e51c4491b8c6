//! What a command prints on stdout: lines for people, or JSON for scripts, never both.
//!
//! A reader that goes away (`sutler store ls | head`) ends the command quietly.

use std::fmt;
use std::io::{self, Write};

use comfy_table::Table;
use serde::Serialize;
use serde_json::json;
use sutler_node::failure::{Failure, Kind};

use crate::exit;

/// Which of the two forms the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text.
    Human,
    /// One JSON value a line.
    Json,
}

/// Prints results in one form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    form: Form,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed; the user is told.
    Failed(Failure),
    /// Nobody reads our output any more.
    PipeClosed,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Output {
    pub(crate) const fn new(form: Form) -> Self {
        Self { form }
    }

    /// Prints a line for people.
    pub(crate) fn line(self, text: impl fmt::Display) -> Result<(), Stop> {
        match self.form {
            Form::Human => print(format_args!("{text}")),
            Form::Json => Ok(()),
        }
    }

    /// Prints a table for people.
    pub(crate) fn table(self, table: &Table) -> Result<(), Stop> {
        let lines: Vec<String> = table.lines().collect();
        lines.iter().try_for_each(|line| self.line(line.trim_end()))
    }

    /// Prints a value for scripts, on one line.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Stop> {
        match self.form {
            Form::Human => Ok(()),
            Form::Json => {
                let text = serde_json::to_string(value)
                    .map_err(|error| Failure::because(Kind::Internal, "print JSON", &error))?;
                print(format_args!("{text}"))
            }
        }
    }

    /// Tells scripts why the command failed.
    pub(crate) fn error(self, failure: &Failure) {
        let error = json!({ "error": {
            "kind": failure.kind, "exit_code": exit::code_of(failure.kind).0,
            "message": failure.what, "causes": failure.causes, "help": failure.help,
        }});
        // If nobody reads it, there is nobody to tell.
        drop(self.json(&error));
    }

    /// Says why the command failed: to people on stderr, to scripts as the last line on stdout.
    pub(crate) fn failed(self, failure: &Failure) {
        self.error(failure);
        let mut stderr = anstream::stderr().lock();
        drop(writeln!(stderr, "error: {failure}"));
        if let Some(help) = &failure.help {
            drop(writeln!(stderr, "help: {help}"));
        }
    }
}

/// Returns a table without frames, as package managers print theirs.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Aligns the columns at these positions to the right, as numbers are.
pub(crate) fn align_right(table: &mut Table, columns: &[usize]) {
    for position in columns {
        if let Some(column) = table.column_mut(*position) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
}

/// Returns `text` with what a terminal would act upon made visible: names come from others.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

fn print(text: fmt::Arguments<'_>) -> Result<(), Stop> {
    let mut stdout = anstream::stdout().lock();
    // Flushed at once: a script may wait for this very line.
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stop::PipeClosed),
        Err(error) => Err(Stop::Failed(Failure::because(
            Kind::of_io(&error, Kind::File),
            "write to stdout",
            &error,
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    }
}
