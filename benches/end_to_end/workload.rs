//! The failovers that are measured.
//!
//!     old  ──── shared ────┬──── lost ────╳     the target: shut down cleanly
//!     new  ┄┄┄ streams ┄┄┄ └──── kept ────▶     the source: running

use crate::harness::{Installation, Sandbox, Server};

/// The changes before and after a failover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Many records of about 100 bytes after the fork, which change few blocks. A sixth as much WAL from before the fork
    /// is in `pg_wal`.
    Wal { megabytes: u64 },
    /// `blocks` blocks of a table with three times as many, each changed five times after the fork, with checkpoints in
    /// between. `pg_wal` has WAL of twice their size from before the fork.
    Scattered { blocks: u64 },
    /// As `Scattered`, but all blocks of the table change: the old primary reads it for the first time after the fork and
    /// sets hint bits.
    Hinted { blocks: u64 },
    /// `files` files of small tables: half of them on both sides, a quarter only on the source, and a quarter only on the
    /// target.
    Files { files: u64 },
    /// WAL between the common checkpoint and the fork, over a table half its size; after the fork one row on each side.
    Late { megabytes: u64 },
    /// WAL from before the fork in `pg_wal` of both sides; after the fork one row on each side.
    OneBlock { megabytes: u64 },
    /// After the fork one row on the target. The source writes so much WAL over a table of a quarter of that, with
    /// three checkpoints, and goes on a little.
    Stale { megabytes: u64, has_summaries: bool },
    /// A table of so many MB on both sides. After the fork each side changes one in 200 of its blocks, scattered over the
    /// table. Both sides have recycled their WAL from before. kbrecover compares the data of both sides.
    Compare { megabytes: u64 },
}

/// A failover that has taken place.
pub struct Scene {
    /// The workload.
    pub workload: Workload,
    /// The old primary, stopped. It is copied for each run.
    pub old: Server,
    /// The new primary, running.
    pub new: Server,
}

/// Settings with which servers checkpoint only on request and keep all WAL.
const SETTINGS: &str = "
shared_buffers = 256MB
max_wal_size = 100GB
wal_keep_size = 100GB
checkpoint_timeout = 1d
summarize_wal = off
synchronous_commit = off
max_locks_per_transaction = 1000
";

impl Scene {
    /// Prepares the failover, which takes longer than the measurements.
    pub fn make(sandbox: &Sandbox, installation: &'static Installation, workload: Workload) -> Scene {
        for name in ["old", "new"] {
            let _ = std::fs::remove_dir_all(sandbox.path(name));
        }
        // The sandbox has a template cluster of version 15.
        let mut old = match installation.major {
            15 => sandbox.server("old"),
            _ => sandbox.initdb("old", installation, &[]),
        };
        let known = |line: &&str| installation.major >= 17 || !line.starts_with("summarize_wal");
        old.configure(&SETTINGS.lines().filter(known).collect::<Vec<_>>().join("\n"));
        let mut new = old.copy("new");
        if installation.major >= 17 && workload.has_summaries() {
            new.configure("summarize_wal = on");
        }
        old.start();
        new.follow(&old);
        new.listen_on_loopback();
        new.start();

        old.sql("CREATE TABLE entry (id int PRIMARY KEY, n int, filler text) WITH (fillfactor = 50)");
        shared(&old, workload);
        new.catch_up(&old);
        new.promote();
        old.sql("INSERT INTO entry VALUES (-1, 1, 'lost')");
        new.sql("INSERT INTO entry VALUES (-1, 2, 'kept')");
        apart(&old, &new, workload);
        if !matches!(workload, Workload::Stale { .. }) {
            new.sql("CHECKPOINT");
        }
        old.stop();
        Scene { workload, old, new }
    }
}

impl Workload {
    /// Whether the node is rewound by comparing the data of both sides. Without that its alternative is a base backup.
    pub fn compares_data(self) -> bool {
        matches!(self, Workload::Compare { .. })
    }

    fn has_summaries(self) -> bool {
        matches!(self, Workload::Stale { has_summaries: true, .. })
    }
}

