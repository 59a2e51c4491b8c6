//! What this device knows of itself: its facts, from the system's files, its certificate and its config.

use std::fs;
use std::path::Path;

use sutler_orders::Facts;
use sutler_orders::text::DeviceName;
use sutler_protocol::name::{Member, PeerName};

use crate::config::AgentConfig;

/// Bytes of a system file that are read: those that are meant have less than one.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Returns this device's facts. `None` if its certificate is no agent's. Reads files.
pub fn facts(name: &PeerName, config: &AgentConfig) -> Option<Facts> {
    facts_below(Path::new("/"), name, config)
}

fn facts_below(root: &Path, name: &PeerName, config: &AgentConfig) -> Option<Facts> {
    let Member::Agent { site, id } = name.member() else { return None };
    let system = rustix::system::uname();
    // The first one counts; the second is where a distribution puts it for the first to link to.
    let release = read(root, "etc/os-release").or_else(|| read(root, "usr/lib/os-release"));
    let release = release.unwrap_or_default();
    let field = |key| field(&release, key).unwrap_or_default().to_ascii_lowercase();
    let locale = read(root, "etc/locale.conf").or_else(|| read(root, "etc/default/locale"));
    Some(Facts {
        organisation: name.organisation().clone(),
        device: DeviceName { site: site.clone(), id: id.clone() },
        os: field("ID"),
        version: field("VERSION_ID"),
        architecture: architecture(&system.machine().to_string_lossy()).to_owned(),
        language: locale.as_deref().and_then(language).unwrap_or_default(),
        host_name: system.nodename().to_string_lossy().to_ascii_lowercase(),
        tags: config.tags.clone(),
        first_ring: config.first_ring.clone(),
    })
}

fn read(root: &Path, path: &str) -> Option<String> {
    let path = root.join(path);
    let is_short = fs::metadata(&path).ok()?.len() <= FILE_BYTES_MAX;
    is_short.then(|| fs::read_to_string(path).ok()).flatten()
}

/// Returns the value of a key in a file of assignments as a shell reads them, such as os-release(5).
fn field<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let mut values =
        text.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
    let value = values.next_back()?.trim();
    let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    Some(quoted('"').or_else(|| quoted('\'')).unwrap_or(value))
}

/// Returns a locale such as `LANG=de_DE.UTF-8` as `de-DE`. `C` and `POSIX` are no language.
fn language(locale: &str) -> Option<String> {
    let lang = field(locale, "LANG")?;
    let name = lang.split(['.', '@']).next()?;
    (!matches!(name, "" | "C" | "POSIX")).then(|| name.replace('_', "-"))
}

/// Returns a processor's architecture by the name that package managers have for it.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "armhf",
        "i386" | "i486" | "i586" | "i686" => "i386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_from_the_system_the_certificate_and_the_config() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let release = "PRETTY_NAME=\"Debian 12\"\nID=debian\nVERSION_ID=\"12\"\n";
        fs::write(dir.path().join("etc/os-release"), release).unwrap();
        fs::write(dir.path().join("etc/locale.conf"), "LANG=de_DE.UTF-8\n").unwrap();
        let config = AgentConfig { tags: ["kiosk".to_owned()].into(), ..AgentConfig::default() };
        let name: PeerName = "spiffe://acme/site/cologne/agent/anna".parse().unwrap();
        let facts = facts_below(dir.path(), &name, &config).unwrap();
        assert_eq!(facts.device.to_string(), "cologne/anna");
        assert_eq!((facts.os.as_str(), facts.version.as_str()), ("debian", "12"));
        assert_eq!(facts.language, "de-DE");
        assert!(!facts.architecture.is_empty() && !facts.host_name.is_empty());
        assert!(facts.tags.contains("kiosk"));
        let node: PeerName = "spiffe://acme/site/cologne/node/n1".parse().unwrap();
        assert_eq!(facts_below(dir.path(), &node, &config), None);
    }

    #[test]
    fn a_system_that_says_nothing_has_empty_facts() {
        let dir = tempfile::tempdir().unwrap();
        let name: PeerName = "spiffe://acme/site/cologne/agent/anna".parse().unwrap();
        let facts = facts_below(dir.path(), &name, &AgentConfig::default()).unwrap();
        assert_eq!((facts.os.as_str(), facts.language.as_str()), ("", ""));
        for (locale, expected) in
            [("LANG=C.UTF-8", None), ("LANG=\"en_GB\"", Some("en-GB")), ("", None)]
        {
            assert_eq!(language(locale).as_deref(), expected, "{locale}");
        }
    }
}
