//! What kind of file a path names, and so how long it may be believed. Pure.
//!
//! A repository names its kinds itself: what lies in a pool never changes under its name, indexes
//! change with each release, and anything else is as any web page.

/// What kind of file a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A package or a part of a source package. It never changes under its name.
    Pool,
    /// A file whose name holds the hash of its bytes, such as `by-hash/SHA256/…`.
    Hashed,
    /// A file that says what else there is, and changes with each release.
    Index,
    /// Anything else.
    Other,
}

/// Names of index files, as far as they end before a `.`.
const INDEXES: [&str; 10] = [
    "InRelease",
    "Release",
    "Packages",
    "Sources",
    "Index",
    "repomd",
    "mirrorlist",
    "metalink",
    "treeinfo",
    "SHA256SUMS",
];

/// How names of index files begin that go on with an architecture or a language.
const INDEX_PREFIXES: [&str; 4] = ["Contents-", "Translation-", "Components-", "Commands-"];

/// What ends the names of files in a pool.
const POOL_SUFFIXES: [&str; 8] =
    [".deb", ".udeb", ".ddeb", ".dsc", ".rpm", ".drpm", ".changes", ".buildinfo"];

impl Kind {
    /// Returns the kind of the file at a URL's path.
    pub(super) fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        if path.contains("/by-hash/") || (path.contains("/repodata/") && is_hash_named(name)) {
            return Self::Hashed;
        }
        let stem = name.split('.').next().unwrap_or(name);
        if POOL_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) || is_source(name) {
            return Self::Pool;
        }
        let is_index = INDEXES.contains(&stem)
            || INDEX_PREFIXES.iter().any(|prefix| stem.starts_with(prefix))
            || (path.contains("/dists/") && !name.is_empty())
            || path.contains("/repodata/");
        if is_index { Self::Index } else { Self::Other }
    }

    /// Returns whether its bytes can be taken for right for ever.
    pub(super) const fn is_immutable(self) -> bool {
        matches!(self, Self::Pool | Self::Hashed)
    }
}

/// Returns the SHA-256 that a path of the form `…/by-hash/SHA256/HEX` holds.
pub(super) fn by_hash(path: &str) -> Option<&str> {
    let hex = path.rsplit_once("/by-hash/SHA256/")?.1;
    let is_hash = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then_some(hex)
}

/// A file that names all indexes of a suite or a repository, and that a vendor signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// `InRelease`, which holds its signature.
    InRelease,
    /// `Release`.
    Release,
    /// `repomd.xml`.
    Repomd,
}

impl Root {
    /// Returns what a file with this name is.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "InRelease" => Some(Self::InRelease),
            "Release" => Some(Self::Release),
            "repomd.xml" => Some(Self::Repomd),
            _ => None,
        }
    }

    /// Returns the name of the file beside it that holds its signature.
    pub(super) const fn signature(self) -> Option<&'static str> {
        match self {
            Self::InRelease => None,
            Self::Release => Some("Release.gpg"),
            Self::Repomd => Some("repomd.xml.asc"),
        }
    }
}

/// Returns whether a name is that of a signature beside a root.
pub(super) fn is_signature(name: &str) -> bool {
    matches!(name, "Release.gpg" | "repomd.xml.asc")
}

/// Returns whether a file is the root of a suite's or a repository's indexes, or its signature.
pub(super) fn is_root(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_here = !name.starts_with("repomd") || folder.ends_with("/repodata");
    is_here && (Root::of(name).is_some() || is_signature(name))
}

/// Returns what HTTP calls the bytes of such a file.
pub(super) fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("deb" | "udeb" | "ddeb") => "application/vnd.debian.binary-package",
        Some("rpm" | "drpm") => "application/x-rpm",
        Some("xz") => "application/x-xz",
        Some("gz") => "application/gzip",
        Some("bz2") => "application/x-bzip2",
        Some("zst") => "application/zstd",
        Some("xml") => "text/xml",
        Some("html") => "text/html; charset=utf-8",
        Some("gpg" | "asc" | "sig") => "application/pgp-signature",
        None if is_root(path) => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Returns whether an origin's answer is a page for people in place of such a file: a login page, or
/// an error that says that all is well.
pub(super) fn is_page(path: &str, content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return false };
    let content_type = content_type.trim_start().to_ascii_lowercase();
    let is_html =
        content_type.starts_with("text/html") || content_type.starts_with("application/xhtml");
    is_html && Kind::of(path) != Kind::Other
}

