//! `sutler site add|list|remove`: where the devices are.

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::json;
use sutler_control::State;
use sutler_control::change::{Change, ChangeError};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::order::Order;
use sutler_orders::sites::{Network, Peering, Site, Sites};
use sutler_orders::text::Line;
use sutler_protocol::manifest::TargetPath;
use sutler_protocol::name::Label;

use crate::command::publish::change_failure;
use crate::output::{Output, Stop, table};
use crate::signing::{OrgArgs, SignArgs, state};

#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// Add a site, or say anew what it is.
    Add(Add),
    /// List the sites.
    List(List),
    /// Remove a site.
    Remove(Remove),
}

const ADD_EXAMPLES: &str = "\
Examples:
  sutler site add cologne --tz Europe/Berlin --net 10.1.0.0/16 --node 10.1.0.2:7447 --key anna.key
  sutler site add depot --tz America/New_York --net 10.9.8.0/24 --wan 20000 --peering network --cost 2 --key anna.key";
const LIST_EXAMPLES: &str = "\
Examples:
  sutler site list --org-dir ./acme --json";
const REMOVE_EXAMPLES: &str = "\
Examples:
  sutler site remove depot --key anna.key --reason \"closed\"";

#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub(crate) struct Add {
    /// Its name.
    name: Label,
    /// Its time zone, an IANA name such as Europe/Berlin.
    #[arg(long = "tz", value_name = "ZONE")]
    zone: Line,
    /// A network of its; may be given several times.
    #[arg(long = "net", value_name = "CIDR")]
    networks: Vec<ipnet::IpNet>,
    /// What its line takes, in kbit/s. As much as it can if absent.
    #[arg(long, value_name = "KBIT")]
    wan: Option<u64>,
    /// A node of its, HOST:PORT; may be given several times.
    #[arg(long = "node", value_name = "HOST:PORT")]
    nodes: Vec<Line>,
    /// With whom devices of these networks exchange.
    #[arg(long, value_enum, default_value_t = With::Site)]
    peering: With,
    /// What a byte costs from elsewhere into these networks, beside others.
    #[arg(long, default_value_t = 0)]
    cost: u32,
    #[command(flatten)]
    sign: SignArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum With {
    /// With all of the site.
    Site,
    /// With those of the same network.
    Network,
    /// With nobody.
    None,
}

#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct List {
    #[command(flatten)]
    org: OrgArgs,
}

#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub(crate) struct Remove {
    /// Its name.
    name: Label,
    #[command(flatten)]
    sign: SignArgs,
}

impl SiteCommand {
    pub(crate) fn run(self, output: Output) -> Result<(), Stop> {
        match self {
            Self::Add(add) => add.run(output),
            Self::List(list) => list.run(output),
            Self::Remove(remove) => remove.run(output),
        }
    }
}

impl Add {
    fn run(self, output: Output) -> Result<(), Stop> {
        let peering = match self.peering {
            With::Site => Peering::Site,
            With::Network => Peering::Network,
            With::None => Peering::None,
        };
        let networks = self.networks.iter();
        let site = Site {
            name: self.name.clone(),
            zone: self.zone.clone(),
            networks: networks
                .map(|cidr| Network { cidr: *cidr, peering, cost: self.cost })
                .collect(),
            wan_kbit_per_second: self.wan,
            nodes: self.nodes.clone(),
        };
        change(&self.sign, &format!("add the site {}", self.name), output, |sites| {
            match sites.sites.iter_mut().find(|other| other.name == site.name) {
                Some(other) => *other = site,
                None => sites.sites.push(site),
            }
            Ok(())
        })
    }
}

impl Remove {
    fn run(self, output: Output) -> Result<(), Stop> {
        change(&self.sign, &format!("remove the site {}", self.name), output, |sites| {
            let before = sites.sites.len();
            sites.sites.retain(|site| site.name != self.name);
            if sites.sites.len() == before {
                let what = format!("there is no site {}", self.name);
                return Err(Failure::new(Kind::Usage, what).into());
            }
            Ok(())
        })
    }
}

impl List {
    fn run(self, output: Output) -> Result<(), Stop> {
        let folder = self.org.open()?;
        let state = state(&folder)?;
        let mut shown = table(["site", "zone", "networks", "nodes", "line kbit/s"]);
        for site in sites(&state)?.sites {
            let networks: Vec<String> =
                site.networks.iter().map(|network| network.cidr.to_string()).collect();
            let nodes: Vec<String> = site.nodes.iter().map(ToString::to_string).collect();
            let line = site.wan_kbit_per_second.map_or_else(String::new, |rate| rate.to_string());
            let cells = [site.name.to_string(), site.zone.to_string(), networks.join(" ")];
            shown.add_row(cells.into_iter().chain([nodes.join(" "), line]));
            output.json(&json!({
                "site": site.name.as_str(), "zone": site.zone.as_str(), "networks": networks,
                "nodes": nodes, "wan_kbit_per_second": site.wan_kbit_per_second,
            }))?;
        }
        output.table(&shown)
    }
}

/// Returns the sites that are published.
pub(crate) fn sites(state: &State) -> Result<Sites, Failure> {
    let Some(bytes) = state.orders.get(&TargetPath::from("sites/sites.json")) else {
        return Ok(Sites::default());
    };
    let order = Order::<Sites>::read(bytes);
    order.map(|order| order.body).map_err(|error| Failure::from_error(Kind::Store, &error))
}

fn change(
    sign: &SignArgs,
    what: &str,
    output: Output,
    edit: impl FnOnce(&mut Sites) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let now = Timestamp::now();
    let folder = sign.open()?;
    let state = state(&folder)?;
    let note = sign.note(&state, what, now);
    let mut change = Change::new(&state, folder.organisation(), note, now);
    change.order::<Sites, Stop>(None, edit)?;
    let draft = change.draft().map_err(|error: ChangeError| change_failure(&error))?;
    sign.finish(&folder, Some(&state), draft, &[what.to_owned()], output).map(drop)
}
