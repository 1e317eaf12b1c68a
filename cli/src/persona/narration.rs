//! The messages of a normal run under each name. All other messages are the same under every name.

use kbrecover_rewind::milestone;

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
    /// Whether `-P` was given.
    pub(crate) progress: bool,
}

/// What an event tells about a milestone of the run.
#[derive(Default, Debug)]
pub(crate) struct Milestone {
    /// Our own message for it.
    pub(crate) message: String,
    /// The number of bytes to copy.
    pub(crate) fetch_bytes: u64,
    /// The size of the source's data directory in bytes.
    pub(crate) total_bytes: u64,
}

const READING: [&str; 3] = ["reading source file list", "reading target file list", "reading WAL in target"];

impl Narrator {
    /// The messages for a milestone; `None` to show our own like any other message.
    pub(crate) fn lines(self, name: &str, milestone: &Milestone) -> Option<Vec<String>> {
        let own = || vec![milestone.message.clone()];
        let with_progress = |lines: &[&str]| {
            if self.progress { lines.iter().map(|&line| line.to_owned()).collect() } else { Vec::new() }
        };
        let need = || {
            let megabytes = |bytes: u64| bytes >> 20;
            format!(
                "need to copy {} MB (total source directory size is {} MB)",
                megabytes(milestone.fetch_bytes),
                megabytes(milestone.total_bytes)
            )
        };
        Some(match (self.narration, name) {
            (Narration::Kbrecover, _) => return None,
            (_, milestone::CONNECTED) => with_progress(&["connected to server"]),
            (_, milestone::PLANNED) => with_progress(&[&need()]),
            (Narration::PgRewind, milestone::COMMON_CHECKPOINT) => {
                own().into_iter().chain(with_progress(&READING)).collect()
            }
            (Narration::PgRewind, milestone::SEALING) => with_progress(&[
                "creating backup label and updating control file",
                "syncing target data directory",
            ]),
            (Narration::PgRewind, milestone::SOURCE_DIRECTORY | milestone::CHECKPOINT_SEARCH) => Vec::new(),
            (Narration::SysRewind, milestone::CHECKPOINT_SEARCH) => {
                own().into_iter().chain(READING.map(str::to_owned)).collect()
            }
            (Narration::SysRewind, milestone::COPYING) => vec!["Rewind datadir file from source".to_owned()],
            (Narration::SysRewind, milestone::SEALING) => {
                ["Get archive xlog list from source", "Rewind archive log from source"]
                    .map(str::to_owned)
                    .to_vec()
            }
            (Narration::SysRewind, milestone::DIVERGED) => Vec::new(),
            (_, milestone::COPYING | milestone::NO_STANDBY) => Vec::new(),
            _ => own(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All milestones of a normal run, in order.
    const ALL: [&str; 9] = [
        milestone::SOURCE_DIRECTORY,
        milestone::CONNECTED,
        milestone::DIVERGED,
        milestone::COMMON_CHECKPOINT,
        milestone::CHECKPOINT_SEARCH,
        milestone::PLANNED,
        milestone::COPYING,
        milestone::SEALING,
        milestone::NO_STANDBY,
    ];

    fn narrated(narration: Narration, progress: bool) -> Vec<String> {
        let lines = |name: &&str| {
            let milestone =
                Milestone { message: format!("<{name}>"), fetch_bytes: 7 << 20, total_bytes: 9 << 20 };
            Narrator { narration, progress }.lines(name, &milestone).unwrap()
        };
        ALL.iter().flat_map(lines).collect()
    }

    #[test]
    fn pg_rewind_has_more_messages_with_progress() {
        assert_eq!(narrated(Narration::PgRewind, false), ["<diverged>", "<common checkpoint>"]);
        assert_eq!(
            narrated(Narration::PgRewind, true),
            [
                "connected to server",
                "<diverged>",
                "<common checkpoint>",
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
        assert_eq!(
            narrated(Narration::SysRewind, false),
            [
                "<source directory>",
                "<common checkpoint>",
                "<checkpoint search>",
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
        assert!(ALL.iter().all(|name| narrator.lines(name, &Milestone::default()).is_none()));
    }
}
