//! Kills servers and clients at random moments, again and again, and checks what is left.
//!
//! Real processes move contents of many sizes: a node, a client that fetches one content, a client
//! that fetches a list of small ones, and `add` into a store with and without an owner. Each is
//! killed with SIGKILL at a moment that chance decides and started again. What must always hold:
//!
//! - *Nothing acknowledged is lost.* What `add` or `fetch` has printed as done is complete after
//!   the restart, and its file is there.
//! - *No wrong byte.* Every file under its own name hashes to its content id; at the end every
//!   store is verified, and everything that was acknowledged is fetched once more by a fresh client.
//! - *At most one chunk of each open request is fetched again.* After each kill the client's data
//!   file is compared with the original, chunk by chunk (`survey`). The client logs when it takes
//!   the first byte of a chunk from its line: each such chunk must be there whole, but for one of
//!   each request, whether it waited in memory or was torn. Every whole one must count as `disk` in
//!   the next fetch that ends, to the byte: it is not fetched again. A content of one chunk may be,
//!   as the one chunk of its one request.
//!
//! What was on its way to the killed process, in the windows of the transport and the buffers of the
//! system, was not received. The node's own count of bytes sent shows that too; the tally has it as
//! `sent again`. It depends on the rate of the line, so it is reported and not judged.

use std::fmt;
use std::time::{Duration, Instant};

mod adding;
mod fetching;
mod stage;
mod survey;

use stage::Stage;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many processes are killed.
    pub kills: u32,
    /// What chance follows from. The moments of kills depend on the machine all the same.
    pub seed: u64,
    /// Length of the largest content, in bytes.
    pub bytes_max: usize,
}

/// What was done, and what it showed.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Processes killed.
    pub kills: u32,
    /// Of these, clients in the middle of a fetch.
    pub clients_killed: u32,
    /// Of these, nodes.
    pub nodes_killed: u32,
    /// Of these, `add` commands.
    pub adds_killed: u32,
    /// Fetches that completed after at least one kill.
    pub fetches_resumed: u32,
    /// Of these, clients that lived through the death of their node.
    pub fetches_survived: u32,
    /// The longest that such a client took from the death of the node to its own end.
    pub survival_max: Duration,
    /// Contents that `add` or `fetch` had acknowledged, each of which was found again.
    pub acknowledged: u32,
    /// Content bytes that were whole chunks on the client's disk when it was killed.
    pub kept_bytes: u64,
    /// Of these, those that were fetched again.
    pub again_bytes: u64,
    /// Chunks that were torn by a kill.
    pub torn_chunks: u64,
    /// The most that one kill has torn.
    pub torn_chunks_max: u64,
    /// Chunks that a killed client had begun to receive, and that are fetched again.
    pub lost_chunks: u64,
    /// The most that one kill has cost.
    pub lost_chunks_max: u64,
    /// Content bytes that the node sent more than once.
    pub sent_again_bytes: u64,
    /// How long all of it took.
    pub elapsed: Duration,
}

/// What is killed next; chance chooses.
#[derive(Clone, Copy, Debug)]
enum Round {
    Client,
    Node,
    List,
    Add,
}

/// Kills and checks as `plan` says.
///
/// # Panics
///
/// If anything does not hold; the message has the seed.
pub fn run(plan: Plan) -> Tally {
    let started = Instant::now();
    let mut stage = Stage::set(plan);
    let mut told = 0;
    while stage.tally.kills < plan.kills {
        match stage.random.weighted(&[
            (10, Round::Client),
            (3, Round::Node),
            (2, Round::List),
            (5, Round::Add),
        ]) {
            Round::Client => stage.kill_client(),
            Round::Node => stage.kill_node(),
            Round::List => stage.kill_list(),
            Round::Add => stage.kill_add(),
        }
        if stage.tally.kills >= told + 100 {
            told = stage.tally.kills;
            eprintln!("{told} of {} kills, {} s", plan.kills, started.elapsed().as_secs());
        }
    }
    stage.check_everything();
    let mut tally = stage.tally.clone();
    tally.elapsed = started.elapsed();
    tally
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} kills in {} s: {} of clients, {} of nodes, {} of add",
            self.kills,
            self.elapsed.as_secs(),
            self.clients_killed,
            self.nodes_killed,
            self.adds_killed
        )?;
        writeln!(f, "{} acknowledged contents, none of them lost", self.acknowledged)?;
        writeln!(
            f,
            "{} fetches completed after kills; {} lived through their node's death, at most {} ms",
            self.fetches_resumed,
            self.fetches_survived,
            self.survival_max.as_millis()
        )?;
        writeln!(
            f,
            "{} bytes lay on disks when clients died, {} of them were fetched again",
            self.kept_bytes, self.again_bytes
        )?;
        writeln!(
            f,
            "{} chunks were torn, at most {} by one kill",
            self.torn_chunks, self.torn_chunks_max
        )?;
        writeln!(
            f,
            "{} chunks had begun to come and are fetched again, at most {} after one kill, at most one \
             of a request",
            self.lost_chunks, self.lost_chunks_max
        )?;
        write!(f, "{} bytes were on their way to the dead, and sent again", self.sent_again_bytes)
    }
}
