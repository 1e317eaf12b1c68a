//! Patroni rewinds with this program under the name `pg_rewind`, and knows nothing of it.
//!
//!     node1  ── shared ──┬── lost ──╳ (kill -9)     Patroni again: recovers, calls pg_rewind, starts ┄┄▶ streams
//!     node2              └── promoted by Patroni ── kept ──────────────────────────────────────────────▶

use crate::harness::{Installation, PatroniCluster, Sandbox};

/// Patroni makes node 2 the primary, and brings node 1 back.
fn fail_over_and_return(cluster: &mut PatroniCluster) {
    cluster.wait("Patroni to promote the standby", || {
        cluster.try_column(2, "SELECT pg_is_in_recovery()").is_some_and(|answer| answer == ["f"])
    });
    cluster.sql(2, "INSERT INTO t SELECT generate_series(2001, 2100)");
    cluster.start_manager(1);
    cluster.assert_returned("node1");
}

/// With the role that Patroni makes for it, which may do no more than it needs, and a password from Patroni's file.
#[test]
fn an_old_primary_is_rewound() {
    let sandbox = Sandbox::new();
    let mut cluster = PatroniCluster::start(&sandbox, Installation::usual(), None, "");
    cluster.write_and_cut_off();
    cluster.lose(1);
    fail_over_and_return(&mut cluster);
    let log = cluster.log(1);
    assert_eq!(log.matches("running pg_rewind from dbname=").count(), 1, "{log}");
    assert!(log.contains("pg_rewind exit code=0") && log.contains("pg_rewind: Done!"), "{log}");
    assert!(log.contains("stdout=\n"), "nothing on standard output\n{log}");
}

/// Where the configuration is not in the data directory Patroni does not ask a server before 15 for its
/// `restore_command` by `-c`: it reads the missing file's name in what we say, fetches it, and calls again.
#[test]
fn missing_wal_is_fetched_by_what_we_say() {
    let sandbox = Sandbox::new();
    let archive = sandbox.make_dir("archive");
    let settings = format!(
        "    archive_mode: 'on'\n    archive_command: 'cp %p {0}/%f'\n    wal_keep_size: 16MB\n",
        archive.display()
    );
    // In the file that Patroni leaves alone: what it makes of a crashed primary has none,
    // https://github.com/patroni/patroni/issues/962
    let restore = format!("restore_command = 'cp {}/%f %p'\n", archive.display());
    let mut cluster = PatroniCluster::start(&sandbox, Installation::of(14), Some(&restore), &settings);
    cluster.write_and_cut_off();
    // Three segments further, and the last checkpoint is behind the fork.
    for _ in 0..3 {
        cluster.sql(1, "SELECT pg_switch_wal(); INSERT INTO lost SELECT generate_series(1, 100)");
    }
    cluster.sql(1, "CHECKPOINT");
    let current = cluster.column(1, "SELECT pg_walfile_name(pg_current_wal_lsn())").remove(0);
    let segments = || {
        let files = std::fs::read_dir(cluster.data(1).join("pg_wal")).expect("list pg_wal").flatten();
        let names = files.map(|file| file.file_name().into_string().expect("UTF-8"));
        names.filter(|name| name.len() == 24 && *name < current).collect::<Vec<_>>()
    };
    cluster.wait("the archive", || segments().iter().all(|name| archive.join(name).exists()));
    let missing = segments();
    assert!(missing.len() >= 3, "{missing:?}");
    cluster.lose(1);
    for name in &missing {
        std::fs::remove_file(cluster.data(1).join("pg_wal").join(name)).expect("remove a segment");
    }
    fail_over_and_return(&mut cluster);
    let log = cluster.log(1);
    assert!(log.contains("pg_rewind exit code=1"), "{log}");
    assert!(log.contains("Trying to fetch the missing wal: cp "), "{log}");
    assert!(log.contains("pg_rewind exit code=0") && log.contains("pg_rewind: Done!"), "{log}");
}
