//! The rows of one relation, followed through the WAL by their addresses.
//!
//! After a redo position the first record that touches a block has an image of it or initializes it. From there on each record
//! says what it does at which number in the block, so that every row can be told without a look at the file:
//!
//! - an image replaces all that is known of its block. It is the block after the change, and a row that the record deletes or
//!   replaces is still in it. Which of its rows later records ask for is found out before ([`Wanted`]), so that only these are
//!   kept, and no image is read twice;
//! - an insertion or an update puts a row at its number;
//! - what removes dead rows needs no care: a removed number is not named again until another row is put there.
//!
//! Where there is no image, because `full_page_writes` was off or WAL from before the fork is gone, the block on disk may have the
//! row. It is taken if the block is older than the record, for all rows that were put there before are known, or if its
//! transaction ID is that of the record.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use walparse::{
    BlockImage, BlockNumber, BlockRef, DeleteReason, Fork, HeapOperation, Lsn, NewRow, Payload, Record,
    Relation, SegmentStore, TUPLE_HEADER_LENGTH, WalGeometry, WalReader, block_lsn, heap_operation,
    heap_rows,
};

use super::bytes::{u16_at, u32_at};
use super::datum::Tuple;
use super::error::LostError;
use super::node::Target;

/// A row: its header as far as it matters, and its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    /// The transaction that wrote it.
    pub(super) xmin: u32,
    /// The transaction that deleted or replaced it, as the block says; 0 if none.
    pub(super) xmax: u32,
    pub(super) infomask2: u16,
    pub(super) infomask: u16,
    /// `t_hoff`
    pub(super) header_length: u8,
    /// The tuple from byte 23 on.
    pub(super) body: Vec<u8>,
    /// Whether it, or a part of it, was read from a block on disk.
    pub(super) is_from_disk: bool,
}

/// `HEAP_XMAX_INVALID`, `HEAP_XMAX_LOCK_ONLY`, `HEAP_XMAX_IS_MULTI`.
const XMAX_INVALID: u16 = 0x0800;
const XMAX_LOCK_ONLY: u16 = 0x0080;
const XMAX_IS_MULTI: u16 = 0x1000;

impl Row {
    /// A row of a block.
    pub(super) fn of_block(bytes: &[u8], is_from_disk: bool) -> Option<Row> {
        let infomask = u16_at(bytes, 20)?;
        let has_xmax = infomask & (XMAX_INVALID | XMAX_LOCK_ONLY | XMAX_IS_MULTI) == 0;
        Some(Row {
            xmin: u32_at(bytes, 0)?,
            xmax: if has_xmax { u32_at(bytes, 4)? } else { 0 },
            infomask2: u16_at(bytes, 18)?,
            infomask,
            header_length: *bytes.get(22)?,
            body: bytes.get(TUPLE_HEADER_LENGTH..)?.to_vec(),
            is_from_disk,
        })
    }

    pub(super) fn tuple(&self) -> Tuple<'_> {
        Tuple {
            infomask2: self.infomask2,
            infomask: self.infomask,
            header_length: self.header_length,
            body: &self.body,
        }
    }

    /// The bytes behind `t_hoff`.
    pub(super) fn data(&self) -> Option<&[u8]> {
        self.body.get(usize::from(self.header_length).checked_sub(TUPLE_HEADER_LENGTH)?..)
    }

    /// The object ID of a row that has one beside its columns, up to 11.
    pub(super) fn hidden_oid(&self) -> Option<u32> {
        const HAS_OID: u16 = 0x0008;
        let at = usize::from(self.header_length).checked_sub(TUPLE_HEADER_LENGTH + 4)?;
        u32_at(&self.body, at).filter(|_| self.infomask & HAS_OID != 0)
    }
}

