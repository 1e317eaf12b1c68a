//! A sample report for the tests.

use std::time::Duration;

use kbrecover_rewind::{
    BothSides, CheckpointAt, Divergence, LostTransactions, PlanSummary, ReplayEstimate, ReplayStart, Report,
    Role, Side, SpaceNeed, StageTime, StartsAs, WalKept, WalSpan,
};
use walparse::{Lsn, TimelineId, Version};

/// The rewind of a former primary, with the LSNs and times of a published log.
pub(super) fn report() -> Report {
    let (started, finished) = ("2023-06-16T05:57:04.593305Z", "2023-06-16T05:57:06.544920Z");
    let mut report = Report::new(started.parse().unwrap(), finished.parse().unwrap());
    report.stages = vec![StageTime { name: "scan", elapsed: Duration::from_millis(250) }];
    let mut target = Side::new("data directory \"/data\"".to_owned(), Role::Primary, TimelineId(13));
    target.wal_end = Some(Lsn(0x1_6A00_0060));
    target.last_checkpoint = "2023-06-16T05:50:00Z".parse().ok();
    let source = Side::new("server at \"h\", port 5432".to_owned(), Role::Primary, TimelineId(14));
    report.sides = Some(BothSides::new(source, target));
    report.divergence = Some(Divergence { lsn: Lsn(0x1_6902_5000), timeline: TimelineId(13) });
    let checkpoint =
        CheckpointAt { lsn: Lsn(0x1_6902_4B90), redo: Lsn(0x1_6902_4B58), timeline: TimelineId(13) };
    report.checkpoint = Some(checkpoint);
    let mut lost = LostTransactions::default();
    lost.committed = 2;
    let (first, last) = ("2023-06-16T05:55:01Z".parse(), "2023-06-16T05:56:00Z".parse());
    lost.times = first.ok().zip(last.ok());
    lost.undecided = vec!["order-7".to_owned()];
    report.lost = Some(lost);
    report.version = Version::all().find(|version| version.name() == "15");
    let estimate = ReplayEstimate::new(checkpoint.redo, Lsn(0x1_6A02_5190), 0);
    report.replay_start = Some(ReplayStart::new(checkpoint, estimate, None));
    report.replay = Some(WalSpan {
        start: Lsn(0x1_6902_4B58),
        start_file: "0000000D0000000100000069".to_owned(),
        end: Lsn(0x1_6A02_5190),
        end_timeline: TimelineId(14),
        end_file: "0000000E000000010000006A".to_owned(),
    });
    report.plan = Some(plan());
    report.kept = ["log", "pg_hba.conf", "postgresql.conf"].map(str::to_owned).to_vec();
    report.not_taken = vec!["standby.signal".to_owned()];
    report.starts_as = Some(StartsAs::Primary);
    report.wal_kept =
        Some(WalKept::Nothing { command: "SELECT 1".to_owned(), slot: "s".to_owned(), is_named: false });
    report.space =
        vec![SpaceNeed { directory: "/data".into(), needed: 57_000 << 10, available: 99_000 << 10 }];
    report.bytes_fetched = 59_766_407;
    report.wal_bytes_scanned = 16_777_216;
    report.wal_records_scanned = 4321;
    report
}

fn plan() -> PlanSummary {
    let mut plan = PlanSummary::default();
    plan.create = 2;
    plan.copy = 12;
    plan.copy_bytes = 1_234_567;
    plan.wal = 3;
    plan.wal_bytes = 50_331_648;
    plan.copy_tail = 1;
    plan.copy_tail_bytes = 8192;
    plan.changed_files = 7;
    plan.blocks = 1000;
    plan.block_bytes = 8_192_000;
    plan.left_to_replay = 300;
    plan.truncate = 1;
    plan.kept = 3;
    plan.remove = 4;
    plan.unchanged = 950;
    plan.source_bytes = 600_000_000;
    plan
}
