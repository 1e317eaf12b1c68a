//! Rows in WAL: what the records of the resource managers `Heap` and `Heap2` do to the rows of a block.
//!
//! ```text
//! INSERT        main: u16 offset, u8 flags                              data of block 0: header, bytes
//! DELETE        main: u32 xmax, u16 offset, u8 bits, u8 flags
//! UPDATE, HOT   main: u32, u16 old offset, u8, u8 flags, u32, u16 new offset
//!               data of block 0: [u16 prefix] [u16 suffix] header, bytes
//! MULTI_INSERT  main: u8 flags, u16 count (at 2), u16 offsets unless the page is initialized
//!               data of block 0, each at an even place: u16 length, header, bytes
//! INPLACE       main: u16 offset                                         data of block 0: the new bytes
//!
//! header: u16 t_infomask2, u16 t_infomask, u8 t_hoff; bytes: the tuple from byte 23 on
//! ```
//!
//! Where a record has an image of the block, that holds the row, and the data is usually left out. Sources: `heapam_xlog.h`,
//! `heap_xlog_*` in heapam.c. These records are the same from 9.6 to 19.

use byteorder::{ByteOrder, LittleEndian};

use crate::effect;
use crate::record::{Fields, RecordHeader};
use crate::relation::Relation;
use crate::rmgr;
use crate::version::Version;

const HEAP: u8 = 10;
const HEAP2: u8 = 9;
/// `XLOG_HEAP_INIT_PAGE`
const INIT_PAGE: u8 = 0x80;

/// Flags of a deletion, `XLH_DELETE_IS_SUPER` and `XLH_DELETE_IS_PARTITION_MOVE`.
const DELETE_IS_SPECULATIVE: u8 = 0x08;
const DELETE_IS_MOVE: u8 = 0x10;
/// Flags of an update, `XLH_UPDATE_PREFIX_FROM_OLD` and `XLH_UPDATE_SUFFIX_FROM_OLD`.
const PREFIX: u8 = 0x20;
const SUFFIX: u8 = 0x40;

/// What a record does to the rows of its blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HeapOperation<'a> {
    /// Rows are inserted into block 0.
    Insert(Vec<NewRow<'a>>),
    /// A row of block 0 is deleted.
    Delete {
        /// Its number in the block.
        offset: u16,
        /// Why.
        reason: DeleteReason,
    },
    /// A row is replaced by another one in block 0.
    Update {
        /// The number of the replaced row, in block 1 if there is one, otherwise in block 0.
        old_offset: u16,
        /// The new row.
        new: NewRow<'a>,
    },
    /// The bytes of a row of block 0 behind its header are replaced (catalogs only).
    Inplace {
        /// Its number in the block.
        offset: u16,
        /// The bytes; empty if the block has an image.
        bytes: &'a [u8],
    },
}

/// Why a row is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeleteReason {
    /// By a statement.
    Delete,
    /// Its insertion is taken back: `INSERT ... ON CONFLICT` has found another row.
    Speculative,
    /// It moves to another partition; an insertion there follows.
    Move,
}

/// A row that is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NewRow<'a> {
    /// Its number in the block, from 1.
    pub offset: u16,
    /// What the record has of it; `None` if the image of the block holds it.
    pub contents: Option<NewRowContents<'a>>,
}

/// The contents of a row in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NewRowContents<'a> {
    /// `t_infomask2`: the number of columns in the low 11 bits.
    pub infomask2: u16,
    /// `t_infomask`
    pub infomask: u16,
    /// `t_hoff`: where the data of the columns begins in the tuple.
    pub header_length: u8,
    /// The tuple from byte 23 on; between `before` and the rest, the bytes that are the same in the old row are missing.
    pub bytes: &'a [u8],
    /// How many bytes behind `t_hoff` are taken from the old row.
    pub prefix: u16,
    /// How many bytes at the end are taken from the old row.
    pub suffix: u16,
}

/// The length of a tuple's header that is not stored in records.
pub const TUPLE_HEADER_LENGTH: usize = 23;

