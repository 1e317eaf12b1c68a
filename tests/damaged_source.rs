//! A block of the source that cannot be read, or whose checksum is wrong, is not spread.
//!
//!     old  ── shared ──┬── lost ──╳                 every block of the table must be copied
//!     new  ┄┄┄┄┄┄┄┄┄┄┄ └── kept ── block 5 ╳ ──▶     the run names the file and the block, and ends
//!                                  block 5 ─────▶    repaired: run again, it finishes

use std::fs::{File, read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use walparse::{BlockNumber, RelSegment, WrongChecksum, check_page};

use crate::harness::{
    Failover, Installation, Rewind, Run, Sandbox, Server, SourceKind, assert_follows, assert_sound, pick,
    run, server_program,
};
use crate::interrupted::is_marked;

/// The damaged block, and the file that it is in.
const BLOCK: u64 = 5;

/// A failover after which the target's blocks are all changed, and the source's since before the last common checkpoint are
/// not. The target is stopped.
fn failover(sandbox: &Sandbox) -> Failover {
    let mut failover = Failover::new(
        sandbox,
        |old| {
            old.sql("CREATE TABLE entry AS SELECT n, 'shared' AS origin FROM generate_series(1, 3000) n");
            old.sql("VACUUM entry");
            old.sql("CHECKPOINT");
        },
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |new| new.sql("INSERT INTO entry SELECT n, 'kept' FROM generate_series(3001, 4000) n"),
    );
    failover.old.stop();
    failover
}

/// The file of the table, below the data directory.
fn table(server: &Server) -> String {
    server.value("SELECT pg_relation_filepath('entry')")
}

/// The block in the file of a server that has no reason to write it again.
struct Block {
    file: File,
}

impl Block {
    fn of(server: &Server, table: &str) -> Block {
        let file = File::options().read(true).write(true).open(server.data.join(table));
        Block { file: file.expect("open a table") }
    }

    fn read(&self) -> Vec<u8> {
        let mut page = vec![0; 8192];
        self.file.read_exact_at(&mut page, BLOCK * 8192).expect("read a block");
        page
    }

    /// Damages it, or repairs what this has damaged.
    fn flip(&self) {
        let mut page = self.read();
        page[5000] ^= 0x40;
        self.file.write_all_at(&page, BLOCK * 8192).expect("write a block");
    }
}

/// The run has ended after the mark, with these words, and has said how to go on.
fn assert_unfinished(run: &Run, old: &Server, words: &str) {
    assert!(run.code == 2 && is_marked(old), "exit status 2, and the mark\n{run}");
    let has =
        |kind: &str, words: &str| run.stderr.lines().any(|line| line.contains(kind) && line.contains(words));
    assert!(has("error: ", words), "no error that says: {words}\n{run}");
    assert!(has("detail: ", "rewound only partly"), "{run}");
    assert!(has("hint: ", "run the same command again"), "{run}");
}

/// What kind of source, and with which options.
fn damaged(kind: SourceKind, options: &[&str]) {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = failover(&sandbox);
    // So that no buffer of it is dirty.
    new.sql("CHECKPOINT");
    let table = table(&new);
    if kind == SourceKind::Directory {
        new.stop();
    }
    let block = Block::of(&new, &table);
    let before = Block::of(&old, &table).read();
    block.flip();
    let rewind = |old: &Server| Rewind::of(old).from(&new, kind).args(options).run();
    let words = format!("checksum of block {BLOCK} of source file \"{table}\" is wrong");
    assert_unfinished(&rewind(&old), &old, &words);
    assert!(Block::of(&old, &table).read() == before, "something of that block was written");
    block.flip();
    rewind(&old).expect_rewound();
    if kind == SourceKind::Directory {
        new.start();
    }
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

#[test]
fn damaged_on_a_running_source() {
    damaged(SourceKind::Server, &[]);
}

#[test]
fn damaged_on_a_stopped_source() {
    damaged(SourceKind::Directory, &[]);
}

#[test]
fn damaged_where_data_is_compared() {
    damaged(SourceKind::Server, &["--compare-data"]);
}

/// Replay brings an image of a block that was changed later: what is on the source's disk does not matter.
#[test]
fn damaged_and_restored_by_replay() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    new.sql("UPDATE entry SET origin = 'kept' WHERE ctid >= '(5,0)' AND ctid < '(6,0)'");
    new.sql("CHECKPOINT");
    let block = Block::of(&new, &table(&new));
    block.flip();
    let damaged = block.read();
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
    rewind.args(["--replay-from", "common", "--copy-all-changed"]).run().expect_done();
    assert!(Block::of(&old, &table(&new)).read() == damaged, "the scenario needs a block that is copied");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// A library that makes the block of this file unreadable for those who load it.
fn library(sandbox: &Sandbox, table: &str) -> PathBuf {
    let library = sandbox.path("bad_block.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/bad_block.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC"]).arg(format!("-DNAME=\"/{table}\""));
    run(compiler.arg(format!("-DPOSITION={}", BLOCK * 8192 + 100)).arg(source).arg("-o").arg(&library));
    library
}

#[test]
fn not_readable() {
    // What is in memory may not be allowed to be loaded as a library.
    let sandbox = Sandbox::on_disk();
    let Failover { mut old, mut new } = failover(&sandbox);
    let table = table(&new);
    new.stop();
    new.preload(Some(library(&sandbox, &table)));
    new.start();
    let words =
        format!("could not read block {BLOCK} of source file \"{table}\": ERROR:  could not read file");
    let rewind = |old: &Server| Rewind::of(old).from(&new, SourceKind::Server);
    // It is to be compared.
    rewind(&old).arg("--compare-data").expect_refusal(&words, "use another server as the source");
    // It is to be copied.
    assert_unfinished(&rewind(&old).run(), &old, &words);
    new.stop();
    new.preload(None);
    new.start();
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}

/// The pages of a stopped server: each with its block number and what is wrong with its checksum.
fn pages(server: &Server) -> Vec<(String, BlockNumber, Result<(), WrongChecksum>)> {
    let control = server.control_file();
    let files = crate::harness::Tree::of(&server.data);
    let mut found = Vec::new();
    for path in files.paths().filter_map(|path| path.to_str()) {
        let Some(file) = RelSegment::parse(path, control.version()) else { continue };
        let bytes = read(server.data.join(path)).expect("read a file");
        for (number, page) in bytes.chunks_exact(control.block_size() as usize).enumerate() {
            let block = file.block_at(number as u64 * u64::from(control.block_size()), &control);
            found.push((path.to_owned(), block, check_page(page, block)));
        }
    }
    found
}

#[test]
fn checksums_are_the_servers() {
    for major in pick("damaged source: version", &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
        let sandbox = Sandbox::new();
        let mut server = sandbox.initdb("server", Installation::of(major), &[]);
        server.start();
        server.sql("CREATE TABLE entry AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
        server.sql("CREATE INDEX ON entry (n)");
        server.stop();
        assert!(server.control_file().every_page_has_checksum());
        let pages = pages(&server);
        assert!(pages.len() > 1000, "{} pages", pages.len());
        let wrong: Vec<_> = pages.iter().filter(|(_, _, checked)| checked.is_err()).collect();
        assert!(wrong.is_empty(), "version {major}: {wrong:?}");
    }
}

/// In the words of the server's own program.
#[test]
fn wrong_checksums_are_those_of_pg_checksums() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.server("server");
    server.start();
    server.sql("CREATE TABLE entry AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
    let table = table(&server);
    server.stop();
    Block::of(&server, &table).flip();
    let check = server_program("pg_checksums").args(["--check", "-D"]).arg(&server.data).output();
    let said = String::from_utf8(check.expect("run pg_checksums").stderr).expect("UTF-8");
    let pages = pages(&server);
    let wrong: Vec<_> =
        pages.iter().filter_map(|(path, block, checked)| Some((path, block, checked.err()?))).collect();
    let [(path, block, wrong)] = wrong[..] else { panic!("{wrong:?}") };
    let words = format!(
        "/{path}\", block {block}: calculated checksum {:X} but block contains {:X}",
        wrong.calculated, wrong.stored
    );
    assert!(said.contains(&words), "{words}\n{said}");
}
