//! The two histories of a rewind, drawn in two lines.
//!
//! ```text
//! tl 1 --* 0/2001148 --+-- 0/304C120 ... 0/3057820   this node: 2 transactions, LOST
//!        checkpoint    +------------------------->   source: tl 2, server at "h", port 5432, 3 h 12 min ahead
//! ```

use std::time::Duration;

use kbrecover_rewind::{Report, duration_text};

/// The drawing; `None` if the histories have not parted, or one of the positions is not known.
pub(super) fn picture(report: &Report) -> Option<String> {
    let (sides, fork, checkpoint) = (report.sides.as_ref()?, report.divergence?, report.checkpoint?);
    let end = sides.target.wal_end.filter(|end| *end > fork.lsn)?;
    let timeline = format!("tl {} --*", fork.timeline);
    let common = format!("{timeline} {} --", checkpoint.lsn);
    let own = format!("-- {} ... {end}", fork.lsn);
    let lost = match report.lost.as_ref().map(|lost| lost.committed) {
        Some(0) => "no transactions of its own".to_owned(),
        Some(1) => "1 transaction, LOST".to_owned(),
        Some(count) => format!("{count} transactions, LOST"),
        None => "what it has of its own, LOST".to_owned(),
    };
    let ahead = sides.source.last_checkpoint.zip(sides.target.last_checkpoint);
    let ahead = ahead.and_then(|(source, target)| Duration::try_from(source.duration_since(target)).ok());
    let ahead = ahead.filter(|ahead| ahead.as_secs() > 0);
    let ahead = ahead.map_or_else(String::new, |ahead| format!(", {} ahead", duration_text(ahead)));
    let mark = format!("{:indent$}checkpoint", "", indent = timeline.len() - 1);
    Some(format!(
        "{common}+{own}   this node: {lost}\n{mark:<width$}+{line}>   source: tl {}, {}{ahead}\n",
        sides.source.timeline,
        sides.source.place,
        width = common.len(),
        line = "-".repeat(own.len() - 1),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::report;

    #[test]
    fn both_histories_are_drawn() {
        let mut report = report();
        let expected = "\
tl 13 --* 1/69024B90 --+-- 1/69025000 ... 1/6A000060   this node: 2 transactions, LOST
        checkpoint     +--------------------------->   source: tl 14, server at \"h\", port 5432
";
        assert_eq!(picture(&report).as_deref(), Some(expected));
        let sides = report.sides.as_mut().unwrap();
        sides.source.last_checkpoint = "2023-06-16T09:02:00Z".parse().ok();
        report.lost.as_mut().unwrap().committed = 0;
        let drawn = picture(&report).unwrap();
        assert!(drawn.contains("this node: no transactions of its own\n"), "{drawn}");
        assert!(drawn.ends_with("port 5432, 3 h 12 min ahead\n"), "{drawn}");
        report.sides.as_mut().unwrap().target.wal_end = report.divergence.map(|at| at.lsn);
        assert_eq!(picture(&report), None);
    }
}