impl NewRowContents<'_> {
    /// The tuple from byte 23 on. `old` are the bytes of the old row behind its own `t_hoff`, as stored. `None` if they are
    /// needed and too short.
    pub fn complete(&self, old: Option<&[u8]>) -> Option<Vec<u8>> {
        let (prefix, suffix) = (usize::from(self.prefix), usize::from(self.suffix));
        if prefix == 0 && suffix == 0 {
            return Some(self.bytes.to_vec());
        }
        let old = old?;
        let header = usize::from(self.header_length).checked_sub(TUPLE_HEADER_LENGTH)?;
        let (header, middle) = self.bytes.split_at_checked(header)?;
        let suffix_from = old.len().checked_sub(suffix)?;
        Some([header, old.get(..prefix)?, middle, old.get(suffix_from..)?].concat())
    }
}

/// What a record does to rows; `None` if it does nothing to them, or is malformed. `data` is the data of block 0, and
/// `has_image` says whether that block has an image that replay restores.
///
/// The flavor's IDs of resource managers are taken into account.
pub fn heap_operation<'a>(
    header: &RecordHeader,
    main_data: &'a [u8],
    data: &'a [u8],
    has_image: bool,
    version: Version,
) -> Option<HeapOperation<'a>> {
    let mut main = Fields { bytes: main_data };
    let data = (!data.is_empty() || !has_image).then_some(data);
    match (rmgr::postgresql_id(header.rmid, version)?, header.info & 0x70) {
        (HEAP, 0x00) => {
            let offset = main.u16().ok()?;
            let contents = match data {
                Some(data) => Some(contents(&mut Fields { bytes: data }, (0, 0))?),
                None => None,
            };
            Some(HeapOperation::Insert(vec![NewRow { offset, contents }]))
        }
        (HEAP, 0x10) => delete(&mut main),
        (HEAP, 0x20 | 0x40) => update(&mut main, data),
        (HEAP, 0x70) => {
            Some(HeapOperation::Inplace { offset: main.u16().ok()?, bytes: data.unwrap_or_default() })
        }
        (HEAP2, 0x50) => multi_insert(header, main_data, data).map(HeapOperation::Insert),
        _ => None,
    }
}

/// What a record does to the rows of a relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RowChange {
    Inserted(u16),
    Updated(u16),
    Deleted(u16),
    /// An insertion is taken back.
    NotInserted,
}

/// Numbers of changed rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowCounts {
    /// Inserted.
    pub inserted: u64,
    /// Updated.
    pub updated: u64,
    /// Deleted.
    pub deleted: u64,
}

impl RowCounts {
    pub(crate) fn add(&mut self, change: RowChange) {
        match change {
            RowChange::Inserted(count) => self.inserted += u64::from(count),
            RowChange::Updated(count) => self.updated += u64::from(count),
            RowChange::Deleted(count) => self.deleted += u64::from(count),
            RowChange::NotInserted => self.inserted = self.inserted.saturating_sub(1),
        }
    }
}

impl std::ops::AddAssign for RowCounts {
    fn add_assign(&mut self, other: RowCounts) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
    }
}

/// How many rows a record changes; `None` if it changes none, or is malformed.
#[inline]
pub(crate) fn changed_rows(header: &RecordHeader, main_data: &[u8], version: Version) -> Option<RowChange> {
    match (rmgr::postgresql_id(header.rmid, version)?, header.info & 0x70) {
        (HEAP, 0x00) => Some(RowChange::Inserted(1)),
        (HEAP, 0x10) => match main_data.get(7)? {
            flags if flags & DELETE_IS_SPECULATIVE != 0 => Some(RowChange::NotInserted),
            _ => Some(RowChange::Deleted(1)),
        },
        (HEAP, 0x20 | 0x40) => Some(RowChange::Updated(1)),
        (HEAP2, 0x50) => Some(RowChange::Inserted(LittleEndian::read_u16(main_data.get(2..4)?))),
        _ => None,
    }
}

fn delete<'a>(main: &mut Fields<'a>) -> Option<HeapOperation<'a>> {
    main.take(4).ok()?;
    let offset = main.u16().ok()?;
    main.u8().ok()?;
    let flags = main.u8().ok()?;
    let reason = match flags {
        _ if flags & DELETE_IS_SPECULATIVE != 0 => DeleteReason::Speculative,
        _ if flags & DELETE_IS_MOVE != 0 => DeleteReason::Move,
        _ => DeleteReason::Delete,
    };
    Some(HeapOperation::Delete { offset, reason })
}

