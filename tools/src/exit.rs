//! What the exit codes mean. One table; scripts may rely on it.

use std::process::ExitCode;

use sutler_node::failure::Kind;

/// Everything went well.
pub(crate) const OK: u8 = 0;

/// A code that says why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u8);

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// Returns the exit code of a kind of failure.
pub(crate) const fn code_of(kind: Kind) -> Code {
    Code(match kind {
        Kind::Internal => 1,
        Kind::Usage => 2,
        Kind::UnknownContent => 3,
        Kind::Refused => 4,
        Kind::Unreachable => 5,
        Kind::Corrupt => 6,
        Kind::NoSpace => 7,
        Kind::Store => 8,
        Kind::Interrupted => 9,
        Kind::File => 10,
    })
}

/// The table, as `sutler --help` ends with it and as the README has it.
pub(crate) const TABLE: &str = "\
Exit codes (with --json the last line on stdout is {\"error\":{\"kind\":…}} when a command fails):
   0  ok
   1  internal         something unforeseen, or a defect of ours
   2  usage            the arguments or the config cannot be used
   3  unknown-content  nobody who was asked has such a content
   4  refused          a certificate or a rule forbids it
   5  unreachable      no source could be reached, or each stopped answering
   6  corrupt          the bytes are not the ones that were named
   7  no-space         the disk or the quota is full
   8  store            the store is in use, damaged, or of a newer format
   9  interrupted      stopped on request; what was verified is kept
  10  file             a file that you named cannot be read or written, or changed meanwhile";

#[cfg(test)]
mod tests {
    use super::*;

    // R155
    #[test]
    fn the_table_has_each_kind_with_its_code() {
        for kind in Kind::ALL {
            let start = format!("{:>4}  {:<15}  ", code_of(kind).0, kind.name());
            assert!(TABLE.lines().any(|line| line.starts_with(&start)), "{start:?}");
        }
        assert_eq!(TABLE.lines().count(), Kind::ALL.len() + 2);
    }

    // R155
    #[test]
    fn no_two_kinds_share_a_code_and_none_says_ok() {
        let mut codes: Vec<u8> = Kind::ALL.iter().map(|kind| code_of(*kind).0).collect();
        codes.push(OK);
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len() + 1);
    }
}
