//! Where a running standby is: what it has replayed, and whether it streams.
//!
//! A standby may stream for hours without admitting a session: until it is consistent, while transactions with overflowed
//! subtransactions are open, or because of `hot_standby = off`. So a session is only one of two ways to look at it, and is
//! tried only when the lock file says that sessions are admitted. The other way are the titles of its processes, which show
//! the position of replay to the segment.

use std::path::PathBuf;
use std::time::Duration;

use walparse::{Lsn, Version};

use crate::conninfo::{Conninfo, ConninfoError, ConninfoText, Environment};
use crate::datadir::running::{LockFileLines, ServerState, Titles};
use crate::source::{Answer, ask};
use crate::status::Status;

/// The limit for connecting, and that for the answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Where a standby is, as one look at it has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Position {
    /// Up to where WAL has been replayed; without a session the start of the segment that is being replayed.
    pub replayed: Option<Lsn>,
    /// Up to where WAL has been received, if the WAL receiver streams or has streamed.
    pub received: Option<Lsn>,
    /// The end of the source's WAL as the WAL receiver knows it. Only privileged roles see it.
    pub source_end: Option<Lsn>,
    /// Whether the WAL receiver streams.
    pub is_streaming: bool,
    /// Whether a session has told the positions; otherwise the titles of processes have.
    pub by_session: bool,
    /// Whether the server is known to be no standby.
    pub is_primary: bool,
}

impl Position {
    /// Whether replay has reached `goal`. `status` is the server's.
    pub(crate) fn has_reached(&self, goal: Lsn, status: &Status) -> bool {
        let Some(replayed) = self.replayed else { return false };
        if self.by_session {
            return replayed >= goal;
        }
        // A standby streams only after it has replayed what it had. What it has received since is in this segment or a
        // later one.
        let size = status.control.geometry().segment_size;
        size.segment_of(replayed) >= size.segment_before(goal) && self.received >= Some(goal)
    }
}

/// Looks at a standby.
pub(crate) struct Observer<'a> {
    /// Options for the connection that are not those of the server's lock file.
    pub(crate) conninfo: &'a ConninfoText,
    /// What completes them.
    pub(crate) environment: &'a dyn Environment,
    /// Whether a login has failed for good. It is not tried again: each attempt is a line in the server's log.
    pub(crate) is_refused: bool,
}

impl Observer<'_> {
    /// Looks at the server with this process ID, which runs on the directory of `status`.
    pub(crate) fn look(&mut self, server: u32, status: &Status) -> Position {
        let names = status.control.version().names();
        let titles = Titles::read(server, status.control.geometry().segment_size);
        let lines = LockFileLines::read(&status.directory, names).ok().flatten().unwrap_or_default();
        let admits_sessions = matches!(lines.state, None | Some(ServerState::Ready));
        if admits_sessions
            && !self.is_refused
            && let Some(answer) = self.ask(&lines, status.control.version())
        {
            return by_session(&answer, titles);
        }
        let size = status.control.geometry().segment_size;
        Position {
            replayed: titles.replaying.map(|segment| size.start_of(segment)),
            received: titles.streamed,
            is_streaming: titles.streamed.is_some(),
            ..Position::default()
        }
    }

    /// Asks the server; `None` if it does not answer.
    fn ask(&mut self, lines: &LockFileLines, version: Version) -> Option<Answer> {
        let conninfo = match self.connection(lines) {
            Ok(conninfo) => conninfo,
            Err(error) => {
                self.give_up(&error.to_string());
                return None;
            }
        };
        match ask(&conninfo, &query(version), LIMIT) {
            Ok(answer) => Some(answer),
            Err(error) if error.is_transient() => None,
            Err(error) => {
                self.give_up(&error.with_reasons());
                None
            }
        }
    }

    fn give_up(&mut self, reason: &str) {
        tracing::warn!("the position of replay is shown to the segment only: {reason}");
        self.is_refused = true;
    }

    /// The server's own socket, or its address if it has no socket; whatever the caller has set comes first.
    fn connection(&self, lines: &LockFileLines) -> Result<Conninfo, ConninfoError> {
        let mut text = ConninfoText::new();
        let address = match lines.address.as_deref() {
            None | Some("*" | "0.0.0.0" | "::") => "localhost",
            Some(address) => address,
        };
        text.set("host", lines.socket_dir.as_deref().unwrap_or(address));
        if let Some(port) = lines.port {
            text.set("port", port.to_string());
        }
        text.set("dbname", "postgres");
        text.set("connect_timeout", LIMIT.as_secs().to_string());
        text.merge(self.conninfo);
        Conninfo::parse(&text.text(), &OfThisServer(self.environment))
    }
}

/// An environment without the variables that lead to a server: this one is known.
struct OfThisServer<'a>(&'a dyn Environment);

impl Environment for OfThisServer<'_> {
    fn var(&self, name: &str) -> Option<String> {
        let leads_elsewhere = matches!(name, "PGHOST" | "PGHOSTADDR" | "PGPORT" | "PGDATABASE" | "PGSERVICE");
        if leads_elsewhere { None } else { self.0.var(name) }
    }

    fn os_user(&self) -> Option<String> {
        self.0.os_user()
    }

    fn home(&self) -> Option<PathBuf> {
        self.0.home()
    }
}

