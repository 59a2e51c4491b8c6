//! How far a denial, a pause or a halt has got, from what devices report to control: printed once it is published, and
//! with `--watch` until every device has heard of it.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sutler_control::judgement::{self, Published};
use sutler_control::spread::{Spread, Stop as Stopped, spread};
use sutler_control::{Folder, State, reports};
use sutler_node::data::DataFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_orders::audience::Audience;
use sutler_protocol::ContentId;
use sutler_protocol::name::{Label, Organisation};

use crate::command::report;
use crate::output::{Output, Stop};
use crate::signing::state;

/// How often it looks. Devices take seconds to report.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct WatchArgs {
    /// Go on until every device that has reported here has heard of it.
    #[arg(long)]
    watch: bool,
}

/// Where control's reports lie, and what was published before the stop.
pub(crate) struct Watch {
    folder: PathBuf,
    organisation: Organisation,
    before: Published,
    stopped: Stopped,
}

impl Watch {
    /// Returns what shows how far a stop has got that was published just now over `before`; `None` where no device
    /// reports: this is no control's folder then.
    ///
    /// Control needs the folder to notice what was published: it has to be closed before anybody waits.
    pub(crate) fn of(
        folder: &Folder,
        before: &State,
        (contents, scope, audience): (&[ContentId], Option<&Label>, &Audience),
    ) -> Result<Option<Self>, Failure> {
        let path = folder.path().to_owned();
        if !path.join("reports").is_dir() {
            return Ok(None);
        }
        let organisation = folder.organisation().clone();
        let denials = judgement::denials(&DataFolder::new(&path).orders()).map_err(|error| {
            Failure::because(Kind::File, "read the denials that control holds", &error)
        })?;
        let stopped = Stopped {
            contents: contents.iter().copied().collect(),
            scope: scope.cloned(),
            audience: audience.clone(),
            version: state(folder)?.timestamp.version().number(),
        };
        let before = Published::of(before, &organisation, &denials);
        Ok(Some(Self { folder: path, organisation, before, stopped }))
    }

    /// Shows how far it has got.
    pub(crate) fn show(&self, watch: WatchArgs, output: Output) -> Result<(), Stop> {
        let spread = self.end(watch)?;
        output.line(in_words(&spread))?;
        output.json(&spread)
    }

    /// Looks once, or until it has got everywhere.
    fn end(&self, watch: WatchArgs) -> Result<Spread, Failure> {
        let is_shown = watch.watch && stderr().is_terminal();
        loop {
            let spread = self.look()?;
            if is_shown {
                // A terminal that is gone sees nothing.
                drop(write!(stderr(), "\r\x1b[K{}", in_words(&spread)));
            }
            if !watch.watch || spread.is_done() {
                if is_shown {
                    drop(write!(stderr(), "\r\x1b[K"));
                }
                return Ok(spread);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn look(&self) -> Result<Spread, Failure> {
        let reports = reports::read(&self.reports(), &self.organisation);
        let reports = reports.map_err(|error| report::failure(&error))?;
        Ok(spread(&reports, &self.stopped, &self.before, jiff::tz::db(), Timestamp::now()))
    }

    fn reports(&self) -> PathBuf {
        self.folder.join("reports")
    }
}

fn in_words(spread: &Spread) -> String {
    let Spread { sites_done, sites, could_install, .. } = *spread;
    if spread.devices == 0 {
        return "no device that it is for has reported here".to_owned();
    }
    let devices = match could_install {
        0 => "no device could still install".to_owned(),
        1 => "1 device could still install".to_owned(),
        count => format!("{count} devices could still install"),
    };
    let earliest = spread.earliest.map(|at| {
        if at.instant() <= Timestamp::now() {
            return ", now".to_owned();
        }
        let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        at.instant().to_zoned(zone).strftime(", from %a %d %b %Y %H:%M %Z on").to_string()
    });
    format!("{sites_done} of {sites} sites have it; {devices}{}", earliest.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_with_its_hour() {
        let at = "9000-01-01T22:00:00Z".parse().unwrap();
        let spread = Spread {
            sites_done: 287,
            sites: 300,
            devices: 600,
            could_install: 41,
            ..Spread::default()
        };
        let said = in_words(&Spread { earliest: Some(at), ..spread });
        let words = "287 of 300 sites have it; 41 devices could still install, from ";
        assert!(said.starts_with(words) && said.contains(" 9000 "), "{said}");
        let at = "2026-01-01T22:00:00Z".parse().unwrap();
        let said = in_words(&Spread { could_install: 1, earliest: Some(at), ..spread });
        assert!(said.ends_with("1 device could still install, now"), "{said}");
        let said = in_words(&Spread { could_install: 0, ..spread });
        assert!(said.ends_with("no device could still install"), "{said}");
        let said = in_words(&Spread::default());
        assert!(said.contains("no device that it is for"), "{said}");
    }
}
