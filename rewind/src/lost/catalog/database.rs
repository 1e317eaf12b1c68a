//! What is known of a database: relations, columns, types, keys.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use walparse::{DatabaseDir, Lsn, Relation};

use super::history::{Moment, Version};
use super::reader::{
    CatalogColumns, CatalogReader, FIRST_USER_OID, Fields, PG_CLASS, PG_DATABASE, PG_ENUM, PG_INDEX,
    PG_NAMESPACE, PG_RANGE, PG_REPLICATION_ORIGIN, PG_TYPE, catalog_columns,
};
use crate::lost::datum::{Datum, text};
use crate::lost::error::LostError;
use crate::lost::model::LostValue;
use crate::lost::node::Target;
use crate::lost::status::Statuses;
use crate::lost::types::{Attribute, Type, Types};

/// A relation (`pg_class`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::lost) struct Class {
    pub(in crate::lost) oid: u32,
    pub(in crate::lost) name: String,
    pub(in crate::lost) namespace: u32,
    /// The number of its file; 0 if it has none, or if the map tells it.
    pub(in crate::lost) file: u32,
    /// The tablespace; 0 is the database's.
    pub(in crate::lost) tablespace: u32,
    pub(in crate::lost) kind: u8,
    /// Whether it is unlogged or temporary.
    is_not_logged: bool,
    columns: i16,
}

/// A row of `pg_index`.
struct Index {
    table: u32,
    is_primary: bool,
    columns: Vec<i16>,
}

/// A database's catalogs.
pub(in crate::lost) struct Database {
    pub(in crate::lost) oid: u32,
    pub(in crate::lost) name: String,
    tablespace: u32,
    classes: Vec<Version<Class>>,
    /// By the number of the file.
    classes_by_file: HashMap<u32, Vec<usize>>,
    attributes: HashMap<u32, Vec<Version<Attribute>>>,
    indexes: Vec<Version<Index>>,
    namespaces: HashMap<u32, String>,
    types: TypeTable,
    /// The numbers of files that catalogs without a file in `pg_class` have or had.
    mapped: BTreeSet<u32>,
}