fn update<'a>(main: &mut Fields<'a>, data: Option<&'a [u8]>) -> Option<HeapOperation<'a>> {
    main.take(4).ok()?;
    let old_offset = main.u16().ok()?;
    main.u8().ok()?;
    let flags = main.u8().ok()?;
    main.take(4).ok()?;
    let offset = main.u16().ok()?;
    let contents = match data {
        Some(data) => {
            let mut data = Fields { bytes: data };
            let prefix = if flags & PREFIX != 0 { data.u16().ok()? } else { 0 };
            let suffix = if flags & SUFFIX != 0 { data.u16().ok()? } else { 0 };
            Some(contents(&mut data, (prefix, suffix))?)
        }
        None => None,
    };
    Some(HeapOperation::Update { old_offset, new: NewRow { offset, contents } })
}

fn multi_insert<'a>(
    header: &RecordHeader,
    main_data: &[u8],
    data: Option<&'a [u8]>,
) -> Option<Vec<NewRow<'a>>> {
    let count = main_data.get(2..4).map(LittleEndian::read_u16)?;
    let offset = |index: u16| {
        if header.info & INIT_PAGE != 0 {
            return index.checked_add(1);
        }
        let at = 4 + 2 * usize::from(index);
        main_data.get(at..at + 2).map(LittleEndian::read_u16)
    };
    let mut at = 0usize;
    let mut rows = Vec::new();
    for index in 0..count {
        let contents = match data {
            Some(data) => {
                at = at.next_multiple_of(2);
                let mut tuple = Fields { bytes: data.get(at..)? };
                let length = usize::from(tuple.u16().ok()?);
                let mut tuple = Fields { bytes: tuple.take(5 + length).ok()? };
                at += 7 + length;
                Some(contents(&mut tuple, (0, 0))?)
            }
            None => None,
        };
        rows.push(NewRow { offset: offset(index)?, contents });
    }
    Some(rows)
}

fn contents<'a>(data: &mut Fields<'a>, (prefix, suffix): (u16, u16)) -> Option<NewRowContents<'a>> {
    let (infomask2, infomask) = (data.u16().ok()?, data.u16().ok()?);
    let header_length = data.u8().ok()?;
    let is_valid = usize::from(header_length) >= TUPLE_HEADER_LENGTH
        && data.bytes.len() >= usize::from(header_length) - TUPLE_HEADER_LENGTH;
    is_valid.then_some(NewRowContents {
        infomask2,
        infomask,
        header_length,
        bytes: data.bytes,
        prefix,
        suffix,
    })
}

/// Whether a record may be about rows or have images of blocks of tables: of the resource managers `Heap` and `Heap2`, or a
/// full-page image of its own.
pub fn has_heap_pages(header: &RecordHeader, version: Version) -> bool {
    match rmgr::postgresql_id(header.rmid, version) {
        Some(HEAP | HEAP2) => true,
        // XLOG_FPI_FOR_HINT, XLOG_FPI.
        Some(0) => matches!(header.info & 0xF0, 0xA0 | 0xB0),
        _ => false,
    }
}

