//! Lists what a rewind gives up: every transaction of the target's own history, and every row that it has changed.
//!
//! Nothing is asked of a server. Everything is in the target's directory: WAL from the last common checkpoint on, the catalogs,
//! and for what WAL does not have the blocks on disk.
//!
//! ```text
//! WAL ──► index: commits, and which records concern which relation
//!           │
//!           ├──► catalog: names, columns and types, as they were at each moment
//!           ├──► rows: a relation's rows followed by address ──► collect: changed rows, in the spool
//!           └──► objects: what was created, altered, truncated, dropped
//!                                    │
//!            emit: transaction by transaction, values as text ──► LostSink (text, JSON, files)
//! ```
//!
//! A plan's summary reads no rows: the scan for changed blocks has counted them (`counted`).

mod model;
mod types;
mod error;
mod bytes;
mod index;
mod blocks;
mod node;
mod request;
mod rows;
mod spool;
mod status;
mod datum;
mod catalog;
mod tables;
mod objects;
mod toast;
mod undecided;
mod collect;
mod batch;
mod emit;
pub(crate) mod export;
mod counted;
pub(crate) mod doors;

use std::collections::{BTreeSet, HashMap};

use walparse::{Lsn, WalGeometry, WalReader};

use self::catalog::find_databases;
use self::collect::Collected;
pub(crate) use self::counted::count;
use self::emit::Emitter;
pub use self::error::LostError;
use self::index::{Commit, WalIndex, note_of_begun_before, places};
pub use self::model::{
    LostChange, LostColumn, LostHistory, LostObject, LostPart, LostRow, LostSink, LostTable, LostTransaction,
    LostValue, OBJECT_KINDS, ObjectOp, OnSource, Quality, RowOp, SinkError, SourceRow, SourceState,
    Undecided,
};
use self::node::Target;
pub(crate) use self::request::LostRequest;
use self::spool::Spool;
use self::tables::Tables;
use self::toast::ToastValues;

/// Segments before the last common checkpoint that are read at most, for transactions that began before it.
const SEGMENTS_BACK: u64 = 64;

/// Hands all lost transactions to `sink`, in the order of their commits.
///
/// # Errors
/// WAL that is needed is missing or damaged, or the sink failed.
pub(crate) fn list(request: &LostRequest<'_>, sink: &mut dyn LostSink) -> Result<LostHistory, LostError> {
    let mut history = request.history();
    sink.begin(&history)?;
    let index = read_index(request, &mut history)?;
    let target = Target::new(request, &index);
    history.undecided = undecided::find(&target, request.fork.lsn);
    let commits: Vec<&Commit> = index.lost_commits(request.fork.lsn).collect();
    let lost = places(&commits);
    let databases = find_databases(&target, &touched_databases(&index, &commits, &lost))?;
    let (objects, altered) = objects::find(&index, &databases, &target.statuses, &lost);
    let tables = Tables::new(&target, &databases, altered);
    let mut spool = Spool::new(request.spool.clone());
    let mut collected = Collected::collect(&target, &tables, &commits, &lost, (&mut spool, request))?;
    let toast = match request.has_values {
        true => collected.out_of_line(&target, &tables, &commits, &mut spool)?,
        false => ToastValues::default(),
    };
    history.notes.extend(collected.notes(&tables));
    let emitter = Emitter {
        index: &index,
        databases: &databases,
        tables: &tables,
        commits: &commits,
        lost: &lost,
        collected: &collected,
        objects: &objects,
        toast: &toast,
        spool: &spool,
        has_values: request.has_values,
        stop: request.stop,
    };
    let incomplete = emitter.emit(sink)?;
    if incomplete > 0 {
        history.notes.push(format!(
            "Of {incomplete} rows a part is not known: neither WAL nor the blocks on disk have it."
        ));
    }
    sink.end(&history)?;
    Ok(history)
}

/// Reads the WAL; from further back if a lost transaction began before it.
fn read_index(request: &LostRequest<'_>, history: &mut LostHistory) -> Result<WalIndex, LostError> {
    let geometry = request.control.geometry();
    let read = |start: Lsn| {
        WalIndex::read(request.wal, &geometry, (start, request.end), request.stop, request.progress)
    };
    let mut index = read(request.start)?;
    let begun_before = |index: &WalIndex| {
        index.lost_commits(request.fork.lsn).filter(|commit| !index.has_all_of(commit.xid)).count() as u64
    };
    if begun_before(&index) > 0
        && let Some(start) = further_back(request, &geometry)
    {
        // WAL that cannot be read there is as good as missing.
        if let Ok(longer) = read(start) {
            index = longer;
        }
    }
    history.read_from = index.start;
    let count = begun_before(&index);
    if count > 0 {
        history.notes.push(note_of_begun_before(count, index.start));
    }
    Ok(index)
}

/// The first record of the oldest segment before the start that is there, without a gap.
fn further_back(request: &LostRequest<'_>, geometry: &WalGeometry) -> Option<Lsn> {
    let first = geometry.segment_size.segment_of(request.start);
    let mut oldest = first;
    while oldest.0 > 1 && first.0 - oldest.0 < SEGMENTS_BACK {
        let before = walparse::SegmentNo(oldest.0 - 1);
        match request.wal.open(before) {
            Ok(Some(bytes)) if bytes.len() as u64 == geometry.segment_size.bytes() => oldest = before,
            _ => break,
        }
    }
    let mut reader = WalReader::new(request.wal, *geometry, geometry.segment_size.start_of(oldest));
    reader.seek_first_in(oldest).ok()?.ok()?.filter(|start| *start < request.start)
}

/// The databases in which lost transactions have changed something.
fn touched_databases(index: &WalIndex, commits: &[&Commit], lost: &HashMap<u32, usize>) -> BTreeSet<u32> {
    let by_rows = index.touched(lost).map(|relation| relation.database);
    let sequences = index.sequences.iter().filter(|value| lost.contains_key(&value.xid));
    let by_values = sequences.map(|value| value.relation.database);
    let by_commits = commits.iter().filter_map(|commit| commit.database);
    by_rows.chain(by_values).chain(by_commits).filter(|database| *database != 0).collect()
}
