//! The messages of a normal run under each name. All other messages are the same under every name.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kbrecover_rewind::Event;

/// The program whose messages are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Narration {
    /// kbrecover: every message of the engine as it is.
    Kbrecover,
    /// The messages of `pg_rewind`, of which `-P` shows more.
    PgRewind,
    /// The messages of `sys_rewind`.
    SysRewind,
}

/// Narrates one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Narrator {
    /// The program whose messages are used.
    pub(crate) narration: Narration,
    /// Whether progress is shown, as `-P` asks for.
    pub(crate) progress: bool,
}

/// From when to when, and how long that took, in the words of `sys_rewind`.
pub(crate) fn times(since: Timestamp, until: Timestamp, zone: &TimeZone) -> String {
    let local =
        |time: Timestamp| time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.6f %Z").to_string();
    let seconds = until.duration_since(since).as_secs_f64();
    format!("time from {} to {}, in \"{seconds:.6}\" seconds.", local(since), local(until))
}

const READING: [&str; 3] = ["reading source file list", "reading target file list", "reading WAL in target"];

impl Narrator {
    /// The messages for an event; `None` to show our own.
    pub(crate) fn lines(self, event: &Event) -> Option<Vec<String>> {
        let own = || vec![event.to_string()];
        let with_progress = |lines: &[&str]| {
            if self.progress { lines.iter().map(|&line| line.to_owned()).collect() } else { Vec::new() }
        };
        Some(match (self.narration, event) {
            (Narration::Kbrecover, _) => return None,
            (_, Event::Connected { .. }) => with_progress(&["connected to server"]),
            (_, Event::Planned { fetch_bytes, total_bytes }) => {
                let (fetch, total) = (fetch_bytes >> 20, total_bytes >> 20);
                with_progress(&[&format!(
                    "need to copy {fetch} MB (total source directory size is {total} MB)"
                )])
            }
            (Narration::PgRewind, Event::CommonCheckpoint(_)) => {
                own().into_iter().chain(with_progress(&READING)).collect()
            }
            (Narration::PgRewind, Event::Sealing) => with_progress(&[
                "creating backup label and updating control file",
                "syncing target data directory",
            ]),
            (Narration::PgRewind, Event::SourceDirectory { .. } | Event::CheckpointSearch { .. }) => {
                Vec::new()
            }
            (Narration::SysRewind, Event::CheckpointSearch { since, until }) => {
                let search = format!(
                    "find last common checkpoint start {}",
                    times(*since, *until, &TimeZone::system())
                );
                [search].into_iter().chain(READING.map(str::to_owned)).collect()
            }
            (Narration::SysRewind, Event::Copying { .. }) => {
                vec!["Rewind datadir file from source".to_owned()]
            }
            (Narration::SysRewind, Event::Sealing) => {
                ["Get archive xlog list from source", "Rewind archive log from source"]
                    .map(str::to_owned)
                    .to_vec()
            }
            (Narration::SysRewind, Event::Diverged(_)) => Vec::new(),
            (_, Event::ReplayStart(_) | Event::Copying { .. }) => Vec::new(),
            _ => own(),
        })
    }
}

#[cfg(test)]
mod tests {
    use kbrecover_rewind::{CheckpointAt, Divergence};
    use walparse::{Lsn, TimelineId};

    use super::*;

    /// All events of a normal run, in order.
    fn events() -> [Event; 8] {
        let timeline = TimelineId(1);
        let now = Timestamp::UNIX_EPOCH;
        [
            Event::Connected { server: "h".to_owned(), version: 150_000, connections: 2 },
            Event::SourceDirectory { directory: "/d".to_owned() },
            Event::Diverged(Divergence { lsn: Lsn(2), timeline }),
            Event::CommonCheckpoint(CheckpointAt { lsn: Lsn(1), redo: Lsn(1), timeline }),
            Event::CheckpointSearch { since: now, until: now },
            Event::Planned { fetch_bytes: 7 << 20, total_bytes: 9 << 20 },
            Event::Copying { fetch_bytes: 7 << 20 },
            Event::Sealing,
        ]
    }

    /// The messages under a name.
    fn narrated(narration: Narration, progress: bool) -> Vec<String> {
        let lines = |event: &Event| Narrator { narration, progress }.lines(event).unwrap();
        events().iter().flat_map(lines).collect()
    }

    #[test]
    fn pg_rewind_has_more_messages_with_progress() {
        let (diverged, checkpoint) = (
            "servers diverged at WAL location 0/2 on timeline 1",
            "rewinding from last common checkpoint at 0/1 on timeline 1",
        );
        assert_eq!(narrated(Narration::PgRewind, false), [diverged, checkpoint]);
        assert_eq!(
            narrated(Narration::PgRewind, true),
            [
                "connected to server",
                diverged,
                checkpoint,
                "reading source file list",
                "reading target file list",
                "reading WAL in target",
                "need to copy 7 MB (total source directory size is 9 MB)",
                "creating backup label and updating control file",
                "syncing target data directory",
            ]
        );
    }

    #[test]
    fn sys_rewind_has_the_messages_of_its_logs() {
        let narrated = narrated(Narration::SysRewind, false);
        let search =
            narrated.iter().position(|line| line.starts_with("find last common checkpoint")).unwrap();
        assert!(narrated[search].ends_with(", in \"0.000000\" seconds."), "{}", narrated[search]);
        let others: Vec<_> = narrated
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != search)
            .map(|(_, line)| line.as_str())
            .collect();
        assert_eq!(search, 2);
        assert_eq!(
            others,
            [
                "datadir_source = /d",
                "rewinding from last common checkpoint at 0/1 on timeline 1",
                "reading source file list",
                "reading target file list",
                "reading WAL in target",
                "Rewind datadir file from source",
                "Get archive xlog list from source",
                "Rewind archive log from source",
            ]
        );
    }

    #[test]
    fn kbrecover_shows_the_messages_of_the_engine() {
        let narrator = Narrator { narration: Narration::Kbrecover, progress: true };
        assert!(events().iter().all(|event| narrator.lines(event).is_none()));
    }
}