/// What a transaction has done to a relation's definition.
pub(in crate::lost) enum Change<'a> {
    Create(&'a Class),
    Drop(&'a Class),
    /// The definition before and after. What it was before may not be known.
    Alter(Option<&'a Class>, &'a Class),
    /// Columns of this relation were added, changed or removed.
    Columns(u32),
}

/// A database as `pg_database` has it.
struct Entry {
    oid: u32,
    name: Vec<u8>,
    tablespace: u32,
    encoding: u32,
}

const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;
/// `template1`, which every cluster has.
const TEMPLATE: u32 = 1;

/// The catalogs of databases by their OIDs, and the names of replication origins.
#[derive(Default)]
pub(in crate::lost) struct Databases {
    pub(in crate::lost) by_oid: BTreeMap<u32, Database>,
    /// The names of all databases that the cluster has or had.
    pub(in crate::lost) names: BTreeMap<u32, String>,
    pub(in crate::lost) origins: HashMap<u16, String>,
    /// Whether a catalog has, or had, the file of a user's relation: it was rewritten.
    pub(in crate::lost) have_moved_catalogs: bool,
}

/// Reads the catalogs of these databases. Those that cannot be read are missing from the result.
pub(in crate::lost) fn find_databases(
    target: &Target<'_>,
    wanted: &BTreeSet<u32>,
) -> Result<Databases, LostError> {
    // All databases have the same catalogs, and these the columns of the shared ones.
    let columns = [TEMPLATE].iter().chain(wanted).find_map(|database| {
        let dir = DatabaseDir { tablespace: DEFAULT_TABLESPACE, database: *database };
        catalog_columns(target, dir).ok().filter(|columns| !columns.is_empty())
    });
    let mut found = Databases::default();
    let Some(columns) = columns else { return Ok(found) };
    let shared_dir = DatabaseDir { tablespace: GLOBAL_TABLESPACE, database: 0 };
    let shared = CatalogReader::open(target, shared_dir, &columns);
    let entries = shared.rows_of_mapped(PG_DATABASE, |row| {
        Some(Entry {
            oid: row.oid()?,
            name: row.name("datname")?,
            tablespace: row.number("dattablespace")?,
            encoding: row.number("encoding")?,
        })
    })?;
    for entry in entries.iter().filter(|entry| entry.has_counted(&target.statuses)) {
        let entry = &entry.value;
        let encoding = encoding_name(entry.encoding);
        found.names.insert(entry.oid, decoded(&entry.name, encoding));
        if wanted.contains(&entry.oid) {
            let database = Database::read(target, entry, encoding, &columns)?;
            if !database.attributes.is_empty() {
                found.by_oid.insert(entry.oid, database);
            }
        }
    }
    found.origins = origins(target, &shared)?;
    let is_moved = |number: &u32| *number >= FIRST_USER_OID;
    found.have_moved_catalogs = shared.mapped_files().iter().any(is_moved)
        || found.by_oid.values().any(|database| database.catalog_files().iter().any(is_moved));
    Ok(found)
}

fn origins(target: &Target<'_>, shared: &CatalogReader<'_>) -> Result<HashMap<u16, String>, LostError> {
    let rows = shared.rows(PG_REPLICATION_ORIGIN, &BTreeSet::from([PG_REPLICATION_ORIGIN]), |row| {
        Some((u16::try_from(row.number("roident")?).ok()?, row.text("roname")?))
    })?;
    let counted = rows.into_iter().filter(|row| row.has_counted(&target.statuses));
    Ok(counted.map(|row| (row.value.0, String::from_utf8_lossy(&row.value.1).into_owned())).collect())
}

impl Database {
    fn read(
        target: &Target<'_>,
        entry: &Entry,
        encoding: &'static str,
        columns: &CatalogColumns,
    ) -> Result<Database, LostError> {
        let dir = DatabaseDir { tablespace: entry.tablespace, database: entry.oid };
        let reader = CatalogReader::open(target, dir, columns);
        let statuses = &target.statuses;
        let name = |row: &Fields<'_>, column: &str| Some(decoded(&row.name(column)?, encoding));
        let classes = reader.rows_of_mapped(PG_CLASS, |row| class(row, &name))?;
        let mut files: HashMap<u32, BTreeSet<u32>> = HashMap::new();
        let mut classes_by_file: HashMap<u32, Vec<usize>> = HashMap::new();
        for (place, version) in classes.iter().enumerate() {
            files.entry(version.value.oid).or_default().insert(version.value.file);
            classes_by_file.entry(version.value.file).or_default().push(place);
        }
        let none = BTreeSet::new();
        let files = |catalog: u32| files.get(&catalog).unwrap_or(&none);
        let mut attributes: HashMap<u32, Vec<Version<Attribute>>> = HashMap::new();
        for version in reader.attributes()? {
            let (relation, _) = version.value;
            // Successors are looked for by the columns' numbers.
            let attribute = version.map(|(_, attribute)| {
                Some(Attribute { name: decoded(attribute.name.as_bytes(), encoding), ..attribute.clone() })
            });
            attributes.entry(relation).or_default().extend(attribute);
        }
        let namespaces = reader
            .rows(PG_NAMESPACE, files(PG_NAMESPACE), |row| Some((row.oid()?, name(row, "nspname")?)))?;
        let indexes = reader.rows(PG_INDEX, files(PG_INDEX), index)?;
        let mut types = TypeTable {
            encoding,
            server_version_num: target.control.version().server_version_num(),
            ..TypeTable::default()
        };
        let namespaces: HashMap<u32, String> = latest(namespaces, statuses).collect();
        types.add(&reader, &files, statuses, &namespaces, &name)?;
        let mut database = Database {
            oid: entry.oid,
            name: decoded(&entry.name, encoding),
            tablespace: entry.tablespace,
            classes,
            classes_by_file,
            attributes,
            indexes,
            namespaces,
            types,
            mapped: reader.mapped_files(),
        };
        database.add_composites(statuses);
        Ok(database)
    }

    /// The columns of composite types, as they are in the end.
    fn add_composites(&mut self, statuses: &Statuses<'_>) {
        let end = Moment { lsn: Lsn(u64::MAX), xids: &[] };
        let relations: Vec<u32> =
            self.types.types.values().map(|of| of.relation).filter(|oid| *oid != 0).collect();
        for relation in relations {
            let columns = self.columns_at(relation, &end, statuses);
            self.types.columns.insert(relation, columns);
        }
    }

    pub(in crate::lost) fn types(&self) -> &dyn Types {
        &self.types
    }

    /// The numbers of files that catalogs have or had.
    fn catalog_files(&self) -> BTreeSet<u32> {
        let classes = self.classes.iter().map(|version| &version.value);
        let catalogs = classes.filter(|class| class.oid < FIRST_USER_OID && class.kind == b'r');
        self.mapped.iter().copied().chain(catalogs.map(|class| class.file)).collect()
    }

    /// Whether a file belongs to a catalog that has none in `pg_class`.
    pub(in crate::lost) fn is_mapped(&self, relation: Relation) -> bool {
        self.mapped.contains(&relation.number)
    }

    /// Where the file of a relation is.
    fn tablespace_of(&self, class: &Class) -> u32 {
        if class.tablespace == 0 { self.tablespace } else { class.tablespace }
    }

    /// All versions of relations that a file has belonged to.
    fn versions_of(&self, relation: Relation) -> impl Iterator<Item = &Version<Class>> {
        let places = self.classes_by_file.get(&relation.number).into_iter().flatten();
        let versions = places.map(|place| &self.classes[*place]);
        versions.filter(move |version| self.tablespace_of(&version.value) == relation.tablespace)
    }

    /// All definitions of relations that a file has belonged to.
    pub(in crate::lost) fn classes_of(&self, relation: Relation) -> impl Iterator<Item = &Class> {
        self.versions_of(relation).map(|version| &version.value)
    }

    /// The relation that a file belonged to at a moment. If none did, the one that has or had it at another time.
    pub(in crate::lost) fn class_of(
        &self,
        relation: Relation,
        moment: &Moment<'_>,
        statuses: &Statuses<'_>,
    ) -> Option<&Class> {
        let versions = || self.versions_of(relation);
        let by_age = |version: &&Version<Class>| version.came.lsn;
        let visible = versions().filter(|version| version.is_visible(moment, statuses)).max_by_key(by_age);
        let before = || versions().filter(|version| version.came.lsn <= moment.lsn).max_by_key(by_age);
        if let Some(found) = visible.or_else(before) {
            return Some(&found.value);
        }
        let first = &versions().min_by_key(by_age)?.value;
        // A rewrite leaves the file that the relation had to its copy, which it drops.
        match first.copy_of() {
            Some(rewritten) => self.class(rewritten, moment, statuses),
            None => Some(first),
        }
    }

    /// The relation with an OID at a moment, or as it was last.
    pub(in crate::lost) fn class(
        &self,
        oid: u32,
        moment: &Moment<'_>,
        statuses: &Statuses<'_>,
    ) -> Option<&Class> {
        let versions = || self.classes.iter().filter(|version| version.value.oid == oid);
        let visible = versions().filter(|version| version.is_visible(moment, statuses));
        let last = visible.max_by_key(|version| version.came.lsn);
        last.or_else(|| versions().max_by_key(|version| version.came.lsn)).map(|version| &version.value)
    }

    /// The files that a relation has had.
    pub(in crate::lost) fn files_of(&self, oid: u32) -> BTreeSet<Relation> {
        let versions = self.classes.iter().filter(|version| version.value.oid == oid);
        let relation = |class: &Class| Relation {
            tablespace: self.tablespace_of(class),
            database: self.oid,
            number: class.file,
        };
        versions.filter(|version| version.value.file != 0).map(|version| relation(&version.value)).collect()
    }

    pub(in crate::lost) fn namespace(&self, oid: u32) -> Option<&str> {
        self.namespaces.get(&oid).map(String::as_str)
    }

    /// The columns of a relation at a moment, dropped ones among them.
    pub(in crate::lost) fn columns_at(
        &self,
        relation: u32,
        moment: &Moment<'_>,
        statuses: &Statuses<'_>,
    ) -> Vec<Attribute> {
        let versions = self.attributes.get(&relation).map_or(&[][..], Vec::as_slice);
        let mut columns: BTreeMap<i16, (bool, Lsn, &Attribute)> = BTreeMap::new();
        for version in versions.iter().filter(|version| version.value.number > 0) {
            let found = (version.is_visible(moment, statuses), version.came.lsn, &version.value);
            let is_candidate = found.0 || version.has_counted(statuses);
            let known = columns.get(&version.value.number);
            if is_candidate && known.is_none_or(|known| (known.0, known.1) < (found.0, found.1)) {
                columns.insert(version.value.number, found);
            }
        }
        let is_any_visible = columns.values().any(|(is_visible, ..)| *is_visible);
        let counts = |is_visible: bool| is_visible || !is_any_visible;
        columns.into_values().filter(|found| counts(found.0)).map(|(.., column)| column.clone()).collect()
    }

    /// Whether the definition of a relation has versions in the WAL that was read.
    pub(in crate::lost) fn has_changed(&self, oid: u32) -> bool {
        let mut attributes = self.attributes.get(&oid).into_iter().flatten();
        let mut classes = self.classes.iter().filter(|version| version.value.oid == oid);
        attributes.any(Version::is_recent) || classes.any(Version::is_recent)
    }

    /// The numbers of the columns that identify a row of a table.
    pub(in crate::lost) fn key_of(
        &self,
        table: u32,
        columns: &[Attribute],
        moment: &Moment<'_>,
        statuses: &Statuses<'_>,
    ) -> Vec<i16> {
        let is_not_null =
            |number: &i16| columns.iter().any(|column| column.number == *number && column.is_not_null);
        let indexes = self.indexes.iter().filter(|version| version.value.table == table);
        let visible = indexes.filter(|version| version.is_visible(moment, statuses));
        let usable = visible
            .map(|version| &version.value)
            .filter(|index| index.is_primary || index.columns.iter().all(is_not_null));
        let best = usable.min_by_key(|index| (!index.is_primary, index.columns.len()));
        best.map(|index| index.columns.clone()).unwrap_or_default()
    }

    /// What transactions have done to relations: the transaction, where, and what.
    pub(in crate::lost) fn changes(&self) -> Vec<(u32, Lsn, Change<'_>)> {
        let mut changes = Vec::new();
        let mut replaced = BTreeSet::new();
        for (place, version) in self.classes.iter().enumerate() {
            let Some(went) = version.went.filter(|went| went.lsn != Lsn::INVALID) else { continue };
            let change = match version.next.and_then(|next| Some((next, self.classes.get(next)?))) {
                Some((next, after)) => {
                    replaced.insert(next);
                    Change::Alter(Some(&version.value), &after.value)
                }
                None => Change::Drop(&self.classes[place].value),
            };
            changes.push((went.xid, went.lsn, change));
        }
        for (place, version) in self.classes.iter().enumerate() {
            if version.came.lsn == Lsn::INVALID || replaced.contains(&place) {
                continue;
            }
            let change = match version.is_update {
                true => Change::Alter(None, &version.value),
                false => Change::Create(&version.value),
            };
            changes.push((version.came.xid, version.came.lsn, change));
        }
        for (relation, versions) in &self.attributes {
            for version in versions {
                let came = Some(version.came).filter(|came| came.lsn != Lsn::INVALID);
                let went = version.went.filter(|went| went.lsn != Lsn::INVALID);
                let done = came.or(went);
                changes.extend(done.map(|done| (done.xid, done.lsn, Change::Columns(*relation))));
            }
        }
        changes.sort_by_key(|(_, lsn, _)| *lsn);
        changes
    }
}

fn class(row: &Fields<'_>, name: &impl Fn(&Fields<'_>, &str) -> Option<String>) -> Option<Class> {
    Some(Class {
        oid: row.oid()?,
        name: name(row, "relname")?,
        namespace: row.number("relnamespace")?,
        file: row.number("relfilenode")?,
        tablespace: row.number("reltablespace")?,
        kind: row.character("relkind")?,
        is_not_logged: row.character("relpersistence") != Some(b'p'),
        columns: row.short("relnatts").unwrap_or_default(),
    })
}