/// The rows of a block, with their numbers in it.
fn rows_of(page: &[u8], is_from_disk: bool) -> impl Iterator<Item = (u16, Row)> {
    let row = move |(number, place): (u16, Range<usize>)| {
        Some((number, Row::of_block(page.get(place)?, is_from_disk)?))
    };
    heap_rows(page).into_iter().filter_map(row)
}

/// The row with this number in a block.
fn row_of(page: &[u8], number: u16, is_from_disk: bool) -> Option<Row> {
    let (_, place) = heap_rows(page).into_iter().find(|(found, _)| *found == number)?;
    Row::of_block(page.get(place)?, is_from_disk)
}

/// Calls `see` for each row that the file of a relation has in other blocks than these.
///
/// # Errors
/// `see` failed. A block that cannot be read has no rows.
pub(super) fn rows_on_disk(
    target: &Target<'_>,
    relation: Relation,
    except: &HashSet<u32>,
    see: &mut dyn FnMut(Address, Row) -> Result<(), LostError>,
) -> Result<(), LostError> {
    let others = (0..target.disk.count(relation)).filter(|block| !except.contains(block));
    for (block, page) in others.filter_map(|block| Some((block, target.disk.read(relation, block)?))) {
        rows_of(&page, true).try_for_each(|(number, row)| see((block, number), row))?;
    }
    Ok(())
}

/// The address of a row in its relation.
pub(super) type Address = (u32, u16);

/// What happened to a relation, in the order of the WAL.
pub(super) enum RowEvent {
    /// An image has shown these rows of a block, or it was initialized and has none. Only with [`Images::Shown`].
    Seen { block: u32, rows: Vec<(u16, Row)> },
    /// A row was inserted.
    Insert { at: Address, new: Option<Arc<Row>> },
    /// A row was deleted.
    Delete { at: Address, reason: DeleteReason, old: Option<Arc<Row>> },
    /// A row was replaced.
    Update { from: Address, to: Address, old: Option<Arc<Row>>, new: Option<Arc<Row>> },
    /// The bytes of a row were replaced.
    Inplace { at: Address, new: Arc<Row> },
}

/// The record of an event.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) lsn: Lsn,
    pub(super) xid: u32,
}

/// What is known of a block.
#[derive(Default)]
struct KnownBlock {
    /// Whether an image or an initialization was seen: what is not in `rows` is not there, or nobody asks for it.
    is_whole: bool,
    /// The rows of the image that are wanted, and those that were put there since, in the order of their numbers; `None` if one
    /// is not known.
    rows: Vec<(u16, Option<Arc<Row>>)>,
}

impl KnownBlock {
    fn put(&mut self, number: u16, row: Option<Arc<Row>>) {
        match self.rows.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => self.rows[place].1 = row,
            Err(place) => self.rows.insert(place, (number, row)),
        }
    }

    fn get(&self, number: u16) -> Option<&Option<Arc<Row>>> {
        let place = self.rows.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.rows[place].1)
    }
}

/// The rows of images that later records ask for.
struct Wanted {
    /// The record with the image, the block, the number of the row; in order.
    rows: Vec<(Lsn, u32, u16)>,
}

/// The same from some of the records, which follow each other.
#[derive(Default)]
struct WantedPart {
    rows: Vec<(Lsn, u32, u16)>,
    /// Rows that these records ask for, of blocks whose last image is in a record before these.
    open: Vec<(u32, u16)>,
    /// The record with the last image of each block; `None` if the block was initialized since.
    images: HashMap<u32, Option<Lsn>>,
}

/// Records about a relation that are looked at together.
const PART: usize = 16_384;

