//! What devices say of themselves: the newest report of each, kept as it came, and what they say together.
//!
//! ```text
//! reports/SITE/ID.json     the newest report of a device, with its certificates and signature
//! ```
//! Control keeps reports and believes nobody else about a device: [`Keeper::take`] checks the device's own
//! signature and that the number is higher than the last. [`tally`] is a pure function of the reports and
//! the time: a device that has been silent too long is counted as unknown, whatever it said last (R94).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sutler_orders::answer::State;
use sutler_orders::report::{PURPOSE, Report, ReportError, SignedReport};
use sutler_orders::text::DeviceName;
use sutler_protocol::ContentId;
use sutler_protocol::frame::REPORT_BYTES_MAX;
use sutler_protocol::name::{Member, Organisation, PeerName};
use sutler_swarm::identity::{AttestError, Attested, PeerVerifier, TrustedClock};
use sutler_swarm::orders::{NotTaken, Reports};

/// Devices whose reports are kept: what one control is meant for, twice over.
pub const DEVICES_MAX: usize = 20_000;

/// How long a device may be silent before nothing is known of it, unless somebody says otherwise.
pub const SILENT_AFTER: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Keeps the newest report of each device.
pub struct Keeper {
    folder: PathBuf,
    organisation: Organisation,
    verifier: PeerVerifier,
    clock: TrustedClock,
    /// The number of each device's newest report.
    numbers: Mutex<BTreeMap<DeviceName, u64>>,
}

/// Why the reports that are kept cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused.
    #[error("read {}", path.display())]
    Disk {
        /// What.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// A file is no report of the device that its name says.
    #[error("read the report {}", path.display())]
    Report {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<ReportError>,
    },
    /// A file has a name that is no device's.
    #[error("{} is named after no device", path.display())]
    Name {
        /// Which.
        path: PathBuf,
    },
}

/// Why a report is not kept.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// It is no report, is of another device than its signer, or is no newer than the last.
    #[error("read the report")]
    Report(#[from] ReportError),
    /// The device did not sign it, or is no member.
    #[error("check who signed the report")]
    Signer(#[from] AttestError),
}

/// How many devices say what about something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// It is not there yet.
    pub needed: u64,
    /// Its bytes are there.
    pub staged: u64,
    /// It is being installed, or waits for a restart.
    pub installing: u64,
    /// The inventory has it.
    pub installed: u64,
    /// Its installation failed, or was taken back.
    pub failed: u64,
    /// It is of no use, or another has taken its place.
    pub not_applicable: u64,
    /// The device has been silent too long.
    pub unknown: u64,
}

/// One device, as its newest report says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceRow {
    /// `SITE/ID`.
    pub device: String,
    /// What the machine calls itself, if it says.
    pub host_name: Option<String>,
    /// When it wrote that report.
    pub written: String,
    /// The version of the orders that it knows; absent if it knows none.
    pub statement: Option<u64>,
    /// Whether those orders had expired.
    pub stale: bool,
    /// Whether it installs nothing.
    pub observes: bool,
    /// Whether it has been silent too long, so that nothing of this counts any more.
    pub unknown: bool,
    /// Its answers. One of an unknown device is unknown.
    pub answers: Counts,
}

/// What reports say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Each device.
    pub devices: Vec<DeviceRow>,
    /// Each site: how many devices, how many of them silent, and their answers.
    pub sites: BTreeMap<String, (u64, u64, Counts)>,
    /// Each content.
    pub contents: BTreeMap<ContentId, Counts>,
}

impl Keeper {
    /// Opens the reports in `folder`, which is made if need be; `verifier` knows the organisation's devices.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: a report that cannot be read might be the one that an older one would replace.
    pub fn open(
        folder: &Path,
        organisation: Organisation,
        verifier: PeerVerifier,
        clock: TrustedClock,
    ) -> Result<Self, ReadError> {
        let reports = read(folder, &organisation)?;
        let numbers = reports.into_iter().map(|report| (report.device, report.number)).collect();
        let (folder, numbers) = (folder.to_owned(), Mutex::new(numbers));
        Ok(Self { folder, organisation, verifier, clock, numbers })
    }

