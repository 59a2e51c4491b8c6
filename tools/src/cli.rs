//! The command line as a whole: what may be typed, and how a command's end becomes an exit code.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use sutler_node::failure::{Failure, Kind};

use crate::command::{
    add, admin, agent, apt_proxy, audit, control, decide, dev, device, explain, fetch, halt,
    inspect, join, key, manifest, node, order, org, publish, report, set, site, status, store,
    token, trust, window,
};
use crate::exit;
use crate::logging::{self, Verbosity};
use crate::output::{Form, Output, Stop};

/// Distributes and caches vendor patches from peer to peer. Every byte is verified, whoever sent it.
#[derive(Debug, Parser)]
#[command(name = "sutler", version, after_long_help = exit::TABLE, arg_required_else_help = true)]
struct Cli {
    /// Print results as JSON, one value a line.
    #[arg(long, global = true)]
    json: bool,

    /// What to log to stderr, such as `debug` or `warn,sutler_swarm=trace`.
    #[arg(long, global = true, value_name = "FILTER", env = "SUTLER_LOG")]
    log: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an organisation's certificate authority, and identities of its members.
    #[command(subcommand)]
    Org(org::Org),
    /// Make tokens by which machines may join.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Make this machine a member, by a token.
    Join(join::Join),
    /// See who has joined; accept, reject and retire machines.
    #[command(subcommand)]
    Device(device::Device),
    /// Make the keys that orders are signed with, and say how they stand.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Let an admin sign no longer.
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Say where the devices are.
    #[command(subcommand)]
    Site(site::SiteCommand),
    /// Publish contents, for approvers to decide about.
    Publish(publish::Publish),
    /// Let the devices of a scope install contents, each in its window.
    Approve(decide::Approve),
    /// Let no device of a scope install contents.
    Deny(decide::Deny),
    /// Stop contents in a scope for now.
    Pause(decide::Pause),
    /// Take a pause or a denial back.
    Resume(decide::Resume),
    /// Let the devices of a scope install contents at once, outside of every window.
    PatchNow(decide::PatchNow),
    /// Stop contents everywhere for 72 hours, with control's own key.
    Halt(halt::HaltArgs),
    /// Say when the devices of a scope act.
    #[command(subcommand)]
    Schedule(set::ScheduleCommand),
    /// Say what a schedule means before anybody signs it.
    #[command(subcommand)]
    Window(window::WindowCommand),
    /// Say how the devices of a scope behave.
    #[command(subcommand)]
    Policy(set::PolicyCommand),
    /// Say what silence approves in a scope.
    #[command(subcommand)]
    Standing(set::StandingCommand),
    /// Say in which order devices receive something.
    #[command(subcommand)]
    Ring(set::RingCommand),
    /// Sign orders that several have to sign, one after the other.
    #[command(subcommand)]
    Order(order::OrderCommand),
    /// Show what is published, and what changed.
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    /// Put files or URLs into the store.
    Add(add::Add),
    /// Run a site node: serve the store, and fill it from its origins.
    Node(node::Node),
    /// Run the control plane: keep the signed repository fresh, serve it, and push what is new.
    Control(control::Control),
    /// See what a machine believes of the orders, and recover what is damaged.
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Say how far devices are, by content, device or site.
    Report(report::ReportArgs),
    /// Check and print what control wrote down.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Run a device's daemon: stage what is approved, install it in its window, and report.
    Agent(agent::Agent),
    /// Say why a device does with a content what it does, gate by gate.
    Explain(explain::Explain),
    /// Bring a content into the store from nodes, agents and origins, and write it to a file.
    Fetch(fetch::Fetch),
    /// Look after the store.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Say what a store holds and what the process that owns it does.
    Status(status::StatusArgs),
    /// Show a hash list, a record or a frame in words.
    Inspect(inspect::Inspect),
    /// Tell apt which proxy to use: the node if it answers, else none.
    AptProxy(apt_proxy::AptProxy),
    /// Try everything on this machine: control, a node, two agents, and the packages that apt would upgrade.
    Dev(dev::Dev),
}