/// Returns whether a name is that of a source package's tarball or its signature.
fn is_source(name: &str) -> bool {
    let name = name.strip_suffix(".asc").unwrap_or(name);
    let is_tar = [".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst", ".tar.lzma", ".diff.gz"]
        .iter()
        .any(|suffix| name.ends_with(suffix));
    // Anything may be called `x.tar.gz`; a source package's files have its version in their name.
    is_tar && name.contains('_')
}

/// Returns whether a name begins with a hash, as those in `repodata/` that never change.
fn is_hash_named(name: &str) -> bool {
    name.split_once('-').is_some_and(|(hash, _)| {
        hash.len() >= 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_kind_of_file_it_names() {
        let hash = "0".repeat(64);
        for (path, kind) in [
            ("/debian/pool/main/a/apt/apt_2.6.1_amd64.deb", Kind::Pool),
            ("/debian/pool/main/a/apt/apt_2.6.1.dsc", Kind::Pool),
            ("/debian/pool/main/a/apt/apt_2.6.1.orig.tar.xz", Kind::Pool),
            ("/debian/pool/main/a/apt/apt_2.6.1.orig.tar.xz.asc", Kind::Pool),
            ("/debian/pool/main/a/apt/apt_2.6.1.diff.gz", Kind::Pool),
            ("/x/apt-dbgsym_1_amd64.ddeb", Kind::Pool),
            ("/fedora/Packages/b/bash-5.2-1.x86_64.rpm", Kind::Pool),
            ("/debian/dists/stable/InRelease", Kind::Index),
            ("/debian/dists/stable/Release.gpg", Kind::Index),
            ("/flat/./Packages.gz", Kind::Index),
            ("/flat/Release", Kind::Index),
            ("/debian/dists/stable/main/binary-amd64/Packages.xz", Kind::Index),
            ("/debian/dists/stable/updates/main/source/Sources.gz", Kind::Index),
            ("/debian/dists/stable/main/Contents-amd64.gz", Kind::Index),
            ("/debian/dists/stable/main/i18n/Translation-de.xz", Kind::Index),
            ("/debian/dists/stable/main/dep11/icons-64x64.tar.gz", Kind::Index),
            ("/debian/dists/stable/main/binary-amd64/Packages.diff/Index", Kind::Index),
            ("/fedora/repodata/repomd.xml", Kind::Index),
            ("/fedora/repodata/primary.xml.gz", Kind::Index),
            ("/images/latest.tar.gz", Kind::Other),
            ("/index.html", Kind::Other),
            ("/", Kind::Other),
        ] {
            assert_eq!(Kind::of(path), kind, "{path}");
        }
        let by_hash_path = format!("/debian/dists/stable/main/binary-amd64/by-hash/SHA256/{hash}");
        assert_eq!(Kind::of(&by_hash_path), Kind::Hashed);
        assert_eq!(by_hash(&by_hash_path), Some(hash.as_str()));
        assert_eq!(by_hash(&by_hash_path[..by_hash_path.len() - 1]), None);
        assert_eq!(Kind::of(&format!("/repodata/{hash}-primary.xml.gz")), Kind::Hashed);
    }

    #[test]
    fn roots_and_their_signatures_are_told_from_what_is_called_alike() {
        for path in
            ["/dists/x/InRelease", "/Release", "/x/Release.gpg", "/fedora/repodata/repomd.xml"]
        {
            assert!(is_root(path), "{path}");
        }
        for path in
            ["/repomd.xml", "/x/repomd.xml.asc", "/repodata/repomd.xml.key", "/dists/x/Packages"]
        {
            assert!(!is_root(path), "{path}");
        }
        assert!(is_root("/fedora/repodata/repomd.xml.asc"));
    }

    #[test]
    fn a_page_for_people_is_no_package() {
        let html = Some("text/html; charset=UTF-8");
        assert!(is_page("/pool/a_1.deb", html));
        assert!(is_page("/dists/stable/InRelease", Some("Text/HTML")));
        assert!(!is_page("/docs/index.html", html));
        assert!(!is_page("/pool/a_1.deb", Some("application/octet-stream")));
        assert!(!is_page("/pool/a_1.deb", None));
    }
}
