//! Which crate may use which, and what the pure ones may not touch.
//!
//! protocol <- cache <- swarm <- {node, agent, control} <- tools; protocol <- rollout <- control;
//! protocol <- feed <- {node, control, tools}, because node and control both read vendors' indexes;
//! protocol <- orders <- {rollout, node, agent, control, tools}: whoever relays, obeys, publishes or writes them.
//! Roles never import each other: they meet on the wire. What a crate does not depend on it cannot
//! import, so arrows between crates are checked in the manifests, and the standard library in code.

use super::Finding;
use super::source::Source;

/// What one crate may depend on and spell.
struct Place {
    package: &'static str,
    folder: &'static str,
    /// The project's own crates that it may use.
    own: &'static [&'static str],
    foreign: Foreign,
    /// Paths that its code outside tests may not spell.
    barred_paths: &'static [&'static str],
}

/// Which crates of others a crate may use outside its tests.
enum Foreign {
    Any,
    Only(&'static [&'static str]),
    AnyBut(&'static [&'static str]),
}

const NO_NETWORK: Foreign = Foreign::AnyBut(&[
    "async-std",
    "axum",
    "hyper",
    "mio",
    "quinn",
    "quinn-proto",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "tokio",
    "tokio-util",
    "ureq",
]);

const IMPURE: &[&str] = &[
    "async",
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "TimeZone::get",
    "TimeZone::system",
    "jiff::tz::db",
    "aws_lc_rs::rand",
];

const PROTOCOL: &str = "sutler-protocol";
const ORDERS: &str = "sutler-orders";
const CACHE: &str = "sutler-cache";
const FEED: &str = "sutler-feed";
const SWARM: &str = "sutler-swarm";
const ROLLOUT: &str = "sutler-rollout";
const ROLES: [&str; 3] = ["sutler-node", "sutler-agent", "sutler-control"];
const EVERY: &[&str] = &[
    PROTOCOL,
    ORDERS,
    CACHE,
    FEED,
    SWARM,
    ROLLOUT,
    ROLES[0],
    ROLES[1],
    ROLES[2],
    "sutler",
    "sutler-tests",
];

const TOOLS: &[&str] =
    &[PROTOCOL, ORDERS, CACHE, FEED, SWARM, ROLLOUT, ROLES[0], ROLES[1], ROLES[2]];

const PLACES: [Place; 14] = [
    Place {
        package: PROTOCOL,
        folder: "protocol",
        own: &[],
        foreign: Foreign::Only(&[
            "aws-lc-rs",
            "bincode",
            "blake3",
            "bytes",
            "jiff",
            "rustls-pki-types",
            "serde",
            "serde_json",
            "serde_path_to_error",
            "thiserror",
        ]),
        barred_paths: IMPURE,
    },
    Place {
        package: ORDERS,
        folder: "protocol/orders",
        own: &[PROTOCOL],
        foreign: Foreign::Only(&[
            "bytes",
            "cel",
            "ipnet",
            "jiff",
            "serde",
            "serde_json",
            "serde_path_to_error",
            "thiserror",
        ]),
        barred_paths: IMPURE,
    },
    Place {
        package: ROLLOUT,
        folder: "node/rollout",
        own: &[PROTOCOL, ORDERS],
        foreign: NO_NETWORK,
        barred_paths: IMPURE,
    },
    Place {
        package: CACHE,
        folder: "cache",
        own: &[PROTOCOL],
        foreign: NO_NETWORK,
        barred_paths: &["async", "std::net", "std::os::unix::net"],
    },
    Place {
        package: FEED,
        folder: "node/feed",
        own: &[PROTOCOL],
        foreign: NO_NETWORK,
        barred_paths: &["async", "std::net", "std::os::unix::net", "SystemTime::now"],
    },
    Place::any(SWARM, "node/swarm", &[PROTOCOL, ORDERS, CACHE]),
    Place::any(ROLES[0], "node", &[PROTOCOL, ORDERS, CACHE, FEED, SWARM]),
    Place::any(ROLES[1], "node/agent", &[PROTOCOL, ORDERS, CACHE, SWARM]),
    Place::any(ROLES[2], "node/control", &[PROTOCOL, ORDERS, CACHE, FEED, SWARM, ROLLOUT]),
    Place::any("sutler", "tools", TOOLS),
    Place::any("xtask", "tools/xtask", &[]),
    Place::any("sutler-tests", "tests", EVERY),
    Place::any("sutler-fuzz", "tests/fuzz", EVERY),
    Place::any("sutler-benches", "benches", EVERY),
];

impl Place {
    const fn any(
        package: &'static str,
        folder: &'static str,
        own: &'static [&'static str],
    ) -> Self {
        Self { package, folder, own, foreign: Foreign::Any, barred_paths: &[] }
    }
}

/// Finds dependencies that go against the arrows.
pub(super) fn manifest(path: &str, text: &str) -> Vec<Finding> {
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new(path, format!("is not TOML: {error}"))],
    };
    let package = table
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str)
        .unwrap_or_default();
    let Some(place) = PLACES.iter().find(|place| place.package == package) else {
        return vec![Finding::new(path, format!("{package:?} has no place among the arrows"))];
    };
    let mut findings = Vec::new();
    if path.strip_suffix("/Cargo.toml") != Some(place.folder) {
        findings.push(Finding::new(path, format!("{package} belongs in {}", place.folder)));
    }
    let mut barred = Vec::new();
    collect_barred(&table, place, &mut barred);
    if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
        for target in targets.values().filter_map(toml::Value::as_table) {
            collect_barred(target, place, &mut barred);
        }
    }
    findings.extend(
        barred.into_iter().map(|name| Finding::new(path, format!("{package} may not use {name}"))),
    );
    findings
}