/// The query for the positions. Version 10 renamed xlog to wal, and location to lsn.
fn query(version: Version) -> String {
    let prefix = if version.flavor().is_fork() { "sys" } else { "pg" };
    let (wal, lsn) =
        if version.server_version_num() < 100_000 { ("xlog", "location") } else { ("wal", "lsn") };
    format!(
        "SELECT {prefix}_is_in_recovery(), {prefix}_last_{wal}_replay_{lsn}()::text, \
         {prefix}_last_{wal}_receive_{lsn}()::text, r.status, r.latest_end_lsn::text \
         FROM (SELECT 1) AS one LEFT JOIN {prefix}_stat_wal_receiver AS r ON true"
    )
}

/// What the answer says. A role that may not see the state of the WAL receiver sees the title of its process.
fn by_session(answer: &Answer, titles: Titles) -> Position {
    let row = answer.rows.first().map(Vec::as_slice).unwrap_or_default();
    let value = |column: usize| row.get(column).and_then(Option::as_deref);
    let lsn =
        |column: usize| value(column).and_then(|text| text.parse::<Lsn>().ok()).filter(|lsn| lsn.is_valid());
    let source_end = lsn(4);
    Position {
        replayed: lsn(1),
        received: lsn(2),
        source_end,
        // The receiver says that it streams shortly before it knows how far its source is.
        is_streaming: match value(3) {
            Some(status) => status == "streaming" && source_end.is_some(),
            None => titles.streamed.is_some(),
        },
        by_session: true,
        is_primary: !answer.is_true(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(row: [Option<&str>; 5]) -> Answer {
        let mut answer = Answer::default();
        answer.rows.push(row.map(|value| value.map(str::to_owned)).to_vec());
        answer
    }

    struct Somebody;

    impl Environment for Somebody {
        fn var(&self, name: &str) -> Option<String> {
            Some(format!("variable {name}"))
                .filter(|_| matches!(name, "PGHOST" | "PGHOSTADDR" | "PGUSER" | "PGDATABASE"))
        }
        fn os_user(&self) -> Option<String> {
            Some("somebody".to_owned())
        }
        fn home(&self) -> Option<PathBuf> {
            None
        }
    }

    #[test]
    fn the_connection_leads_to_this_server() {
        let lines = LockFileLines {
            port: Some(5433),
            socket_dir: Some("/run/pg".into()),
            address: Some("*".into()),
            state: None,
        };
        let connection = |login: &str, lines: &LockFileLines| {
            let conninfo = ConninfoText::parse(login).unwrap();
            let observer = Observer { conninfo: &conninfo, environment: &Somebody, is_refused: false };
            let found = observer.connection(lines).unwrap();
            (found.redacted(), found.user().to_owned(), found.database().to_owned())
        };
        let (own, user, database) = connection("", &lines);
        assert!(own.contains("host='/run/pg'") && own.contains("port=5433"), "{own}");
        assert!(!own.contains("variable PGHOST"), "{own}");
        assert_eq!((user.as_str(), database.as_str()), ("variable PGUSER", "postgres"));
        let (other, user, _) = connection("host=h user=u", &lines);
        assert!(other.contains("host=h") && user == "u", "{other}");
        let (tcp, ..) = connection("", &LockFileLines { socket_dir: None, ..lines });
        assert!(tcp.contains("host=localhost"), "{tcp}");
    }

    #[test]
    fn names_follow_the_version() {
        let of = |name: &str| query(Version::all().find(|version| version.name() == name).unwrap());
        assert!(of("9.6").contains("pg_last_xlog_replay_location()::text, pg_last_xlog_receive_location()"));
        assert!(of("10").contains("pg_last_wal_replay_lsn()::text, pg_last_wal_receive_lsn()"));
        let fork =
            Version::of_all_flavors().find(|version| version.flavor().key() == "kingbase-v8r6").unwrap();
        assert!(
            query(fork).contains("sys_last_wal_replay_lsn()")
                && query(fork).contains("sys_stat_wal_receiver")
        );
    }

    #[test]
    fn a_session_tells_positions_and_the_state_of_the_receiver() {
        let titles = Titles { replaying: None, streamed: Some(Lsn(0x300_0000)) };
        let at = |row| by_session(&answer(row), titles);
        let all = at([Some("t"), Some("0/3000100"), Some("0/3000200"), Some("streaming"), Some("0/3000300")]);
        assert_eq!((all.replayed, all.received), (Some(Lsn(0x300_0100)), Some(Lsn(0x300_0200))));
        assert_eq!(all.source_end, Some(Lsn(0x300_0300)));
        assert!(all.is_streaming && all.by_session && !all.is_primary);
        let early = at([Some("t"), Some("0/3000100"), Some("0/3000200"), Some("streaming"), None]);
        let waits = at([Some("t"), Some("0/3000100"), Some("0/3000200"), Some("waiting"), Some("0/3000300")]);
        assert!(!early.is_streaming && !waits.is_streaming);
        // Without the privilege there are NULLs.
        assert!(at([Some("t"), Some("0/3000100"), Some("0/3000200"), None, None]).is_streaming);
        assert!(at([Some("f"), None, None, None, None]).is_primary);
    }
}
