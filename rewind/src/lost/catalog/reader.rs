//! Reads the catalogs of a database: the rows of each, with values by the names of the columns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use walparse::{DatabaseDir, Relation};

use super::history::{self, Version};
use super::{layout, map};
use crate::lost::bytes::{i16_at, u32_at};
use crate::lost::datum::{Datum, deform};
use crate::lost::error::LostError;
use crate::lost::node::Target;
use crate::lost::rows::Row;
use crate::lost::types::Attribute;

/// OIDs from this one on are none of catalogs.
pub(in crate::lost) const FIRST_USER_OID: u32 = 16384;

pub(super) const PG_CLASS: u32 = 1259;
pub(super) const PG_ATTRIBUTE: u32 = 1249;
pub(super) const PG_TYPE: u32 = 1247;
pub(super) const PG_DATABASE: u32 = 1262;
pub(super) const PG_NAMESPACE: u32 = 2615;
pub(super) const PG_INDEX: u32 = 2610;
pub(super) const PG_ENUM: u32 = 3501;
pub(super) const PG_RANGE: u32 = 3541;
pub(super) const PG_REPLICATION_ORIGIN: u32 = 6000;

/// A row of a catalog: its values by the names of the columns.
pub(super) struct Fields<'a> {
    values: HashMap<&'a str, Datum<'a>>,
    oid: Option<u32>,
}

