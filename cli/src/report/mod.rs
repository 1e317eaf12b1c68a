//! What a run found and did, as text; [`json`] has the same as JSON.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kbrecover_rewind::{
    LostTransactions, Outcome, PlanSummary, ReplayStart, Report, Side, Size, SpaceNeed, VerifiedData,
    WalSpan, time_text,
};

use crate::persona::{Narration, times};

pub(crate) mod compare;
pub(crate) mod json;
mod lost;
pub(crate) mod next_steps;
mod picture;
pub(crate) mod status;

/// The last messages of a finished rewind. pg_rewind has the last one only.
///
/// A run that changed nothing has none, because the engine has already told why. Under the names pg_rewind
/// and sys_rewind a dry run ends like a rewind.
pub(crate) fn closing_lines(outcome: &Outcome, narration: Narration, zone: &TimeZone) -> Vec<String> {
    let report = match outcome {
        Outcome::Rewound(report) => report,
        Outcome::Planned(report) if narration != Narration::Kbrecover => report,
        _ => return Vec::new(),
    };
    let mut lines = match narration {
        Narration::Kbrecover => own_closing_lines(report, zone),
        Narration::PgRewind => Vec::new(),
        Narration::SysRewind => {
            report.replay.as_ref().map_or_else(Vec::new, |replay| sys_rewind_lines(report, replay, zone))
        }
    };
    lines.push("Done!".to_owned());
    lines
}

fn own_closing_lines(report: &Report, zone: &TimeZone) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(replay) = &report.replay {
        lines.push(format!(
            "set minRecoveryPoint in the control file to {} on timeline {}: recovery must get that far before the \
             server lets anybody in",
            replay.end, replay.end_timeline
        ));
        lines.push(format!("first WAL file of replay: {}, last: {}", replay.start_file, replay.end_file));
    }
    if let Some(sides) = &report.sides {
        lines.push(format!("target before the rewind: {}", side_text(&sides.target, zone)));
        lines.push(format!("source: {}", side_text(&sides.source, zone)));
    }
    lines.push(format!("lost transactions: {}", lost_text(report.lost.as_ref(), zone)));
    lines.extend(lost_details(report.lost.as_ref()).into_iter().map(|line| format!("lost: {line}")));
    lines.extend(saved_line(report));
    lines.extend(kept_lines(report));
    lines.extend(report.verified.as_ref().map(verified_line));
    lines.push(format!("rewound in {:.2} s", seconds(report.started, report.finished)));
    lines
}

/// Where what was lost is kept; `None` if nothing was lost.
fn saved_line(report: &Report) -> Option<String> {
    if let Some(directory) = &report.saved_in {
        return Some(format!("lost: kept in \"{}\"", directory.display()));
    }
    let is_nothing = |lost: &LostTransactions| lost.committed == 0 && lost.undecided.is_empty();
    let has_lost = !report.lost.as_ref().is_some_and(is_nothing);
    has_lost.then(|| "lost: not kept".to_owned())
}

fn verified_line(found: &VerifiedData) -> String {
    let VerifiedData { files, bytes, replayed, not_logged, different, .. } = found;
    let size = Size(*bytes);
    format!(
        "verified {size} in {files} relation files: {different} block(s) differed and were copied, {not_logged} more in \
         hint bits only; replay will change {replayed}"
    )
}

/// The last messages of sys_rewind, of which tools read the times.
fn sys_rewind_lines(report: &Report, replay: &WalSpan, zone: &TimeZone) -> Vec<String> {
    let WalSpan { start, start_file, end, end_file, end_timeline } = replay;
    let times = times(report.started, report.finished, zone);
    vec![
        format!(
            "update the control file: minRecoveryPoint is '{end}', minRecoveryPointTLI is '{end_timeline}', and database \
             state is 'in archive recovery'"
        ),
        format!(
            "rewind start wal location {start} (file {start_file}), end wal location {end} (file {end_file}). {times}"
        ),
    ]
}

