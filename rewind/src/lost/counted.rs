//! What was lost, in numbers and names, from what the scan of the WAL has counted: no row is read.

use std::collections::BTreeSet;

use jiff::Timestamp;
use walparse::{ChangedRows, Microseconds, RelationChanges, Transactions};

use super::catalog::{Moment, find_databases};
use super::error::LostError;
use super::export::{LostCounter, LostSummary, RelationName};
use super::index::{Commit, WalIndex, note_of_begun_before, places};
use super::model::{LostChange, LostSink};
use super::node::Target;
use super::request::LostRequest;
use super::tables::{Contents, Tables};
use super::{objects, undecided};

/// Sums up the changes of all lost transactions. `None` if what the scan has noted of the catalogs is not enough for the names: a
/// catalog was rewritten, or ends of transactions are missing.
///
/// # Errors
/// WAL or the catalogs cannot be read.
pub(crate) fn count(
    request: &LostRequest<'_>,
    rows: &ChangedRows,
    transactions: &Transactions,
) -> Result<Option<LostSummary>, LostError> {
    if rows.misses_ends() {
        return Ok(None);
    }
    let index = WalIndex::of_scanned(request.wal, &request.control.geometry(), request.start, rows)?;
    let target = Target::new(request, &index);
    let mut history = request.history();
    history.undecided = undecided::find(&target, request.fork.lsn);
    let commits: Vec<&Commit> = index.lost_commits(request.fork.lsn).collect();
    let lost = places(&commits);
    let by_rows = rows.lost().map(|change| change.relation.database);
    let touched = by_rows.chain(commits.iter().filter_map(|commit| commit.database));
    let touched: BTreeSet<u32> = touched.filter(|database| *database != 0).collect();
    let databases = find_databases(&target, &touched)?;
    if databases.have_moved_catalogs {
        return Ok(None);
    }
    let (objects, altered) = objects::find(&index, &databases, &target.statuses, &lost);
    let tables = Tables::new(&target, &databases, altered);
    let mut counter = LostCounter::default();
    counter.begin(&history)?;
    let own = |change: &RelationChanges| match lost.get(&change.xid) {
        Some(place) => commits[*place].xids(),
        None => vec![change.xid],
    };
    let mut changes: Vec<&RelationChanges> = rows.lost().collect();
    changes.sort_by_key(|change| change.last);
    for change in &changes {
        count_relation(&mut counter, &tables, change, &own(change));
    }
    for (_, change) in objects.into_values().flatten() {
        if let LostChange::Object(object) = change {
            counter.add_object(object);
        }
    }
    let begun_before = rows.committed().iter().filter(|xid| !index.has_all_of(*xid)).count() as u64;
    if begun_before > 0 {
        history.notes.push(note_of_begun_before(begun_before, index.start));
    }
    history.notes.extend(tables.notes(changes.iter().map(|change| change.relation)));
    counter.end(&history)?;
    let time = |time: Microseconds| Timestamp::from_microsecond(time.0).ok();
    let times = transactions.times();
    Ok(Some(LostSummary {
        transactions: transactions.committed(),
        first_commit: times.and_then(|(first, _)| time(first)),
        last_commit: times.and_then(|(_, last)| time(last)),
        ..counter.summary()
    }))
}

fn count_relation(counter: &mut LostCounter, tables: &Tables<'_>, change: &RelationChanges, xids: &[u32]) {
    let moment = Moment { lsn: change.last, xids };
    if let Some(value) = change.last_value {
        let database = tables.database_name(change.relation.database);
        counter.add_sequence(RelationName { database, name: tables.name(change.relation, &moment) }, value);
        return;
    }
    let is_listed = !tables.is_never_listed(change.relation)
        && !matches!(tables.contents(change.relation, &moment), Contents::Other);
    if is_listed {
        counter.add_rows(&tables.table(change.relation, &moment).shown, change.rows.into());
    }
}