/// The changes before the fork.
fn shared(old: &Server, workload: Workload) {
    match workload {
        Workload::Wal { megabytes } => {
            fill(old, 1000, 1);
            emit_wal(old, megabytes / 6);
            old.sql("CHECKPOINT");
        }
        Workload::Scattered { blocks } | Workload::Hinted { blocks } => {
            fill(old, 3 * blocks, 3600);
            if matches!(workload, Workload::Scattered { .. }) {
                // Otherwise the next read of the table sets hint bits in all its blocks.
                old.sql("VACUUM (FREEZE) entry");
            }
            emit_wal(old, blocks * 8192 * 2 / (1 << 20));
            old.sql("CHECKPOINT");
        }
        Workload::Files { files } => {
            create_tables(old, "shared", files / 2);
            old.sql("CHECKPOINT");
        }
        Workload::Late { megabytes } => {
            let blocks = megabytes * (1 << 20) / 2 / 8192;
            fill(old, blocks, 3600);
            old.sql("CHECKPOINT");
            let begin = wal_megabytes(old);
            while wal_megabytes(old) - begin < megabytes {
                old.sql("UPDATE entry SET n = n + 1");
            }
        }
        Workload::OneBlock { megabytes } => {
            fill(old, 1000, 1);
            emit_wal(old, megabytes);
            old.sql("CHECKPOINT");
        }
        Workload::Stale { megabytes, .. } => {
            fill(old, megabytes * (1 << 20) / 4 / 8192, 3600);
            old.sql("VACUUM (FREEZE) entry");
            old.sql("CHECKPOINT");
        }
        Workload::Compare { megabytes } => {
            fill(old, megabytes * (1 << 20) / 8192, 3600);
            old.sql("VACUUM (FREEZE) entry");
            old.sql("CHECKPOINT");
        }
    }
}

/// The changes of each side after the fork.
fn apart(old: &Server, new: &Server, workload: Workload) {
    match workload {
        Workload::Wal { megabytes } => {
            let begin = wal_megabytes(old);
            while wal_megabytes(old) - begin < megabytes {
                old.sql(
                    "DO $$ BEGIN FOR i IN 1..20 LOOP UPDATE entry SET n = i WHERE id > 0; END LOOP; END $$",
                );
                old.sql("VACUUM entry");
            }
        }
        Workload::Scattered { .. } | Workload::Hinted { .. } => {
            for _ in 0..5 {
                old.sql("UPDATE entry SET n = n + 1 WHERE id > 0 AND hashint4(id) % 3 = 0");
                old.sql("CHECKPOINT");
            }
        }
        Workload::Files { files } => {
            create_tables(old, "lost", files / 4);
            create_tables(new, "kept", files / 4);
        }
        Workload::Late { .. } | Workload::OneBlock { .. } => {}
        Workload::Stale { megabytes, .. } => {
            for third in 1..=3 {
                let begin = wal_megabytes(new);
                while wal_megabytes(new) - begin < megabytes / 3 {
                    // Not the row that both sides have made.
                    new.sql(&format!("UPDATE entry SET n = n + 1 WHERE id > 0 AND id % 10 <> {third}"));
                }
                new.sql("CHECKPOINT");
            }
            new.sql("UPDATE entry SET n = n + 1 WHERE id BETWEEN 1 AND 1000");
        }
        Workload::Compare { .. } => {
            for (shift, server) in [old, new].into_iter().enumerate() {
                let chosen = format!("id > 0 AND hashint4(id + {shift}) % 200 = 0");
                server.sql(&format!("UPDATE entry SET n = n + 1 WHERE {chosen}"));
                recycle_wal(server);
            }
        }
    }
}

/// Inserts `rows` rows with `width` bytes of text. Rows of 3600 bytes take one block each, with a fill factor of 50.
fn fill(server: &Server, rows: u64, width: u64) {
    server.sql("ALTER TABLE entry ALTER filler SET STORAGE plain");
    server.sql(&format!(
        "INSERT INTO entry SELECT n, 0, repeat('x', {width}) FROM generate_series(1, {rows}) n"
    ));
}

/// Creates tables with four files each: table, primary key, TOAST table and its index.
fn create_tables(server: &Server, name: &str, files: u64) {
    for first in (0..files / 4).step_by(500) {
        let last = (first + 500).min(files / 4) - 1;
        server.sql(&format!(
            "DO $$ BEGIN FOR i IN {first}..{last} LOOP
                 EXECUTE format('CREATE TABLE {name}_%s (id int PRIMARY KEY, text text)', i);
                 EXECUTE format('INSERT INTO {name}_%s VALUES (1, ''x'')', i);
             END LOOP; END $$"
        ));
    }
}

/// Writes WAL that changes no blocks.
fn emit_wal(server: &Server, megabytes: u64) {
    let emit = "SELECT pg_logical_emit_message(false, 'bench', repeat('x', 1000000))";
    server.sql(&format!("{emit} FROM generate_series(1, {megabytes})"));
}

/// Lets a server remove its old WAL. Otherwise every copy of it would have as much WAL as data.
fn recycle_wal(server: &Server) {
    for setting in ["wal_keep_size = 0", "max_wal_size = '128MB'"] {
        server.sql(&format!("ALTER SYSTEM SET {setting}"));
    }
    server.sql("SELECT pg_reload_conf()");
    server.sql("CHECKPOINT");
}

fn wal_megabytes(server: &Server) -> u64 {
    let bytes = "pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8";
    server.value::<i64>(&format!("SELECT {bytes} / 1048576")) as u64
}