impl Wanted {
    fn find(target: &Target<'_>, relation: Relation) -> Result<Wanted, LostError> {
        let records = Records::of(target, relation);
        let parts = records.lsns.par_chunks(PART).map(|lsns| WantedPart::find(Records { lsns, ..records }));
        let parts: Vec<WantedPart> = parts.collect::<Result<_, _>>()?;
        let mut images: HashMap<u32, Lsn> = HashMap::new();
        let mut rows = Vec::new();
        for part in parts {
            let of_before = |(block, number): (u32, u16)| Some((*images.get(&block)?, block, number));
            rows.extend(part.open.into_iter().filter_map(of_before));
            rows.extend(part.rows);
            for (block, image) in part.images {
                match image {
                    Some(image) => images.insert(block, image),
                    None => images.remove(&block),
                };
            }
        }
        rows.sort_unstable();
        rows.dedup();
        Ok(Wanted { rows })
    }

    /// The numbers of the rows of an image that are wanted, in order.
    fn of(&self, image: Lsn, block: u32) -> Vec<u16> {
        let start = self.rows.partition_point(|(lsn, of, _)| (*lsn, *of) < (image, block));
        let here = self.rows[start..].iter().take_while(|(lsn, of, _)| (*lsn, *of) == (image, block));
        here.map(|(.., number)| *number).collect()
    }
}

impl WantedPart {
    fn find(records: Records<'_>) -> Result<WantedPart, LostError> {
        let mut part = WantedPart::default();
        records.for_each(&mut |record, payload, blocks| {
            part.add(records, record, payload, blocks);
            Ok(())
        })?;
        Ok(part)
    }

    fn add(&mut self, of: Records<'_>, record: &Record<'_>, payload: &Payload<'_>, blocks: &[BlockRef]) {
        for block in blocks.iter().filter(|block| is_of(block, of.relation)) {
            if block.image.is_some_and(|image| image.is_applied) {
                self.images.insert(block.block.0, Some(record.lsn));
            } else if block.will_init {
                self.images.insert(block.block.0, None);
            }
        }
        let Some(operation) = of.operation(record, payload, blocks) else { return };
        let first = blocks[0].block.0;
        match operation {
            HeapOperation::Insert(new) => {
                let in_image = new.iter().filter(|row| row.contents.is_none());
                in_image.for_each(|row| self.ask(first, row.offset));
            }
            HeapOperation::Delete { offset, .. } | HeapOperation::Inplace { offset, .. } => {
                self.ask(first, offset);
            }
            HeapOperation::Update { old_offset, new } => {
                self.ask(old_block(blocks), old_offset);
                if new.contents.is_none() {
                    self.ask(first, new.offset);
                }
            }
            _ => {}
        }
    }

    fn ask(&mut self, block: u32, number: u16) {
        match self.images.get(&block) {
            None => self.open.push((block, number)),
            Some(image) => self.rows.extend(image.map(|image| (image, block, number))),
        }
    }
}

/// The records about a relation, in order.
#[derive(Clone, Copy)]
struct Records<'a> {
    relation: Relation,
    lsns: &'a [Lsn],
    wal: &'a dyn SegmentStore,
    geometry: WalGeometry,
}

impl<'a> Records<'a> {
    fn of(target: &Target<'a>, relation: Relation) -> Records<'a> {
        let lsns = target.index.records.get(&relation).map_or(&[][..], Vec::as_slice);
        Records { relation, lsns, wal: target.wal, geometry: target.geometry }
    }

    /// Reads them.
    fn for_each(
        self,
        see: &mut dyn FnMut(&Record<'_>, &Payload<'_>, &[BlockRef]) -> Result<(), LostError>,
    ) -> Result<(), LostError> {
        let Some(first) = self.lsns.first() else { return Ok(()) };
        let mut reader = WalReader::new(self.wal, self.geometry, *first);
        let mut blocks = Vec::new();
        for lsn in self.lsns {
            reader.move_to(*lsn);
            let record = reader.read()?.map_err(|end| LostError::Record { lsn: *lsn, fault: end.fault })?;
            let decoded = record.decode(&self.geometry, &mut blocks);
            let payload = decoded.map_err(|fault| LostError::Record { lsn: *lsn, fault })?;
            see(&record, &payload, &blocks)?;
        }
        Ok(())
    }

    /// What a record does to rows of the relation. There is a block 0 then.
    fn operation<'p>(
        self,
        record: &Record<'_>,
        payload: &Payload<'p>,
        blocks: &[BlockRef],
    ) -> Option<HeapOperation<'p>> {
        let first = blocks.first().filter(|block| is_of(block, self.relation))?;
        let (_, data) = *payload.of_blocks(blocks).first()?;
        let has_image = first.image.is_some_and(|image| image.is_applied);
        heap_operation(&record.header, payload.main_data, data, has_image, self.geometry.version)
    }
}

