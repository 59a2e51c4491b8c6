//! `sutler-bench`: how fast. Each job runs both sides in turn in one run and prints medians and
//! ratios; nothing here asserts anything about time.
//!
//! | Question | Room |
//! |---|---|
//! | One large content, to a verified file | [`large`] |
//! | The swarm alone, store to store | [`swarm_large`] |
//! | 2,000 small files | [`small`] |
//! | One content to a crowd | [`fan_out`] |
//! | A vendor's index, verified and parsed | [`index`] |
//! | 1,000 approvals, evaluated | [`evaluate`] |
//! | Orders on their way: one device, a thousand of them | [`orders`] |
//! | Machines that join | [`join`] |
//! | The caching proxy; a line that is slow | [`proxy`], [`mod@line`] |
//! | A file into the store; a node that starts again | [`add`], [`restart`] |
//! | How large, how often, on what? | [`scale`] |
//! | What is it done with, and where? | [`ground`] |
//! | The real program, and what users would pick instead | [`program`], [`nginx`], [`beside`] |
//! | Processes of ours: servers, clients, crowds | [`role`], [`crowd`], [`bare`] |
//! | What did a program take? | [`process`] |
//! | Who was how much faster? | [`table`] |

mod add;
mod bare;
mod beside;
mod crowd;
mod evaluate;
mod fan_out;
mod ground;
mod index;
mod join;
mod large;
mod line;
mod nginx;
mod orders;
mod process;
mod program;
mod proxy;
mod restart;
mod role;
mod scale;
mod small;
mod swarm_large;
mod table;

use clap::{Parser, Subcommand, ValueEnum};

use role::Role;
use scale::Scale;
use table::Table;

/// How fast: both sides in turn in one run, medians and ratios printed.
#[derive(Debug, Parser)]
#[command(name = "sutler-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    /// What to measure; everything where nothing is named.
    #[arg(value_enum)]
    jobs: Vec<Job>,
    #[command(flatten)]
    scale: Scale,
    /// Print one JSON value a job, with every run.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    process: Option<Process>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Job {
    /// One content to a verified file, beside nginx with curl and b3sum, and bare quinn.
    Large,
    /// 8 GiB, for the memory that both sides hold.
    Huge,
    /// One content from store to store by the swarm alone, beside bare quinn.
    SwarmLarge,
    /// 2,000 files of 4-64 KiB, beside curl over one connection.
    Small,
    /// 64 MiB to 50 and to 200 clients, beside bare quinn and nginx.
    FanOut,
    /// A file into the store, beside b3sum and cp.
    Add,
    /// An index of the size of Debian's main, verified and parsed, beside gpgv, sha256sum and xz.
    Index,
    /// The caching proxy, warm and cold, beside nginx `proxy_cache` and apt-cacher-ng.
    Proxy,
    /// 1,000 approvals, read and evaluated as a device does.
    Evaluate,
    /// A device that refreshes; one control that pushes to 1,000 agents: time and memory.
    Orders,
    /// 1,000 machines that join at control's enrolment port.
    Join,
    /// Until a node listens again that was killed with half of 8 GiB.
    Restart,
}

#[derive(Debug, Subcommand)]
enum Process {
    /// What a process of a measurement does; started by the measurements.
    #[command(subcommand, hide = true)]
    Role(Role),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Some(Process::Role(role)) = cli.process {
        return role.run();
    }
    let jobs = if cli.jobs.is_empty() { Job::value_variants() } else { &cli.jobs };
    for job in jobs {
        let tables = job.run(&cli.scale)?;
        if cli.json {
            let tables: Vec<_> = tables.iter().map(Table::json).collect();
            println!("{}", serde_json::Value::from(tables));
        } else {
            for table in tables {
                println!("{}", table.markdown());
            }
        }
    }
    Ok(())
}

impl Job {
    fn run(self, scale: &Scale) -> anyhow::Result<Vec<Table>> {
        match self {
            Self::Large => large::run(scale),
            Self::Huge => large::huge(scale),
            Self::SwarmLarge => swarm_large::run(scale),
            Self::Small => small::run(scale),
            Self::FanOut => fan_out::run(scale),
            Self::Add => add::run(scale),
            Self::Index => index::run(scale),
            Self::Proxy => proxy::run(scale),
            Self::Evaluate => evaluate::run(scale),
            Self::Orders => orders::run(scale),
            Self::Join => join::run(scale),
            Self::Restart => restart::run(scale),
        }
    }
}
