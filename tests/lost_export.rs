//! Exports of lost transactions when something goes wrong on the way: the program is killed, the disk is full. And who can read
//! what is there.
//!
//!     kbrecover lost --export DIR ── killed, or no space left ──╳   DIR says that it is not complete, and can be read
//!                                                                   another DIR: as if nothing had been

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::full_disk::SmallDisk;
use crate::harness::{
    AsServerUser, Failover, Rewind, Run, Sandbox, Server, SourceKind, Tree, command, run_command,
};
use crate::lost_rows::{changes, listing, lost, lost_only_of};

/// A pair whose old primary loses so many rows of 1200 bytes, in transactions of 1000.
fn many_rows(sandbox: &Sandbox, thousands: usize) -> Failover {
    let (old, new) = sandbox.pair();
    let mut failover = Failover::of(
        old,
        new,
        |old| old.sql("CREATE TABLE wide (id int PRIMARY KEY, filler text)"),
        |old| {
            for thousand in 0..thousands {
                old.sql(&format!(
                    "INSERT INTO wide SELECT {thousand} * 1000 + n, repeat(md5(n::text), 37) FROM generate_series(0, 999) n"
                ));
            }
        },
        |new| new.sql("CREATE TABLE kept (id int)"),
    );
    failover.old.stop();
    failover
}

fn export(old: &Server, new: &Server, directory: &Path) -> Command {
    let mut command = command(["lost", "--export"]);
    command.arg(directory).arg("--target-data").arg(&old.data);
    command.arg("--source-server").arg(new.conninfo());
    command
}

/// What is below a directory.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("list a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(entries(&path));
        }
        found.push(path);
    }
    found
}

/// Every line but one that is cut off is a change, or a part that JSON has on a line. Returns how many changes there are.
fn readable_changes(directory: &Path) -> usize {
    let text = std::fs::read(directory.join("transactions.json")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let is_whole = |line: &&str| serde_json::from_str::<Value>(line.trim_end_matches(',')).is_ok();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("{\"lsn\"")).collect();
    let whole = rows.iter().filter(|line| is_whole(line)).count();
    assert!(whole + 1 >= rows.len(), "{} of {} lines can be read", whole, rows.len());
    whole
}

/// What an export that has not come to its end says of itself.
fn assert_unfinished(directory: &Path) {
    let known = ["summary.txt", "summary.txt.new", "transactions.json", "report.html", "csv", "apply.sql"];
    for path in entries(directory) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(known.contains(&name) || name.ends_with(".csv"), "{} was left behind", path.display());
    }
    let summary = std::fs::read_to_string(directory.join("summary.txt")).expect("the summary");
    assert!(summary.is_empty() || summary.contains("not complete"), "{summary}");
    let apply = std::fs::read_to_string(directory.join("apply.sql")).unwrap_or_default();
    assert!(!apply.ends_with("COMMIT;\n"), "half of the rows would be given back");
}

/// The files of a directory that a process has open and that have no name any more.
fn open_without_name(process: &Child, directory: &Path) -> usize {
    let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", process.id())) else { return 0 };
    let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets
        .filter(|path| path.starts_with(directory) && path.to_string_lossy().ends_with(" (deleted)"))
        .count()
}

