//! `kbrecover inspect history`: the ancestors of a timeline.

use std::io::Write;

use serde::Serialize;
use walparse::{SegmentSize, TimelineHistory, TimelineId, WalFileName};

use super::args::HistoryArgs;
use super::error::InspectError;
use super::open::{Key, history_place, read_file};
use crate::values::Format;

/// Shows a history file, or the history of a cluster.
pub(super) fn show(args: &HistoryArgs, key: Key<'_>, out: &mut dyn Write) -> Result<(), InspectError> {
    let (path, timeline) = if args.path.is_dir() {
        let (place, timeline) = history_place(&args.path, key)?;
        (place.join(timeline.history_file_name()), timeline)
    } else {
        (args.path.clone(), named(args).ok_or_else(|| InspectError::HistoryName { path: args.path.clone() })?)
    };
    // Timeline 1 has no history file.
    let has_file = timeline != TimelineId(1) || path.exists();
    let text = if has_file { read_file(&path)? } else { Vec::new() };
    let history =
        TimelineHistory::parse(timeline, &text).map_err(|source| InspectError::History { path, source })?;
    let object = HistoryObject::of(&history, &text);
    let text = match args.format {
        Format::Text => object.text(),
        Format::Json => serde_json::to_string_pretty(&object).unwrap_or_default() + "\n",
    };
    Ok(out.write_all(text.as_bytes())?)
}

/// The timeline in the name of the history file.
fn named(args: &HistoryArgs) -> Option<TimelineId> {
    let name = args.path.file_name()?.to_str()?;
    // Only the names of segments depend on the segment size.
    match WalFileName::parse(name, SegmentSize::new(16 << 20)?)? {
        WalFileName::History(timeline) => Some(timeline),
        _ => None,
    }
}

/// The JSON object. Programs rely on its fields: they may be added, but not renamed.
#[derive(Serialize)]
struct HistoryObject {
    timeline: u32,
    entries: Vec<EntryObject>,
}

#[derive(Serialize)]
struct EntryObject {
    timeline: u32,
    begin: String,
    /// Where the next timeline forked off; null for the last timeline.
    end: Option<String>,
    reason: Option<String>,
}

impl HistoryObject {
    fn of(history: &TimelineHistory, text: &[u8]) -> HistoryObject {
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut reasons = lines.map(reason);
        let entries = history.entries().iter().map(|entry| EntryObject {
            timeline: entry.timeline.0,
            begin: entry.begin.to_string(),
            end: entry.end.map(|end| end.to_string()),
            reason: reasons.next().flatten(),
        });
        HistoryObject { timeline: history.timeline().0, entries: entries.collect() }
    }

    fn text(&self) -> String {
        let mut text = format!("{:<10}{:<18}{:<18}reason\n", "timeline", "from", "to");
        for entry in &self.entries {
            let (end, reason) = (entry.end.as_deref().unwrap_or("-"), entry.reason.as_deref().unwrap_or(""));
            let line = format!("{:<10}{:<18}{end:<18}{reason}", entry.timeline, entry.begin);
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The reason in a line of a history file, after the timeline and the LSN.
fn reason(line: &str) -> Option<String> {
    let rest = line.split_once(char::is_whitespace)?.1.trim_start();
    let reason = rest.split_once(char::is_whitespace)?.1.trim();
    (!reason.is_empty()).then(|| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timeline_is_listed_with_its_range_and_reason() {
        let text = b"1\t0/7159CB8\tno recovery target specified\n\n# note\n2\t0/71C5160\tbefore  2026\n";
        let history = TimelineHistory::parse(TimelineId(3), text).unwrap();
        let expected = "\
timeline  from              to                reason
1         0/0               0/7159CB8         no recovery target specified
2         0/7159CB8         0/71C5160         before  2026
3         0/71C5160         -
";
        assert_eq!(HistoryObject::of(&history, text).text(), expected);
    }
}
