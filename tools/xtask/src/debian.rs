//! The Debian packages whose programs the tests run, and how a fresh machine comes by them.

use std::process::Command;

use anyhow::{Context, bail};

use crate::steps::{is_installed, run};

/// A program that a test runs, the Debian package that has it, and what for.
struct Needed {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const NEEDED: [Needed; 12] = [
    Needed { program: "b3sum", package: "b3sum", purpose: "the other opinion on a content id" },
    Needed {
        program: "curl",
        package: "curl",
        purpose: "what an HTTP endpoint says to a stranger",
    },
    Needed { program: "bash", package: "bash", purpose: "the README's command blocks" },
    Needed {
        program: "gpgv",
        package: "gpgv",
        purpose: "signatures of vendors, as the node checks them",
    },
    Needed { program: "gpg", package: "gnupg", purpose: "throw-away keys that sign indexes" },
    Needed {
        program: "apt-ftparchive",
        package: "apt-utils",
        purpose: "the indexes of throw-away archives",
    },
    Needed { program: "dpkg-deb", package: "dpkg", purpose: "the packages of throw-away archives" },
    Needed { program: "xz", package: "xz-utils", purpose: "packed indexes, as vendors pack them" },
    Needed { program: "zstd", package: "zstd", purpose: "packed indexes, as vendors pack them" },
    Needed {
        program: "rpmbuild",
        package: "rpm",
        purpose: "the packages of throw-away repositories",
    },
    Needed {
        program: "createrepo_c",
        package: "createrepo-c",
        purpose: "the indexes of throw-away repositories",
    },
    Needed { program: "dnf", package: "dnf", purpose: "a client of the proxy that is not apt" },
];

/// Sees to it that every needed program is there: installs it as root on Debian, else says how to.
pub(crate) fn provide() -> anyhow::Result<()> {
    let missing: Vec<&Needed> =
        NEEDED.iter().filter(|needed| !is_installed(needed.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    if may_install() {
        return install(&packages);
    }
    for needed in missing {
        eprintln!("the tests need {}: {}", needed.program, needed.purpose);
    }
    bail!("install them first, on Debian by: apt-get install {}", packages.join(" "))
}

/// Installs Debian packages.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    if !may_install() {
        bail!("install {} first: only root on Debian does it here", packages.join(" "));
    }
    run(apt_get(&["update", "--quiet"]))?;
    let mut install = apt_get(&["install", "--yes", "--quiet", "--no-install-recommends"]);
    install.args(packages);
    run(install).context("install what the tests need")
}

fn may_install() -> bool {
    rustix::process::geteuid().is_root() && is_installed("apt-get")
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}
