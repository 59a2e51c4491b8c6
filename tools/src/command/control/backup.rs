//! `sutler control backup|restore`: all that control cannot make again, in one file, and back.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use sutler_control::backup::{self, BackupError, Manifest, RestoreError, Restored};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::text::Utc;

use crate::output::{Output, Stop};

const BACKUP_EXAMPLES: &str = "\
Examples:
  sutler control backup /backups/control-2026-11-28.tar --data /srv/sutler
  sutler control backup ./control.tar --data ./control --json

It may run while control does. FILE has mode 0600, and holds every key that DATA holds: keep it as those. It has the
repository with the bytes of contents, control's keys, its identity and authority, who has joined, reports, the audit
log and drafts; the store is made again from them.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  sutler control restore /backups/control-2026-11-28.tar --data /srv/sutler --from 10.1.0.2:7447 --from 10.2.0.2:7447
  sutler control restore ./control.tar --data ./control --above 4711

DATA is absent or empty; nothing is put there before all of FILE was checked. Devices have seen later versions than the
backup has, and refuse what is older. So control signs nothing in it before it has asked nodes for the newest orders:
those of --from, and those of its config ([control] sources). What they have is verified, taken over and signed above.
Where no node can be reached any more, --above VERSION says which version was the last: `sutler status` of any device
has it. Orders that are lost are signed again then, above their lost versions: `sutler key renew ROLE` counts one up.
What the orders name and FILE has not, contents' bytes and hash lists, comes back from the same nodes in the background while
control serves, also after a kill; `sutler status` says how much is lacking, and `sutler publish` puts back what no node has.
Machines that joined after the backup are unknown to control, and join again; tokens used since may be used again, so
revoke whom they should not have let in.";

#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(crate) struct Backup {
    /// The archive to write. One that is there is replaced, once the new one is whole.
    file: PathBuf,
    /// Control's data folder.
    #[arg(long, value_name = "DIR", env = "SUTLER_DATA")]
    data: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(crate) struct Restore {
    /// The archive.
    file: PathBuf,
    /// The data folder to make.
    #[arg(long, value_name = "DIR", env = "SUTLER_DATA")]
    data: PathBuf,
    /// A node that may know newer orders; may be given several times.
    #[arg(long = "from", value_name = "ADDR")]
    from: Vec<SocketAddr>,
    /// Sign above this version, whatever nodes say.
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..u64::MAX))]
    above: Option<u64>,
}

impl Backup {
    pub(crate) fn run(&self, output: Output) -> Result<(), Stop> {
        let written = backup::write(&self.data, &self.file, Timestamp::now());
        let manifest = written.map_err(|error| backup_failure(&error))?;
        let Manifest { organisation, version, files, bytes, .. } = &manifest;
        output.line(format_args!(
            "backup of {organisation} at version {version}: {files} files, {bytes} bytes, in {}",
            self.file.display()
        ))?;
        output.json(&json!({ "file": self.file.display().to_string(), "backup": manifest }))
    }
}

impl Restore {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let at = Utc::of(Timestamp::now());
        let restored = Restored { at, version: 0, sources: self.from.clone(), above: self.above };
        let manifest = backup::restore(&self.file, &self.data, restored)
            .map_err(|error| restore_failure(&error))?;
        let Manifest { organisation, at, version, .. } = &manifest;
        output.line(format_args!(
            "restored {organisation} of {at}, version {version}, in {}",
            self.data.display()
        ))?;
        output
            .line("control signs nothing in it before it has caught up: start `sutler control`")?;
        output.json(&json!({ "data": self.data.display().to_string(), "backup": manifest }))
    }
}

fn backup_failure(error: &BackupError) -> Failure {
    let kind = match error {
        BackupError::Write { source, .. } => Kind::of_io(source, Kind::File),
        BackupError::Read(_) => Kind::Store,
        BackupError::Folder(_) | BackupError::File { .. } | BackupError::Foreign { .. } => {
            Kind::File
        }
        BackupError::Keys(_) => Kind::Refused,
    };
    Failure::from_error(kind, error)
}

fn restore_failure(error: &RestoreError) -> Failure {
    let kind = match error {
        RestoreError::NotEmpty { .. } => Kind::Usage,
        RestoreError::Read { source, .. } | RestoreError::Write { source, .. } => {
            Kind::of_io(source, Kind::File)
        }
        RestoreError::Restored(_) => Kind::File,
        _ => Kind::Corrupt,
    };
    Failure::from_error(kind, error)
}
