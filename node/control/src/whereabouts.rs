//! Whether two processes mean the same folder: which folder it is, on which machine, as a hash that says nothing else.
//!
//! Control says it over HTTP. An admin's command whose own folder it is knows by it that control waits for what the command
//! holds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sutler_protocol::ContentId;

/// Where Linux says which start of which machine this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Returns the whereabouts of a folder; nothing where the system does not tell one machine from another, or has no such
/// folder.
pub fn whereabouts(folder: &Path) -> Option<String> {
    let boot = fs::read_to_string(BOOT).ok()?;
    let folder = fs::metadata(folder).ok()?;
    let text = format!("sutler folder {} {} {}", boot.trim(), folder.dev(), folder.ino());
    Some(ContentId::of(text.as_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_folder_has_the_same_whereabouts_by_each_of_its_names_and_others_have_other_ones() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
        let of = |name: &str| whereabouts(&folder.path().join(name));
        assert!(of("a").is_some());
        assert_eq!(of("a"), of("link"));
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("none"), None);
    }
}