    /// Checks a report, and returns it with its device's name.
    fn check(
        &self,
        bytes: &[u8],
        numbers: &BTreeMap<DeviceName, u64>,
    ) -> Result<Report, TakeError> {
        let signed = SignedReport::parse(bytes)?;
        let attested =
            Attested { chain: signed.chain.clone(), signature: signed.signature.clone() };
        let now = self.clock.now();
        let signer = self.verifier.verify_attested(PURPOSE, signed.message(), &attested, now)?;
        let known = match signer.member() {
            Member::Agent { site, id } => {
                numbers.get(&DeviceName { site: site.clone(), id: id.clone() }).copied()
            }
            Member::Node { .. } | Member::Control { .. } => None,
        };
        Ok(signed.of(&signer, known)?)
    }

    fn keep(&self, device: &DeviceName, bytes: &[u8]) -> io::Result<()> {
        let site = self.folder.join(device.site.as_str());
        fs::create_dir_all(&site)?;
        let mut beside = tempfile::NamedTempFile::new_in(&site)?;
        beside.write_all(bytes)?;
        beside.as_file().sync_all()?;
        let path = site.join(format!("{}.json", device.id));
        beside.persist(path).map_err(|error| error.error)?;
        File::open(&site)?.sync_all()
    }
}

impl Reports for Keeper {
    fn take(&self, _from: &PeerName, report: Bytes) -> Result<(), NotTaken> {
        // Held while it is written: of two reports the newer has to stay.
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let checked =
            self.check(&report, &numbers).map_err(|error| NotTaken::Refused(Box::new(error)))?;
        if numbers.len() >= DEVICES_MAX && !numbers.contains_key(&checked.device) {
            return Err(NotTaken::Full);
        }
        self.keep(&checked.device, &report).map_err(NotTaken::Disk)?;
        numbers.insert(checked.device, checked.number);
        debug_assert_eq!(checked.organisation, self.organisation);
        Ok(())
    }
}

/// Reads the newest report of each device from `folder`; none if it is not there.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(folder: &Path, organisation: &Organisation) -> Result<Vec<Report>, ReadError> {
    let mut reports = Vec::new();
    for site in entries(folder)? {
        for path in entries(&site)? {
            // What was being written when a process was killed.
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            reports.push(read_one(&path, organisation)?);
        }
    }
    Ok(reports)
}

