//! What is told of a normal run under each name. What is out of the ordinary is said under all of them.

use kbrecover_rewind::milestone;

/// Whose words are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Narration {
    /// Our own: every message as it comes.
    Kbrecover,
    /// The lines of `pg_rewind`, which says more with `-P`.
    PgRewind,
    /// The lines of `sys_rewind`.
    SysRewind,
}

/// A narration of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Narrator {
    /// Whose words.
    pub(crate) narration: Narration,
    /// Whether `-P` was given.
    pub(crate) progress: bool,
}

/// What is known of a milestone.
#[derive(Default, Debug)]
pub(crate) struct Told {
    /// Our own words for it.
    pub(crate) message: String,
    /// Bytes to be copied.
    pub(crate) fetch_bytes: u64,
    /// Bytes there are.
    pub(crate) total_bytes: u64,
}

const READING: [&str; 3] = ["reading source file list", "reading target file list", "reading WAL in target"];

impl Narrator {
    /// The lines for a milestone; `None` if our own words are to be shown as any other message.
    pub(crate) fn lines(self, name: &str, told: &Told) -> Option<Vec<String>> {
        let own = || vec![told.message.clone()];
        let with_progress = |lines: &[&str]| {
            if self.progress { lines.iter().map(|&line| line.to_owned()).collect() } else { Vec::new() }
        };
        let need = || {
            let megabytes = |bytes: u64| bytes >> 20;
            format!(
                "need to copy {} MB (total source directory size is {} MB)",
                megabytes(told.fetch_bytes),
                megabytes(told.total_bytes)
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

    /// Everything that a normal run passes, in its order.
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

    fn told(narration: Narration, progress: bool) -> Vec<String> {
        let tell = |name: &&str| {
            let told = Told { message: format!("<{name}>"), fetch_bytes: 7 << 20, total_bytes: 9 << 20 };
            Narrator { narration, progress }.lines(name, &told).unwrap()
        };
        ALL.iter().flat_map(tell).collect()
    }

    #[test]
    fn pg_rewind_is_brief() {
        assert_eq!(told(Narration::PgRewind, false), ["<diverged>", "<common checkpoint>"]);
        assert_eq!(
            told(Narration::PgRewind, true),
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
    fn sys_rewind_tells_what_its_logs_have() {
        assert_eq!(
            told(Narration::SysRewind, false),
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
    fn our_own_words_pass_through() {
        let narrator = Narrator { narration: Narration::Kbrecover, progress: true };
        assert!(ALL.iter().all(|name| narrator.lines(name, &Told::default()).is_none()));
    }
}
