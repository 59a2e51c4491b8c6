//! Who is served: by network, by how many connections are open already, and by password.
//!
//! Passwords are compared in a time that does not depend on where they differ, and are in no log,
//! error or `Debug` output (T28).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine};
use hyper::header::{self, HeaderMap, HeaderName};

use super::range::once;
use super::settings::{HttpProxyConfig, Network};
use super::target::Form;

/// Bytes of a password file, at most.
const PASSWORDS_BYTES_MAX: u64 = 1 << 20;

/// Counts the connections of clients. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Clients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    networks: Vec<Network>,
    connections_max: usize,
    connections_per_client_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    connections: usize,
    /// Never with a zero.
    by_client: BTreeMap<IpAddr, usize>,
}

/// A client's connection, counted for as long as it lives.
#[derive(Debug)]
pub(super) struct Admitted {
    clients: Clients,
    /// Who it is.
    pub(super) address: IpAddr,
}

/// Why a connection is closed before a byte is read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// It comes from a network that is not served.
    Network,
    /// There are enough already, of all clients or of this one.
    TooMany,
}

impl Clients {
    pub(super) fn new(config: &HttpProxyConfig) -> Self {
        Self(Arc::new(Shared {
            networks: config.clients.clone(),
            connections_max: config.connections_max.get(),
            connections_per_client_max: config.connections_per_client_max.get(),
            open: Mutex::default(),
        }))
    }

    /// Counts a connection, unless it is not to be served.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Admitted, NotAdmitted> {
        let address = address.to_canonical();
        if !self.0.networks.iter().any(|network| network.contains(address)) {
            return Err(NotAdmitted::Network);
        }
        let mut open = self.open();
        let of_client = open.by_client.get(&address).copied().unwrap_or(0);
        if open.connections >= self.0.connections_max
            || of_client >= self.0.connections_per_client_max
        {
            return Err(NotAdmitted::TooMany);
        }
        open.connections += 1;
        open.by_client.insert(address, of_client + 1);
        Ok(Admitted { clients: self.clone(), address })
    }

    /// Returns the number of connections that are open.
    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.open().connections
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Each change leaves the table whole, so a panic elsewhere does not spoil it.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.clients.open();
        open.connections -= 1;
        if let Some(count) = open.by_client.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_client.remove(&self.address);
            }
        }
    }
}

/// Who may log in, by the digest of `USER:PASSWORD`. No `Debug`: these are secrets.
pub(super) struct Passwords(Vec<[u8; 32]>);

impl Passwords {
    /// Reads a file with `USER:PASSWORD` on each line; empty lines and those with `#` are left out.
    ///
    /// # Errors
    ///
    /// The file cannot be read, can be read by others, or has no or a wrong line.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let metadata = std::fs::metadata(path)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(refused("others than its owner may read it"));
        }
        if metadata.len() > PASSWORDS_BYTES_MAX {
            return Err(refused("it has more than 1 MiB"));
        }
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let digests = lines
            .map(|line| match line.split_once(':') {
                Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                    Ok(digest_of(line.as_bytes()))
                }
                _ => Err(refused("a line is USER:PASSWORD")),
            })
            .collect::<io::Result<Vec<_>>>()?;
        if digests.is_empty() { Err(refused("nobody is in it")) } else { Ok(Self(digests)) }
    }

    /// Returns whether the header says who may log in.
    pub(super) fn let_in(&self, headers: &HeaderMap, form: Form) -> bool {
        let Some(given) = once(headers, &login_header(form)) else { return false };
        let Some((scheme, text)) = given.split_once(' ') else { return false };
        let decoded = BASE64_STANDARD.decode(text.trim_start());
        let (true, Ok(given)) = (scheme.eq_ignore_ascii_case("basic"), decoded) else {
            return false;
        };
        let given = digest_of(&given);
        // All are compared, so that the time says nothing of who is in the list.
        self.0.iter().fold(false, |found, one| verify_slices_are_equal(one, &given).is_ok() | found)
    }
}

/// Returns the header in which a client logs in: a proxy's is its own, a mirror's is a server's.
fn login_header(form: Form) -> HeaderName {
    match form {
        Form::Proxy => header::PROXY_AUTHORIZATION,
        Form::Mirror => header::AUTHORIZATION,
    }
}

fn digest_of(bytes: &[u8]) -> [u8; 32] {
    let mut digest_bytes = [0; 32];
    digest_bytes.copy_from_slice(digest(&SHA256, bytes).as_ref());
    digest_bytes
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    // T23
    #[test]
    fn connections_are_bounded_in_all_and_for_each_client() {
        let config = HttpProxyConfig {
            connections_max: NonZeroUsize::new(3).expect("not zero"),
            connections_per_client_max: NonZeroUsize::new(2).expect("not zero"),
            ..HttpProxyConfig::default()
        };
        let clients = Clients::new(&config);
        let first = clients.admit(address(1)).expect("the first");
        let _second = clients.admit(address(1)).expect("the second");
        assert_eq!(clients.admit(address(1)).err(), Some(NotAdmitted::TooMany));
        let _third = clients.admit(address(2)).expect("another client");
        assert_eq!(clients.admit(address(3)).err(), Some(NotAdmitted::TooMany));
        drop(first);
        assert_eq!(clients.connections(), 2);
        assert!(clients.admit(address(3)).is_ok());
        assert_eq!(clients.connections(), 2);
        let foreign = IpAddr::from([8, 8, 8, 8]);
        assert_eq!(clients.admit(foreign).err(), Some(NotAdmitted::Network));
    }

    // T28
    #[test]
    fn only_who_is_in_the_file_is_let_in_and_the_file_is_for_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("passwords");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("set");
            Passwords::read(&path)
        };
        assert!(write("a:b\n", 0o644).is_err());
        for wrong in ["", "# a:b\n", "a\n", ":b\n", "a:\n"] {
            assert!(write(wrong, 0o600).is_err(), "{wrong:?}");
        }
        let passwords = write("# who\nanna:s3:cret\nben:x\n", 0o600).expect("a good file");
        let let_in = |name: HeaderName, value: &str, form| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            passwords.let_in(&headers, form)
        };
        let login = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        for right in ["anna:s3:cret", "ben:x"] {
            assert!(let_in(header::PROXY_AUTHORIZATION, &login(right), Form::Proxy));
            assert!(let_in(header::AUTHORIZATION, &login(right), Form::Mirror));
            assert!(!let_in(header::AUTHORIZATION, &login(right), Form::Proxy));
        }
        for wrong in ["anna:s3", "anna:", "carl:x", "", "ben:x\n"] {
            assert!(!let_in(header::PROXY_AUTHORIZATION, &login(wrong), Form::Proxy), "{wrong}");
        }
        for wrong in ["Bearer x", "Basic", "Basic !!!", &BASE64_STANDARD.encode("ben:x")] {
            assert!(!let_in(header::PROXY_AUTHORIZATION, wrong, Form::Proxy), "{wrong}");
        }
        assert!(!passwords.let_in(&HeaderMap::new(), Form::Proxy));
    }
}