/// Reads the newest report of one device; `None` if it has not reported.
///
/// # Errors
///
/// [`ReadError`].
pub fn read_device(
    folder: &Path,
    organisation: &Organisation,
    device: &DeviceName,
) -> Result<Option<Report>, ReadError> {
    let path = folder.join(device.site.as_str()).join(format!("{}.json", device.id));
    match read_one(&path, organisation) {
        Err(ReadError::Disk { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn read_one(path: &Path, organisation: &Organisation) -> Result<Report, ReadError> {
    let part = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()?.parse().ok());
    let site = part(path.parent().and_then(Path::file_name));
    let (Some(site), Some(id)) = (site, part(path.file_stem())) else {
        return Err(ReadError::Name { path: path.to_owned() });
    };
    let failed = |source| ReadError::Disk { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > u64::from(REPORT_BYTES_MAX) {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let bytes = fs::read(path).map_err(failed)?;
    let device = PeerName::new(organisation.clone(), Member::Agent { site, id });
    // Its signature was checked when it came; the certificate may have ended since.
    let report = SignedReport::parse(&bytes).and_then(|signed| signed.of(&device, None));
    report.map_err(|source| ReadError::Report { path: path.to_owned(), source: Box::new(source) })
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |source| ReadError::Disk { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    paths.sort_unstable();
    Ok(paths)
}

/// Returns what reports say together at `now`. A device that wrote its last report longer than `silent_after`
/// ago is unknown.
pub fn tally(reports: &[Report], silent_after: SignedDuration, now: Timestamp) -> Tally {
    let mut tally = Tally::default();
    for report in reports {
        let unknown = now.duration_since(report.written.instant()) > silent_after;
        let mut answers = Counts::default();
        for answer in &report.answers {
            answers.add(answer.state, unknown);
            tally.contents.entry(answer.content).or_default().add(answer.state, unknown);
        }
        let (devices, silent, counts) =
            tally.sites.entry(report.device.site.to_string()).or_default();
        *devices += 1;
        *silent += u64::from(unknown);
        counts.add_all(answers);
        tally.devices.push(DeviceRow {
            device: report.device.to_string(),
            host_name: report.facts.host_name.as_ref().map(ToString::to_string),
            written: report.written.to_string(),
            statement: report.statement.as_ref().map(|statement| statement.version),
            stale: report.statement.as_ref().is_some_and(|statement| statement.stale),
            observes: report.observes,
            unknown,
            answers,
        });
    }
    tally
}

impl Counts {
    fn add(&mut self, state: State, unknown: bool) {
        let count = match state {
            _ if unknown => &mut self.unknown,
            State::Needed => &mut self.needed,
            State::Staged => &mut self.staged,
            State::Installing | State::PendingReboot => &mut self.installing,
            State::Installed => &mut self.installed,
            State::Failed | State::RolledBack => &mut self.failed,
            State::NotApplicable | State::Superseded => &mut self.not_applicable,
        };
        *count += 1;
    }

    fn add_all(&mut self, other: Self) {
        self.needed += other.needed;
        self.staged += other.staged;
        self.installing += other.installing;
        self.installed += other.installed;
        self.failed += other.failed;
        self.not_applicable += other.not_applicable;
        self.unknown += other.unknown;
    }
}

#[cfg(test)]
mod tests {
    use sutler_orders::report::{ToldAnswer, ToldFacts};

    use super::*;

    fn report(device: &str, written: &str, states: &[State]) -> Report {
        let answer = |(position, state): (usize, &State)| ToldAnswer {
            content: ContentId::from_bytes([position as u8; 32]),
            state: *state,
            reason: None,
            detail: None,
            attempts: 0,
        };
        Report {
            organisation: "acme".parse().unwrap(),
            device: device.parse().unwrap(),
            number: 1,
            written: written.parse().unwrap(),
            program: "sutler 0.1.0".parse().unwrap(),
            facts: ToldFacts::default(),
            statement: None,
            observes: false,
            answers: states.iter().enumerate().map(answer).collect(),
            left_out: 0,
        }
    }

    // R94, R99, R100
    #[test]
    fn a_device_that_is_silent_is_unknown_and_never_counted_as_installed() {
        let now = "2026-11-27T20:00:00Z".parse().unwrap();
        let reports = [
            report("lab/a", "2026-11-27T19:00:00Z", &[State::Installed, State::Failed]),
            report("lab/b", "2026-11-24T19:00:00Z", &[State::Installed, State::Installed]),
            report("hall/c", "2026-11-24T20:00:00Z", &[State::Needed]),
        ];
        let tally = tally(&reports, SILENT_AFTER, now);
        let first = tally.contents[&ContentId::from_bytes([0; 32])];
        assert_eq!(first, Counts { installed: 1, unknown: 1, needed: 1, ..Counts::default() });
        let (devices, silent, lab) = tally.sites["lab"];
        assert_eq!((devices, silent), (2, 1));
        assert_eq!(lab, Counts { installed: 1, failed: 1, unknown: 2, ..Counts::default() });
        let unknown: Vec<bool> = tally.devices.iter().map(|row| row.unknown).collect();
        assert_eq!(unknown, [false, true, false]);
    }
}
