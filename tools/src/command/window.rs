//! `sutler window preview`: when the windows of a schedule file would open, before anybody signs it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde_json::{Value, json};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::order::{Body as _, Breach};
use sutler_orders::schedules::{Schedule, Schedules};
use sutler_orders::sites::Sites;
use sutler_orders::text::Utc;
use sutler_orders::windows::{Opening, Warning, Zones, next_windows};
use sutler_protocol::name::Label;

use crate::command::set::read;
use crate::command::site::sites;
use crate::output::{Output, Stop, table};
use crate::signing::{OrgArgs, state};

const EXAMPLES: &str = "\
Examples:
  sutler window preview windows.json --next 12 --org-dir ./acme
  sutler window preview windows.json --site cologne --site new-york
  sutler window preview windows.json --tz Europe/Berlin --from 2026-03-01T00:00:00Z --json
FILE is what `sutler schedule set` takes. Each window is shown at each published site, or in each zone given by --tz;
a window in its device's zone is shown as for a device that is set to it. Warned of are times that clocks skip or
have twice, windows over which they change, and an n-th weekday before the month's Patch Tuesday.";

#[derive(Debug, Subcommand)]
pub(crate) enum WindowCommand {
    /// Show the next openings of a schedule file's windows, in local time and UTC.
    Preview(Preview),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Preview {
    /// The file that says the schedules, as JSON.
    file: PathBuf,
    /// How many openings of each window are shown.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    next: u16,
    /// Only this published site; may be given several times.
    #[arg(long = "site", value_name = "SITE", conflicts_with = "zones")]
    sites: Vec<Label>,
    /// A zone instead of the published sites, an IANA name; may be given several times.
    #[arg(long = "tz", value_name = "ZONE")]
    zones: Vec<String>,
    /// Openings that are not over at this instant, 2026-03-01T00:00:00Z; now if absent.
    #[arg(long, value_name = "INSTANT")]
    from: Option<Utc>,
    #[command(flatten)]
    org: OrgArgs,
}

/// A place whose local time windows are in.
struct Place {
    /// The site, or the zone where no site is meant.
    name: String,
    zone_name: String,
    zone: TimeZone,
}

/// The next openings of one window at one place.
struct Next<'a> {
    schedule: &'a Schedule,
    window: usize,
    place: &'a Place,
    openings: Vec<Opening>,
}

impl WindowCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let Self::Preview(preview) = self;
        preview.run(output)
    }
}

impl Preview {
    fn run(&self, output: Output) -> Result<(), Stop> {
        let schedules: Schedules = read(&self.file)?;
        let what = || format!("read {}", self.file.display());
        schedules.rules().map_err(|Breach { field, rule }| {
            Failure::because(Kind::Usage, format!("{}: its field {field}", what()), &rule)
        })?;
        let database = TimeZoneDatabase::bundled();
        let places = self.places(&database)?;
        let from = self.from.map_or_else(Timestamp::now, Utc::instant);
        let mut shown = table(["schedule", "window", "site", "local time", "UTC", "until", ""]);
        for schedule in &schedules.schedules {
            for window in 0..schedule.windows.len() {
                for place in &places {
                    let openings = self.openings(schedule, window, place, from, &database)?;
                    show(&Next { schedule, window, place, openings }, &mut shown, output)?;
                }
            }
        }
        output.table(&shown)
    }

    /// Returns the places that are meant: zones that were given, else published sites.
    fn places(&self, database: &TimeZoneDatabase) -> Result<Vec<Place>, Failure> {
        if !self.zones.is_empty() {
            return self.zones.iter().map(|zone| place(zone, zone, database)).collect();
        }
        let office = self.org.open()?;
        let published = sites(&state(&office)?)?;
        if published.sites.is_empty() {
            return Err(Failure::new(
                Kind::Usage,
                "no site is published whose time could be shown",
            )
            .with_help("name zones by --tz ZONE, or publish sites by `sutler site add`"));
        }
        let names = if self.sites.is_empty() {
            published.sites.iter().map(|site| site.name.clone()).collect()
        } else {
            self.sites.clone()
        };
        names.iter().map(|name| of_site(&published, name, database)).collect()
    }