/// Parses the command line, does what it says, and returns how that went.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse_from(arguments()) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    let output = Output::new(if cli.json { Form::Json } else { Form::Human });
    let verbosity = match &cli.command {
        Command::Node(_) | Command::Agent(_) => Verbosity::Service,
        Command::Control(control) if control.is_service() => Verbosity::Service,
        _ => Verbosity::Quiet,
    };
    let done = logging::start(cli.log.as_deref(), verbosity)
        .map_err(Stop::from)
        .and_then(|()| cli.command.run(output));
    match done {
        // A reader that has enough is no failure of ours.
        Ok(()) | Err(Stop::PipeClosed) => ExitCode::from(exit::OK),
        Err(Stop::Failed(failure)) => {
            output.failed(&failure);
            exit::code_of(failure.kind).into()
        }
    }
}

impl Command {
    fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Org(org) => org.run(output),
            Self::Token(token) => token.run(output),
            Self::Join(join) => join.run(output),
            Self::Device(device) => device.run(output),
            Self::Key(key) => key.run(output),
            Self::Admin(admin) => admin.run(output),
            Self::Site(site) => site.run(output),
            Self::Publish(publish) => publish.run(output),
            Self::Approve(approve) => approve.run(output),
            Self::Deny(deny) => deny.run(output),
            Self::Pause(pause) => pause.run(output),
            Self::Resume(resume) => resume.run(output),
            Self::PatchNow(now) => now.run(output),
            Self::Halt(halt) => halt.run(output),
            Self::Schedule(set) => set.run(output),
            Self::Window(window) => window.run(output),
            Self::Policy(set) => set.run(output),
            Self::Standing(set) => set.run(output),
            Self::Ring(set) => set.run(output),
            Self::Order(order) => order.run(output),
            Self::Manifest(show) => show.run(output),
            Self::Add(add) => add.run(output),
            Self::Node(node) => node.run(output),
            Self::Control(control) => control.run(output),
            Self::Audit(audit) => audit.run(output),
            Self::Trust(trust) => trust.run(output),
            Self::Agent(agent) => agent.run(output),
            Self::Explain(explain) => explain.run(output),
            Self::Report(report) => report.run(output),
            Self::Fetch(fetch) => fetch.run(output),
            Self::Store(store) => store.run(output),
            Self::Status(status) => status.run(output),
            Self::Inspect(inspect) => inspect.run(output),
            Self::AptProxy(ask) => ask.run(output),
            Self::Dev(dev) => dev.run(output),
        }
    }
}

/// Returns the arguments. apt can name a program and no argument of it, so that a link by the name of
/// `sutler-apt-proxy` stands for the command.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().and_then(|first| Path::new(first).file_name());
    if name == Some(OsStr::new("sutler-apt-proxy")) {
        arguments.insert(1, "apt-proxy".into());
    }
    arguments
}

/// Prints help or version, or says what is wrong with the arguments.
fn not_parsed(error: &clap::Error) -> ExitCode {
    // Nobody to tell if stdout or stderr is closed.
    drop(error.print());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::from(exit::OK),
        _ => {
            if std::env::args_os().any(|arg| arg == "--json") {
                let text = error.to_string();
                let what = text.lines().next().unwrap_or_default();
                let what = what.strip_prefix("error: ").unwrap_or(what);
                Output::new(Form::Json).error(&Failure::new(Kind::Usage, what));
            }
            exit::code_of(Kind::Usage).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    // R155
    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command) {
            if command.get_subcommands().count() == 0 {
                let examples = command.get_after_help().map(ToString::to_string);
                let has = examples.is_some_and(|text| text.contains("sutler "));
                assert!(has, "{} has no examples", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        Cli::command().get_subcommands().for_each(check);
    }
}
