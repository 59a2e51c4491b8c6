//! What the device finds out about itself from other programs: which versions are installed, and whether its line costs
//! money.
//!
//! They only look, within `SENSE_MAX` and with bounded output, and what cannot be told is not known: then silence approves
//! nothing, and a line is taken for a free one, as it is where nobody counts.

use std::path::Path;
use std::time::Duration;

use sutler_protocol::name::Label;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::command::Vector;
use crate::run::{self, Ended, How};
use crate::said;
use crate::versions::Versions;

/// How long one program may take.
const SENSE_MAX: Duration = Duration::from_secs(30);

/// Bytes of a list of versions: 50,000 packages and more.
const LIST_BYTES_MAX: usize = 4 << 20;

/// Bytes of what is said of lines: a machine has a few.
const LINES_BYTES_MAX: usize = 64 * 1024;

/// The client of the network's manager, which knows whether a line is metered.
const NMCLI: &str = "/usr/bin/nmcli";

/// How old the list of versions may be: the operator may have installed something meanwhile.
const VERSIONS_FRESH: Duration = Duration::from_mins(10);

/// How old the answer about the line may be: a laptop is carried about.
const LINE_FRESH: Duration = Duration::from_mins(1);

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The installed versions.
    pub versions: bool,
    /// Whether the line costs money.
    pub line: bool,
}

/// What was found out. What was not asked for is absent.
#[derive(Clone, Debug, Default)]
pub struct Sensed {
    /// The installed versions, of every kind that could be listed.
    pub versions: Option<Versions>,
    /// Whether the line costs money.
    pub is_metered: Option<bool>,
}

/// What is known, and since when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Senses {
    versions: Option<(Duration, Versions)>,
    line: Option<(Duration, bool)>,
}

impl Senses {
    /// Takes in what was found out, after `elapsed` since the start.
    pub(crate) fn take(&mut self, sensed: Sensed, elapsed: Duration) {
        if let Some(versions) = sensed.versions {
            self.versions = Some((elapsed, versions));
        }
        if let Some(is_metered) = sensed.is_metered {
            self.line = Some((elapsed, is_metered));
        }
    }

    /// Forgets the versions, because something was installed.
    pub(crate) fn forget_versions(&mut self) {
        self.versions = None;
    }

    /// Returns the versions, and none where they were listed too long ago.
    pub(crate) fn versions(&self, elapsed: Duration) -> &Versions {
        let fresh = self.versions.as_ref().filter(|(at, _)| {
            // Twice as long as until they are listed again, which takes its time.
            elapsed.saturating_sub(*at) <= 2 * VERSIONS_FRESH
        });
        fresh.map_or(Versions::NONE, |(_, versions)| versions)
    }

    /// Returns whether the line was asked about.
    pub(crate) const fn knows_line(&self) -> bool {
        self.line.is_some()
    }

    /// Returns whether the line costs money, as far as is known.
    pub(crate) fn is_metered(&self) -> bool {
        self.line.is_some_and(|(_, is_metered)| is_metered)
    }

    /// Returns whether it is time to list the versions.
    pub(crate) fn is_due_for_versions(&self, elapsed: Duration) -> bool {
        self.versions.as_ref().is_none_or(|(at, _)| elapsed.saturating_sub(*at) > VERSIONS_FRESH)
    }

    /// Returns whether it is time to ask about the line.
    pub(crate) fn is_due_for_line(&self, elapsed: Duration) -> bool {
        self.line.is_none_or(|(at, _)| elapsed.saturating_sub(at) > LINE_FRESH)
    }
}

impl Wants {
    /// Returns whether anything is asked for.
    pub fn any(self) -> bool {
        self.versions || self.line
    }
}

/// Finds out what is asked for, with the programs `lists` of each kind.
///
/// # Cancel safety
///
/// Not cancel-safe: a program would go on with nobody to end it. `stop` ends it.
pub(crate) async fn sense(
    wants: Wants,
    lists: Vec<(Label, Vector)>,
    stop: CancellationToken,
) -> Sensed {
    let mut sensed = Sensed::default();
    if wants.line {
        sensed.is_metered = Some(is_metered(&stop).await);
    }
    if wants.versions {
        let mut versions = Versions::default();
        for (kind, vector) in lists {
            if let Some(list) = said_by(&vector, LIST_BYTES_MAX, &stop).await {
                versions.read(kind, &list);
            }
        }
        sensed.versions = Some(versions);
    }
    sensed
}

async fn is_metered(stop: &CancellationToken) -> bool {
    if !Path::new(NMCLI).exists() {
        return false;
    }
    let arguments = ["--terse", "--fields", "GENERAL.STATE,GENERAL.METERED", "device", "show"];
    let arguments = arguments.map(str::to_owned).to_vec();
    let vector = Vector { program: NMCLI.to_owned(), arguments };
    said_by(&vector, LINES_BYTES_MAX, stop).await.is_some_and(|said| parse_lines(&said))
}

