//! What kind of place an IP address leads to, so that an origin cannot lead inside.
//!
//! Pure. A URL of the allow-list names a host; what the host's name resolves to is decided by
//! whoever runs its DNS, at the moment of the connection. [`AddressClass::of`] looks at the
//! address itself, and through every form in which IPv6 carries an IPv4 address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::origin::allow::Reach;

/// The kinds of address that are told apart before a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressClass {
    /// Anybody's: the open internet.
    Public,
    /// Reserved for documentation (RFC 5737, RFC 3849). Nothing on the internet has one; closed
    /// networks use them as stand-ins for public addresses, so they are treated as such.
    Documentation,
    /// This machine (127/8, `::1`).
    Loopback,
    /// A private network (RFC 1918), a unique local address (RFC 4193) or its predecessor.
    Private,
    /// This link only (169.254/16, `fe80::/10`).
    LinkLocal,
    /// A carrier's inside (RFC 6598, 100.64/10).
    Shared,
    /// Where clouds hand out credentials to whoever asks from the machine. Never a mirror.
    Metadata,
    /// 0/8 and `::`. Linux takes them for this machine.
    Unspecified,
    /// Many machines at once.
    Multicast,
    /// Every machine of a network.
    Broadcast,
    /// Set aside for protocols, tests or the future.
    Reserved,
}

/// An address that an origin may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host} leads to {addr}, a {class} address")]
pub struct AddressRefused {
    /// The host as the URL names it.
    pub host: String,
    /// The address it leads to.
    pub addr: IpAddr,
    /// Why the address is refused.
    pub class: AddressClass,
}

impl AddressClass {
    /// Returns the class of an address, seen through IPv4-mapped, IPv4-compatible, translated
    /// (RFC 6052, RFC 2765), 6to4 and ISATAP forms.
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }

    /// Returns whether a connection may be made to such an address.
    pub const fn permitted(self, reach: Reach) -> bool {
        match self {
            Self::Public | Self::Documentation => true,
            Self::Loopback | Self::Private | Self::LinkLocal | Self::Shared => {
                matches!(reach, Reach::Anywhere)
            }
            Self::Metadata
            | Self::Unspecified
            | Self::Multicast
            | Self::Broadcast
            | Self::Reserved => false,
        }
    }
}

/// Checks that `addr`, which `host` leads to, may be connected to.
///
/// # Errors
///
/// [`AddressRefused`] if its class is beyond `reach`.
pub fn check(host: &str, addr: IpAddr, reach: Reach) -> Result<(), AddressRefused> {
    let class = AddressClass::of(addr);
    if class.permitted(reach) {
        Ok(())
    } else {
        Err(AddressRefused { host: host.to_owned(), addr, class })
    }
}

/// The IPv4 addresses at which clouds answer with credentials: the one of AWS, Google, Azure and
/// most others, Alibaba's, Oracle's, and Azure's host agent, which looks public.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// AWS over IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

fn of_v4(addr: Ipv4Addr) -> AddressClass {
    if METADATA_V4.contains(&addr) {
        return AddressClass::Metadata;
    }
    match addr.octets() {
        [0, ..] => AddressClass::Unspecified,
        [127, ..] => AddressClass::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => AddressClass::Private,
        [169, 254, ..] => AddressClass::LinkLocal,
        [100, 64..=127, ..] => AddressClass::Shared,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => AddressClass::Documentation,
        [224..=239, ..] => AddressClass::Multicast,
        [255, 255, 255, 255] => AddressClass::Broadcast,
        // Protocol assignments, the 6to4 relay, benchmarks, the future.
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [240..=255, ..] => {
            AddressClass::Reserved
        }
        _ => AddressClass::Public,
    }
}

