//! A sample report for the tests.

use std::time::Duration;

use kbrecover_rewind::{CommonCheckpoint, Divergence, PlanSummary, Report, SpaceNeed, StageTime, WalSpan};
use walparse::{Lsn, TimelineId};

/// The rewind of a former primary, with the LSNs and times of a published log.
pub(super) fn report() -> Report {
    Report {
        started: "2023-06-16T05:57:04.593305Z".parse().unwrap(),
        finished: "2023-06-16T05:57:06.544920Z".parse().unwrap(),
        stages: vec![StageTime { name: "scan", elapsed: Duration::from_millis(250) }],
        divergence: Some(Divergence { lsn: Lsn(0x1_6902_5000), timeline: TimelineId(13) }),
        checkpoint: Some(CommonCheckpoint {
            lsn: Lsn(0x1_6902_4B90),
            redo: Lsn(0x1_6902_4B58),
            timeline: TimelineId(13),
        }),
        checkpoint_search: None,
        replay: Some(WalSpan {
            start: Lsn(0x1_6902_4B58),
            start_file: "0000000D0000000100000069".to_owned(),
            end: Lsn(0x1_6A02_5190),
            end_timeline: TimelineId(14),
            end_file: "0000000E000000010000006A".to_owned(),
        }),
        plan: Some(PlanSummary {
            create: 2,
            copy: 12,
            copy_bytes: 1_234_567,
            wal: 3,
            wal_bytes: 50_331_648,
            copy_tail: 1,
            copy_tail_bytes: 8192,
            changed_files: 7,
            blocks: 1000,
            block_bytes: 8_192_000,
            left_to_replay: 300,
            truncate: 1,
            kept: 3,
            remove: 4,
            unchanged: 950,
            source_bytes: 600_000_000,
        }),
        kept: ["log", "pg_hba.conf", "postgresql.conf"].map(str::to_owned).to_vec(),
        not_taken: vec!["standby.signal".to_owned()],
        space: vec![SpaceNeed { directory: "/data".into(), needed: 57_000 << 10, available: 99_000 << 10 }],
        bytes_fetched: 59_766_407,
        wal_bytes_scanned: 16_777_216,
        wal_records_scanned: 4321,
    }
}
