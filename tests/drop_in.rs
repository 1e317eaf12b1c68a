//! Under the name pg_rewind everything is as scripts and cluster managers know it: compared with the original.
//!
//!     the same command line ──┬── pg_rewind of PostgreSQL 15 ──▶ status, stdout, stderr
//!                             └── kbrecover as pg_rewind ──────▶ the same
//!
//! The rules R1 to R20 are listed in tests/drop_in_rules.rs.

use std::process::Command;

use crate::harness::{
    AsServerUser, Failover, Run, Sandbox, Server, assert_follows, bindir, command_as, run_command,
    server_program,
};

/// Runs the original and this program; in what they print the path they were called by is cut to the name.
pub fn both(args: &[&str]) -> [Run; 2] {
    let mut original = server_program("pg_rewind");
    original.args(args);
    [original, command_as("pg_rewind", args)].map(|command| {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut run = run_command(command);
        run.stderr = run.stderr.replace(&program, "pg_rewind");
        run
    })
}

fn assert_same(args: &[&str]) {
    let [original, ours] = both(args);
    assert_eq!(ours.code, original.code, "{args:?}: exit status\n{original}\n{ours}");
    assert_eq!(ours.stdout, original.stdout, "{args:?}: standard output");
    // A hint of our own may stand before the error, which stays the last line.
    let is_own = |line: &&str| line.starts_with("pg_rewind: hint: ") && !original.stderr.contains(*line);
    let said: Vec<_> = ours.stderr.lines().filter(|line| !is_own(line)).collect();
    assert_eq!(said, original.stderr.lines().collect::<Vec<_>>(), "{args:?}: standard error");
    assert_eq!(ours.stderr.lines().next_back(), original.stderr.lines().next_back(), "{args:?}: last line");
}

/// R1, R2, R5, R6: wrong usage, word by word.
#[test]
fn r2_wrong_usage_is_answered_as_by_the_original() {
    let sandbox = Sandbox::new();
    let directory = sandbox.make_dir("directory");
    let directory = directory.to_str().expect("UTF-8");
    let lines: &[&[&str]] = &[
        &[],
        &["-D", directory],
        &["-x"],
        &["-Px"],
        &["-D"],
        &["-PD"],
        &["--foo"],
        &["--foo=1"],
        &["--source"],
        &["--no"],
        &["--d"],
        &["--"],
        &["--dry-run=3"],
        &["--target-pgdata"],
        &["--target-pg", directory, "--source-p", directory, "-R"],
        &["-V", "x"],
        &["-P", "--version"],
        &["-P", "-V"],
        &["-P", "--help"],
        &["-P", "-?"],
        &["--wal-dir", directory],
        &["--sync-method=fsync"],
        &["-D", directory, "--source-pgdata", directory, "--source-server", "x"],
        &["--source-pgdata", directory],
        &["-D", directory, "--source-server", "host=/nix", "a", "b"],
        &["a", "-D", directory, "--source-server=host=/nix", "--", "-P"],
        &["-D/nix", "--source-server=host=/nix"],
    ];
    for args in lines {
        assert_same(args);
    }
}

/// R3: --help and --version answer at once and touch nothing.
#[test]
fn r3_help_needs_nothing() {
    for flag in ["--help", "-?"] {
        let run = run_command(command_as("pg_rewind", [flag]));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run}");
        let [original, ours] = both(&[flag]);
        let options = |run: &Run| {
            let words = run.stdout.split_whitespace().filter(|word| word.starts_with('-'));
            words.map(|word| word.trim_end_matches(',').to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(options(&ours), options(&original), "options in their order");
    }
}

/// R4: the version is that of the server beside the program, before links are followed.
#[test]
fn r4_the_version_is_that_of_the_server_beside_it() {
    let sandbox = Sandbox::new();
    for flag in ["--version", "-V"] {
        let [original, ours] = both(&[flag]);
        assert_eq!((ours.code, &ours.stdout, ours.stderr.as_str()), (0, &original.stdout, ""), "{ours}");
    }
    let bin = sandbox.make_dir("bin");
    let link = |name: &str, to: &std::path::Path| {
        std::os::unix::fs::symlink(to, bin.join(name)).expect("make a link");
    };
    link("pg_rewind", crate::harness::binary());
    let version = || {
        let mut command = Command::new(bin.join("pg_rewind"));
        command.arg("--version").env("PATH", "/nix").as_server_user();
        run_command(command).stdout
    };
    // With no server in sight it says what it is.
    assert!(version().starts_with("pg_rewind (kbrecover) 0."), "{}", version());
    link("postgres", &bindir().join("postgres"));
    assert_eq!(version(), both(&["--version"])[0].stdout);
}

fn diverged(sandbox: &Sandbox) -> Failover {
    Failover::new(
        sandbox,
        |old| old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)"),
        |old| old.sql("UPDATE entry SET origin = 'lost'; CREATE TABLE lost ()"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000); CREATE TABLE kept ()"),
    )
}

/// What a run says, but for figures of bytes and progress.
fn lines(run: &Run) -> Vec<String> {
    let said = run.stderr.lines().filter(|line| !line.ends_with(" copied"));
    said.map(|line| match line.split_once("need to copy ") {
        Some((before, _)) => format!("{before}need to copy"),
        None => line.to_owned(),
    })
    .collect()
}

/// R1, R6, R8, R9: what is said of a run, of a dry run and of one that is not needed is what the original says.
#[test]
fn r8_and_r9_a_run_says_what_the_original_says() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.stop();
    // The original of 15 looks at the control file for the timeline: it is told by a checkpoint.
    new.sql("CHECKPOINT");
    let mut theirs = old.copy("theirs");
    let conninfo = new.conninfo();
    let rewind = |target: &Server, more: &[&str]| {
        let target = target.data.to_str().expect("UTF-8");
        [&["-ND", target, "--source-server", &conninfo][..], more]
            .concat()
            .iter()
            .map(|&arg| arg.to_owned())
            .collect()
    };
    let run_both = |old: &Server, theirs: &Server, more: &[&str]| {
        let (ours, original): (Vec<String>, Vec<String>) = (rewind(old, more), rewind(theirs, more));
        let mut program = server_program("pg_rewind");
        program.args(original);
        let (original, ours) = (run_command(program), run_command(command_as("pg_rewind", ours)));
        assert_eq!((ours.code, original.code), (0, 0), "{original}\n{ours}");
        assert_eq!(lines(&ours), lines(&original), "{more:?}\n{original}\n{ours}");
        assert_eq!((ours.stdout.as_str(), original.stdout.as_str()), ("", ""), "{more:?}");
        ours
    };
    run_both(&old, &theirs, &["-n"]);
    let ours = run_both(&old, &theirs, &["-P"]);
    assert!(!ours.stderr.contains('\r'), "R8: no carriage return where there is no terminal\n{ours}");
    let progress = ours.stderr.lines().rfind(|line| line.ends_with(" copied")).expect("a line of progress");
    assert!(progress.contains(" kB (100%) copied"), "{progress}");
    assert_follows(&mut old, &new);
    assert_follows(&mut theirs, &new);
    // Both have followed the source: nothing is to be done.
    old.stop();
    theirs.stop();
    let ours = run_both(&old, &theirs, &[]);
    assert!(ours.stderr.contains("no rewind required"), "{ours}");
}