impl Class {
    /// The OID of the relation that this one is a copy of, as a rewrite makes it for its time.
    pub(in crate::lost) fn copy_of(&self) -> Option<u32> {
        self.name.strip_prefix("pg_temp_")?.parse().ok()
    }

    /// Whether an update of its row changes the definition, and not only what maintenance notes there.
    pub(in crate::lost) fn is_altered_to(&self, after: &Class) -> bool {
        let definition = |class: &Class| {
            (
                class.name.clone(),
                class.namespace,
                class.tablespace,
                class.kind,
                class.columns,
                class.is_not_logged,
            )
        };
        definition(self) != definition(after)
    }
}

/// Only indexes that identify a row: unique, checked at once, valid, without expressions and predicate.
fn index(row: &Fields<'_>) -> Option<Index> {
    let is_key = row.is_true("indisunique")
        && row.is_true("indimmediate")
        && row.is_true("indisvalid")
        && row.is_null("indexprs")
        && row.is_null("indpred");
    let mut columns = row.shorts("indkey");
    // Columns that are only stored with the others follow them, from 11 on.
    columns.truncate(row.short("indnkeyatts").map_or(usize::MAX, |count| count.max(0) as usize));
    (is_key && !columns.is_empty()).then_some(Index {
        table: row.number("indrelid")?,
        is_primary: row.is_true("indisprimary"),
        columns,
    })
}