/// Kills the program as soon as `is_due` says so. Panics if it ends before.
fn kill_when(mut command: Command, is_due: impl Fn(&Child) -> bool) {
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start the program");
    let begun = Instant::now();
    while !is_due(&process) {
        let ended = process.try_wait().expect("wait for the program");
        assert!(ended.is_none(), "it ended before it was killed: {ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(300), "it never came so far");
        std::thread::sleep(Duration::from_millis(2));
    }
    process.kill().expect("kill the program");
    process.wait().expect("wait for the program");
}

#[test]
fn killed_in_the_middle() {
    let sandbox = Sandbox::on_disk();
    // More than fits into memory.
    let Failover { old, new } = many_rows(&sandbox, 60);
    let before = Tree::of(&old.data);
    let size = |path: PathBuf| path.metadata().map_or(0, |found| found.len());

    let spooling = sandbox.make_dir("parent").join("spooling");
    kill_when(export(&old, &new, &spooling), |process| open_without_name(process, &spooling) == 1);
    assert_unfinished(&spooling);
    assert_eq!(readable_changes(&spooling), 0);

    let writing = sandbox.path("parent").join("writing");
    // The files are written side by side, so that one may be a little ahead of another.
    kill_when(export(&old, &new, &writing), |_| {
        size(writing.join("transactions.json")) > 2_000_000
            && size(writing.join("csv/postgres.public.wide.csv")) > 1_000_000
    });
    assert_unfinished(&writing);
    let readable = readable_changes(&writing);
    assert!((1000..60_000).contains(&readable), "{readable} changes");

    let run = run_command(export(&old, &new, &writing));
    assert!(run.code == 1 && run.stderr.contains("it is not empty"), "{run}");
    assert_eq!(readable_changes(&writing), readable, "what is there was changed");
    std::fs::remove_dir_all(&writing).expect("remove an export");

    let whole = sandbox.path("parent").join("whole");
    let run = run_command(export(&old, &new, &whole));
    assert_eq!(run.code, 0, "{run}");
    assert_eq!(readable_changes(&whole), 60_000);
    before.assert_unchanged(&old.data, "exports");
}

#[test]
fn a_full_disk_ends_an_export() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = many_rows(&sandbox, 4);
    let Some(disk) = SmallDisk::mount(sandbox.make_dir("disk"), 1 << 30) else { return };
    let place = |number: usize| sandbox.path("disk").join(format!("export-{number}"));
    let run = run_command(export(&old, &new, &place(0)));
    assert_eq!(run.code, 0, "{run}");
    let whole = disk.used();
    let parts = [0, 1, 2, 4, 9];
    for (number, part) in parts.into_iter().enumerate() {
        let directory = place(1 + number);
        std::fs::remove_dir_all(place(number)).expect("remove an export");
        disk.leave((whole * part / 10).next_multiple_of(4096).max(8192) - 4096);
        let run = run_command(export(&old, &new, &directory));
        assert!(run.code == 1 && run.stderr.contains("No space left on device"), "{part} tenths: {run}");
        assert!(run.stderr.contains("enough free space"), "{run}");
        if directory.join("summary.txt").exists() {
            assert_unfinished(&directory);
        } else {
            assert_eq!(readable_changes(&directory), 0);
            std::fs::create_dir_all(&directory).expect("make a directory");
        }
        assert!(part < 4 || readable_changes(&directory) > 500, "{part} tenths: {run}");
        disk.resize(1 << 30);
    }
}

/// The rows that do not fit into memory wait on the disk of the export, and nowhere else.
#[test]
fn a_disk_that_is_full_before_the_first_row_is_written() {
    let sandbox = Sandbox::on_disk();
    let Failover { old, new } = many_rows(&sandbox, 60);
    let Some(disk) = SmallDisk::mount(sandbox.make_dir("disk"), 32 << 20) else { return };
    let directory = sandbox.path("disk").join("export");
    let run = run_command(export(&old, &new, &directory));
    assert!(run.code == 1 && run.stderr.contains("could not keep rows in a temporary file"), "{run}");
    assert!(run.stderr.contains("No space left on device"), "{run}");
    assert_unfinished(&directory);

    // A rewind goes on without the list: there is room for WAL, but not for four copies of the rows.
    disk.resize(256 << 20);
    let target = old.copy("target");
    let run = keeping(&target, &new, &sandbox.path("disk").join("kept")).run();
    run.expect_rewound().expect_said("could not export the lost transactions");
}

fn keeping(target: &Server, source: &Server, kept: &Path) -> Rewind {
    Rewind::of(target).from(source, SourceKind::Server).arg("--keep-diverged").arg(kept)
}

/// An export beside the data directory must not take the space that the rewind needs.
#[test]
fn a_rewind_goes_on_where_the_disk_is_too_small_for_the_list() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = many_rows(&sandbox, 30);
    let Some(disk) = SmallDisk::mount(sandbox.make_dir("disk"), 2 << 30) else { return };
    let target = old.copy(sandbox.path("disk").join("target").to_str().expect("a UTF-8 name"));
    let kept = sandbox.path("disk").join("kept");
    let run = keeping(&target, &new, &kept).args(["--check", "--format", "json"]).run();
    let space = run.json()["space"].clone();
    let needed = space[0]["needed"].as_u64().unwrap_or_else(|| panic!("no needs: {run}"));
    // Less than the four copies of 36 MB that the export has.
    disk.leave((needed + (40 << 20)).next_multiple_of(4096));
    let run = keeping(&target, &new, &kept).run().expect_done();
    let run =
        run.expect_said("could not export the lost transactions").expect_said("the rewind needs the space");
    assert!(!kept.join("lost").exists() && kept.join("kept.json").exists(), "{run}");
    disk.resize(2 << 30);
}

