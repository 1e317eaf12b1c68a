//! Values that are stored out of line: found in the WAL of the relation that holds them, else in its file.
//!
//! Such a relation has rows of three columns: the value's ID, the number of the chunk, the bytes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use walparse::Relation;

use super::bytes::u32_at;
use super::datum::{Datum, ToastPointer, deform, detoast};
use super::error::LostError;
use super::node::Target;
use super::rows::{Images, Row, RowEvent, Rows, rows_on_disk};
use super::spool::Spool;
use super::types::Attribute;

/// The OID of the relation that holds a value, and the value's ID.
pub(super) type ValueId = (u32, u32);

/// Chunks of values, by their numbers: where they are in the spool.
#[derive(Default)]
pub(super) struct ToastValues {
    chunks: HashMap<ValueId, BTreeMap<u32, (u64, usize)>>,
}

impl ToastValues {
    /// Looks for chunks of the `wanted` values in a relation with the OID `oid` that has or had these files.
    pub(super) fn find(
        &mut self,
        target: &Target<'_>,
        (oid, files): (u32, impl IntoIterator<Item = Relation>),
        wanted: &HashSet<ValueId>,
        spool: &mut Spool,
    ) -> Result<(), LostError> {
        let columns = columns();
        for relation in files {
            let mut seen = HashSet::new();
            Rows::follow(target, relation, Images::Shown, &mut |_, event| match event {
                RowEvent::Seen { block, rows } => {
                    seen.insert(block);
                    rows.iter().try_for_each(|(_, row)| self.add(oid, row, &columns, wanted, spool))
                }
                RowEvent::Insert { new: Some(row), .. } => self.add(oid, &row, &columns, wanted, spool),
                _ => Ok(()),
            })?;
            rows_on_disk(target, relation, &seen, &mut |_, row| {
                self.add(oid, &row, &columns, wanted, spool)
            })?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        oid: u32,
        row: &Row,
        columns: &[Attribute],
        wanted: &HashSet<ValueId>,
        spool: &mut Spool,
    ) -> Result<(), LostError> {
        let tuple = row.tuple();
        let [Datum::Bytes(id), Datum::Bytes(number), Datum::Bytes(data)] = &deform(&tuple, columns)[..]
        else {
            return Ok(());
        };
        let (Some(id), Some(number)) = (u32_at(id, 0), u32_at(number, 0)) else { return Ok(()) };
        if !wanted.contains(&(oid, id)) {
            return Ok(());
        }
        let chunks = self.chunks.entry((oid, id)).or_default();
        if let Entry::Vacant(place) = chunks.entry(number) {
            place.insert((spool.push_bytes(data)?, data.len()));
        }
        Ok(())
    }

    /// A value; `None` if a part of it was not found.
    pub(super) fn get(&self, pointer: &ToastPointer, spool: &Spool) -> Result<Option<Vec<u8>>, LostError> {
        let id = (pointer.toast_relation, pointer.value_id);
        let Some(chunks) = self.chunks.get(&id) else { return Ok(None) };
        let mut value = Vec::new();
        for (expected, (number, (at, length))) in chunks.iter().enumerate() {
            if *number as usize != expected {
                return Ok(None);
            }
            value.extend(spool.bytes(*at, *length)?);
        }
        if value.len() != pointer.stored_size as usize {
            return Ok(None);
        }
        Ok(detoast(pointer, &value))
    }
}

/// The columns of such a relation: `chunk_id`, `chunk_seq`, `chunk_data`.
fn columns() -> [Attribute; 3] {
    let column = |number: i16, type_oid: u32, length: i16| Attribute {
        number,
        type_oid,
        length,
        align: b'i',
        type_modifier: -1,
        ..Attribute::default()
    };
    [column(1, 26, 4), column(2, 23, 4), column(3, 17, -1)]
}