fn of_v6(addr: Ipv6Addr) -> AddressClass {
    if addr == METADATA_V6 {
        return AddressClass::Metadata;
    }
    if addr == Ipv6Addr::LOCALHOST {
        return AddressClass::Loopback;
    }
    if let Some(v4) = embedded_v4(addr) {
        return of_v4(v4);
    }
    match addr.segments() {
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        // Unique local, site local, and the translators of a site (RFC 8215).
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => AddressClass::Private,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => AddressClass::Documentation,
        // Teredo and the other protocols of 2001::/23.
        [0x2001, 0..=0x01ff, ..] => AddressClass::Reserved,
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}

/// Returns the IPv4 address that a gateway on the way would send to.
fn embedded_v4(addr: Ipv6Addr) -> Option<Ipv4Addr> {
    let low = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match addr.segments() {
        // Compatible (which `::` is the first of), mapped, translated; the well-known translator; ISATAP.
        [0, 0, 0, 0, 0, 0 | 0xffff, g, h]
        | [0, 0, 0, 0, 0xffff, 0, g, h]
        | [0x64, 0xff9b, 0, 0, 0, 0, g, h]
        | [_, _, _, _, 0 | 0x200, 0x5efe, g, h] => low(g, h),
        // 6to4.
        [0x2002, b, c, ..] => low(b, c),
        _ => None,
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Documentation => "documentation",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Shared => "carrier's shared",
            Self::Metadata => "cloud metadata",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(addr: &str) -> AddressClass {
        AddressClass::of(addr.parse().expect("an address"))
    }

    // T16
    #[test]
    fn every_address_has_the_class_of_where_it_leads() {
        for (addr, expected) in [
            ("8.8.8.8", AddressClass::Public),
            ("100.63.255.255", AddressClass::Public),
            ("100.128.0.0", AddressClass::Public),
            ("172.15.255.255", AddressClass::Public),
            ("172.32.0.0", AddressClass::Public),
            ("203.0.113.80", AddressClass::Documentation),
            ("0.0.0.0", AddressClass::Unspecified),
            ("0.1.2.3", AddressClass::Unspecified),
            ("127.0.0.1", AddressClass::Loopback),
            ("127.255.255.254", AddressClass::Loopback),
            ("10.0.0.1", AddressClass::Private),
            ("172.16.0.1", AddressClass::Private),
            ("172.31.255.255", AddressClass::Private),
            ("192.168.0.1", AddressClass::Private),
            ("169.254.1.1", AddressClass::LinkLocal),
            ("169.254.169.254", AddressClass::Metadata),
            ("100.100.100.200", AddressClass::Metadata),
            ("100.64.0.1", AddressClass::Shared),
            ("100.127.255.255", AddressClass::Shared),
            ("192.0.0.8", AddressClass::Reserved),
            ("198.18.0.1", AddressClass::Reserved),
            ("224.0.0.1", AddressClass::Multicast),
            ("239.255.255.255", AddressClass::Multicast),
            ("240.0.0.1", AddressClass::Reserved),
            ("255.255.255.255", AddressClass::Broadcast),
            ("2606:4700::1111", AddressClass::Public),
            ("2001:db8::1", AddressClass::Documentation),
            ("::", AddressClass::Unspecified),
            ("::1", AddressClass::Loopback),
            ("fe80::1", AddressClass::LinkLocal),
            ("fc00::1", AddressClass::Private),
            ("fdff::1", AddressClass::Private),
            ("fec0::1", AddressClass::Private),
            ("fd00:ec2::254", AddressClass::Metadata),
            ("ff02::1", AddressClass::Multicast),
            ("100::1", AddressClass::Reserved),
            ("5f00::1", AddressClass::Reserved),
        ] {
            assert_eq!(class(addr), expected, "{addr}");
        }
    }

    // T16
    #[test]
    fn ipv4_inside_ipv6_is_seen_through() {
        for (addr, expected) in [
            ("::ffff:127.0.0.1", AddressClass::Loopback),
            ("::ffff:169.254.169.254", AddressClass::Metadata),
            ("::ffff:8.8.8.8", AddressClass::Public),
            ("::10.0.0.1", AddressClass::Private),
            ("::ffff:0:192.168.1.1", AddressClass::Private),
            ("64:ff9b::10.0.0.1", AddressClass::Private),
            ("64:ff9b::8.8.8.8", AddressClass::Public),
            ("64:ff9b:1::8.8.8.8", AddressClass::Private),
            ("2002:7f00:1::1", AddressClass::Loopback),
            ("2002:a9fe:a9fe::", AddressClass::Metadata),
            ("2002:808:808::1", AddressClass::Public),
            ("2001:0:53aa:64c::80ff:fffe", AddressClass::Reserved),
            ("2606:4700::5efe:10.0.0.1", AddressClass::Private),
            ("2606:4700::200:5efe:127.0.0.1", AddressClass::Loopback),
        ] {
            assert_eq!(class(addr), expected, "{addr}");
        }
    }

    #[test]
    fn a_private_origin_may_be_inside_but_never_a_metadata_service() {
        for (addr, public, anywhere) in [
            ("8.8.8.8", true, true),
            ("203.0.113.80", true, true),
            ("127.0.0.1", false, true),
            ("10.1.2.3", false, true),
            ("fd12::1", false, true),
            ("fe80::1", false, true),
            ("100.64.0.1", false, true),
            ("169.254.169.254", false, false),
            ("0.0.0.0", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
        ] {
            assert_eq!(class(addr).permitted(Reach::Public), public, "{addr}");
            assert_eq!(class(addr).permitted(Reach::Anywhere), anywhere, "{addr}");
        }
    }
}
