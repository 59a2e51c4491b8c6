//! How far a denial, a pause or a halt has got, from what devices report to control: printed once it is published, and
//! with `--watch` until every device has heard of it. Where control runs on another machine it is asked, and says numbers.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sutler_control::judgement::{self, Published};
use sutler_control::spread::{Spread, Stop as Stopped, spread};
use sutler_control::{State, reports};
use sutler_node::data::DataFolder;
use sutler_node::failure::{Failure, Kind};
use sutler_orders::audience::Audience;
use sutler_protocol::ContentId;
use sutler_protocol::manifest::{RoleName, Version};
use sutler_protocol::name::{Label, Organisation};

use crate::command::report;
use crate::output::{Output, Stop};
use crate::remote::Remote;
use crate::signing::{Office, state};

/// How often it looks. Devices take seconds to report.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often it asks another machine, whose answer is good for as long.
const ASK_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct WatchArgs {
    /// Go on until every device that has reported to control has heard of it.
    #[arg(long)]
    watch: bool,
}

/// A stop that was published, and where it can be seen how far it has got.
pub(crate) enum Watch {
    /// Control's reports lie here.
    Here(Box<Here>),
    /// Control is asked.
    There(There),
}

/// Where control's reports lie, and what was published before the stop.
pub(crate) struct Here {
    folder: PathBuf,
    organisation: Organisation,
    before: Published,
    stopped: Stopped,
}

/// Control, and which stop it is asked about.
pub(crate) struct There {
    control: Remote,
    scope: Label,
    /// The version of the scope's approvals that brought it.
    version: u64,
    /// The version of the orders that has it.
    orders: u64,
}

impl Watch {
    /// Returns what shows how far a stop has got that was published just now over `before`; `None` where no device
    /// reports: this is no control's folder then, and no control was named.
    ///
    /// It closes the folder before anybody waits: control needs it to notice what was published.
    pub(crate) fn of(
        office: Office,
        before: &State,
        (contents, scope, audience): (&[ContentId], Option<&Label>, &Audience),
    ) -> Result<Option<Self>, Failure> {
        let orders = state(&office)?.timestamp.version().number();
        if office.control().is_some() {
            let role = scope.and_then(|scope| RoleName::delegated(&format!("approvals-{scope}")));
            let version = role.and_then(|role| before.next_version(&role)).map(Version::number);
            let asked = office.close().zip(scope.cloned().zip(version));
            return Ok(asked.map(|(control, (scope, version))| {
                Self::There(There { control, scope, version, orders })
            }));
        }
        let path = office.path().to_owned();
        if !path.join("reports").is_dir() {
            return Ok(None);
        }
        let organisation = office.organisation().clone();
        let denials = judgement::denials(&DataFolder::new(&path).orders()).map_err(|error| {
            Failure::because(Kind::File, "read the denials that control holds", &error)
        })?;
        let stopped = Stopped {
            contents: contents.iter().copied().collect(),
            scope: scope.cloned(),
            audience: audience.clone(),
            version: orders,
        };
        let before = Published::of(before, &organisation, &denials);
        Ok(Some(Self::Here(Box::new(Here { folder: path, organisation, before, stopped }))))
    }

    /// Shows how far it has got.
    pub(crate) fn show(&self, watch: WatchArgs, output: Output) -> Result<(), Stop> {
        let spread = match self.end(watch) {
            // It is published all the same.
            Err(failure) if !watch.watch && matches!(self, Self::There(_)) => {
                eprintln!("warning: how far it has got is unknown: {failure}");
                return Ok(());
            }
            spread => spread?,
        };
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
            thread::sleep(match self {
                Self::Here(_) => LOOK_EVERY,
                Self::There(_) => ASK_EVERY,
            });
        }
    }

    fn look(&self) -> Result<Spread, Failure> {
        match self {
            Self::Here(here) => here.look(),
            Self::There(There { control, scope, version, orders }) => {
                control.spread(scope, *version, *orders)
            }
        }
    }
}

impl Here {
    fn look(&self) -> Result<Spread, Failure> {
        let reports = reports::read(&self.folder.join("reports"), &self.organisation);
        let reports = reports.map_err(|error| report::failure(&error))?;
        Ok(spread(&reports, &self.stopped, &self.before, jiff::tz::db(), Timestamp::now()))
    }
}

fn in_words(spread: &Spread) -> String {
    let Spread { sites_done, sites, could_install, .. } = *spread;
    if spread.devices == 0 {
        return "no device that it is for has reported to control".to_owned();
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
