//! `kbrecover lost` against the server's own logical decoding, which reads the same WAL with the server's code.
//!
//!     old  ── slot ──┬── lost ──╳ ── a copy of it, started: pg_logical_slot_get_changes
//!     new            └── as it was promoted

use serde_json::Value;

use crate::harness::{Failover, Sandbox, Server, SourceKind, pick};
use crate::lost_rows::{failover_with, listing, lost, text};

/// A changed row: the table, what was done, and columns with their values: of a deletion those of the key, else of the new row.
#[derive(PartialEq, Debug)]
struct Change {
    table: String,
    op: String,
    values: Vec<(String, Shown)>,
}

#[derive(Clone, PartialEq, Debug)]
enum Shown {
    Null,
    Text(String),
    /// Stored out of line, and not changed.
    Unchanged,
}

#[derive(Debug)]
struct Transaction {
    xid: u64,
    time: String,
    changes: Vec<Change>,
}

/// What `test_decoding` says of the transactions of the database that have changed rows.
fn decoded(server: &Server) -> Vec<Transaction> {
    let mut session = server.session();
    session
        .batch_execute("SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'")
        .expect("settings");
    let query = "SELECT data FROM pg_logical_slot_get_changes('oracle', NULL, NULL, 'include-timestamp', 'on', 'skip-empty-xacts', 'on')";
    let mut transactions: Vec<Transaction> = Vec::new();
    for row in session.query(query, &[]).expect("what the slot has") {
        let line: &str = row.get(0);
        // A standby that catches up is told so.
        if line.starts_with("message: ") {
            continue;
        }
        if let Some(xid) = line.strip_prefix("BEGIN ") {
            let xid = xid.parse().expect("a transaction ID");
            transactions.push(Transaction { xid, time: String::new(), changes: Vec::new() });
            continue;
        }
        let last = transactions.last_mut().expect("a transaction begins");
        match line.strip_prefix("COMMIT ") {
            Some(end) => {
                let (_, time) = end.split_once("(at ").expect("a time");
                last.time = plain_time(time.trim_end_matches(')'));
            }
            None => last.changes.extend(change(line)),
        }
    }
    transactions.retain(|transaction| !transaction.changes.is_empty());
    transactions
}

/// A line of a changed row; `None` for one of another kind.
fn change(line: &str) -> Option<Change> {
    let line = line.strip_prefix("table ").unwrap_or_else(|| panic!("{line}"));
    let (table, rest) = line.split_once(": ").expect("a table");
    let (op, rest) = rest.split_once(":").expect("what was done");
    // Up to 10 what a rewrite copies is decoded, too.
    if op == "TRUNCATE" || table.contains("pg_temp_") {
        return None;
    }
    let new = rest.split_once(" new-tuple:").map_or(rest, |(_, new)| new);
    let values = if new == " (no-tuple-data)" { Vec::new() } else { columns(new) };
    Some(Change { table: table.to_owned(), op: op.to_lowercase(), values })
}

/// ` name[type]:value`, again and again.
fn columns(mut rest: &str) -> Vec<(String, Shown)> {
    let mut found = Vec::new();
    while let Some(column) = rest.strip_prefix(' ') {
        let (name, behind) = column.split_once('[').expect("a name");
        let (_, value) = behind.split_once("]:").expect("a type");
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
        let (shown, length) = value_of(value);
        found.push((name.to_owned(), shown));
        rest = &value[length..];
    }
    assert!(rest.is_empty(), "{rest}");
    found
}

/// The value at the beginning, and its length.
fn value_of(from: &str) -> (Shown, usize) {
    let (prefix, literal) = match from.strip_prefix("B'") {
        Some(bits) => (2, Some(bits)),
        None => (1, from.strip_prefix('\'')),
    };
    let Some(literal) = literal else {
        let end = from.find(' ').unwrap_or(from.len());
        let shown = match &from[..end] {
            "null" => Shown::Null,
            "unchanged-toast-datum" => Shown::Unchanged,
            "true" => Shown::Text("t".into()),
            "false" => Shown::Text("f".into()),
            number => Shown::Text(number.into()),
        };
        return (shown, end);
    };
    let mut value = String::new();
    let mut characters = literal.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\'' && characters.next_if(|(_, next)| *next == '\'').is_none() {
            return (Shown::Text(value), prefix + at + 1);
        }
        value.push(character);
    }
    panic!("a literal does not end: {from}");
}

