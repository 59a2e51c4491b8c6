//! Where the program under test lies.

use std::path::PathBuf;

/// Returns the `sutler` that was built beside the running test, or the one that `SUTLER` names.
///
/// # Panics
///
/// If there is none: `cargo xtask test` builds it first, `cargo test` alone does not.
pub fn sutler() -> PathBuf {
    std::env::var_os("SUTLER").map_or_else(|| beside("sutler"), PathBuf::from)
}

/// Returns the `sutler-tuf` that was built beside the running test.
///
/// # Panics
///
/// If there is none, as [`sutler`].
pub fn sutler_tuf() -> PathBuf {
    beside("sutler-tuf")
}

/// Returns the Python that has python-tuf and python-dateutil: `cargo xtask test` makes it in the target folder.
/// `None` if it is not there.
pub fn python() -> Option<PathBuf> {
    let test = test_program();
    let mut folders = test.ancestors().skip(1).take(4).map(|folder| {
        // As tools/xtask/src/python.rs makes it.
        folder.join("python-tuf/bin/python")
    });
    folders.find(|python| python.is_file())
}

fn beside(program: &str) -> PathBuf {
    let test = test_program();
    // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM for the harness' own programs.
    let built = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(program))
        .find(|program| program.is_file());
    built.expect("build the program first: cargo build, or run the tests by: cargo xtask test")
}

fn test_program() -> PathBuf {
    std::env::current_exe().expect("a running test has a path")
}