/// Finds paths in a pure crate's code that reach for what it may not touch.
pub(super) fn imports(source: &Source) -> Vec<Finding> {
    let Some(place) = place_of(source.path) else {
        return vec![Finding::new(source.path, "belongs to no crate among the arrows")];
    };
    let mut findings = Vec::new();
    for spelled in source.paths() {
        let barred = place.barred_paths.iter().find(|barred| {
            spelled.path == **barred
                || spelled.path.strip_suffix(*barred).is_some_and(|front| front.ends_with("::"))
        });
        if let Some(barred) = barred
            && !source.is_test(spelled.line)
        {
            let fault = format!("{} may not touch {barred}", place.package);
            findings.push(Finding::at(source.path, spelled.line, fault));
        }
    }
    findings
}

/// Returns the crate that a file belongs to: the one with the longest folder above it.
fn place_of(path: &str) -> Option<&'static Place> {
    let above = |place: &&Place| {
        path.strip_prefix(place.folder).is_some_and(|below| below.starts_with('/'))
    };
    PLACES.iter().filter(above).max_by_key(|place| place.folder.len())
}

fn collect_barred(table: &toml::Table, place: &Place, barred: &mut Vec<String>) {
    for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
        let Some(names) = table.get(section).and_then(toml::Value::as_table) else { continue };
        for (name, value) in names {
            let renamed = value.get("package").and_then(toml::Value::as_str);
            let name = renamed.unwrap_or(name);
            let is_own = PLACES.iter().any(|place| place.package == name);
            let is_fine = if is_own {
                place.own.contains(&name)
            } else {
                section == "dev-dependencies" || place.foreign.allows(name)
            };
            if !is_fine {
                barred.push(name.to_owned());
            }
        }
    }
}

impl Foreign {
    fn allows(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(&name),
            Self::AnyBut(names) => !names.contains(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(folder: &str, package: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{package}\"\n{dependencies}");
        let findings = manifest(&format!("{folder}/Cargo.toml"), &text);
        findings.into_iter().map(|finding| finding.fault).collect()
    }

    #[test]
    fn arrows_run_one_way() {
        let on = |name: &str| format!("[dependencies]\n{name}.workspace = true\n");
        assert!(faults("cache", "sutler-cache", &on("sutler-protocol")).is_empty());
        for (folder, package, name) in [
            ("protocol", "sutler-protocol", "sutler-cache"),
            ("cache", "sutler-cache", "sutler-swarm"),
            ("node/swarm", "sutler-swarm", "sutler-node"),
            ("node", "sutler-node", "sutler-agent"),
            ("node/agent", "sutler-agent", "sutler-node"),
            ("node/rollout", "sutler-rollout", "sutler-cache"),
            ("node", "sutler-node", "sutler-tests"),
            ("node/feed", "sutler-feed", "sutler-cache"),
            ("node/agent", "sutler-agent", "sutler-feed"),
        ] {
            let found = faults(folder, package, &on(name));
            assert_eq!(found, [format!("{package} may not use {name}")]);
        }
    }

    #[test]
    fn pure_crates_use_no_network_by_any_name() {
        for dependencies in [
            "[dependencies]\ntokio = \"1\"\n",
            "[build-dependencies]\ntokio = \"1\"\n",
            "[target.'cfg(unix)'.dependencies]\ntokio = \"1\"\n",
            "[dependencies]\nruntime = { package = \"tokio\", version = \"1\" }\n",
        ] {
            assert_eq!(
                faults("cache", "sutler-cache", dependencies),
                ["sutler-cache may not use tokio"]
            );
        }
        let random = "[dependencies]\nrand = \"1\"\n";
        assert_eq!(faults("protocol", "sutler-protocol", random).len(), 1);
        let tests = "[dev-dependencies]\nproptest = \"1\"\n";
        assert!(faults("protocol", "sutler-protocol", tests).is_empty());
    }

    #[test]
    fn a_crate_in_another_folder_or_without_a_place_is_found() {
        assert_eq!(faults("store", "sutler-cache", ""), ["sutler-cache belongs in cache"]);
        assert_eq!(faults("node/relay", "sutler-relay", "").len(), 1);
    }

    #[test]
    fn protocol_reads_no_clock_and_opens_nothing_outside_tests() {
        let text = "//! P.\nuse std::{fs, time::Instant};\nfn f() { let t = Instant::now(); }\n\
                    #[cfg(test)]\nmod tests { fn g() { std::time::Instant::now(); } }\n";
        let at = |path| {
            let source = Source::parse(path, text).unwrap();
            imports(&source).into_iter().map(|finding| finding.place).collect::<Vec<_>>()
        };
        assert_eq!(at("protocol/src/p.rs"), ["protocol/src/p.rs:2", "protocol/src/p.rs:3"]);
        assert!(at("protocol/tests/p.rs").is_empty());
        assert!(at("node/swarm/src/p.rs").is_empty());
        assert_eq!(at("elsewhere/p.rs"), ["elsewhere/p.rs"]);
    }

    #[test]
    fn cache_is_neither_async_nor_on_the_network() {
        let text = "//! C.\nasync fn f() {}\nuse std::net::TcpStream;\n";
        let source = Source::parse("cache/src/c.rs", text).unwrap();
        assert_eq!(imports(&source).len(), 2);
    }
}