/// What rows that count say, the oldest first.
fn latest<T>(versions: Vec<Version<T>>, statuses: &Statuses<'_>) -> impl Iterator<Item = T> {
    let mut counted: Vec<Version<T>> =
        versions.into_iter().filter(|version| version.has_counted(statuses)).collect();
    counted.sort_by_key(|version| version.came.lsn);
    counted.into_iter().map(|version| version.value)
}

/// The types of a database.
#[derive(Default)]
struct TypeTable {
    types: HashMap<u32, Type>,
    labels: HashMap<u32, String>,
    /// By the range's and by the multirange's OID.
    subtypes: HashMap<u32, u32>,
    columns: HashMap<u32, Vec<Attribute>>,
    encoding: &'static str,
    server_version_num: u32,
}

impl TypeTable {
    fn add<'f>(
        &mut self,
        reader: &CatalogReader<'_>,
        files: &impl Fn(u32) -> &'f BTreeSet<u32>,
        statuses: &Statuses<'_>,
        namespaces: &HashMap<u32, String>,
        name: &impl Fn(&Fields<'_>, &str) -> Option<String>,
    ) -> Result<(), LostError> {
        let types = reader.rows_of_mapped(PG_TYPE, |row| {
            Some(Type {
                oid: row.oid()?,
                name: name(row, "typname")?,
                schema: namespaces.get(&row.number("typnamespace")?).cloned().unwrap_or_default(),
                length: row.short("typlen")?,
                align: row.character("typalign")?,
                kind: row.character("typtype")?,
                delimiter: row.character("typdelim")?,
                relation: row.number("typrelid")?,
                element: row.number("typelem")?,
                base: row.number("typbasetype")?,
            })
        })?;
        self.types.extend(latest(types, statuses).map(|of| (of.oid, of)));
        let labels =
            reader.rows(PG_ENUM, files(PG_ENUM), |row| Some((row.oid()?, name(row, "enumlabel")?)))?;
        self.labels.extend(latest(labels, statuses));
        let ranges = reader.rows(PG_RANGE, files(PG_RANGE), |row| {
            Some((row.number("rngtypid")?, row.number("rngmultitypid"), row.number("rngsubtype")?))
        })?;
        for (range, multirange, subtype) in latest(ranges, statuses) {
            self.subtypes.insert(range, subtype);
            self.subtypes.extend(multirange.map(|multirange| (multirange, subtype)));
        }
        Ok(())
    }
}

