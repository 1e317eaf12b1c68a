//! What lost transactions have done to relations and databases themselves.

use std::collections::{BTreeMap, HashMap, HashSet};

use walparse::Lsn;

use super::catalog::{Change, Class, Database, Databases, FIRST_USER_OID, Moment};
use super::export::names::shown;
use super::index::WalIndex;
use super::model::{LostChange, LostObject, ObjectOp};
use super::status::Statuses;
use super::tables::{is_hidden, qualified_name};

/// By the place of the transaction in the list of lost ones.
pub(super) type Changes = BTreeMap<usize, Vec<(Lsn, LostChange)>>;

/// The changes of relations and databases, and which relations have changed: the database's OID and the relation's.
pub(super) fn find(
    index: &WalIndex,
    databases: &Databases,
    statuses: &Statuses<'_>,
    lost: &HashMap<u32, usize>,
) -> (Changes, HashSet<(u32, u32)>) {
    let (mut changes, mut altered) = (Changes::new(), HashSet::new());
    for database in databases.by_oid.values() {
        for ((place, oid), found) in by_relation(database, statuses, lost) {
            if found.is_none_of_users(database) {
                continue;
            }
            altered.insert((database.oid, oid));
            let objects = found.objects(database).into_iter();
            changes.entry(place).or_default().extend(objects.map(|it| (it.lsn, LostChange::Object(it))));
        }
    }
    for event in &index.databases {
        let Some(place) = lost.get(&event.xid) else { continue };
        let name = databases.names.get(&event.database).cloned();
        let name = name.unwrap_or_else(|| event.database.to_string());
        let object = LostObject {
            lsn: event.lsn,
            op: if event.is_drop { ObjectOp::Drop } else { ObjectOp::Create },
            kind: "database",
            database: name.clone(),
            name: shown(&name).into_owned(),
            old_name: None,
        };
        changes.entry(*place).or_default().push((event.lsn, LostChange::Object(object)));
    }
    for list in changes.values_mut() {
        list.sort_by_key(|(lsn, _)| *lsn);
    }
    (changes, altered)
}

/// What one transaction has done to one relation.
#[derive(Default)]
struct Found<'a> {
    created: Option<Lsn>,
    dropped: Option<Lsn>,
    /// The last change of the definition, and the one before the first.
    altered: Option<(Lsn, &'a Class)>,
    /// The last change of a definition that is not known.
    altered_somehow: Option<Lsn>,
    /// The file was replaced, and whether the rows were copied.
    replaced: Option<(Lsn, bool)>,
    columns: Option<Lsn>,
    last: Option<&'a Class>,
}

fn by_relation<'a>(
    database: &'a Database,
    statuses: &Statuses<'_>,
    lost: &HashMap<u32, usize>,
) -> BTreeMap<(usize, u32), Found<'a>> {
    let mut found: BTreeMap<(usize, u32), Found<'a>> = BTreeMap::new();
    let changes = database.changes();
    let of_lost = || changes.iter().filter_map(|(xid, lsn, change)| Some((*lost.get(xid)?, *lsn, change)));
    // A rewrite makes a relation with the OID of the rewritten one in its name.
    let copies: HashSet<(usize, String)> = of_lost()
        .filter_map(|(place, _, change)| match change {
            Change::Create(class) => Some((place, class.name.clone())),
            _ => None,
        })
        .collect();
    for (place, lsn, change) in of_lost() {
        let oid = match change {
            Change::Create(class) | Change::Drop(class) | Change::Alter(_, class) => class.oid,
            Change::Columns(relation) => *relation,
        };
        let entry = found.entry((place, oid)).or_default();
        match change {
            Change::Create(class) => (entry.created, entry.last) = (Some(lsn), Some(*class)),
            Change::Drop(class) => (entry.dropped, entry.last) = (Some(lsn), Some(*class)),
            Change::Alter(None, after) => (entry.altered_somehow, entry.last) = (Some(lsn), Some(*after)),
            Change::Alter(Some(before), after) => {
                let first = entry.altered.map_or(*before, |(_, first)| first);
                if first.is_altered_to(after) {
                    entry.altered = Some((lsn, first));
                }
                if before.file != after.file && after.file != 0 {
                    entry.replaced = Some((lsn, copies.contains(&(place, format!("pg_temp_{oid}")))));
                }
                entry.last = Some(after);
            }
            Change::Columns(_) => entry.columns = Some(lsn),
        }
    }
    let end = Moment { lsn: Lsn(u64::MAX), xids: &[] };
    for ((_, oid), entry) in &mut found {
        entry.last = entry.last.or_else(|| database.class(*oid, &end, statuses));
    }
    found
}

impl Found<'_> {
    /// Whether users do not know such a relation, or it has come and gone in the transaction.
    fn is_none_of_users(&self, database: &Database) -> bool {
        let is_hidden =
            self.last.is_none_or(|class| class.oid < FIRST_USER_OID || is_hidden(class, database));
        is_hidden || (self.created.is_some() && self.dropped.is_some())
    }

    fn objects(&self, database: &Database) -> Vec<LostObject> {
        let Some(class) = self.last else { return Vec::new() };
        let object = |lsn: Lsn, op: ObjectOp, old: Option<&Class>| LostObject {
            lsn,
            op,
            kind: kind(class.kind),
            database: database.name.clone(),
            name: qualified_name(class, database),
            old_name: old
                .map(|old| qualified_name(old, database))
                .filter(|old| *old != qualified_name(class, database)),
        };
        if let Some(lsn) = self.created {
            return vec![object(lsn, ObjectOp::Create, None)];
        }
        if let Some(lsn) = self.dropped {
            return vec![object(lsn, ObjectOp::Drop, None)];
        }
        let mut objects = Vec::new();
        let is_index = matches!(class.kind, b'i' | b'I');
        if let Some((lsn, is_copied)) = self.replaced.filter(|_| !is_index) {
            let op = match class.kind {
                b'S' => ObjectOp::Alter,
                _ if is_copied => ObjectOp::Rewrite,
                _ => ObjectOp::Truncate,
            };
            objects.push(object(lsn, op, None));
        }
        let altered = self.altered.map(|(lsn, old)| (lsn, Some(old)));
        // Indexes change with their tables.
        let somehow = self.columns.or(self.altered_somehow.filter(|_| !is_index));
        if let Some((lsn, old)) = altered.or(somehow.map(|lsn| (lsn, None))) {
            objects.push(object(lsn, ObjectOp::Alter, old));
        }
        objects
    }
}

fn kind(kind: u8) -> &'static str {
    match kind {
        b'r' => "table",
        b'p' => "partitioned table",
        b'i' | b'I' => "index",
        b'v' => "view",
        b'm' => "materialized view",
        b'S' => "sequence",
        b'f' => "foreign table",
        b'c' => "type",
        _ => "relation",
    }
}
