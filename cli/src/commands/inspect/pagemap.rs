//! `kbrecover inspect pagemap`: which blocks of which relations WAL records reference.

use std::io::Write;
use std::ops::ControlFlow;

use serde::Serialize;
use walparse::{Fork, Lsn, PageMap, RelSegment, RelationBlocks, TimelineId};

use super::args::PagemapArgs;
use super::error::InspectError;
use super::open::{Key, Wal};
use super::walk::walk;
use crate::values::Format;

/// Shows the blocks that the records between two LSNs reference.
pub(super) fn show(args: &PagemapArgs, key: Key<'_>, out: &mut dyn Write) -> Result<(), InspectError> {
    let wal = Wal::open(&args.paths, args.timeline.map(TimelineId), key)?;
    let mut map = PageMap::new();
    let mut records = 0;
    walk(&wal, Some(args.start), Some(args.end), |seen| {
        records += 1;
        // Other forks are always copied whole, so their blocks do not matter to a rewind.
        for block in seen.blocks.iter().filter(|block| block.fork == Fork::Main) {
            map.insert(block.relation, block.block);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let relations = map.relations();
    let relations = relations.iter().map(|(relation, blocks)| RelationObject {
        relation: relation.to_string(),
        path: wal.path_of(RelSegment { relation: *relation, segment: 0 }),
        count: blocks.len(),
        ranges: ranges(blocks),
    });
    let object = PagemapObject {
        start: args.start,
        end: args.end,
        records,
        blocks: map.len(),
        relations: relations.collect(),
    };
    let text = match args.format {
        Format::Text => object.text(),
        Format::Json => serde_json::to_string_pretty(&object).unwrap_or_default() + "\n",
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// The JSON object. Programs rely on its fields: they may be added, but not renamed.
#[derive(Serialize)]
struct PagemapObject {
    #[serde(serialize_with = "as_text")]
    start: Lsn,
    #[serde(serialize_with = "as_text")]
    end: Lsn,
    records: u64,
    blocks: u64,
    relations: Vec<RelationObject>,
}

#[derive(Serialize)]
struct RelationObject {
    relation: String,
    path: String,
    count: u64,
    /// The first and last block of each range.
    ranges: Vec<(u32, u32)>,
}

fn as_text<S: serde::Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(lsn)
}

impl PagemapObject {
    fn text(&self) -> String {
        let width = self.relations.iter().map(|relation| relation.path.len()).max().unwrap_or(0).max(4);
        let mut text = format!("{:<width$}  {:>8}  block numbers\n", "file", "blocks");
        for relation in &self.relations {
            let ranges = relation.ranges.iter().map(|(first, last)| match last - first {
                0 => first.to_string(),
                _ => format!("{first}-{last}"),
            });
            let ranges = ranges.collect::<Vec<_>>().join(" ");
            text.push_str(&format!("{:<width$}  {:>8}  {ranges}\n", relation.path, relation.count));
        }
        let (blocks, relations) = (self.blocks, self.relations.len());
        text + &format!("\n{blocks} blocks of {relations} relations in {} records\n", self.records)
    }
}

/// The ranges of consecutive blocks.
fn ranges(blocks: &RelationBlocks) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for block in blocks {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(block) => *last = block,
            _ => ranges.push((block, block)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_blocks_form_a_range() {
        let blocks: RelationBlocks = [0, 1, 2, 9, 11, 12, u32::MAX - 1, u32::MAX].into_iter().collect();
        assert_eq!(ranges(&blocks), [(0, 2), (9, 9), (11, 12), (u32::MAX - 1, u32::MAX)]);
        assert_eq!(ranges(&RelationBlocks::new()), []);
    }
}
