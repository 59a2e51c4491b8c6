//! A throw-away `OpenPGP` key that signs indexes, kept by the real `gpg` in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A key, and the `gpg` that signs with it. Both go when it is dropped.
pub struct Signer {
    home: TempDir,
    /// When `gpg` thinks it is: seconds since 1970, where that is not now.
    at: Option<u64>,
}

impl Signer {
    /// Makes a key that never expires.
    ///
    /// # Panics
    ///
    /// If `gpg` fails.
    pub fn new() -> Self {
        Self::made(None, "never")
    }

    /// Makes a key at a moment, in seconds since 1970, that expires a year later; it signs as of that
    /// moment, too.
    ///
    /// # Panics
    ///
    /// If `gpg` fails.
    pub fn for_a_year_from(at: u64) -> Self {
        Self::made(Some(at), "1y")
    }

    fn made(at: Option<u64>, expires: &str) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
        let signer = Self { home, at };
        let name = "Throw Away <nobody@sutler.invalid>";
        signer.gpg(["--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", expires]);
        signer
    }

    /// Returns the text, clear-signed.
    ///
    /// # Panics
    ///
    /// If `gpg` fails.
    pub fn clear_signed(&self, text: &[u8]) -> Vec<u8> {
        self.signed(text, &["--clear-sign"])
    }

    /// Returns the text, clear-signed with a hash such as `SHA1`.
    ///
    /// # Panics
    ///
    /// If `gpg` fails.
    pub fn clear_signed_by(&self, text: &[u8], hash: &str) -> Vec<u8> {
        self.signed(text, &["--digest-algo", hash, "--clear-sign"])
    }

    /// Returns a detached, armored signature over the text.
    ///
    /// # Panics
    ///
    /// If `gpg` fails.
    pub fn detached(&self, text: &[u8]) -> Vec<u8> {
        self.signed(text, &["--armor", "--detach-sign"])
    }

    fn signed(&self, text: &[u8], how: &[&str]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, signed) = (folder.path().join("text"), folder.path().join("signed"));
        fs::write(&file, text).expect("a file");
        self.gpg([&["--output", utf8(&signed)], how, &[utf8(&file)]].concat());
        fs::read(signed).expect("what gpg signed")
    }

    /// Returns the public key, binary.
    ///
    /// # Panics
    ///
    /// If `gpg` fails.
    pub fn public(&self) -> Vec<u8> {
        self.gpg(["--export"])
    }

    /// Returns the public key, armored.
    ///
    /// # Panics
    ///
    /// If `gpg` fails.
    pub fn public_armored(&self) -> String {
        String::from_utf8(self.gpg(["--armor", "--export"])).expect("text")
    }

    /// Returns the key's fingerprint.
    ///
    /// # Panics
    ///
    /// If `gpg` fails.
    pub fn fingerprint(&self) -> String {
        let listed = String::from_utf8(self.gpg(["--with-colons", "--list-keys"])).expect("text");
        let line = listed.lines().find(|line| line.starts_with("fpr:")).expect("a fingerprint");
        line.split(':').nth(9).expect("field 10").to_owned()
    }

    /// Revokes the key; its public part says so from now on.
    ///
    /// # Panics
    ///
    /// If `gpg` fails.
    pub fn revoke(&self) {
        let name = format!("openpgp-revocs.d/{}.rev", self.fingerprint());
        let path = self.home.path().join(name);
        // gpg puts a colon there, so that nobody imports it by accident.
        let text = fs::read_to_string(&path).expect("gpg's own revocation");
        fs::write(&path, text.replace(":-----BEGIN", "-----BEGIN")).expect("a file");
        self.gpg(["--import", utf8(&path)]);
    }

    fn gpg<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.home.path()).args(["--batch", "--quiet", "--no-tty"]);
        if let Some(at) = self.at {
            command.args(["--faked-system-time", &format!("{at}!")]);
        }
        let output = command.args(arguments).stdin(Stdio::null()).output();
        let output = output.expect("gpg runs; cargo xtask test installs it");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg: {said}");
        output.stdout
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // The agent that gpg started; without it, it would notice in a while that its folder is gone.
        let mut command = Command::new("gpgconf");
        command.arg("--homedir").arg(self.home.path()).args(["--kill", "all"]);
        drop(command.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}
