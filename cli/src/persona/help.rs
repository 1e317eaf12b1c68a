//! The `--help` output of `pg_rewind` and `sys_rewind`: their options, in their order and format.

use std::fmt::Write;

/// An option: the first version that has it, its spelling, and the lines that describe it.
type Entry = (u32, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const PG_REWIND: [Entry; 14] = [
    (130_000, "-c, --restore-target-wal", &["fetch missing WAL with the restore_command of", "the target's configuration"]),
    (0,       "-D, --target-pgdata=DIRECTORY", &["data directory to rewind"]),
    (0,       "    --source-pgdata=DIRECTORY", &["data directory of a stopped server to copy from"]),
    (0,       "    --source-server=CONNSTR", &["running server to copy from"]),
    (0,       "-n, --dry-run", &["change nothing"]),
    (120_000, "-N, --no-sync", &["do not wait until everything is safely on disk"]),
    (0,       "-P, --progress", &["show progress"]),
    (130_000, "-R, --write-recovery-conf", &["make the target a standby of the source", "(needs --source-server)"]),
    (150_000, "    --config-file=FILENAME", &["postgresql.conf of the target"]),
    (0,       "    --debug", &["show debugging messages"]),
    (130_000, "    --no-ensure-shutdown", &["refuse a target that was not shut down cleanly"]),
    (170_000, "    --sync-method=METHOD", &["how to make files durable (fsync or syncfs)"]),
    (0,       "-V, --version", &["show the version"]),
    (0,       "-?, --help", &["show this help"]),
];

#[rustfmt::skip]
const SYS_REWIND: [Entry; 9] = [
    (0,       "-D, --target-data=DIRECTORY", &["data directory to rewind"]),
    (0,       "    --source-data=DIRECTORY", &["data directory of a stopped server to copy from"]),
    (0,       "    --source-server=CONNSTR", &["running server to copy from"]),
    (0,       "-n, --dry-run", &["change nothing"]),
    (120_000, "-N, --no-sync", &["do not wait until everything is safely on disk"]),
    (0,       "-P, --progress", &["show progress"]),
    (0,       "    --debug", &["show debugging messages"]),
    (0,       "-V, --version", &["show the version"]),
    (0,       "-?, --help", &["show this help"]),
];

/// The help of a program of this version.
pub(crate) fn text(name: &str, version: u32) -> String {
    let entries: &[Entry] = if name == "sys_rewind" { &SYS_REWIND } else { &PG_REWIND };
    let mut text = format!(
        "{name} makes a diverged data directory follow another server of its cluster again.\n\n\
         Usage:\n  {name} [OPTION]...\n\nOptions:\n"
    );
    for (_, option, lines) in entries.iter().filter(|(since, ..)| *since <= version) {
        for (at, line) in lines.iter().enumerate() {
            let option = if at == 0 { option } else { "" };
            let _ = writeln!(text, "  {option:<30} {line}");
        }
    }
    let _ = write!(
        text,
        "\nThis is kbrecover {}, called by the name of {name}. Further options, those of\n\
         \"kbrecover rewind\", can be given in the environment variable KBRECOVER_OPTIONS.\n",
        env!("CARGO_PKG_VERSION")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_lists_its_own_options() {
        let lines = |version| text("pg_rewind", version).lines().filter(|line| line.contains("--")).count();
        assert_eq!([90_600, 120_000, 130_000, 150_000, 170_000].map(lines), [8, 9, 13, 14, 15]);
        assert!(text("pg_rewind", u32::MAX).lines().all(|line| line.len() <= 95));
        assert!(text("sys_rewind", 90_600).contains("  -D, --target-data=DIRECTORY    data directory"));
    }
}
