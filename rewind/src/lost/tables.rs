//! Tables by name: what a file was when a record was written.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use walparse::{Lsn, Relation};

use super::catalog::{Class, Database, Databases, FIRST_USER_OID, Moment};
use super::export::names::shown;
use super::model::{LostColumn, LostTable};
use super::node::Target;
use super::types::Attribute;

const LARGE_OBJECTS: u32 = 2613;

/// A table at a moment, and how its rows are stored.
pub(super) struct Table {
    pub(super) shown: Arc<LostTable>,
    /// All columns, dropped ones among them. Empty if they are not known.
    pub(super) attributes: Vec<Attribute>,
}

/// What a file holds.
pub(super) enum Contents {
    /// Rows of a table that are listed.
    Table,
    /// What is not listed: rows of catalogs, copies made by a rewrite, values stored out of line, indexes.
    Other,
    /// Nothing is known of it.
    Unknown,
}

/// Finds tables by their files.
pub(super) struct Tables<'a> {
    target: &'a Target<'a>,
    databases: &'a Databases,
    /// The OIDs of relations that lost transactions have created, altered or dropped, with their databases.
    altered: HashSet<(u32, u32)>,
    known: RefCell<HashMap<Relation, Arc<Table>>>,
    /// Of the present transaction, those whose definition changes in this WAL. Each counts up to the next change.
    changing: RefCell<HashMap<(Relation, u32, usize), Arc<Table>>>,
    /// Where definitions change, by database.
    steps: HashMap<u32, Vec<Lsn>>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(
        target: &'a Target<'a>,
        databases: &'a Databases,
        altered: HashSet<(u32, u32)>,
    ) -> Tables<'a> {
        let steps = |database: &Database| database.changes().iter().map(|(_, lsn, _)| *lsn).collect();
        let steps = databases.by_oid.iter().map(|(oid, database)| (*oid, steps(database))).collect();
        let (known, changing) = (RefCell::default(), RefCell::default());
        Tables { target, databases, altered, known, changing, steps }
    }

    pub(super) fn database(&self, relation: Relation) -> Option<&'a Database> {
        self.databases.by_oid.get(&relation.database)
    }

    /// A database's name, or its OID.
    pub(super) fn database_name(&self, oid: u32) -> String {
        self.databases.names.get(&oid).cloned().unwrap_or_else(|| oid.to_string())
    }

    /// Whether a file has at no moment held rows that are listed.
    pub(super) fn is_never_listed(&self, relation: Relation) -> bool {
        if relation.database == 0 {
            return true;
        }
        let Some(database) = self.database(relation) else { return false };
        let mut classes = database.classes_of(relation).peekable();
        match classes.peek() {
            // The file of a copy may have been that of the table before.
            Some(_) => !classes.any(|class| is_listed(class, database) || class.copy_of().is_some()),
            None => database.is_mapped(relation),
        }
    }

    /// What a file holds at a moment.
    pub(super) fn contents(&self, relation: Relation, moment: &Moment<'_>) -> Contents {
        if relation.database == 0 {
            return Contents::Other;
        }
        let Some(database) = self.database(relation) else { return Contents::Unknown };
        match database.class_of(relation, moment, &self.target.statuses) {
            Some(class) if is_listed(class, database) => Contents::Table,
            Some(_) => Contents::Other,
            None if database.is_mapped(relation) => Contents::Other,
            None => Contents::Unknown,
        }
    }

    /// What is not known of these relations.
    pub(super) fn notes(&self, relations: impl Iterator<Item = Relation>) -> Vec<String> {
        let unknown = |relation: Relation| self.database(relation).is_none().then_some(relation.database);
        let databases: BTreeSet<u32> = relations.filter_map(unknown).collect();
        let note = |oid: u32| {
            format!(
                "The names of tables of database {} are not known, for its catalogs could not be read: they have numbers.",
                self.database_name(oid)
            )
        };
        databases.into_iter().map(note).collect()
    }

    /// What a file belonged to at a moment, and the database.
    fn class(&self, relation: Relation, moment: &Moment<'_>) -> Option<(&'a Database, &'a Class)> {
        let database = self.database(relation)?;
        Some((database, database.class_of(relation, moment, &self.target.statuses)?))
    }

    /// The name of a relation with its schema, or the number of its file.
    pub(super) fn name(&self, relation: Relation, moment: &Moment<'_>) -> String {
        match self.class(relation, moment) {
            Some((database, class)) => qualified_name(class, database),
            None => relation.number.to_string(),
        }
    }

    /// How many definitions in the database of a file have changed up to a position.
    pub(super) fn step(&self, relation: Relation, lsn: Lsn) -> usize {
        let steps = self.steps.get(&relation.database).map_or(&[][..], Vec::as_slice);
        steps.partition_point(|step| *step <= lsn)
    }

    /// The table of a file; with a number in the place of its name if it is not known.
    pub(super) fn table(&self, relation: Relation, moment: &Moment<'_>) -> Arc<Table> {
        if let Some(known) = self.known.borrow().get(&relation) {
            return Arc::clone(known);
        }
        let first = moment.xids.first().copied().unwrap_or_default();
        let key = (relation, first, self.step(relation, moment.lsn));
        if let Some(known) = self.changing.borrow().get(&key) {
            return Arc::clone(known);
        }
        let found = self.class(relation, moment);
        let table = Arc::new(match found {
            Some((database, class)) => self.make(relation, database, class, moment),
            None => self.unknown(relation),
        });
        if found.is_some_and(|(database, class)| database.has_changed(class.oid)) {
            let mut changing = self.changing.borrow_mut();
            // Those of earlier transactions are not asked for again.
            changing.retain(|(_, of, _), _| *of == first);
            changing.insert(key, Arc::clone(&table));
        } else {
            self.known.borrow_mut().insert(relation, Arc::clone(&table));
        }
        table
    }

    fn make(&self, relation: Relation, database: &Database, class: &Class, moment: &Moment<'_>) -> Table {
        let statuses = &self.target.statuses;
        let attributes = database.columns_at(class.oid, moment, statuses);
        let shown: Vec<&Attribute> = attributes.iter().filter(|column| !column.is_dropped).collect();
        let key = database.key_of(class.oid, &attributes, moment, statuses);
        let place = |number: &i16| shown.iter().position(|column| column.number == *number);
        let key: Option<Vec<usize>> = key.iter().map(place).collect();
        let column = |column: &&Attribute| LostColumn {
            name: column.name.clone(),
            type_name: type_name(database, column.type_oid),
            is_generated: column.is_generated,
        };
        let table = LostTable {
            database: database.name.clone(),
            schema: database.namespace(class.namespace).map(str::to_owned),
            name: class.name.clone(),
            relation,
            columns: shown.iter().map(column).collect(),
            key: key.unwrap_or_default(),
            is_altered: self.altered.contains(&(relation.database, class.oid)),
            is_large_object: class.oid == LARGE_OBJECTS,
        };
        Table { shown: Arc::new(table), attributes }
    }

    fn unknown(&self, relation: Relation) -> Table {
        let table = LostTable {
            database: self.database_name(relation.database),
            schema: None,
            name: relation.number.to_string(),
            relation,
            columns: Vec::new(),
            key: Vec::new(),
            is_altered: false,
            is_large_object: false,
        };
        Table { shown: Arc::new(table), attributes: Vec::new() }
    }
}

