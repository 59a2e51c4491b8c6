//! Logs: to stderr, for people on a terminal and as JSON otherwise.

use std::io::{IsTerminal, stderr};

use sutler_node::failure::{Failure, Kind};
use tracing_subscriber::EnvFilter;

/// How much is logged unless the user says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// What a command that someone watches needs: only what is wrong.
    Quiet,
    /// What a service leaves behind: each transfer.
    Service,
}

/// Starts logging. `filter` is in the syntax of `RUST_LOG`.
///
/// # Errors
///
/// Kind `usage` if the filter makes no sense.
pub(crate) fn start(filter: Option<&str>, verbosity: Verbosity) -> Result<(), Failure> {
    let default = match verbosity {
        Verbosity::Quiet => "warn",
        // The index's own notes say nothing to an operator.
        Verbosity::Service => "info,sled=warn",
    };
    let filter = EnvFilter::try_new(filter.unwrap_or(default)).map_err(|error| {
        Failure::because(Kind::Usage, "read --log or SUTLER_LOG", &error)
            .with_help("write for example `debug` or `warn,sutler_swarm=trace`")
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let started = if stderr().is_terminal() {
        logs.with_target(false).compact().try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
    started.map_err(|error| Failure::because(Kind::Internal, "start logging", error.as_ref()))
}
