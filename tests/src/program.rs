//! Where the program under test lies.

use std::path::PathBuf;

/// Returns the `sutler` that was built beside the running test, or the one that `SUTLER` names.
///
/// # Panics
///
/// If there is none: `cargo xtask test` builds it first, `cargo test` alone does not.
pub fn sutler() -> PathBuf {
    if let Some(named) = std::env::var_os("SUTLER") {
        return named.into();
    }
    let test = std::env::current_exe().expect("a running test has a path");
    // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM for the harness' own programs.
    let built = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("sutler"))
        .find(|program| program.is_file());
    built.expect("build the program first: cargo build, or run the tests by: cargo xtask test")
}