/// The number of undecided transactions that are named.
const UNDECIDED: usize = 10;

/// The transactions that a rewind gives up.
pub(crate) fn lost_text(lost: Option<&LostTransactions>, zone: &TimeZone) -> String {
    let Some(lost) = lost else {
        return "not known, because this run has not read the target's WAL".to_owned();
    };
    let mut text = format!("{} committed", lost.committed);
    if let Some((first, last)) = lost.times {
        let _ = match lost.committed {
            1 => write!(text, ", at {}", time_text(first, zone)),
            _ => write!(text, ", from {} to {}", time_text(first, zone), time_text(last, zone)),
        };
    }
    if !lost.undecided.is_empty() {
        // Users choose these identifiers: they may contain anything.
        let names = lost.undecided.iter().take(UNDECIDED).map(|name| format!("{name:?}"));
        let _ = write!(text, "; prepared and undecided: {}", names.collect::<Vec<_>>().join(", "));
    }
    if lost.undecided.len() > UNDECIDED {
        let _ = write!(text, " and {} more", lost.undecided.len() - UNDECIDED);
    }
    text
}

/// What these transactions have done, a line for each kind of it.
pub(crate) fn lost_details(lost: Option<&LostTransactions>) -> Vec<String> {
    let Some(summary) = lost.and_then(|lost| lost.summary.as_ref()) else { return Vec::new() };
    let text = summary.short_text();
    // How many transactions there are, and which are undecided, is said before.
    let details = text.lines().filter(|line| line.starts_with("  ") || line.starts_with("Note: "));
    details.map(|line| line.trim_start().to_owned()).collect()
}

/// One side: place, role, timeline, and what is known of its end.
fn side_text(side: &Side, zone: &TimeZone) -> String {
    let mut text = format!("{}, {} on timeline {}", side.place, side.role, side.timeline);
    if let Some(end) = side.wal_end {
        let _ = write!(text, ", WAL to {end}");
    }
    if let Some(time) = side.last_checkpoint {
        let _ = write!(text, ", last checkpoint {}", time_text(time, zone));
    }
    text
}

