//! A record as text, in the form of pg_waldump, and as a JSON object.

use std::fmt::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};
use walparse::{
    BlockRef, DatabaseDir, Effect, Finish, Fork, Lsn, Microseconds, RecordHeader, RelSegment, Relation,
    Version, operation, rmgr,
};

use super::walk::Seen;

const SHUTDOWN_CHECKPOINT: u8 = 0x00;

/// The total size of the full-page images, in bytes.
pub(super) fn image_bytes(blocks: &[BlockRef]) -> u32 {
    blocks.iter().filter_map(|block| block.image).map(|image| u32::from(image.length)).sum()
}

/// The record as a line of pg_waldump. The description is limited to what [`Effect`] has.
pub(super) fn text(seen: &Seen<'_>, version: Version, zone: &TimeZone) -> String {
    let header = &seen.record.header;
    let mut line = format!(
        "rmgr: {:<11} len (rec/tot): {:>6}/{:>6}, tx: {:>10}, lsn: {}, prev {}, desc: {}",
        rmgr::name(header.rmid, version),
        header.total_length.saturating_sub(image_bytes(seen.blocks)),
        header.total_length,
        header.xid,
        wide(seen.record.lsn),
        wide(header.previous),
        operation(header, version),
    );
    if let Some(effect) = Effect::of(header, seen.payload.main_data, version) {
        let _ = write!(line, " {}", effect_text(&effect, header, version, zone));
    }
    for block in seen.blocks {
        let _ = write!(line, ", blkref #{}: rel {}", block.id, block.relation);
        if block.fork != Fork::Main {
            let _ = write!(line, " fork {}", block.fork.name());
        }
        let _ = write!(line, " blk {}", block.block);
        match block.image {
            Some(image) if image.is_applied => line.push_str(" FPW"),
            Some(_) => line.push_str(" FPW for WAL verification"),
            None => {}
        }
    }
    line
}

/// An LSN whose low half has all eight digits.
fn wide(lsn: Lsn) -> String {
    format!("{:X}/{:08X}", lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF)
}

fn effect_text(effect: &Effect, header: &RecordHeader, version: Version, zone: &TimeZone) -> String {
    let time = |time: &Microseconds| local(*time, zone);
    match effect {
        Effect::Checkpoint(checkpoint) => format!(
            "redo {}; tli {}; prev tli {}; fpw {}; {}",
            checkpoint.redo,
            checkpoint.timeline,
            checkpoint.previous_timeline,
            checkpoint.full_page_writes,
            if header.info & 0xF0 == SHUTDOWN_CHECKPOINT { "shutdown" } else { "online" },
        ),
        Effect::Finish(finish) => finish_text(finish, header, version, zone),
        Effect::CreateRelation { relation, fork } => path(*relation, *fork, version),
        Effect::TruncateRelation { relation, blocks } => {
            format!("{} to {blocks} blocks", path(*relation, Fork::Main, version))
        }
        Effect::CopyDatabase { to, from } => format!("copy dir {} to {}", Dir(from), Dir(to)),
        Effect::CreateDatabase(dir) => format!("create dir {}", Dir(dir)),
        Effect::DropDatabase(dirs) => format!("dir {}", joined(dirs.iter().map(Dir))),
        Effect::CreateTablespace { tablespace, path } => format!("{tablespace} \"{path}\""),
        Effect::DropTablespace { tablespace } => tablespace.to_string(),
        Effect::UpdateRelationMap(dir) => format!("database {} tablespace {}", dir.database, dir.tablespace),
        Effect::EndOfRecovery { time: at, timeline, previous } => {
            format!("tli {timeline}; prev tli {previous}; time {}", time(at))
        }
        Effect::RestorePoint { name, .. } => name.clone(),
        Effect::OverwriteContrecord { torn, time: at } => format!("lsn {torn}; time {}", time(at)),
        Effect::FullPageWrites { are_on } => are_on.to_string(),
        Effect::RunningTransactions(running) => {
            let overflowed = if running.is_overflowed { "; subxid overflowed" } else { "" };
            format!("nextXid {} oldestRunningXid {}{overflowed}", running.next_xid, running.oldest_xid)
        }
        Effect::LogicalDecoding { is_enabled } => is_enabled.to_string(),
        Effect::ParameterChange { wal_level, wal_log_hints } => {
            format!(
                "wal_level={} wal_log_hints={}",
                level(*wal_level),
                if *wal_log_hints { "on" } else { "off" }
            )
        }
        _ => String::new(),
    }
}

fn finish_text(finish: &Finish, header: &RecordHeader, version: Version, zone: &TimeZone) -> String {
    let mut text = local(finish.time, zone);
    if finish.xid != header.xid {
        text = format!("{}: {text}", finish.xid);
    }
    if !finish.dropped.is_empty() {
        let paths = finish.dropped.iter().map(|relation| path(*relation, Fork::Main, version));
        let _ = write!(text, "; rels: {}", joined(paths));
    }
    if !finish.subtransactions.is_empty() {
        let _ = write!(text, "; subxacts: {}", joined(&finish.subtransactions));
    }
    text
}

/// A database directory as `tablespace/database`.
struct Dir<'a>(&'a DatabaseDir);

impl fmt::Display for Dir<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.tablespace, self.0.database)
    }
}

/// The path of a fork's first file, relative to the data directory.
fn path(relation: Relation, fork: Fork, version: Version) -> String {
    let path = RelSegment { relation, segment: 0 }.path(version);
    if fork == Fork::Main { path } else { format!("{path}_{}", fork.name()) }
}

