//! Which versions are installed, and whether a content would bring a higher one: what silence may approve.
//!
//! Pure: programs of the config list the versions, [`crate::senses`] runs them. What is not listed is not installed, and
//! nothing that would be new here goes upwards.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use sutler_orders::content::About;
use sutler_orders::evaluate::Direction;
use sutler_orders::version::compare;
use sutler_protocol::name::Label;

/// Products of one kind: more than any distribution has packages.
const PRODUCTS_MAX: usize = 200_000;

/// The versions that are installed, by kind and product.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions(BTreeMap<Label, BTreeMap<String, String>>);

impl Versions {
    /// Nothing is known of any.
    pub(crate) const NONE: &Self = &Self(BTreeMap::new());

    /// Takes in the list of a kind: lines of `PRODUCT VERSION`, or `PRODUCT VERSION STATUS`, which count where the status
    /// is `installed`. Of a product that is listed twice, as for two architectures, the higher version counts.
    pub fn read(&mut self, kind: Label, list: &str) {
        let mut products: BTreeMap<String, String> = BTreeMap::new();
        for line in list.lines() {
            let mut words = line.split_whitespace();
            let (Some(product), Some(version)) = (words.next(), words.next()) else { continue };
            if words.next().is_some_and(|status| status != "installed")
                || products.len() >= PRODUCTS_MAX
            {
                continue;
            }
            let known = products.entry(product.to_owned()).or_insert_with(|| version.to_owned());
            // Of two that cannot be compared neither is known to be the lower one.
            if compare(version, known) != Some(Ordering::Less) {
                version.clone_into(known);
            }
        }
        self.0.insert(kind, products);
    }

    /// Returns whether a content would bring a higher version of its product than is installed.
    pub fn direction(&self, about: &About) -> Direction {
        let installed = about.product.as_ref().and_then(|product| {
            self.0.get(&about.kind).and_then(|products| products.get(product.as_str()))
        });
        let (Some(installed), Some(new)) = (installed, &about.version) else {
            return Direction::Unknown;
        };
        match compare(new.as_str(), installed) {
            Some(Ordering::Greater) => Direction::Upwards,
            Some(_) => Direction::NotUpwards,
            None => Direction::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn about(product: &str, version: &str) -> About {
        let about = json!({
            "format": 1, "blake3": "11".repeat(32), "name": "x.deb", "kind": "deb",
            "published": "2026-03-01T00:00:00Z", "product": product, "version": version,
        });
        serde_json::from_value(about).unwrap()
    }

    // N2: versions only upwards
    #[test]
    fn only_what_is_installed_in_a_lower_version_goes_upwards() {
        let mut versions = Versions::default();
        assert_eq!(versions.direction(&about("bash", "9")), Direction::Unknown);
        let list = "bash 5.2-1 installed\nlibc6 2.36-9 installed\nlibc6 2.37-1 installed\n\
                    gone 1.0 config-files\nodd\nweird 1_0\n";
        versions.read("deb".parse().unwrap(), list);
        for (product, version, direction) in [
            ("bash", "5.2-2", Direction::Upwards),
            ("bash", "5.2-1", Direction::NotUpwards),
            ("bash", "5.1-9", Direction::NotUpwards),
            ("bash", "5.2-1~bpo1", Direction::NotUpwards),
            ("bash", "rubbish", Direction::Unknown),
            // The lower one of two architectures is not the one that counts.
            ("libc6", "2.36-10", Direction::NotUpwards),
            ("libc6", "2.37-2", Direction::Upwards),
            ("gone", "2.0", Direction::Unknown),
            ("new", "1.0", Direction::Unknown),
            ("weird", "2", Direction::Unknown),
        ] {
            assert_eq!(
                versions.direction(&about(product, version)),
                direction,
                "{product} {version}"
            );
        }
        let unnamed = About { version: None, ..about("bash", "9") };
        assert_eq!(versions.direction(&unnamed), Direction::Unknown);
        let other = About { kind: "rpm".parse().unwrap(), ..about("bash", "9") };
        assert_eq!(versions.direction(&other), Direction::Unknown);
    }
}
