//! Which names of files in an index are believed to stay below the archive's root.
//!
//! A name is data from outside that ends up in URLs and, with other programs, in paths. So it is
//! relative, without `.` and `..`, without control characters and without backslashes (T14).

/// Bytes of a name, at most: the longest in Debian 12 has 170, and Linux ends a path at 4,096.
pub(crate) const PATH_BYTES_MAX: usize = 1024;

/// Returns the name without a leading `./`, which flat archives write; `None` if it may lead
/// out of the archive.
pub(crate) fn confined(name: &str) -> Option<&str> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let is_plain = |byte: u8| byte >= 0x20 && byte != 0x7f && byte != b'\\';
    let fits = !name.is_empty() && name.len() <= PATH_BYTES_MAX && name.bytes().all(is_plain);
    let stays = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (fits && stays).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_archive_are_refused() {
        // T14
        for name in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "a//b",
            "a/",
            "./",
            ".",
            "./../x",
            "././x",
            "a/./b",
            "a\0b",
            "a\nb",
            "a\\..\\b",
            "a\x7fb",
        ] {
            assert_eq!(confined(name), None, "{name:?}");
        }
        assert_eq!(confined(&"a".repeat(PATH_BYTES_MAX + 1)), None);
    }

    #[test]
    fn names_as_archives_have_them_are_kept() {
        for name in ["pool/main/b/bash/bash_5.2.15-2+b13_amd64.deb", "...", "a..b/c~d:e", "ä"] {
            assert_eq!(confined(name), Some(name));
        }
        assert_eq!(confined("./flat.deb"), Some("flat.deb"));
    }
}
