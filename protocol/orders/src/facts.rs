//! What a device knows of itself, as far as orders ask for it.
//!
//! The agent's inventory fills it in, and its certificate names the device; memberships in rings
//! follow from it, and are never among it.

use std::collections::BTreeSet;

use sutler_protocol::name::{Label, Organisation};

use crate::text::DeviceName;

/// A device's facts. Texts are lower case as the system says them, such as `debian`, `12`, `amd64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The organisation in the device's certificate.
    pub organisation: Organisation,
    /// Its site and its id, from the certificate.
    pub device: DeviceName,
    /// The operating system, such as `debian`.
    pub os: String,
    /// The operating system's version, such as `12`.
    pub version: String,
    /// The processor's architecture, such as `amd64`.
    pub architecture: String,
    /// The language, such as `de-DE`.
    pub language: String,
    /// The name that the machine gives itself.
    pub host_name: String,
    /// What the device's config says of it beside.
    pub tags: BTreeSet<String>,
    /// The first ring that the device's certificate lets it be in: those before it do not take it. Absent:
    /// every ring may.
    pub first_ring: Option<Label>,
}

impl Facts {
    /// Returns facts of nobody, for trying a rule out: every text is empty.
    pub(crate) fn of_nobody() -> Self {
        let label = |text: &str| text.parse().expect("letters are a label");
        Self {
            organisation: "nobody".parse().expect("letters are an organisation"),
            device: DeviceName { site: label("nowhere"), id: label("nobody") },
            os: String::new(),
            version: String::new(),
            architecture: String::new(),
            language: String::new(),
            host_name: String::new(),
            tags: BTreeSet::new(),
            first_ring: None,
        }
    }
}
