//! `sutler admin remove`: an admin who leaves.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::json;
use sutler_control::change::{Change, ChangeError};
use sutler_control::rotation;
use sutler_node::failure::{Failure, Kind};
use sutler_orders::Approvals;
use sutler_orders::order::Order;
use sutler_protocol::name::Label;

use crate::command::key::rotate_failure;
use crate::output::{Output, Stop, printable};
use crate::signing::{SignArgs, state};

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Take an admin's keys out of every role, and say what becomes of their orders.
    Remove(Remove),
}

const EXAMPLES: &str = "\
Examples:
  sutler admin remove dora
  sutler admin remove dora --orders keep --key anna.key --key ben.key --key emil.key --reason \"left\"";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Remove {
    /// The admin's name.
    name: String,
    /// What becomes of that admin's live orders. They are listed, and nothing is changed, unless it is said.
    #[arg(long, value_enum)]
    orders: Option<Orders>,
    #[command(flatten)]
    sign: SignArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Orders {
    /// The rest sign them anew.
    Keep,
    /// They are taken back.
    Withdraw,
}

impl AdminCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        let Self::Remove(remove) = self;
        remove.run(output)
    }
}

impl Remove {
    fn run(self, output: Output) -> Result<(), Stop> {
        let now = Timestamp::now();
        let folder = self.sign.open()?;
        let state = state(&folder)?;
        let new = rotation::without(&state, &self.name).map_err(|error| rotate_failure(&error))?;
        let mut scopes = Vec::new();
        for bytes in state.orders.values() {
            let Ok(Order { head, body }) = Order::<Approvals>::read(bytes) else { continue };
            let Some(scope) = head.scope else { continue };
            for item in body.items.iter().filter(|item| item.by.as_str() == self.name) {
                let name = item.name.as_ref().map_or("-", |name| name.as_str());
                let (action, id) = (item.action.as_str(), item.blake3);
                output.line(format_args!("{scope}: {action} {id} {}", printable(name)))?;
                output.json(&json!({
                    "scope": scope.as_str(), "action": action, "content": id.to_string(), "name": name,
                }))?;
            }
            scopes.push(scope);
        }
        let roles: Vec<&str> = new.iter().map(|new| new.role.as_str()).collect();
        output.line(format_args!("{} signs for {}", self.name, roles.join(", ")))?;
        let Some(orders) = self.orders else {
            let what = format!("remove {}: say what becomes of these orders", self.name);
            let failure = Failure::new(Kind::Usage, what);
            return Err(failure.with_help("--orders keep, or --orders withdraw").into());
        };
        let what = format!("remove {}", self.name);
        let note = self.sign.note(&state, &what, now);
        let mut change = Change::new(&state, folder.organisation(), note, now);
        if orders == Orders::Withdraw {
            for scope in &scopes {
                self.withdraw(&mut change, scope).map_err(Stop::from)?;
            }
        }
        let names = BTreeMap::from([(self.name.clone(), None)]);
        let draft = rotation::rotate(&state, change, &new, &names, now);
        let draft = draft.map_err(|error| rotate_failure(&error))?;
        self.sign.finish(&folder, Some(&state), draft, &[what], output).map(drop)
    }

    fn withdraw(&self, change: &mut Change<'_>, scope: &Label) -> Result<(), ChangeError> {
        change.order::<Approvals, ChangeError>(Some(scope), |approvals| {
            approvals.items.retain(|item| item.by.as_str() != self.name);
            Ok(())
        })
    }
}