/// A value that a sequence has reached, from a record of the resource manager `Sequence`: the relation and the value as it will
/// be after the values that are logged in advance. From 10 on; the row of 9.6 has other columns. `None` for other records.
///
/// The main data is the relation, then the row (`xl_seq_rec`, `seq_redo` in sequence.c).
pub fn sequence_value(header: &RecordHeader, main_data: &[u8], version: Version) -> Option<(Relation, i64)> {
    const SEQUENCE: u8 = 15;
    if rmgr::postgresql_id(header.rmid, version)? != SEQUENCE || version.server_version_num() < 100_000 {
        return None;
    }
    let mut data = Fields { bytes: main_data };
    let relation = effect::relation(&mut data).ok()?;
    let tuple = data.bytes;
    let start = usize::from(*tuple.get(TUPLE_HEADER_LENGTH - 1)?);
    let value = LittleEndian::read_i64(tuple.get(start..start.checked_add(8)?)?);
    Some((relation, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    fn version() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    fn header(rmid: u8, info: u8) -> RecordHeader {
        RecordHeader { total_length: 0, xid: 7, previous: Lsn(0), info, rmid, crc: 0 }
    }

    fn row(bytes: &[u8]) -> Vec<u8> {
        [&[2, 0, 2, 8, 24][..], bytes].concat()
    }

    #[test]
    fn an_insertion_has_its_row_in_the_data_or_in_the_image() {
        let data = row(&[0, 1, 2, 3]);
        let found = heap_operation(&header(10, 0x00), &[5, 0, 0], &data, false, version());
        let Some(HeapOperation::Insert(rows)) = found else { panic!("{found:?}") };
        let contents = rows[0].contents.unwrap();
        assert_eq!((rows[0].offset, contents.infomask2, contents.infomask), (5, 2, 0x802));
        assert_eq!((contents.header_length, contents.complete(None)), (24, Some(vec![0, 1, 2, 3])));
        let in_image = heap_operation(&header(10, 0x00), &[5, 0, 0], &[], true, version());
        assert_eq!(in_image, Some(HeapOperation::Insert(vec![NewRow { offset: 5, contents: None }])));
        for length in 0..data.len() - 3 {
            let cut = &data[..length];
            assert_eq!(heap_operation(&header(10, 0x00), &[5, 0, 0], cut, false, version()), None);
        }
    }

    #[test]
    fn an_update_takes_what_is_the_same_from_the_old_row() {
        let main = [9, 0, 0, 0, 3, 0, 0, 0x60, 0, 0, 0, 0, 4, 0];
        let data = [&[2, 0, 1, 0][..], &row(&[0xBB, b'X'])].concat();
        let found = heap_operation(&header(10, 0x40), &main, &data, false, version());
        let Some(HeapOperation::Update { old_offset: 3, new }) = found else { panic!("{found:?}") };
        let contents = new.contents.unwrap();
        assert_eq!(new.offset, 4);
        assert_eq!(contents.complete(Some(b"abcd")), Some(b"\xBBabXd".to_vec()));
        assert_eq!((contents.complete(Some(b"a")), contents.complete(None)), (None, None));
    }

    #[test]
    fn several_rows_are_inserted_at_once() {
        let one = [&[3, 0][..], &row(&[0, 1, 2])].concat();
        // The second row begins at an even place.
        let data = [&one[..], &[2, 0], &row(&[0, 9])].concat();
        assert_eq!(one.len(), 10);
        let found = heap_operation(&header(9, 0x50), &[0, 0, 2, 0, 7, 0, 9, 0], &data, false, version());
        let Some(HeapOperation::Insert(rows)) = found else { panic!("{found:?}") };
        let bytes = |row: &NewRow<'_>| (row.offset, row.contents.unwrap().bytes.to_vec());
        assert_eq!(rows.iter().map(bytes).collect::<Vec<_>>(), [(7, vec![0, 1, 2]), (9, vec![0, 9])]);
        // On a page that is initialized the numbers are not stored.
        let found = heap_operation(&header(9, 0xD0), &[0, 0, 2, 0], &data, false, version());
        let Some(HeapOperation::Insert(rows)) = found else { panic!("{found:?}") };
        assert_eq!(rows.iter().map(|row| row.offset).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(heap_operation(&header(9, 0x50), &[0, 0, 2, 0, 7, 0], &data, false, version()), None);
    }

    #[test]
    fn deletions_have_reasons() {
        for (flags, reason) in
            [(0, DeleteReason::Delete), (0x08, DeleteReason::Speculative), (0x10, DeleteReason::Move)]
        {
            let main = [9, 0, 0, 0, 3, 0, 0, flags];
            let found = heap_operation(&header(10, 0x10), &main, &[], true, version());
            assert_eq!(found, Some(HeapOperation::Delete { offset: 3, reason }));
        }
        assert_eq!(heap_operation(&header(10, 0x60), &[9, 0, 0, 0, 3, 0, 0, 0], &[], true, version()), None);
        assert_eq!(heap_operation(&header(11, 0x10), &[9, 0, 0, 0, 3, 0, 0, 0], &[], true, version()), None);
    }

    #[test]
    fn the_value_of_a_sequence() {
        let mut tuple = vec![0; 24];
        tuple[22] = 24;
        tuple.extend(99i64.to_le_bytes());
        let relation: Vec<u8> = [1663u32, 5, 16390].iter().flat_map(|number| number.to_le_bytes()).collect();
        let data = [relation, tuple].concat();
        let (relation, value) = sequence_value(&header(15, 0), &data, version()).unwrap();
        assert_eq!((relation.number, value), (16390, 99));
        assert_eq!(sequence_value(&header(15, 0), &data[..40], version()), None);
        assert_eq!(sequence_value(&header(10, 0), &data, version()), None);
    }
}
