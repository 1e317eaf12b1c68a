//! WAL of the target that waits for archiving when it is rewound.
//!
//!     old  ── shared ──┬── lost ── lost ──╳     nothing is archived: all segments have a .ready
//!                      │        rewind           ──▶ they stay, and the standby (archive_mode = always) archives them
//!     new              └── kept ──────▶          --archive-ready ──▶ archived before the first change, and gone

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::harness::{
    Failover, Rewind, Sandbox, Segment, Server, SourceKind, assert_follows, assert_sound, next_segment,
};

/// A crashed old primary whose archive has been closed all the time.
struct Unarchived {
    failover: Failover,
    /// Where archive_command puts files, once `open` is there.
    archive: PathBuf,
    /// What waits, with its contents; of it, what only the target has.
    waiting: BTreeMap<String, Vec<u8>>,
    lost: Vec<String>,
}

impl Unarchived {
    fn new(sandbox: &Sandbox) -> Unarchived {
        let archive = sandbox.make_dir("archive");
        let mut old = sandbox.server("old");
        let mut new = old.copy("new");
        let (open, to) = (archive.join("open"), archive.join("%f"));
        let command = format!(
            "test -e {} || {{ echo closed >&2; exit 1; }}; test ! -e {to} && cp %p {to}",
            open.display(),
            to = to.display()
        );
        old.configure(&format!("archive_mode = always\narchive_command = '{command}'"));
        old.start();
        new.follow(&old);
        new.start();
        let write = |server: &Server, origin: &str| {
            for _ in 0..2 {
                server.sql(&format!("INSERT INTO entry SELECT '{origin}' FROM generate_series(1, 1000)"));
                next_segment(server);
            }
        };
        let mut failover = Failover::of(
            old,
            new,
            |old| {
                old.sql("CREATE TABLE entry (origin text)");
                write(old, "shared");
            },
            |old| write(old, "lost"),
            |new| write(new, "kept"),
        );
        failover.old.kill();
        let fork = Segment::at(1, failover.fork()).to_string();
        let waiting: BTreeMap<_, _> = notes(&failover.old, ".ready")
            .into_iter()
            .map(|name| {
                let content = std::fs::read(failover.old.data.join("pg_wal").join(&name));
                (name, content.expect("read a segment"))
            })
            .collect();
        let lost: Vec<_> = waiting.keys().filter(|name| **name >= fork).cloned().collect();
        assert!(lost.len() == 2 && waiting.len() >= 4, "{lost:?} of {:?}", waiting.keys());
        Unarchived { failover, archive, waiting, lost }
    }

    fn open(&self) {
        std::fs::write(self.archive.join("open"), "").expect("open the archive");
    }

    fn assert_archived(&self) {
        for (name, content) in &self.waiting {
            let found = std::fs::read(self.archive.join(name));
            assert!(found.is_ok_and(|found| found == *content), "{name} is not in the archive as it was");
        }
    }

    fn wait_until_archived(&self) {
        let names = self.waiting.keys().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        self.failover.old.wait_for(
            "all that waited is archived",
            &format!(
                "SELECT count(*) = {} FROM pg_ls_dir('{}') name WHERE name IN ({names})",
                self.waiting.len(),
                self.archive.display()
            ),
        );
    }
}

/// What has a note with this ending.
fn notes(server: &Server, ending: &str) -> Vec<String> {
    let notes = std::fs::read_dir(server.data.join("pg_wal/archive_status")).expect("list archive_status");
    let names = notes.map(|note| note.expect("a note").file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect();
    names.sort();
    names
}

fn has(server: &Server, name: &str) -> bool {
    Path::exists(&server.data.join("pg_wal").join(name))
}

#[test]
fn stays_and_is_archived_by_the_standby() {
    let sandbox = Sandbox::new();
    let mut all = Unarchived::new(&sandbox);
    let Failover { old, new } = &all.failover;
    let run = Rewind::of(old).from(new, SourceKind::Server).run().expect_done();
    run.expect_said(
        "2 WAL files that exist only on the target are not archived yet and stay in \"pg_wal\": ",
    );
    let ready = notes(old, ".ready");
    for (name, content) in &all.waiting {
        assert!(ready.contains(name), "{name} of {ready:?}");
        let found = std::fs::read(old.data.join("pg_wal").join(name)).expect("a segment");
        assert!(found == *content, "{name} has changed");
    }
    all.open();
    assert_follows(&mut all.failover.old, &all.failover.new);
    all.wait_until_archived();
    all.assert_archived();
    assert_sound(&mut all.failover.old);
}

#[test]
fn archived_first() {
    let sandbox = Sandbox::new();
    let mut all = Unarchived::new(&sandbox);
    let Failover { old, new } = &all.failover;
    let rewind = || Rewind::of(old).from(new, SourceKind::Server).arg("--archive-ready");
    rewind().expect_refusal(
        &format!(
            "could not archive file \"{}\": archive_command failed: child process exited with exit code 1: closed",
            all.waiting.keys().next().expect("a file")
        ),
        "Try the archive_command by hand",
    );
    all.open();
    // Nothing is archived by a check.
    assert_eq!(rewind().arg("--check").run_leaving_target_alone().code, 0);
    let done = rewind().run().expect_done();
    done.expect_said(&format!("archived {} WAL files of the target", all.waiting.len()));
    all.assert_archived();
    for name in &all.lost {
        assert!(!has(old, name), "{name} is archived and still there");
    }
    assert_eq!(notes(old, ".ready"), Vec::<String>::new());
    assert_follows(&mut all.failover.old, &all.failover.new);
    assert_sound(&mut all.failover.old);
}

/// A file of which the archive has half, under its full name, would be in everybody's way for ever.
#[test]
fn a_stop_lets_the_command_finish() {
    let sandbox = Sandbox::new();
    let all = Unarchived::new(&sandbox);
    let Failover { old, new } = &all.failover;
    let to = all.archive.join("%f");
    let command = format!(
        "head -c 1000000 %p > {to} && kill -TERM $PPID && sleep 0.5 && tail -c +1000001 %p >> {to}",
        to = to.display()
    );
    old.configure(&format!("archive_command = '{command}'"));
    let rewind = || Rewind::of(old).from(new, SourceKind::Server).arg("--archive-ready");
    let run = rewind().run();
    assert!(run.code == 1 && run.stderr.contains("stopped by a signal"), "{run}");
    let (first, content) = all.waiting.iter().next().expect("a file");
    assert!(std::fs::read(all.archive.join(first)).is_ok_and(|found| found == *content), "{run}");
    assert_eq!(notes(old, ".ready").len(), all.waiting.len() - 1, "{run}");

    let command = format!("test ! -e {to} && cp %p {to}", to = to.display());
    old.configure(&format!("archive_command = '{command}'"));
    rewind().run().expect_done();
    all.assert_archived();
}

#[test]
fn there_must_be_a_command() {
    let sandbox = Sandbox::new();
    let failover = Failover::of_one_table(&sandbox);
    let rewind = || Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).arg("--archive-ready");
    rewind().expect_refusal("archive_command is not set in the target cluster", "leave out --archive-ready");
    failover.old.configure("archive_library = 'basic_archive'");
    rewind().expect_refusal("archives with the library \"basic_archive\"", "--keep-diverged DIR");
}