impl Fields<'_> {
    fn bytes(&self, column: &str) -> Option<&[u8]> {
        match self.values.get(column)? {
            Datum::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The object's OID: a column from 12 on, before that beside the columns.
    pub(super) fn oid(&self) -> Option<u32> {
        self.number("oid").or(self.oid)
    }

    /// A column of type `oid` or `int4`.
    pub(super) fn number(&self, column: &str) -> Option<u32> {
        u32_at(self.bytes(column)?, 0)
    }

    /// A column of type `int2`.
    pub(super) fn short(&self, column: &str) -> Option<i16> {
        i16_at(self.bytes(column)?, 0)
    }

    /// A column of type `"char"`.
    pub(super) fn character(&self, column: &str) -> Option<u8> {
        self.bytes(column)?.first().copied()
    }

    /// A column of type `bool`.
    pub(super) fn is_true(&self, column: &str) -> bool {
        self.character(column) == Some(1)
    }

    /// Whether a column is NULL, or not there.
    pub(super) fn is_null(&self, column: &str) -> bool {
        matches!(self.values.get(column), None | Some(Datum::Null))
    }

    /// A column of type `name`, as bytes in the database's encoding.
    pub(super) fn name(&self, column: &str) -> Option<Vec<u8>> {
        let bytes = self.bytes(column)?;
        Some(bytes.iter().copied().take_while(|byte| *byte != 0).collect())
    }

    /// A column of type `text`.
    pub(super) fn text(&self, column: &str) -> Option<Vec<u8>> {
        self.bytes(column).map(<[u8]>::to_vec)
    }

    /// A column of type `int2vector`: an array with one dimension.
    pub(super) fn shorts(&self, column: &str) -> Vec<i16> {
        let elements = self.elements(column).unwrap_or_default();
        elements.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    /// The element of a column of type `anyarray` that has one element (`attmissingval`).
    fn element(&self, column: &str) -> Option<Vec<u8>> {
        self.elements(column).map(<[u8]>::to_vec)
    }

    /// The elements of an array of one dimension, behind its header.
    fn elements(&self, column: &str) -> Option<&[u8]> {
        const HEADER: usize = 20;
        self.bytes(column)?.get(HEADER..)
    }
}

/// The columns of catalogs, by the catalogs' OIDs.
pub(super) type CatalogColumns = HashMap<u32, Vec<Attribute>>;

/// The columns of the catalogs, from a database's `pg_attribute` with its known layout. Empty if it has another one.
///
/// # Errors
/// WAL could not be read.
pub(super) fn catalog_columns(target: &Target<'_>, dir: DatabaseDir) -> Result<CatalogColumns, LostError> {
    let number = target.control.version().server_version_num();
    let mut columns: HashMap<u32, BTreeMap<i16, Attribute>> = HashMap::new();
    for version in CatalogReader::open(target, dir, &HashMap::new()).mapped(PG_ATTRIBUTE)? {
        let Some(data) = version.value.data() else { continue };
        let Some((relation, attribute)) = layout::attribute(data, number) else { continue };
        if relation < FIRST_USER_OID && attribute.number > 0 {
            columns.entry(relation).or_default().insert(attribute.number, attribute);
        }
    }
    // Another layout, as a fork may have, would give wrong names: rather none.
    let own = columns.get(&PG_ATTRIBUTE);
    let has = |number: i16, name: &str, of: u32| {
        let column = own.and_then(|own| own.get(&number));
        column.is_some_and(|column| column.name == name && column.type_oid == of)
    };
    if !(has(1, "attrelid", 26) && has(2, "attname", 19) && has(3, "atttypid", 26)) {
        return Ok(CatalogColumns::new());
    }
    let in_order =
        |(relation, columns): (u32, BTreeMap<i16, Attribute>)| (relation, columns.into_values().collect());
    Ok(columns.into_iter().map(in_order).collect())
}

/// The raw catalogs of a database, or the shared ones.
pub(super) struct CatalogReader<'a> {
    target: &'a Target<'a>,
    dir: DatabaseDir,
    /// Numbers of files that mapped catalogs have or had.
    maps: BTreeMap<u32, BTreeSet<u32>>,
    columns: &'a CatalogColumns,
}

impl<'a> CatalogReader<'a> {
    /// Reads the maps, on which all else depends.
    pub(super) fn open(
        target: &'a Target<'a>,
        dir: DatabaseDir,
        columns: &'a CatalogColumns,
    ) -> CatalogReader<'a> {
        let mut reader = CatalogReader { target, dir, maps: BTreeMap::new(), columns };
        reader.read_maps();
        reader
    }

    /// The numbers of files that mapped catalogs have or had.
    pub(super) fn mapped_files(&self) -> BTreeSet<u32> {
        self.maps.values().flatten().copied().collect()
    }

    fn read_maps(&mut self) {
        let version = self.target.control.version();
        let dir = match (self.dir.tablespace, self.dir.database) {
            (1664, _) => "global".to_owned(),
            (1663, database) => format!("base/{database}"),
            (tablespace, database) => format!(
                "{}/{tablespace}/{}/{database}",
                version.names().tablespace_dir,
                version.tablespace_version_dir()
            ),
        };
        let path = format!("{dir}/{}filenode.map", version.names().prefix);
        let on_disk = std::fs::read(self.target.root.join(path)).unwrap_or_default();
        let logged = self.target.index.maps.iter().filter(|update| update.dir == self.dir);
        for contents in logged.map(|update| &update.contents).chain([&on_disk]) {
            for (catalog, file) in map::parse(contents) {
                self.maps.entry(catalog).or_default().insert(file);
            }
        }
        // Before the first change of a map, a catalog has the number of its OID.
        for catalog in [PG_CLASS, PG_ATTRIBUTE, PG_TYPE, PG_DATABASE] {
            let own = self.relation(catalog);
            if self.target.index.records.contains_key(&own) {
                self.maps.entry(catalog).or_default().insert(catalog);
            }
        }
    }

    fn relation(&self, number: u32) -> Relation {
        Relation { tablespace: self.dir.tablespace, database: self.dir.database, number }
    }

    /// All versions of the rows of a mapped catalog, whatever files it has had.
    fn mapped(&self, catalog: u32) -> Result<Vec<Version<Arc<Row>>>, LostError> {
        self.files(self.maps.get(&catalog).into_iter().flatten().copied())
    }

    fn files(&self, files: impl Iterator<Item = u32>) -> Result<Vec<Version<Arc<Row>>>, LostError> {
        let mut all: Vec<Version<Arc<Row>>> = Vec::new();
        for file in files {
            let first = all.len();
            all.extend(history::read(self.target, self.relation(file))?);
            for version in &mut all[first..] {
                version.next = version.next.map(|next| next + first);
            }
        }
        Ok(all)
    }

    /// The rows of `pg_attribute`: the relation, and the column.
    pub(super) fn attributes(&self) -> Result<Vec<Version<(u32, Attribute)>>, LostError> {
        let number = self.target.control.version().server_version_num();
        let own = self.columns_of(PG_ATTRIBUTE);
        let rows = self.mapped(PG_ATTRIBUTE)?;
        let decode = |row: &Arc<Row>| {
            let (relation, mut attribute) = layout::attribute(row.data()?, number)?;
            let fields = fields(row, own);
            attribute.is_not_null = fields.is_true("attnotnull");
            attribute.is_generated = fields.character("attgenerated").is_some_and(|kind| kind != 0);
            attribute.missing =
                fields.is_true("atthasmissing").then(|| fields.element("attmissingval")).flatten();
            Some((relation, attribute))
        };
        Ok(kept(rows, decode))
    }

    fn columns_of(&self, catalog: u32) -> &'a [Attribute] {
        self.columns.get(&catalog).map_or(&[], Vec::as_slice)
    }

    /// The rows of a mapped catalog.
    pub(super) fn rows_of_mapped<T>(
        &self,
        catalog: u32,
        decode: impl Fn(&Fields<'_>) -> Option<T>,
    ) -> Result<Vec<Version<T>>, LostError> {
        let columns = self.columns_of(catalog);
        Ok(kept(self.mapped(catalog)?, |row| decode(&fields(row, columns))))
    }

    /// The rows of a catalog that has had these files.
    pub(super) fn rows<T>(
        &self,
        catalog: u32,
        files: &BTreeSet<u32>,
        decode: impl Fn(&Fields<'_>) -> Option<T>,
    ) -> Result<Vec<Version<T>>, LostError> {
        let columns = self.columns_of(catalog);
        Ok(kept(self.files(files.iter().copied())?, |row| decode(&fields(row, columns))))
    }
}

/// The versions that can be decoded, with their successors among them.
fn kept<T>(rows: Vec<Version<Arc<Row>>>, decode: impl Fn(&Arc<Row>) -> Option<T>) -> Vec<Version<T>> {
    let decoded: Vec<Option<Version<T>>> = rows.iter().map(|row| row.map(&decode)).collect();
    let mut place = 0usize;
    let places: Vec<Option<usize>> = decoded
        .iter()
        .map(|version| {
            version.as_ref().map(|_| {
                place += 1;
                place - 1
            })
        })
        .collect();
    let moved = |mut version: Version<T>| {
        version.next = version.next.and_then(|next| places.get(next).copied().flatten());
        version
    };
    decoded.into_iter().flatten().map(moved).collect()
}

fn fields<'a>(row: &'a Row, columns: &'a [Attribute]) -> Fields<'a> {
    let tuple = row.tuple();
    let values = columns.iter().map(|column| column.name.as_str()).zip(deform(&tuple, columns)).collect();
    Fields { values, oid: row.hidden_oid() }
}
