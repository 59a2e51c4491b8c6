//! The Python that has python-tuf and python-dateutil: the other implementations that tests meet.
//!
//! A virtual environment in the target folder, with fixed versions. Without it the tests that need it say
//! that they skip themselves, which CI does not let pass.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::debian;
use crate::steps::run;

/// What is installed: python-tuf, the library of its keys, and what expands windows.
const PACKAGES: [&str; 3] =
    ["tuf==7.0.1", "securesystemslib[crypto]==1.6.0", "python-dateutil==2.9.0.post0"];

/// Says in Python whether it is all there.
const IS_THERE: &str = "import cryptography, dateutil, tuf, securesystemslib, sys; \
    sys.exit(tuf.__version__ != '7.0.1' or securesystemslib.__version__ != '1.6.0' \
    or dateutil.__version__ != '2.9.0.post0')";

/// Makes the environment, or says why there is none.
pub(crate) fn provide() {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    // As tests/src/program.rs looks for it.
    let environment = target.join("python-tuf");
    if is_there(&environment) {
        return;
    }
    if let Err(error) = make(&environment) {
        eprintln!("xtask: without its Python, tests that meet others' code are skipped: {error:#}");
    }
}

fn is_there(environment: &Path) -> bool {
    let mut python = Command::new(environment.join("bin/python"));
    python.args(["-c", IS_THERE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

fn make(environment: &Path) -> anyhow::Result<()> {
    let made = run(venv("python3", environment));
    if made.is_err() {
        // Debian has its venv in a package of its own, and not every Python is Debian's.
        debian::install(&["python3-venv"])?;
        run(venv("/usr/bin/python3", environment))?;
    }
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
    run(pip)
}

fn venv(python: &str, environment: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "venv", "--clear"]).arg(environment);
    command
}
