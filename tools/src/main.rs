//! The one command: sutler.

mod org;

use clap::{Parser, Subcommand};

use org::OrgCommand;

/// Verified peer-to-peer distribution and caching of vendor patches.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Print one JSON object instead of words
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// An organisation's authority, and identities for its machines
    #[command(subcommand)]
    Org(OrgCommand),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Command::Org(command) => {
            let done = command.run()?;
            if cli.json {
                println!("{}", serde_json::to_string(&done)?);
            } else {
                println!("{done}");
            }
        }
    }
    Ok(())
}
