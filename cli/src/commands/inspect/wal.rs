//! `kbrecover inspect wal`: WAL records, or their statistics.

use std::io::Write;
use std::ops::ControlFlow;

use jiff::tz::TimeZone;
use walparse::{Fork, Relation, TimelineId, Version, rmgr};

use super::args::{FilterArgs, WalArgs};
use super::error::InspectError;
use super::open::{Key, Wal};
use super::record;
use super::stats::Stats;
use super::walk::{Seen, Span, walk};
use crate::values::Format;

/// Shows records, or their statistics. Returns a message about the end of WAL.
pub(super) fn show(
    args: &WalArgs,
    key: Key<'_>,
    out: &mut dyn Write,
) -> Result<Option<String>, InspectError> {
    let wal = Wal::open(&args.paths, args.timeline.map(TimelineId), key)?;
    let version = wal.geometry.version;
    let filter = Filter::new(&args.filter, version)?;
    let zone = TimeZone::system();
    let mut stats = Stats::default();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let span = walk(&wal, args.start, args.end, |seen| {
        if left == 0 {
            return Ok(ControlFlow::Break(()));
        }
        if filter.matches(seen) {
            left -= 1;
            match (args.stats, args.format) {
                (true, _) => stats.add(seen),
                (false, Format::Text) => writeln!(out, "{}", record::text(seen, version, &zone))?,
                (false, Format::Json) => writeln!(out, "{}", record::json(seen, version))?,
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match (args.stats, args.format) {
        (false, _) => {}
        (true, Format::Text) => out.write_all(stats.text(&span, version).as_bytes())?,
        (true, Format::Json) => out.write_all(stats.json(&span, version).as_bytes())?,
    }
    Ok(end_note(&span))
}

/// Why there are no more records, if WAL ended before the requested end.
fn end_note(span: &Span) -> Option<String> {
    span.wal_end.map(|end| format!("WAL ends at {}: {}", end.position, end.fault))
}

/// Selects the records to show.
struct Filter {
    rmid: Option<u8>,
    relation: Option<Relation>,
    block: Option<u32>,
    fork: Option<Fork>,
    xid: Option<u32>,
}

impl Filter {
    fn new(args: &FilterArgs, version: Version) -> Result<Filter, InspectError> {
        let rmid = args.rmgr.as_deref().map(|name| {
            let known = (0..=u8::MAX).find(|rmid| rmgr::name(*rmid, version).eq_ignore_ascii_case(name));
            known.ok_or_else(|| InspectError::Rmgr { name: name.to_owned() })
        });
        Ok(Filter {
            rmid: rmid.transpose()?,
            relation: args.relation,
            block: args.block,
            fork: args.fork.map(Fork::from),
            xid: args.xid,
        })
    }

    fn matches(&self, seen: &Seen<'_>) -> bool {
        let header = &seen.record.header;
        let equals = |wanted: Option<u32>, is: u32| wanted.is_none_or(|wanted| wanted == is);
        let selects_blocks = self.relation.is_some() || self.fork.is_some();
        let references_block = || {
            seen.blocks.iter().any(|block| {
                self.relation.is_none_or(|relation| relation == block.relation)
                    && self.fork.is_none_or(|fork| fork == block.fork)
                    && equals(self.block, block.block.0)
            })
        };
        self.rmid.is_none_or(|rmid| rmid == header.rmid)
            && equals(self.xid, header.xid)
            && (!selects_blocks || references_block())
    }
}
