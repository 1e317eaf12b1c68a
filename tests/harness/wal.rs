//! WAL positions, segments and records, as far as scenarios speak of them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::program::server_program;
use super::server::Server;

/// Size of a WAL segment: initdb's default.
pub const SEGMENT_SIZE: u64 = 16 << 20;

/// Size of a WAL page.
pub const WAL_PAGE_SIZE: u64 = 8192;

/// A position in WAL, written `16/B374D848`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl FromStr for Lsn {
    type Err = String;
    fn from_str(text: &str) -> Result<Lsn, String> {
        let (high, low) = text.split_once('/').ok_or_else(|| format!("{text} is not an LSN"))?;
        let part = |hex| u64::from_str_radix(hex, 16).map_err(|e| format!("{text} is not an LSN: {e}"));
        Ok(Lsn(part(high)? << 32 | part(low)?))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A WAL segment's name: timeline and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// The timeline in its name.
    pub timeline: u32,
    /// Which segment of WAL it is, counted from 0/0.
    pub number: u64,
}

impl Segment {
    /// The segment of a timeline that holds a position.
    pub fn at(timeline: u32, lsn: Lsn) -> Segment {
        Segment { timeline, number: lsn.0 / SEGMENT_SIZE }
    }

    /// Reads a file name; none if it is not a segment's.
    pub fn parse(name: &str) -> Option<Segment> {
        let field = |range| u64::from_str_radix(name.get(range)?, 16).ok();
        (name.len() == 24).then_some(())?;
        let number = field(8..16)? * ((1 << 32) / SEGMENT_SIZE) + field(16..24)?;
        Some(Segment { timeline: field(0..8)? as u32, number })
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.number >> 8, self.number & 0xFF)
    }
}

/// The WAL segments in a data directory, in order.
pub fn segments(data: &Path) -> Vec<Segment> {
    let list = std::fs::read_dir(data.join("pg_wal")).expect("list pg_wal");
    let names = list.map(|entry| entry.expect("an entry").file_name());
    let mut segments: Vec<Segment> = names.filter_map(|name| Segment::parse(name.to_str()?)).collect();
    segments.sort();
    segments
}

/// Where a server's history says that it came to `timeline`.
pub fn history_switch(server: &Server, timeline: u32) -> Lsn {
    let path = server.data.join(format!("pg_wal/{timeline:08X}.history"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let last = text.lines().rfind(|line| !line.trim().is_empty()).expect("a line in the history");
    last.split_whitespace().nth(1).expect("an LSN in the history").parse().expect("an LSN in the history")
}

/// The start of every record pg_waldump finds on a timeline, from the first at or after `begin`.
pub fn record_starts(data: &Path, timeline: u32, begin: Lsn) -> Vec<Lsn> {
    let mut command = server_program("pg_waldump");
    command.arg("--path").arg(data.join("pg_wal")).args([
        "--timeline",
        &timeline.to_string(),
        "--start",
        &begin.to_string(),
    ]);
    // It ends with an error where WAL ends, which is where it should end.
    let output = command.output().expect("run pg_waldump");
    let text = String::from_utf8_lossy(&output.stdout);
    let starts: Vec<Lsn> =
        text.lines().filter_map(|line| line.split_once("lsn: ")?.1.split(',').next()?.parse().ok()).collect();
    assert!(
        !starts.is_empty(),
        "pg_waldump finds no record from {begin}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    starts
}

/// Switches to a new WAL segment, whatever was written before.
pub fn next_segment(server: &Server) {
    server.sql("SELECT pg_logical_emit_message(false, 'kbrecover', 'fill'); SELECT pg_switch_wal()");
}

/// Where the server will write its next record: behind a page header, if a new page begins there.
pub fn insert_position(server: &Server) -> Lsn {
    server.value::<String>("SELECT pg_current_wal_insert_lsn()::text").parse().expect("an LSN")
}

/// Writes and flushes one record that ends where a page ends. Returns that position.
pub fn fill_page(server: &Server) -> Lsn {
    let emit = |length: u64| {
        server.sql(&format!("SELECT pg_logical_emit_message(false, 'p', repeat('x', {length}))"));
        insert_position(server).0
    };
    // What a message costs beyond its text, measured on one that crosses no page boundary.
    let mut before = emit(8);
    while before % WAL_PAGE_SIZE > WAL_PAGE_SIZE / 2 {
        before = emit(3000);
    }
    let after = emit(1000);
    let overhead = after - before - 1000;
    let position = emit(WAL_PAGE_SIZE - after % WAL_PAGE_SIZE - overhead);
    let end = Lsn(position / WAL_PAGE_SIZE * WAL_PAGE_SIZE);
    assert_eq!(position, end.0 + 24, "the record should have filled its page, not more and not less");
    // Such a message is flushed by the WAL writer, soon.
    server.wait_for("a flush", &format!("SELECT pg_current_wal_flush_lsn() >= '{end}'"));
    end
}

/// Removes all segments from a WAL directory, and whatever other file is in it.
pub fn remove_wal_files(directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("list a WAL directory") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            std::fs::remove_file(path).expect("remove a file");
        }
    }
}
