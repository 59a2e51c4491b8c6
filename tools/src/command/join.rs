//! `sutler join`: this machine becomes a member, by a token, and `--renew`s its certificate by hand.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use sutler_node::failure::{Failure, Kind};
use sutler_protocol::join::JoinRefusal;
use sutler_swarm::enrol::Token;
use sutler_swarm::enrol::client::{self, JoinError, Joined};
use sutler_swarm::enrol::device::{Begun, DeviceError, Existing, Joiner};
use sutler_swarm::enrol::renew::{RenewalError, renew_now};
use sutler_swarm::enrol::token::TOKEN_BYTES_MAX;
use sutler_swarm::identity::{Identity, TrustedClock};
use sutler_swarm::peer::ConnectError;
use tokio::time::Instant;

use super::token::duration;
use crate::output::{Output, Stop};

const EXAMPLES: &str = "\
Examples:
  sutler join \"$TOKEN\" --data /srv/sutler
  sutler join - --data /srv/sutler < token.txt
  sutler join \"$TOKEN\" --data /srv/sutler --at 192.0.2.7:7440
  sutler join \"$TOKEN\" --data /srv/sutler --replace
  sutler join --renew --data /srv/sutler";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Join {
    /// What `sutler token new` printed, or - to read it from stdin, where no list of processes shows it.
    #[arg(env = "SUTLER_TOKEN", hide_env_values = true, required_unless_present = "renew")]
    token: Option<String>,
    /// The folder of this machine's data; DATA/identity is made.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to ask, instead of the addresses in the token: control, or the site's node.
    #[arg(long, value_name = "HOST:PORT")]
    at: Vec<String>,
    /// Become a member anew: set this machine's identity aside, and retire the record of a machine
    /// that has the token's name.
    #[arg(long)]
    replace: bool,
    /// How long to wait to be accepted, where the token says so.
    #[arg(long, default_value = "24h", value_parser = duration)]
    wait: Duration,
    /// Renew the certificate now, up to 30 days after its end. Daemons do it by themselves.
    #[arg(long, conflicts_with_all = ["token", "at", "replace"])]
    renew: bool,
}

