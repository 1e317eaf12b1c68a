//! Record counts and sizes per resource manager.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use walparse::{Lsn, Version, rmgr};

use super::record::image_bytes;
use super::walk::{Seen, Span};

/// The totals of one resource manager, or of all.
#[derive(Clone, Copy, Default, Serialize)]
struct Sums {
    records: u64,
    record_bytes: u64,
    image_bytes: u64,
}

impl Sums {
    fn combined(self) -> u64 {
        self.record_bytes + self.image_bytes
    }
}

/// The totals by resource manager ID.
#[derive(Default)]
pub(super) struct Stats(BTreeMap<u8, Sums>);

impl Stats {
    /// Counts a record.
    pub(super) fn add(&mut self, seen: &Seen<'_>) {
        let header = &seen.record.header;
        let images = u64::from(image_bytes(seen.blocks));
        let sums = self.0.entry(header.rmid).or_default();
        sums.records += 1;
        sums.record_bytes += u64::from(header.total_length).saturating_sub(images);
        sums.image_bytes += images;
    }

    fn total(&self) -> Sums {
        self.0.values().fold(Sums::default(), |total, sums| Sums {
            records: total.records + sums.records,
            record_bytes: total.record_bytes + sums.record_bytes,
            image_bytes: total.image_bytes + sums.image_bytes,
        })
    }

    /// Built-in resource managers are listed even if they have no records.
    fn rows(&self, version: Version) -> Vec<(String, Sums)> {
        let built_in = rmgr::built_in(version);
        let own = self.0.keys().copied().filter(|rmid| *rmid >= built_in);
        let all = (0..built_in).chain(own);
        all.map(|rmid| (rmgr::name(rmid, version), self.0.get(&rmid).copied().unwrap_or_default())).collect()
    }

    /// A table with the columns of pg_waldump; percentages are of the column's total.
    pub(super) fn text(&self, span: &Span, version: Version) -> String {
        let total = self.total();
        let first = span.first.unwrap_or(span.end);
        let mut text = format!("WAL statistics between {first} and {}:\n", span.end);
        let _ = writeln!(
            text,
            "{:<17} {:>10} {:>8} {:>15} {:>8} {:>15} {:>8} {:>15} {:>8}",
            "Type", "N", "(%)", "Record size", "(%)", "FPI size", "(%)", "Combined size", "(%)"
        );
        let mut line = |name: &str, sums: Sums| {
            let columns = [
                (sums.records, total.records),
                (sums.record_bytes, total.record_bytes),
                (sums.image_bytes, total.image_bytes),
                (sums.combined(), total.combined()),
            ];
            let _ = write!(text, "{name:<17}");
            for (index, (value, of)) in columns.into_iter().enumerate() {
                let width = if index == 0 { 10 } else { 15 };
                let _ = write!(text, " {value:>width$} ({:>6.2})", percent(value, of));
            }
            text.push('\n');
        };
        for (name, sums) in self.rows(version) {
            line(&name, sums);
        }
        line("Total", total);
        text
    }

    /// One JSON object and a newline.
    pub(super) fn json(&self, span: &Span, version: Version) -> String {
        #[derive(Serialize)]
        struct Object {
            start: Option<String>,
            end: String,
            rmgrs: BTreeMap<String, Sums>,
            total: Sums,
        }
        let used = self.rows(version).into_iter().filter(|(_, sums)| sums.records > 0);
        let object = Object {
            start: span.first.map(|lsn: Lsn| lsn.to_string()),
            end: span.end.to_string(),
            rmgrs: used.collect(),
            total: self.total(),
        };
        serde_json::to_string_pretty(&object).unwrap_or_default() + "\n"
    }
}

fn percent(value: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { value as f64 * 100.0 / of as f64 }
}