/// Modes of everything below a directory, and of itself.
fn assert_for_the_owner_only(directory: &Path) {
    for path in entries(directory).into_iter().chain([directory.to_owned()]) {
        let mode = path.metadata().expect("look at a file").permissions().mode() & 0o7777;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    }
}

/// A command under another umask.
fn with_umask(umask: &str, inner: &Command) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("umask {umask}; exec \"$@\"")).arg("sh");
    command.arg(inner.get_program()).args(inner.get_args()).env("TZ", "UTC").as_server_user();
    command
}

#[test]
fn only_the_owner_can_read_it_whatever_the_umask() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = many_rows(&sandbox, 1);
    for umask in ["000", "022", "777"] {
        let parent = sandbox.make_dir(&format!("umask-{umask}"));
        let directory = parent.join("export");
        let run = run_command(with_umask(umask, &export(&old, &new, &directory)));
        assert_eq!(run.code, 0, "{run}");
        assert_for_the_owner_only(&directory);
        if umask == "777" {
            continue;
        }
        let (target, kept) = (old.copy(&format!("target-{umask}")), parent.join("kept"));
        let rewind = keeping(&target, &new, &kept).arg("--keep-diverged-blocks").command();
        run_command(with_umask(umask, &rewind)).expect_done();
        assert_for_the_owner_only(&kept);
        assert!(kept.join("lost/csv").is_dir() && kept.join("pg_wal").is_dir());
    }
    // One that is there keeps its name and is closed.
    let open = sandbox.make_dir("open");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).expect("open a directory");
    assert_eq!(run_command(export(&old, &new, &open)).code, 0);
    assert_for_the_owner_only(&open);
}

/// From what a rewind has kept a part can be chosen, and exported again; a running source is asked what it has by now.
#[test]
fn a_part_of_what_was_kept_is_chosen() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = many_rows(&sandbox, 1);
    let target = old.copy("target");
    let kept = sandbox.make_dir("parent").join("kept");
    keeping(&target, &new, &kept).run().expect_rewound();
    let run: Run = lost_only_of(&kept, &["--format", "json"]);
    let listed = listing(&run);
    assert_eq!((run.code, changes(&listed).len()), (0, 1000), "{run}");
    let xid = listed["transactions"][0]["xid"].to_string();
    for options in
        [&["--xid", &xid][..], &["--table", "public.wide"], &["--table", "nothing"], &["--no-values"]]
    {
        let options = [&["--format", "json"], options].concat();
        let of_kept = listing(&lost_only_of(&kept, &options));
        let of_node = listing(&lost(&old, &new, SourceKind::Directory, &options));
        for field in ["transactions", "totals", "definitions", "undecided", "read", "complete"] {
            let shown = |text: &Value| text[field].to_string().chars().take(500).collect::<String>();
            let (of_kept, of_node) = (&of_kept, &of_node);
            assert!(
                of_kept[field] == of_node[field],
                "{options:?} {field}: {} {}",
                shown(of_kept),
                shown(of_node)
            );
        }
    }
    let masked = lost_only_of(&kept, &["--mask", "filler", "--format", "json"]);
    assert_eq!(changes(&listing(&masked))[0].1["new"]["filler"], "***");

    let again = sandbox.path("parent").join("again");
    let place = again.to_str().expect("a UTF-8 path");
    let run = lost_only_of(&kept, &["--export", place, "--source-server", &new.conninfo()]);
    assert_eq!(run.code, 0, "{run}");
    assert_for_the_owner_only(&again);
    let read = |place: &Path, name: &str| std::fs::read_to_string(place.join(name)).expect("read a file");
    for name in ["apply.sql", "csv/postgres.public.wide.csv"] {
        assert!(read(&again, name) == read(&kept.join("lost"), name), "{name}");
    }
    let again: Value = serde_json::from_str(&read(&again, "transactions.json")).expect("JSON");
    let on_source = &again["on_source"]["tables"][0];
    assert_eq!((&on_source["same"], &on_source["changed"]), (&1000.into(), &0.into()), "{on_source}");
}