fn is_of(block: &BlockRef, relation: Relation) -> bool {
    block.relation == relation && block.fork == Fork::Main
}

/// The block of the row that an update replaces.
fn old_block(blocks: &[BlockRef]) -> u32 {
    // Since 19 there may be blocks of the visibility map, too.
    let old = blocks.iter().find(|block| block.id == 1 && block.fork == Fork::Main);
    old.or(blocks.first()).map_or(0, |block| block.block.0)
}

/// Whether the rows of images are events, too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Images {
    Shown,
    Hidden,
}

/// Follows the rows of a relation.
pub(super) struct Rows<'a> {
    target: &'a Target<'a>,
    records: Records<'a>,
    blocks: HashMap<u32, KnownBlock>,
    wanted: Wanted,
    shown: Images,
}

impl<'a> Rows<'a> {
    /// Calls `see` for each event of a relation.
    ///
    /// # Errors
    /// WAL could not be read, or `see` failed.
    pub(super) fn follow(
        target: &'a Target<'a>,
        relation: Relation,
        shown: Images,
        see: &mut dyn FnMut(At, RowEvent) -> Result<(), LostError>,
    ) -> Result<(), LostError> {
        let wanted = Wanted::find(target, relation)?;
        let records = Records::of(target, relation);
        let mut rows = Rows { target, records, blocks: HashMap::new(), wanted, shown };
        records.for_each(&mut |record, payload, blocks| rows.add(record, payload, blocks, see))
    }

    fn add(
        &mut self,
        record: &Record<'_>,
        payload: &Payload<'_>,
        blocks: &[BlockRef],
        see: &mut dyn FnMut(At, RowEvent) -> Result<(), LostError>,
    ) -> Result<(), LostError> {
        let parts = payload.of_blocks(blocks);
        let at = At { lsn: record.lsn, xid: record.header.xid };
        for (block, (image, _)) in blocks.iter().zip(&parts) {
            if !is_of(block, self.records.relation) {
                continue;
            }
            if let Some(found) = block.image.filter(|image| image.is_applied) {
                self.add_image(at, block.block, (&found, image), see)?;
            } else if block.will_init {
                let known = KnownBlock { is_whole: true, ..KnownBlock::default() };
                self.blocks.insert(block.block.0, known);
                if self.shown == Images::Shown {
                    see(at, RowEvent::Seen { block: block.block.0, rows: Vec::new() })?;
                }
            }
        }
        match self.records.operation(record, payload, blocks) {
            Some(operation) => self.apply(at, blocks, operation, see),
            None => Ok(()),
        }
    }

    fn add_image(
        &mut self,
        at: At,
        block: BlockNumber,
        (image, stored): (&BlockImage, &[u8]),
        see: &mut dyn FnMut(At, RowEvent) -> Result<(), LostError>,
    ) -> Result<(), LostError> {
        let mut known = KnownBlock { is_whole: true, rows: Vec::new() };
        let wanted = self.wanted.of(at.lsn, block.0);
        if !wanted.is_empty() || self.shown == Images::Shown {
            // Of a page that cannot be restored no row is known.
            if let Some(page) = image.restore(stored, &self.target.geometry) {
                for number in wanted {
                    known.rows.extend(row_of(&page, number, false).map(|row| (number, Some(Arc::new(row)))));
                }
                if self.shown == Images::Shown {
                    see(at, RowEvent::Seen { block: block.0, rows: rows_of(&page, false).collect() })?;
                }
            }
        }
        self.blocks.insert(block.0, known);
        Ok(())
    }

