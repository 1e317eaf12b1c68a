//! A small made-up history for the tests of the exports, with names that are meant to break them.

use std::sync::Arc;

use jiff::Timestamp;
use walparse::{Lsn, Relation, TimelineId};

use crate::lost::model::{
    LostChange, LostColumn, LostHistory, LostObject, LostRow, LostSink, LostTable, LostTransaction,
    LostValue, ObjectOp, Quality, RowOp, SinkError, Undecided,
};

/// A name that breaks out of quotes, lines, comments, scripts and directories where it can.
pub(crate) const HOSTILE: &str = "../x'\"$kb$\n\\! rm\r</script><!--\u{0}";

pub(crate) fn text(text: &str) -> LostValue {
    LostValue::Text(text.to_owned())
}

fn column(name: &str, type_name: &str) -> LostColumn {
    LostColumn { name: name.to_owned(), type_name: type_name.to_owned(), is_generated: false }
}

/// A table with the columns `id integer` (the key) and `note text`.
pub(crate) fn table(database: &str, schema: &str, name: &str) -> LostTable {
    table_of(database, schema, name, &[("id", "integer"), ("note", "text")], &[0])
}

pub(crate) fn table_of(
    database: &str,
    schema: &str,
    name: &str,
    columns: &[(&str, &str)],
    key: &[usize],
) -> LostTable {
    LostTable {
        database: database.to_owned(),
        schema: Some(schema.to_owned()),
        name: name.to_owned(),
        relation: Relation { tablespace: 1663, database: 5, number: 16384 },
        columns: columns.iter().map(|(name, type_name)| column(name, type_name)).collect(),
        key: key.to_vec(),
        is_altered: false,
        is_large_object: false,
    }
}

pub(crate) fn row(
    table: &Arc<LostTable>,
    op: RowOp,
    old: Option<Vec<LostValue>>,
    new: Option<Vec<LostValue>>,
) -> LostRow {
    LostRow { lsn: Lsn(0x200_1148), op, table: table.clone(), old, new, quality: Quality::Exact }
}

pub(crate) fn insert(table: &Arc<LostTable>, new: &[LostValue]) -> LostChange {
    LostChange::Row(row(table, RowOp::Insert, None, Some(new.to_vec())))
}

pub(crate) fn update(table: &Arc<LostTable>, old: &[LostValue], new: &[LostValue]) -> LostChange {
    LostChange::Row(row(table, RowOp::Update, Some(old.to_vec()), Some(new.to_vec())))
}

pub(crate) fn delete(table: &Arc<LostTable>, old: &[LostValue]) -> LostChange {
    LostChange::Row(row(table, RowOp::Delete, Some(old.to_vec()), None))
}

pub(crate) fn object(op: ObjectOp, database: &str, name: &str) -> LostChange {
    LostChange::Object(LostObject {
        lsn: Lsn(0x200_2000),
        op,
        kind: "table",
        database: database.to_owned(),
        name: name.to_owned(),
        old_name: None,
    })
}

pub(crate) fn transaction(xid: u32, database: &str) -> LostTransaction {
    LostTransaction {
        xid,
        subxids: Vec::new(),
        commit_lsn: Lsn(0x300_0000 + u64::from(xid)),
        commit_time: Timestamp::from_microsecond(1_796_000_000_000_000 + i64::from(xid)).ok(),
        database: Some(database.to_owned()),
        origin: None,
        prepared_gid: None,
    }
}

pub(crate) fn history() -> LostHistory {
    LostHistory {
        directory: "/data/\"old\" <primary>".to_owned(),
        system_identifier: u64::MAX,
        version: "PostgreSQL 15".to_owned(),
        fork: Lsn(0x304_C120),
        timeline: TimelineId(1),
        read_from: Lsn(0x200_1148),
        read_to: Lsn(0x305_7820),
        undecided: vec![Undecided { xid: 790, gid: format!("p {HOSTILE}"), is_on_source: true }],
        notes: vec!["Something is not known.".to_owned()],
        on_source: None,
        is_complete: true,
    }
}

/// Five transactions: rows of every kind; DDL, a sequence and a large object; another database with a hostile name;
/// a table whose columns change; one without changes.
pub(crate) fn transactions() -> Vec<(LostTransaction, Vec<LostChange>)> {
    use LostValue::{Bytes, Null, Unchanged, Unknown};
    let pay = Arc::new(table("shop", "sales", "payment"));
    let log = Arc::new(table_of("shop", "public", "Log", &[("a", "text"), ("b", "tsvector")], &[]));
    let evil = Arc::new(table(HOSTILE, HOSTILE, HOSTILE));
    let wide = [("id", "integer"), ("note", "text"), ("more", "jsonb")];
    let wide = Arc::new(table_of("shop", "sales", "payment", &wide, &[0]));
    let mut large =
        table_of("shop", "pg_catalog", "pg_largeobject", &[("loid", "oid"), ("pageno", "integer")], &[0, 1]);
    large.is_large_object = true;
    let mut incomplete = row(&pay, RowOp::Update, None, None);
    incomplete.quality = Quality::Incomplete;
    let first = vec![
        insert(&pay, &[text("1"), text("it's \"a\"\nb")]),
        insert(&pay, &[text("2"), Null]),
        update(&pay, &[text("2"), Null], &[text("2"), text("")]),
        update(&pay, &[text("3"), Unchanged], &[text("4"), Unchanged]),
        delete(&pay, &[text("1"), text("it's \"a\"\nb")]),
        insert(&log, &[text("(unknown)"), Bytes(vec![1, 255])]),
        LostChange::Row(incomplete),
        delete(&pay, &[text("9"), Unknown]),
    ];
    let second = vec![
        object(ObjectOp::Create, "shop", "public.newt"),
        object(ObjectOp::Truncate, "shop", "public.\"Log\""),
        insert(&log, &[text("after"), Null]),
        LostChange::Sequence {
            lsn: Lsn(0x200_3000),
            database: "shop".to_owned(),
            name: "sales.payment_id_seq".to_owned(),
            last_value: 99_999,
        },
        insert(&Arc::new(large), &[text("16411"), text("0")]),
    ];
    let third = vec![insert(&evil, &[text("1"), text(HOSTILE)])];
    let fourth = vec![insert(&wide, &[text("7"), text("x"), text("{}")])];
    let prepared = LostTransaction {
        subxids: vec![765, 766],
        prepared_gid: Some(HOSTILE.to_owned()),
        origin: Some("site".to_owned()),
        ..transaction(764, "shop")
    };
    vec![
        (prepared, first),
        (transaction(770, "shop"), second),
        (transaction(771, HOSTILE), third),
        (transaction(772, "shop"), fourth),
        (LostTransaction { database: None, ..transaction(773, "") }, Vec::new()),
    ]
}

/// Passes the made-up history on, from the beginning to the end.
pub(crate) fn play(sink: &mut impl LostSink) -> Result<(), SinkError> {
    let begun = LostHistory { undecided: Vec::new(), notes: Vec::new(), ..history() };
    sink.begin(&begun)?;
    for (transaction, changes) in transactions() {
        pass(sink, &transaction, &changes)?;
    }
    sink.end(&history())
}

/// Passes one transaction on.
pub(crate) fn pass(
    sink: &mut impl LostSink,
    transaction: &LostTransaction,
    changes: &[LostChange],
) -> Result<(), SinkError> {
    sink.transaction(transaction)?;
    for change in changes {
        sink.change(transaction, change)?;
    }
    sink.transaction_end(transaction)
}