fn level(raw: u32) -> String {
    let words = ["minimal", "replica", "logical"];
    words.get(raw as usize).map_or_else(|| raw.to_string(), |word| (*word).to_owned())
}

fn joined<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

/// `2026-11-22 08:34:23.423996 UTC`; a time outside the range of the calendar in microseconds.
fn local(time: Microseconds, zone: &TimeZone) -> String {
    match Timestamp::from_microsecond(time.0) {
        Ok(at) => at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.6f %Z").to_string(),
        Err(_) => format!("{} us since 1970", time.0),
    }
}

/// The JSON object of a record. Programs rely on its fields: they may be added, but not renamed.
#[derive(Serialize)]
struct RecordObject {
    lsn: String,
    end: String,
    prev: String,
    rmgr: String,
    operation: String,
    xid: u32,
    length: u32,
    image_length: u32,
    blocks: Vec<BlockObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Value>,
}

#[derive(Serialize)]
struct BlockObject {
    relation: String,
    fork: &'static str,
    block: u32,
    will_init: bool,
    /// `applied`, `verification` or null.
    image: Option<&'static str>,
}

/// The record as a JSON object on one line.
pub(super) fn json(seen: &Seen<'_>, version: Version) -> String {
    let header = &seen.record.header;
    let block = |block: &BlockRef| BlockObject {
        relation: block.relation.to_string(),
        fork: block.fork.name(),
        block: block.block.0,
        will_init: block.will_init,
        image: block.image.map(|image| if image.is_applied { "applied" } else { "verification" }),
    };
    let object = RecordObject {
        lsn: seen.record.lsn.to_string(),
        end: seen.record.end.to_string(),
        prev: header.previous.to_string(),
        rmgr: rmgr::name(header.rmid, version),
        operation: operation(header, version).into_owned(),
        xid: header.xid,
        length: header.total_length,
        image_length: image_bytes(seen.blocks),
        blocks: seen.blocks.iter().map(block).collect(),
        effect: Effect::of(header, seen.payload.main_data, version)
            .map(|effect| effect_json(&effect, version)),
    };
    serde_json::to_string(&object).unwrap_or_default()
}

fn effect_json(effect: &Effect, version: Version) -> Value {
    let dir = |dir: &DatabaseDir| json!({"tablespace": dir.tablespace, "database": dir.database});
    let time = |time: &Microseconds| Timestamp::from_microsecond(time.0).ok().map(|at| at.to_string());
    match effect {
        Effect::Checkpoint(checkpoint) => json!({
            "kind": "checkpoint",
            "redo": checkpoint.redo.to_string(),
            "timeline": checkpoint.timeline.0,
            "previous_timeline": checkpoint.previous_timeline.0,
            "full_page_writes": checkpoint.full_page_writes,
        }),
        Effect::Finish(finish) => json!({
            "kind": if finish.is_commit { "commit" } else { "abort" },
            "xid": finish.xid,
            "time": time(&finish.time),
            "subtransactions": finish.subtransactions,
            "dropped": finish.dropped.iter().map(|relation| path(*relation, Fork::Main, version)).collect::<Vec<_>>(),
        }),
        Effect::CreateRelation { relation, fork } => {
            json!({"kind": "create_relation", "path": path(*relation, *fork, version)})
        }
        Effect::TruncateRelation { relation, blocks } => {
            let path = path(*relation, Fork::Main, version);
            json!({"kind": "truncate_relation", "path": path, "blocks": blocks.0})
        }
        Effect::CopyDatabase { to, from } => {
            json!({"kind": "copy_database", "to": dir(to), "from": dir(from)})
        }
        Effect::CreateDatabase(to) => json!({"kind": "create_database", "to": dir(to)}),
        Effect::DropDatabase(dirs) => {
            json!({"kind": "drop_database", "directories": dirs.iter().map(dir).collect::<Vec<_>>()})
        }
        Effect::CreateTablespace { tablespace, path } => {
            json!({"kind": "create_tablespace", "tablespace": tablespace, "path": path})
        }
        Effect::DropTablespace { tablespace } => json!({"kind": "drop_tablespace", "tablespace": tablespace}),
        Effect::UpdateRelationMap(of) => json!({"kind": "update_relation_map", "of": dir(of)}),
        Effect::EndOfRecovery { time: at, timeline, previous } => json!({
            "kind": "end_of_recovery",
            "time": time(at),
            "timeline": timeline.0,
            "previous_timeline": previous.0,
        }),
        Effect::RestorePoint { time: at, name } => {
            json!({"kind": "restore_point", "time": time(at), "name": name})
        }
        Effect::OverwriteContrecord { torn, time: at } => {
            json!({"kind": "overwrite_contrecord", "torn": torn.to_string(), "time": time(at)})
        }
        Effect::FullPageWrites { are_on } => json!({"kind": "full_page_writes", "are_on": are_on}),
        Effect::RunningTransactions(running) => json!({
            "kind": "running_transactions",
            "subtransactions_overflowed": running.is_overflowed,
            "next_xid": running.next_xid,
            "oldest_xid": running.oldest_xid,
        }),
        Effect::LogicalDecoding { is_enabled } => {
            json!({"kind": "logical_decoding", "is_enabled": is_enabled})
        }
        Effect::ParameterChange { wal_level, wal_log_hints } => {
            json!({"kind": "parameter_change", "wal_level": level(*wal_level), "wal_log_hints": wal_log_hints})
        }
        _ => Value::Null,
    }
}