    fn apply(
        &mut self,
        at: At,
        blocks: &[BlockRef],
        operation: HeapOperation<'_>,
        see: &mut dyn FnMut(At, RowEvent) -> Result<(), LostError>,
    ) -> Result<(), LostError> {
        let first = blocks[0].block.0;
        match operation {
            HeapOperation::Insert(rows) => {
                for row in rows {
                    let at_row = (first, row.offset);
                    let new = self.written(at, at_row, &row, None);
                    self.put(at_row, new.clone());
                    see(at, RowEvent::Insert { at: at_row, new })?;
                }
                Ok(())
            }
            HeapOperation::Delete { offset, reason } => {
                let old = self.get((first, offset), at);
                see(at, RowEvent::Delete { at: (first, offset), reason, old })
            }
            HeapOperation::Update { old_offset, new } => {
                let from = (old_block(blocks), old_offset);
                let to = (first, new.offset);
                let old = self.get(from, at);
                let new = self.written(at, to, &new, old.as_deref());
                self.put(to, new.clone());
                see(at, RowEvent::Update { from, to, old, new })
            }
            HeapOperation::Inplace { offset, bytes } => {
                let Some(old) = self.get((first, offset), at) else { return Ok(()) };
                let mut new = Row::clone(&old);
                let header = usize::from(new.header_length).saturating_sub(TUPLE_HEADER_LENGTH);
                if !bytes.is_empty() && header <= new.body.len() {
                    new.body.truncate(header);
                    new.body.extend_from_slice(bytes);
                }
                let new = Arc::new(new);
                self.put((first, offset), Some(Arc::clone(&new)));
                see(at, RowEvent::Inplace { at: (first, offset), new })
            }
            _ => Ok(()),
        }
    }

    /// A row that a record writes.
    fn written(&mut self, at: At, to: Address, row: &NewRow<'_>, old: Option<&Row>) -> Option<Arc<Row>> {
        let Some(contents) = row.contents else {
            return self.blocks.get(&to.0)?.get(to.1)?.clone();
        };
        let needs_old = contents.prefix > 0 || contents.suffix > 0;
        let body = match contents.complete(old.and_then(Row::data)) {
            Some(body) => body,
            // The block on disk may have it as it was written.
            None => return self.on_disk(to, |found, _| found.xmin == at.xid),
        };
        Some(Arc::new(Row {
            xmin: at.xid,
            xmax: 0,
            infomask2: contents.infomask2,
            infomask: contents.infomask,
            header_length: contents.header_length,
            body,
            is_from_disk: needs_old && old.is_some_and(|old| old.is_from_disk),
        }))
    }

    fn put(&mut self, (block, number): Address, row: Option<Arc<Row>>) {
        self.blocks.entry(block).or_default().put(number, row);
    }

    /// The row at an address before a record that deletes, replaces or changes it.
    fn get(&mut self, address: Address, at: At) -> Option<Arc<Row>> {
        let known = self.blocks.get(&address.0);
        if let Some(row) = known.and_then(|known| known.get(address.1)) {
            return row.clone();
        }
        match known {
            Some(KnownBlock { is_whole: true, .. }) => None,
            _ => self.on_disk(address, |row, changed| changed <= at.lsn || row.xmax == at.xid),
        }
    }

    /// The row at an address in the block on disk, if it is `expected`, which is told where the last change of the block ends.
    fn on_disk(&self, (block, number): Address, expected: impl Fn(&Row, Lsn) -> bool) -> Option<Arc<Row>> {
        let page = self.target.disk.read(self.records.relation, block)?;
        let changed = block_lsn(&page)?;
        row_of(&page, number, true).filter(|row| expected(row, changed)).map(Arc::new)
    }
}
