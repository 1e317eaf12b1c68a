//! What can be seen of a running server without a session: its lock file, and the titles of its processes.

use std::io;
use std::path::Path;

use walparse::{Lsn, Names, SegmentNo, SegmentSize};

use crate::datadir::process;

/// What a server does, in line 8 of its lock file (`LOCK_FILE_LINE_PM_STATUS` in pidfile.h; from version 10 on).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ServerState {
    /// It admits no session yet.
    Starting,
    /// It is shutting down.
    Stopping,
    /// It admits sessions.
    Ready,
    /// It is in recovery and never admits sessions (`hot_standby = off`).
    Standby,
}

/// The lines of a lock file (`postmaster.pid` or `kingbase.pid`) that say how to reach the server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LockFileLines {
    /// Its port.
    pub(crate) port: Option<u16>,
    /// The directory of its first socket.
    pub(crate) socket_dir: Option<String>,
    /// The first address that it listens at; `*` for all.
    pub(crate) address: Option<String>,
    /// What it does; `None` in a file of 9.6.
    pub(crate) state: Option<ServerState>,
}

impl LockFileLines {
    /// Reads the lock file of the data directory `root`; `None` if there is none.
    ///
    /// # Errors
    /// It exists but cannot be read.
    pub(crate) fn read(root: &Path, names: &Names) -> io::Result<Option<LockFileLines>> {
        match std::fs::read(root.join(names.lock_file)) {
            Ok(bytes) => Ok(Some(LockFileLines::parse(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// In the order of pidfile.h: process, data directory, start time, port, socket directory, address, shared memory,
    /// state. A server writes them one after the other while it starts. The path may be in any encoding.
    fn parse(bytes: &[u8]) -> LockFileLines {
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let line = |number: usize| lines.get(number - 1).copied().filter(|line| !line.is_empty());
        LockFileLines {
            port: line(4).and_then(|line| line.parse().ok()),
            socket_dir: line(5).map(str::to_owned),
            address: line(6).map(str::to_owned),
            state: line(8).and_then(|line| match line {
                "starting" => Some(ServerState::Starting),
                "stopping" => Some(ServerState::Stopping),
                "ready" => Some(ServerState::Ready),
                "standby" => Some(ServerState::Standby),
                _ => None,
            }),
        }
    }
}

/// What the titles of a standby's processes say. A server with `update_process_title = off` has none of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Titles {
    /// The segment that is being replayed, or waited for.
    pub(crate) replaying: Option<SegmentNo>,
    /// Up to where the WAL receiver has written WAL, if it streams.
    pub(crate) streamed: Option<Lsn>,
}

impl Titles {
    /// Reads the titles of the processes that the server with this process ID has started.
    pub(crate) fn read(server: u32, size: SegmentSize) -> Titles {
        let titles = process::children(server).into_iter().flat_map(process::arguments);
        titles.fold(Titles::default(), |known, title| known.with(&title, size))
    }

    fn with(self, title: &str, size: SegmentSize) -> Titles {
        if let Some(text) = activity(title, &["startup"]) {
            let name = text.strip_prefix("recovering ").or(text.strip_prefix("waiting for "));
            let segment = name.and_then(|name| size.parse_file_name(name.split(' ').next()?));
            return Titles { replaying: segment.map(|(_, segment)| segment).or(self.replaying), ..self };
        }
        if let Some(text) = activity(title, &["walreceiver", "wal receiver"]) {
            let streamed = text.strip_prefix("streaming ").and_then(|lsn| lsn.parse().ok());
            return Titles { streamed: streamed.or(self.streamed), ..self };
        }
        self
    }
}

/// What a process of one of these kinds does. Its title is the name of the program, `cluster_name` if it is set, the kind
/// (up to 10 followed by "process"), and the activity:
///
/// ```text
/// postgres: startup recovering 000000020000000000000003
/// postgres: main: walreceiver streaming 0/3000148
/// postgres: wal receiver process   streaming 0/3000148
/// ```
fn activity<'a>(title: &'a str, kinds: &[&str]) -> Option<&'a str> {
    let parts = title.match_indices(": ").map(|(at, separator)| &title[at + separator.len()..]);
    let mut kinds = parts.flat_map(|part| kinds.iter().filter_map(|kind| part.strip_prefix(kind)));
    let rest = kinds.find(|rest| rest.is_empty() || rest.starts_with(' '))?.trim_start();
    Some(rest.strip_prefix("process").unwrap_or(rest).trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_says_how_to_reach_the_server() {
        let all = b"4711\n/d\xE4ta\n1700000000\n5433\n/run/postgresql\n*\n  5433001  32768\nready   \n";
        let lines = LockFileLines::parse(all);
        assert_eq!((lines.port, lines.socket_dir.as_deref()), (Some(5433), Some("/run/postgresql")));
        assert_eq!((lines.address.as_deref(), lines.state), (Some("*"), Some(ServerState::Ready)));
        let begun = LockFileLines::parse(b"4711\n/data\n1700000000\n5433\n\n");
        assert_eq!(begun, LockFileLines { port: Some(5433), ..LockFileLines::default() });
        assert_eq!(LockFileLines::parse(b""), LockFileLines::default());
    }

    #[test]
    fn titles_of_all_versions_are_read() {
        let size = SegmentSize::new(16 << 20).unwrap();
        let read =
            |titles: &[&str]| titles.iter().fold(Titles::default(), |known, title| known.with(title, size));
        for titles in [
            [
                "postgres: startup process   recovering 000000020000000000000003",
                "postgres: wal receiver process   streaming 0/3000148",
            ],
            [
                "postgres: startup   recovering 000000020000000000000003",
                "postgres: walreceiver   streaming 0/3000148",
            ],
            [
                "postgres: a: b: startup waiting for 000000020000000000000003",
                "postgres: a: b: walreceiver streaming 0/03000148",
            ],
            [
                "kingbase: startup recovering 000000020000000000000003 waiting",
                "kingbase: walreceiver streaming 0/3000148",
            ],
        ] {
            let expected = Titles { replaying: Some(SegmentNo(3)), streamed: Some(Lsn(0x300_0148)) };
            assert_eq!(read(&titles), expected, "{titles:?}");
        }
        let nothing = [
            "postgres: startup ",
            "postgres: walreceiver ",
            "postgres: walreceiver restarting at 0/3000000",
            "postgres: walsender walreceiver 10.0.0.1(4711) streaming 0/3000148",
            "postgres: walreceiver postgres [local] idle",
            "postgres: startup recovering nonsense",
            "/usr/lib/postgresql/15/bin/postgres",
            "",
        ];
        assert_eq!(read(&nothing), Titles::default());
    }
}