/// Whether rows of a relation are listed.
fn is_listed(class: &Class, database: &Database) -> bool {
    let is_user = class.oid >= FIRST_USER_OID || class.oid == LARGE_OBJECTS;
    is_user && matches!(class.kind, b'r' | b'm' | b'p') && !is_hidden(class, database)
}

/// Whether a relation is none that users know: out-of-line values, temporary tables, and what a rewrite makes for its time.
pub(super) fn is_hidden(class: &Class, database: &Database) -> bool {
    let is_in =
        |prefix: &str| database.namespace(class.namespace).is_some_and(|name| name.starts_with(prefix));
    class.copy_of().is_some() || class.kind == b't' || is_in("pg_toast") || is_in("pg_temp_")
}

/// The name of a type as SQL takes it.
fn type_name(database: &Database, oid: u32) -> String {
    let Some(of) = database.types().get(oid) else { return oid.to_string() };
    let (name, suffix) = match of.name.strip_prefix('_').filter(|_| of.element != 0 && of.length == -1) {
        // An array's own name may have been made different by another type's.
        Some(_) => match database.types().get(of.element) {
            Some(element) => (element, "[]"),
            None => (of, ""),
        },
        None => (of, ""),
    };
    if name.schema == "pg_catalog" {
        format!("{}{suffix}", name.name)
    } else {
        format!("{}.{}{suffix}", shown(&name.schema), shown(&name.name))
    }
}

/// A relation's name with its schema, as SQL takes it.
pub(super) fn qualified_name(class: &Class, database: &Database) -> String {
    match database.namespace(class.namespace) {
        Some(schema) => format!("{}.{}", shown(schema), shown(&class.name)),
        None => shown(&class.name).into_owned(),
    }
}