impl Types for TypeTable {
    fn get(&self, oid: u32) -> Option<&Type> {
        self.types.get(&oid)
    }

    fn enum_label(&self, oid: u32) -> Option<&str> {
        self.labels.get(&oid).map(String::as_str)
    }

    fn range_subtype(&self, oid: u32) -> Option<u32> {
        self.subtypes.get(&oid).copied()
    }

    fn columns(&self, relation: u32) -> Option<&[Attribute]> {
        self.columns.get(&relation).map(Vec::as_slice)
    }

    fn encoding(&self) -> &str {
        self.encoding
    }

    fn server_version_num(&self) -> u32 {
        self.server_version_num
    }
}

/// A name in UTF-8. What is not valid in the encoding is replaced.
fn decoded(name: &[u8], encoding: &'static str) -> String {
    const TEXT: u32 = 25;
    let table = TypeTable { encoding, ..TypeTable::default() };
    match text(&Datum::Bytes(name.into()), TEXT, -1, &table) {
        LostValue::Text(text) => text,
        _ => String::from_utf8_lossy(name).into_owned(),
    }
}

/// The names of encodings by their numbers (`pg_enc` in pg_wchar.h).
fn encoding_name(number: u32) -> &'static str {
    const NAMES: [&str; 42] = [
        "SQL_ASCII",
        "EUC_JP",
        "EUC_CN",
        "EUC_KR",
        "EUC_TW",
        "EUC_JIS_2004",
        "UTF8",
        "MULE_INTERNAL",
        "LATIN1",
        "LATIN2",
        "LATIN3",
        "LATIN4",
        "LATIN5",
        "LATIN6",
        "LATIN7",
        "LATIN8",
        "LATIN9",
        "LATIN10",
        "WIN1256",
        "WIN1258",
        "WIN866",
        "WIN874",
        "KOI8R",
        "WIN1251",
        "WIN1252",
        "ISO_8859_5",
        "ISO_8859_6",
        "ISO_8859_7",
        "ISO_8859_8",
        "WIN1250",
        "WIN1253",
        "WIN1254",
        "WIN1255",
        "WIN1257",
        "KOI8U",
        "SJIS",
        "BIG5",
        "GBK",
        "UHC",
        "GB18030",
        "JOHAB",
        "SHIFT_JIS_2004",
    ];
    NAMES.get(number as usize).copied().unwrap_or("SQL_ASCII")
}
