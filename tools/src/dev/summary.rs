//! What `sutler dev` has to show: the table of files, what the vendor was asked for in all, and what devices reported.

use comfy_table::Table;
use serde::Serialize;
use serde_json::Value;
use sutler_node::report::{Fetched, SourceKind};
use sutler_node::size::ByteCount;

use crate::output::{align_right, printable, table};

/// One file, as both agents got it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) file: String,
    /// Its length, in bytes.
    pub(crate) bytes: u64,
    /// How agent A got it.
    pub(crate) agent_a: Fetched,
    /// How agent B got it.
    pub(crate) agent_b: Fetched,
}

/// Everything that `sutler dev` moved.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// File by file.
    pub(crate) files: Vec<Row>,
    /// Bytes of all files together.
    pub(crate) bytes: u64,
    /// Bytes that the node took from the vendor. Absent where the files were this machine's own.
    pub(crate) vendor_bytes: Option<u64>,
    /// Whether every chunk of every file agreed with its id, at both agents.
    pub(crate) verified: bool,
    /// What control knows of each content in the end, as `sutler report patch` has it.
    pub(crate) report: Vec<Value>,
}

impl Summary {
    pub(crate) fn new(files: Vec<Row>, vendor_bytes: Option<u64>) -> Self {
        let verified = files.iter().all(|row| row.agent_a.verified && row.agent_b.verified);
        let bytes = files.iter().map(|row| row.bytes).sum();
        Self { files, bytes, vendor_bytes, verified, report: Vec::new() }
    }

    /// Returns the table: a line for each file.
    pub(crate) fn table(&self) -> Table {
        let header = ["file", "bytes", "agent A from", "rate", "agent B from", "rate", "verified"];
        let mut table = table(header);
        for row in &self.files {
            table.add_row([
                printable(&row.file),
                row.bytes.to_string(),
                sources(&row.agent_a),
                rate(&row.agent_a),
                sources(&row.agent_b),
                rate(&row.agent_b),
                if row.agent_a.verified && row.agent_b.verified { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        align_right(&mut table, &[1, 3, 5]);
        table
    }

    /// Returns the lines below the table: both agents by source, then the vendor.
    pub(crate) fn lines(&self) -> Vec<String> {
        let agent = |name: &str, pick: fn(&Row) -> &Fetched| {
            let sum = |kind| {
                let of = |row| pick(row).bytes_by_source.get(&kind).copied().unwrap_or_default();
                self.files.iter().map(of).sum::<u64>()
            };
            let parts: Vec<String> = KINDS
                .iter()
                .filter(|(kind, _)| sum(*kind) > 0)
                .map(|(kind, name)| format!("{name} {}", ByteCount(sum(*kind))))
                .collect();
            format!("agent {name}: {}", parts.join(", "))
        };
        let vendor = match self.vendor_bytes {
            Some(bytes) => {
                let times = if self.bytes == 0 { 0.0 } else { bytes as f64 / self.bytes as f64 };
                format!("vendor: {bytes} bytes, {times:.2} x")
            }
            None => "vendor: 0 bytes, 0.00 x (the files are this machine's own)".to_owned(),
        };
        vec![agent("A", |row| &row.agent_a), agent("B", |row| &row.agent_b), vendor]
    }
}

const KINDS: [(SourceKind, &str); 4] = [
    (SourceKind::Disk, "disk"),
    (SourceKind::Peer, "peer"),
    (SourceKind::Node, "node"),
    (SourceKind::Vendor, "vendor"),
];

fn sources(fetched: &Fetched) -> String {
    let parts: Vec<String> = KINDS
        .iter()
        .filter_map(|(kind, name)| Some((fetched.bytes_by_source.get(kind)?, name)))
        .filter(|(bytes, _)| **bytes > 0)
        .map(|(bytes, name)| format!("{name} {}", ByteCount(*bytes)))
        .collect();
    parts.join(", ")
}

fn rate(fetched: &Fetched) -> String {
    let bytes = fetched.bytes.saturating_mul(1000) / fetched.elapsed_ms.max(1);
    format!("{}/s", ByteCount(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sutler_node::report::SourceBytes;

    fn fetched(kinds: &[(SourceKind, u64)]) -> Fetched {
        let source = |(kind, bytes): &(SourceKind, u64)| SourceBytes {
            kind: *kind,
            address: None,
            bytes: *bytes,
        };
        let sources: Vec<SourceBytes> = kinds.iter().map(source).collect();
        Fetched {
            content: "00".repeat(32),
            sha256: None,
            name: None,
            bytes: kinds.iter().map(|(_, bytes)| bytes).sum(),
            elapsed_ms: 10,
            bytes_by_source: Fetched::sum_by_kind(&sources),
            sources,
            dropped: Vec::new(),
            bytes_again: 0,
            verified: true,
        }
    }

    // D6
    #[test]
    fn each_byte_is_told_by_its_source_and_the_vendor_is_asked_once() {
        let row = Row {
            file: "bash.deb".to_owned(),
            bytes: 1_000_000,
            agent_a: fetched(&[(SourceKind::Node, 1_000_000)]),
            agent_b: fetched(&[(SourceKind::Peer, 600_000), (SourceKind::Node, 400_000)]),
        };
        let summary = Summary::new(vec![row], Some(1_000_000));
        assert_eq!(
            summary.lines(),
            [
                "agent A: node 1.00 MB",
                "agent B: peer 600 kB, node 400 kB",
                "vendor: 1000000 bytes, 1.00 x"
            ]
        );
        let table = summary.table().to_string();
        assert!(
            table.contains("100 MB/s") && table.contains("peer 600 kB, node 400 kB"),
            "{table}"
        );
    }
}