/// Reads a block of `GENERAL.STATE:` and `GENERAL.METERED:` for each line of the machine: whether one that is connected is
/// metered, and none that is connected is not.
fn parse_lines(said: &str) -> bool {
    let metered: Vec<bool> = said
        .split("\n\n")
        .filter_map(|block| {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let is_connected = field("GENERAL.STATE:")?.trim().starts_with("100");
            let metered = field("GENERAL.METERED:").filter(|_| is_connected)?.trim();
            match metered.split(' ').next() {
                Some("yes") => Some(true),
                Some("no") => Some(false),
                _ => None,
            }
        })
        .collect();
    !metered.is_empty() && metered.iter().all(|is_metered| *is_metered)
}

/// Returns what a program says, if it ends well and says no more than `bytes_max`.
async fn said_by(vector: &Vector, bytes_max: usize, stop: &CancellationToken) -> Option<String> {
    let ended = match run::start(vector) {
        // More is kept, so that it shows whether more was said.
        Ok(started) => started.end_saying(SENSE_MAX, stop, 4 * bytes_max).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(Ended { how: How::Code(0), output }) if output.len() <= bytes_max => Some(output),
        Ok(Ended { how, output }) => {
            info!(command = %vector, ?how, bytes = output.len(), "a program has no answer");
            None
        }
        Err(error) => {
            debug!(command = %vector, error = said(&error), "a program does not run");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_metered_where_all_that_are_connected_are() {
        let block = |state: &str, metered: &str| {
            format!("GENERAL.STATE:{state}\nGENERAL.METERED:{metered}\n")
        };
        let up = "100 (connected)";
        for (blocks, is_metered) in [
            (vec![], false),
            (vec![block(up, "yes")], true),
            (vec![block(up, "yes (guessed)"), block(up, "unknown")], true),
            (vec![block(up, "no (guessed)")], false),
            (vec![block(up, "yes"), block(up, "no")], false),
            (vec![block("30 (disconnected)", "yes")], false),
            (vec![block("30 (disconnected)", "no"), block(up, "yes")], true),
            (vec!["rubbish".to_owned()], false),
        ] {
            assert_eq!(parse_lines(&blocks.join("\n")), is_metered, "{blocks:?}");
        }
    }

    #[test]
    fn what_was_found_out_is_good_for_a_while_and_versions_until_something_is_installed() {
        let mut senses = Senses::default();
        let minutes = Duration::from_mins;
        assert!(senses.is_due_for_versions(minutes(0)) && senses.is_due_for_line(minutes(0)));
        let mut versions = Versions::default();
        versions.read("deb".parse().unwrap(), "bash 5.2-1");
        senses
            .take(Sensed { versions: Some(versions.clone()), is_metered: Some(true) }, minutes(1));
        assert!(senses.knows_line() && senses.is_metered());
        assert!(!senses.is_due_for_line(minutes(2)) && senses.is_due_for_line(minutes(3)));
        assert!(
            !senses.is_due_for_versions(minutes(11)) && senses.is_due_for_versions(minutes(12))
        );
        assert_eq!(senses.versions(minutes(21)), &versions);
        assert_eq!(senses.versions(minutes(22)), &Versions::default());
        // A program that is late with one answer does not undo the other.
        senses.take(Sensed { versions: None, is_metered: Some(false) }, minutes(3));
        assert_eq!((senses.versions(minutes(4)), senses.is_metered()), (&versions, false));
        senses.forget_versions();
        assert!(senses.is_due_for_versions(minutes(4)));
        assert_eq!(senses.versions(minutes(4)), &Versions::default());
    }

    #[tokio::test]
    async fn versions_are_those_that_a_program_lists() {
        let list = |script: &str| {
            let arguments = vec!["-c".to_owned(), script.to_owned()];
            vec![("deb".parse().unwrap(), Vector { program: "/bin/sh".to_owned(), arguments })]
        };
        let wants = Wants { versions: true, line: false };
        let of = |script: &str| sense(wants, list(script), CancellationToken::new());
        let mut expected = Versions::default();
        expected.read("deb".parse().unwrap(), "bash 5.2-1 installed");
        let sensed = of("echo bash 5.2-1 installed; echo noise >&2").await;
        assert_eq!((sensed.versions, sensed.is_metered), (Some(expected), None));
        // Whoever fails has said nothing.
        let sensed = of("echo bash 5.2-1 installed; exit 1").await;
        assert_eq!(sensed.versions, Some(Versions::default()));
        let sensed = of("yes bash 5.2-1 | head -c 9000000").await;
        assert_eq!(sensed.versions, Some(Versions::default()));
    }
}