impl Join {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::because(Kind::Internal, "start a runtime", &error))?;
        let asked = async {
            tokio::select! {
                done = self.ask(output) => done,
                // Cancel-safe: asking again with the same key is harmless.
                _ = tokio::signal::ctrl_c() => {
                    Err(Failure::new(Kind::Interrupted, "stopped; the same command goes on").into())
                }
            }
        };
        let (identity, done) = runtime.block_on(asked)?;
        output.line(format_args!("{done} {}", identity.name()))?;
        output.json(&json!({
            "name": identity.name().to_string(), "state": done,
            "ends_unix_s": identity.ends().as_secs(),
        }))
    }

    async fn ask(&self, output: Output) -> Result<(Identity, &'static str), Stop> {
        if self.renew {
            let renewed = renew_now(&self.data.join("identity"), &TrustedClock::default()).await;
            return renewed
                .map(|identity| (identity, "renewed"))
                .map_err(|error| Stop::from(Failure::from_error(kind_of_renewal(&error), &error)));
        }
        let token = self.token()?;
        let existing = if self.replace { Existing::Replace } else { Existing::Keep };
        let begun = Joiner::begin(&self.data, &token.id(), existing);
        let joiner = match begun.map_err(|error| not_written(&error))? {
            Begun::Member(identity) => return Ok((identity, "joined")),
            Begun::Joiner(joiner) => joiner,
        };
        let until = Instant::now() + self.wait;
        let mut said = false;
        loop {
            match self.ask_anywhere(&token, &joiner).await? {
                Joined::Granted(granted) => {
                    let finished = joiner.finish(&token, &granted);
                    let identity = finished.map_err(|error| not_written(&error))?;
                    return Ok((identity, "joined"));
                }
                Joined::Held { id, retry } => {
                    if !std::mem::replace(&mut said, true) {
                        output.line(format_args!("waiting to be accepted as {id}"))?;
                    }
                    if Instant::now() + retry >= until {
                        let what = format!("nobody accepted {id} in time");
                        let failure = Failure::new(Kind::Refused, what);
                        let help =
                            format!("sutler device accept {id}, then the same command again");
                        return Err(failure.with_help(help).into());
                    }
                    tokio::time::sleep(retry).await;
                }
            }
        }
    }

    /// Asks at one address after the other until one answers.
    async fn ask_anywhere(&self, token: &Token, joiner: &Joiner) -> Result<Joined, Failure> {
        let csr = joiner.csr().map_err(|error| not_written(&error))?;
        let addresses = if self.at.is_empty() { &token.grant().addresses } else { &self.at };
        let mut failure = Failure::new(Kind::Usage, "the token has no address to ask at");
        for address in addresses {
            let resolved: Vec<SocketAddr> = match tokio::net::lookup_host(address).await {
                Ok(resolved) => resolved.collect(),
                Err(error) => {
                    let what = format!("look up {address}");
                    failure = Failure::because(Kind::Unreachable, what, &error);
                    continue;
                }
            };
            for resolved in resolved {
                let key = joiner.key_hash();
                match client::join(resolved, token, &csr, key, self.replace).await {
                    Ok(joined) => return Ok(joined),
                    Err(error) => {
                        failure = Failure::from_error(kind_of(&error), &error);
                        // Control has spoken; another of its addresses says the same.
                        match &error {
                            JoinError::Refused(refusal) => {
                                return Err(with_help(failure, refusal));
                            }
                            JoinError::Connect(ConnectError::Silent { .. }) => {
                                failure = failure.with_help(PASSED_ON);
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        Err(failure)
    }

    fn token(&self) -> Result<Token, Failure> {
        let mut text = self.token.clone().unwrap_or_default();
        if text == "-" {
            text.clear();
            let mut from = std::io::stdin().take(TOKEN_BYTES_MAX as u64 + 1);
            from.read_to_string(&mut text)
                .map_err(|error| Failure::because(Kind::File, "read the token", &error))?;
        }
        Token::parse(&text).map_err(|error| Failure::from_error(Kind::Usage, &error))
    }
}

/// What may be wrong where nothing comes back: a node's port answers nothing by itself.
const PASSED_ON: &str = "if a node listens there, ask at it whether control runs, and whether its [join_relay] names control's `join` address";

fn with_help(failure: Failure, refusal: &JoinRefusal) -> Failure {
    match refusal {
        JoinRefusal::Token | JoinRefusal::Expired | JoinRefusal::UsedUp | JoinRefusal::Retired => {
            failure.with_help("ask an admin for another token: sutler token new")
        }
        _ => failure,
    }
}

fn kind_of(error: &JoinError) -> Kind {
    match error {
        JoinError::Connect(ConnectError::Identity { .. })
        | JoinError::Refused(_)
        | JoinError::Mismatch(_) => Kind::Refused,
        JoinError::Tls(_) => Kind::Internal,
        _ => Kind::Unreachable,
    }
}

fn kind_of_renewal(error: &RenewalError) -> Kind {
    match error {
        RenewalError::Ask(error) => kind_of(error),
        RenewalError::Resolve { .. } => Kind::Unreachable,
        RenewalError::Device(_) => Kind::File,
        RenewalError::Load(_) | RenewalError::Nowhere | RenewalError::Show(_) => Kind::Refused,
    }
}

fn not_written(error: &DeviceError) -> Failure {
    match error {
        DeviceError::Member { .. } => Failure::from_error(Kind::File, error)
            .with_help("--replace sets its identity aside and joins anew"),
        DeviceError::Disk { source, .. } => {
            Failure::from_error(Kind::of_io(source, Kind::File), error)
        }
        DeviceError::Exposed { .. } | DeviceError::Load(_) => {
            Failure::from_error(Kind::Refused, error)
        }
        DeviceError::Key(_) => Failure::from_error(Kind::Internal, error),
    }
}