/// The plan of a dry run or a check; `None` for other runs.
pub(crate) fn plan_text(outcome: &Outcome, target: &str, zone: &TimeZone) -> Option<String> {
    let (Outcome::Planned(report) | Outcome::Checked(report)) = outcome else { return None };
    let mut text = format!("Rewind plan for \"{target}\" (nothing has been changed)\n");
    if let Some(drawn) = picture::picture(report) {
        text.push_str(&drawn);
    }
    text.push('\n');
    if let Some(sides) = &report.sides {
        let _ = writeln!(text, "target                  {}", side_text(&sides.target, zone));
        let _ = writeln!(text, "source                  {}", side_text(&sides.source, zone));
    }
    if let Some(at) = report.divergence {
        let _ = writeln!(text, "point of divergence     {} on timeline {}", at.lsn, at.timeline);
    }
    if let Some(at) = report.checkpoint {
        let _ = writeln!(
            text,
            "last common checkpoint  {} on timeline {}, redo {}",
            at.lsn, at.timeline, at.redo
        );
    }
    let _ = writeln!(text, "lost transactions       {}", lost_text(report.lost.as_ref(), zone));
    for line in lost_details(report.lost.as_ref()) {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(found) = report.compared {
        let _ = writeln!(
            text,
            "data compared           {} in {} relation files, {} blocks differ",
            Size(found.bytes),
            found.files,
            found.different_blocks
        );
    }
    if let Some(span) = &report.replay {
        let (start, end) = (span.start, span.end);
        let _ = writeln!(text, "WAL to replay           {start} to {end} on timeline {}", span.end_timeline);
    }
    if let Some(start) = report.replay_start.filter(ReplayStart::is_newest) {
        let known_from = start.source_changes;
        let _ =
            writeln!(text, "source's changes        known from {known_from}, up to its newest checkpoint");
    }
    if let Some(plan) = &report.plan {
        text.push('\n');
        text.push_str(&plan_table(plan));
    }
    for line in kept_lines(report) {
        let _ = writeln!(text, "{line}");
    }
    if matches!(outcome, Outcome::Checked(_)) {
        text.push('\n');
        for SpaceNeed { directory, needed, available } in &report.space {
            let (needed, free) = (Size(*needed), Size(*available));
            let _ =
                writeln!(text, "free space: \"{}\" needs {needed}, {free} available", directory.display());
        }
        text.push_str("\nAll checks passed; ready to rewind.\n");
    }
    text.push_str(
        "\nChanges that only the target has made since the point of divergence will be lost. \"kbrecover lost\" lists every row.\n",
    );
    if let Some(warning) = next_steps::warning_of_plan(report) {
        let _ = writeln!(text, "\n{warning}");
    }
    Some(text)
}

/// The files that are kept on the target or not copied from the source, if any.
fn kept_lines(report: &Report) -> Vec<String> {
    let line =
        |what: &str, paths: &[String]| (!paths.is_empty()).then(|| format!("{what}: {}", paths.join(", ")));
    let kept = line("kept local files", &report.kept);
    kept.into_iter().chain(line("not copied from the source", &report.not_taken)).collect()
}

fn plan_table(plan: &PlanSummary) -> String {
    let size = |bytes: u64| Some(Size(bytes).to_string());
    let rows = [
        ("create directories and links", Some(plan.create), None, None),
        ("copy whole files", Some(plan.copy), None, size(plan.copy_bytes)),
        ("copy WAL files", Some(plan.wal), None, size(plan.wal_bytes)),
        ("copy tails of files", Some(plan.copy_tail), None, size(plan.copy_tail_bytes)),
        ("copy changed blocks", Some(plan.changed_files), Some(plan.blocks), size(plan.block_bytes)),
        ("restored by replay (not copied)", None, Some(plan.left_to_replay), None),
        ("truncate", Some(plan.truncate), None, None),
        ("remove", Some(plan.remove), None, None),
        ("keep local files", Some(plan.kept), None, None),
        ("leave unchanged", Some(plan.unchanged), None, None),
    ];
    let mut text = format!("{:<31}  {:>9}  {:>9}  {:>14}\n", "action", "files", "blocks", "to fetch");
    let count = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
    for (action, files, blocks, bytes) in rows {
        let (files, blocks, bytes) = (count(files), count(blocks), bytes.unwrap_or_default());
        let row = format!("{action:<31}  {files:>9}  {blocks:>9}  {bytes:>14}");
        text.push_str(row.trim_end());
        text.push('\n');
    }
    let (fetch, all) = (plan.fetch_bytes(), plan.source_bytes);
    let percent = if all == 0 { 0 } else { u128::from(fetch) * 100 / u128::from(all) };
    let _ = writeln!(
        text,
        "\nneed to fetch {} (total source directory size is {}: {percent}%)",
        Size(fetch),
        Size(all)
    );
    text
}

/// With microsecond precision, like the times themselves.
fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    seconds_of(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

fn seconds_of(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod sample;

#[cfg(test)]
mod tests {
    use super::sample::report;
    use super::*;

    fn shanghai() -> TimeZone {
        TimeZone::posix("CST-8").unwrap()
    }

    #[test]
    fn a_finished_rewind_ends_with_the_lines_of_its_program() {
        assert_eq!(
            closing_lines(&Outcome::Rewound(report()), Narration::SysRewind, &shanghai()),
            [
                "update the control file: minRecoveryPoint is '1/6A025190', minRecoveryPointTLI is '14', and database \
             state is 'in archive recovery'",
                "rewind start wal location 1/69024B58 (file 0000000D0000000100000069), end wal location 1/6A025190 \
             (file 0000000E000000010000006A). time from 2023-06-16 13:57:04.593305 CST to 2023-06-16 \
             13:57:06.544920 CST, in \"1.951615\" seconds.",
                "Done!",
            ]
        );
        assert_eq!(
            closing_lines(&Outcome::Rewound(report()), Narration::Kbrecover, &shanghai()),
            [
                "set minRecoveryPoint in the control file to 1/6A025190 on timeline 14: recovery must get that far \
                 before the server lets anybody in",
                "first WAL file of replay: 0000000D0000000100000069, last: 0000000E000000010000006A",
                "target before the rewind: data directory \"/data\", primary on timeline 13, WAL to 1/6A000060, last \
                 checkpoint 2023-06-16 13:50:00 CST",
                "source: server at \"h\", port 5432, primary on timeline 14",
                "lost transactions: 2 committed, from 2023-06-16 13:55:01 CST to 2023-06-16 13:56:00 CST; prepared and \
                 undecided: \"order-7\"",
                "lost: not kept",
                "kept local files: log, pg_hba.conf, postgresql.conf",
                "not copied from the source: standby.signal",
                "rewound in 1.95 s",
                "Done!",
            ]
        );
        let mut kept = report();
        kept.saved_in = Some("/keep".into());
        assert_eq!(saved_line(&kept).as_deref(), Some("lost: kept in \"/keep\""));
        kept.saved_in = None;
        kept.lost = Some(LostTransactions::default());
        assert_eq!(saved_line(&kept), None);
        for done in [Outcome::Rewound(report()), Outcome::Planned(report())] {
            assert_eq!(closing_lines(&done, Narration::PgRewind, &shanghai()), ["Done!"]);
        }
        for quiet in
            [Outcome::NotNeeded(report()), Outcome::AlreadyRewound(report()), Outcome::Planned(report())]
        {
            assert!(closing_lines(&quiet, Narration::Kbrecover, &shanghai()).is_empty());
        }
    }

    #[test]
    fn a_plan_is_shown_as_a_table() {
        let expected = "\
Rewind plan for \"/data\" (nothing has been changed)
tl 13 --* 1/69024B90 --+-- 1/69025000 ... 1/6A000060   this node: 2 transactions, LOST
        checkpoint     +--------------------------->   source: tl 14, server at \"h\", port 5432

target                  data directory \"/data\", primary on timeline 13, WAL to 1/6A000060, last checkpoint 2023-06-16 13:50:00 CST
source                  server at \"h\", port 5432, primary on timeline 14
point of divergence     1/69025000 on timeline 13
last common checkpoint  1/69024B90 on timeline 13, redo 1/69024B58
lost transactions       2 committed, from 2023-06-16 13:55:01 CST to 2023-06-16 13:56:00 CST; prepared and undecided: \"order-7\"
WAL to replay           1/69024B58 to 1/6A025190 on timeline 14

action                               files     blocks        to fetch
create directories and links             2
copy whole files                        12                    1.2 MiB
copy WAL files                           3                   48.0 MiB
copy tails of files                      1                    0.1 MiB
copy changed blocks                      7       1000         7.9 MiB
restored by replay (not copied)                   300
truncate                                 1
remove                                   4
keep local files                         3
leave unchanged                        950

need to fetch 57.0 MiB (total source directory size is 573 MiB: 9%)
kept local files: log, pg_hba.conf, postgresql.conf
not copied from the source: standby.signal

Changes that only the target has made since the point of divergence will be lost. \"kbrecover lost\" lists every row.

Warning: the rewind will not set up the target as a standby: started as it is, it would become a second primary. Use -R, or before the \
start set primary_conninfo and create standby.signal (up to version 11: recovery.conf).
";
        assert_eq!(plan_text(&Outcome::Planned(report()), "/data", &shanghai()).unwrap(), expected);
        let checked = plan_text(&Outcome::Checked(report()), "/data", &shanghai()).unwrap();
        let space = "\nfree space: \"/data\" needs 55.7 MiB, 96.7 MiB available\n\nAll checks passed; ready to rewind.\n";
        assert!(checked.contains(space), "{checked}");
        assert_eq!(plan_text(&Outcome::Rewound(report()), "/data", &shanghai()), None);
    }
}