/// Without what is written differently: the letter between date and time, the time zone, zeros at the end.
fn plain_time(time: &str) -> String {
    let time = time.replace('T', " ");
    let time = time.trim_end_matches('Z').trim_end_matches("+00");
    if time.contains('.') {
        time.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        time.to_owned()
    }
}

/// The transactions of the listing that have changed rows of this database.
fn listed(listing: &Value) -> Vec<Transaction> {
    let rows = |transaction: &Value| {
        let changes = transaction["changes"].as_array().expect("changes").iter();
        let is_row = |change: &&Value| {
            change.get("quality").is_some() && change["table"] != "pg_catalog.pg_largeobject"
        };
        changes.filter(is_row).map(row).collect::<Vec<_>>()
    };
    let of_database = |transaction: &&Value| transaction["database"] == "postgres";
    let all = listing["transactions"].as_array().expect("transactions").iter().filter(of_database);
    let transaction = |transaction: &Value| Transaction {
        xid: transaction["xid"].as_u64().expect("a transaction ID"),
        time: plain_time(text(&transaction["commit_time"])),
        changes: rows(transaction),
    };
    all.map(transaction).filter(|transaction| !transaction.changes.is_empty()).collect()
}

fn row(change: &Value) -> Change {
    let side = if change["op"] == "delete" { &change["old"] } else { &change["new"] };
    let shown = |value: &Value| match value {
        Value::Null => Shown::Null,
        Value::String(text) => Shown::Text(text.clone()),
        other => {
            assert_eq!(other["unchanged"], true, "{change}");
            Shown::Unchanged
        }
    };
    let values = side.as_object().expect("values").iter();
    Change {
        table: text(&change["table"]).to_owned(),
        op: text(&change["op"]).to_owned(),
        values: values.map(|(name, value)| (name.clone(), shown(value))).collect(),
    }
}

/// Returns how many values are the same.
fn assert_same_change(ours: &Change, servers: &Change, what: &str) -> usize {
    assert_eq!((&ours.table, &ours.op), (&servers.table, &servers.op), "{what}");
    let mut same = 0;
    for (name, value) in &servers.values {
        let own = ours.values.iter().find(|(own, _)| own == name);
        let (_, own) = own.unwrap_or_else(|| panic!("{what}: {} has no {name}", ours.table));
        // A value that is stored out of line is found where the server does not look for it.
        if *value != Shown::Unchanged {
            assert_eq!(own, value, "{what}: {} {name}", ours.table);
            same += 1;
        }
    }
    same
}

#[test]
fn what_is_listed_is_what_the_server_decodes() {
    for major in pick("logical decoding: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let slot =
            |old: &Server| old.sql("SELECT pg_create_logical_replication_slot('oracle', 'test_decoding')");
        let settings = [("wal_level", "logical")];
        let Failover { old, new } = failover_with(&sandbox, major, true, &settings, &slot);
        let listed = listed(&listing(&lost(&old, &new, SourceKind::Server, &[])));
        let mut alone = old.copy("alone");
        alone.set("wal_level", "logical");
        alone.start();
        let decoded = decoded(&alone);
        let heads = |all: &[Transaction]| {
            all.iter().map(|of| (of.xid, of.time.clone(), of.changes.len())).collect::<Vec<_>>()
        };
        let missing: Vec<&Transaction> =
            decoded.iter().filter(|of| !listed.iter().any(|ours| ours.xid == of.xid)).collect();
        assert!(missing.is_empty(), "{major}: not listed: {missing:#?}");
        assert_eq!(heads(&listed), heads(&decoded), "{major}");
        let (mut rows, mut values) = (0, 0);
        for (ours, servers) in listed.iter().zip(&decoded) {
            for (ours, theirs) in ours.changes.iter().zip(&servers.changes) {
                values += assert_same_change(ours, theirs, &format!("{major}: transaction {}", servers.xid));
                rows += 1;
            }
        }
        assert!(listed.len() > 40 && rows > 2000 && values > 5000, "{} {rows} {values}", listed.len());
    }
}