    /// Returns the next openings of one window at one place.
    fn openings(
        &self,
        schedule: &Schedule,
        window: usize,
        place: &Place,
        from: Timestamp,
        database: &TimeZoneDatabase,
    ) -> Result<Vec<Opening>, Failure> {
        let (site, device) = (Some(place.zone.clone()), Some(place.zone.clone()));
        let zones = Zones { site, device, database };
        let alone =
            Schedule { windows: vec![schedule.windows[window].clone()], ..schedule.clone() };
        next_windows(&alone, &zones, from, self.next.into()).map_err(|error| {
            let (schedule, zone) = (&schedule.name, &error.zone);
            let what = format!("window {window} of the schedule {schedule} is in {zone}");
            Failure::new(Kind::Usage, format!("{what}, and there is no such zone"))
        })
    }
}

fn of_site(sites: &Sites, name: &Label, database: &TimeZoneDatabase) -> Result<Place, Failure> {
    let site = sites.site(name).ok_or_else(|| {
        Failure::new(Kind::Usage, format!("there is no site {name}"))
            .with_help("`sutler site list` has those that are published")
    })?;
    place(name.as_str(), site.zone.as_str(), database)
}

fn place(name: &str, zone_name: &str, database: &TimeZoneDatabase) -> Result<Place, Failure> {
    let zone = database.get(zone_name).map_err(|error| {
        Failure::because(Kind::Usage, format!("find the zone {zone_name}"), &error)
    })?;
    Ok(Place { name: name.to_owned(), zone_name: zone_name.to_owned(), zone })
}

fn show(next: &Next<'_>, shown: &mut comfy_table::Table, output: Output) -> Result<(), Stop> {
    let Next { schedule, window, place, openings } = next;
    let key = [schedule.name.to_string(), window.to_string(), place.name.clone()];
    if openings.is_empty() {
        let never = "never opens again".to_owned();
        shown.add_row(key.iter().cloned().chain([never]));
        output.json(&never_again(next))?;
    }
    for opening in openings {
        let Opening { begin, end, zone, warnings, .. } = opening;
        let local = begin.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string();
        let warned: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let rest = [local, begin.to_string(), end.to_string(), warned.join("; ")];
        shown.add_row(key.iter().cloned().chain(rest));
        output.json(&as_json(next, opening))?;
    }
    Ok(())
}

/// What scripts learn of a window that does not open any more.
fn never_again(Next { schedule, window, place, .. }: &Next<'_>) -> Value {
    json!({
        "schedule": schedule.name.as_str(), "window": window, "site": place.name,
        "site_zone": place.zone_name, "begin": null, "end": null, "warnings": [],
    })
}

fn as_json(Next { schedule, window, place, .. }: &Next<'_>, opening: &Opening) -> Value {
    let warnings: Vec<Value> = opening
        .warnings
        .iter()
        .map(|warning| json!({ "kind": kind_of(*warning), "text": warning.to_string() }))
        .collect();
    let local = |at: Timestamp| opening.zone.to_datetime(at).to_string();
    json!({
        "schedule": schedule.name.as_str(), "window": window, "site": place.name,
        "site_zone": place.zone_name, "zone": opening.zone.iana_name(),
        "said": opening.local.to_string(), "local": local(opening.begin),
        "local_end": local(opening.end), "begin": opening.begin.to_string(),
        "end": opening.end.to_string(), "warnings": warnings,
    })
}

fn kind_of(warning: Warning) -> &'static str {
    match warning {
        Warning::Gap { .. } => "gap",
        Warning::Fold => "fold",
        Warning::ChangesInside { .. } => "changes-inside",
        Warning::BeforePatchTuesday { .. } => "before-patch-tuesday",
    }
}
