//! What cluster managers rely on when they run a program by the name of pg_rewind, rule by rule.
//!
//! | rule | what | test |
//! |---|---|---|
//! | R1 | behaves by its name | `drop_in::r9_…`, `r1_…` |
//! | R2 | the original's options | `drop_in::r2_…` |
//! | R3 | `--help` needs nothing | `drop_in::r3_…` |
//! | R4 | the version of the server beside it | `drop_in::r4_…` |
//! | R5 | status 0 or 1 | `r5_and_r12_…` |
//! | R6 | nothing on standard output | `r6_…`, all of them |
//! | R7 | children's output and input | `r7_and_r16_…` |
//! | R8, R9 | lines, and the original's words | `drop_in::r8_and_r9_…`, `r9_…` |
//! | R10 | what can fail fails before the first write | `r9_and_r10_…` |
//! | R11 | a second run changes nothing | `r11_…` |
//! | R12 | SIGTERM | `r5_and_r12_…`, `r12_…` |
//! | R13 | connection strings as managers write them | `r13_and_r14_…` |
//! | R14 | four grants, one connection | `r13_and_r14_…` |
//! | R15 | which server program is run | `r15_…` |
//! | R16 | `-c` | `r7_and_r16_…` |
//! | R17 | not as root; modes of the directory | `r17_…` |
//! | R18, R19 | configuration is the source's; nothing of our own stays | `r18_and_r19_…` |
//! | R20 | an unclean target, with no server program in reach | `r20_…` |

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{
    AsServerUser, Failover, Installation, Run, Sandbox, Server, Tree, assert_follows, binary, bindir,
    command_as, is_root, run_command, segments,
};
use crate::least_privilege;

fn diverged(sandbox: &Sandbox) -> Failover {
    Failover::new(
        sandbox,
        |old| {
            least_privilege::create_role(old);
            old.sql("INSERT INTO entry SELECT 'shared' FROM generate_series(1, 3000)");
        },
        |old| old.sql("UPDATE entry SET origin = 'lost'; CREATE TABLE lost ()"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 3000); CREATE TABLE kept ()"),
    )
}

/// `pg_rewind -N -D target --source-server source`
fn pg_rewind(target: &Server, conninfo: &str) -> Command {
    let mut command = command_as("pg_rewind", ["-N", "-D"]);
    command.arg(&target.data).arg(format!("--source-server={conninfo}"));
    command
}

/// R6 holds for every run.
fn run(command: Command) -> Run {
    let run = run_command(command);
    assert_eq!(run.stdout, "", "R6: standard output\n{run}");
    run
}

fn with_fault(mut command: Command, fault: &str) -> Command {
    command.env("KBRECOVER_FAULT", fault);
    command
}

/// R1: by whichever name the file is called; under any other name it is kbrecover.
#[test]
fn r1_the_name_decides() {
    // Where the program is, too: it is linked.
    let sandbox = Sandbox::on_disk();
    let directory = sandbox.make_dir("bin");
    for (name, expected) in
        [("pg_rewind", "pg_rewind: "), ("sys_rewind", "sys_rewind: "), ("renamed", "kbrecover: ")]
    {
        let copy = directory.join(name);
        std::fs::copy(binary(), &copy).expect("copy the program");
        let run = run_command(Command::new(&copy));
        assert!(run.code == 1 && run.stderr.starts_with(expected), "{name}\n{run}");
    }
}

/// R5: half-way is status 1, too, and the next run finishes. R12: SIGTERM is no death but status 1, at once.
#[test]
fn r5_and_r12_every_failure_is_status_1_and_can_be_finished() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.kill();
    let conninfo = new.conninfo();
    let disk_full = run(with_fault(pg_rewind(&old, &conninfo), "20:28"));
    assert_eq!(disk_full.code, 1, "{disk_full}");
    let last = disk_full.stderr.lines().next_back().unwrap_or_default();
    assert!(last.starts_with("pg_rewind: error: ") && last.contains("No space left"), "{disk_full}");
    old.try_start().expect_err("a server started on a half-rewound directory");

    let begun = Instant::now();
    let terminated = run(with_fault(pg_rewind(&old, &conninfo), "12:sh kill -TERM $PPID; sleep 1"));
    assert!(begun.elapsed() < Duration::from_secs(10), "R12: {terminated}");
    assert_eq!(terminated.code, 1, "{terminated}");
    assert!(terminated.stderr.contains("pg_rewind: error: stopped by a signal"), "{terminated}");
    old.try_start().expect_err("a server started on a half-rewound directory");

    assert_eq!(run(pg_rewind(&old, &conninfo)).code, 0);
    assert_follows(&mut old, &new);
}

/// Under its own name the status tells that the target is not as it was.
#[test]
fn r12_under_its_own_name_sigterm_is_status_2() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.kill();
    for (fault, status) in [("1:sh kill -TERM $PPID; sleep 1", 1), ("20:sh kill -TERM $PPID; sleep 1", 2)] {
        let mut command = crate::harness::command(["rewind", "-N", "-D"]);
        command.arg(&old.data).arg("--source-server").arg(new.conninfo());
        let run = run_command(with_fault(command, fault));
        assert_eq!(run.code, status, "{fault}\n{run}");
    }
}

/// R9, R10: missing WAL is named in the words a manager looks for, before the first write; once the file is there the
/// same command succeeds.
#[test]
fn r9_and_r10_missing_wal_is_named_and_a_retry_is_legal() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.stop();
    // All of them are taken away: which of them is named first is the one needed first.
    let aside = sandbox.make_dir("aside");
    for segment in segments(&old.data) {
        let segment = segment.to_string();
        std::fs::rename(old.data.join("pg_wal").join(&segment), aside.join(&segment))
            .expect("move a segment");
    }
    let before = Tree::of(&old.data);
    let missing = run(pg_rewind(&old, &new.conninfo()));
    before.assert_unchanged(&old.data, &missing.to_string());
    assert_eq!(missing.code, 1, "{missing}");
    let path = old.data.canonicalize().expect("a path");
    let start = format!("pg_rewind: error: could not open file \"{}/pg_wal/", path.display());
    let line =
        missing.stderr.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{missing}"));
    let file = &line[start.len()..][..24];
    assert!(file.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
    assert!(line[start.len() + 24..].starts_with("\": No such file or directory"), "{line}");

    for entry in std::fs::read_dir(&aside).expect("list") {
        let entry = entry.expect("an entry");
        std::fs::rename(entry.path(), old.data.join("pg_wal").join(entry.file_name())).expect("move it back");
    }
    assert_eq!(run(pg_rewind(&old, &new.conninfo())).code, 0);
    assert_follows(&mut old, &new);
}

/// R6, R5: repmgr reads one line of standard output and goes away. Whatever is said goes elsewhere, so that no run dies of
/// that.
#[test]
fn r6_nobody_need_read_standard_output() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.stop();
    for more in [&["-n", "-P", "--debug"][..], &["-P", "--debug"], &["-P"], &["--no-such-option"]] {
        let mut command = pg_rewind(&old, &new.conninfo());
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let mut child =
            command.args(more).stdout(writer).stderr(Stdio::null()).spawn().expect("run pg_rewind");
        drop(reader);
        let expected = i32::from(more == ["--no-such-option"]);
        assert_eq!(child.wait().expect("wait").code(), Some(expected), "{more:?}");
        let mut command = pg_rewind(&old, &new.conninfo());
        command.args(more);
        assert_eq!(run(command).code, expected, "{more:?}");
    }
    assert_follows(&mut old, &new);
}

/// R7, R16: the target's restore_command gets %p below the data directory's WAL directory name and no input, one call at a
/// time; what it prints goes to standard error. And nobody need read that: a closed pipe stops nothing.
#[test]
fn r7_and_r16_restore_command() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.stop();
    let conninfo = new.conninfo();
    let empty = run({
        let mut command = pg_rewind(&old, &conninfo);
        command.arg("-c");
        command
    });
    assert_eq!(empty.code, 1, "{empty}");
    assert!(
        empty.stderr.contains("pg_rewind: error: restore_command is not set in the target cluster"),
        "{empty}"
    );
    old.configure("restore_command = 'cp /archive/%r/%f %p'");
    let restart_point = run({
        let mut command = pg_rewind(&old, &conninfo);
        command.arg("-c");
        command
    });
    let expected = "cannot use restore_command with %r placeholder";
    assert!(restart_point.code == 1 && restart_point.stderr.contains(expected), "{restart_point}");

    let archive = sandbox.make_dir("archive");
    for segment in segments(&old.data) {
        let segment = segment.to_string();
        std::fs::rename(old.data.join("pg_wal").join(&segment), archive.join(&segment))
            .expect("move a segment");
    }
    let calls = archive.join("calls");
    old.configure(&format!(
        "restore_command = 'echo restoring %f; cat; mkdir {0}/lock || exit 126; echo %p >> {1}; cp {0}/%f %p; s=$?; \
         rmdir {0}/lock; exit $s'",
        archive.display(),
        calls.display()
    ));
    let mut command = pg_rewind(&old, &conninfo);
    command.arg("--restore-target-wal").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run pg_rewind");
    // Nobody reads standard error, and what comes on standard input is not for the children.
    drop(child.stderr.take());
    child.stdin.take().expect("a pipe").write_all(b"from the manager").expect("write");
    let output = child.wait_with_output().expect("wait");
    assert_eq!((output.status.code(), output.stdout), (Some(0), Vec::new()));
    let calls = std::fs::read_to_string(calls).expect("the calls");
    assert!(calls.lines().count() > 0);
    for path in calls.lines() {
        let (directory, file) = path.rsplit_once('/').expect("a path");
        assert!(directory.starts_with('/') && directory.ends_with("/pg_wal") && file.len() >= 16, "{path}");
    }
    assert_follows(&mut old, &new);
}

/// R11: again before the server was started: success, and not a byte is changed, nor is a server run.
#[test]
fn r11_a_second_run_changes_nothing() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.kill();
    assert_eq!(run(pg_rewind(&old, &new.conninfo())).code, 0);
    let before = Tree::of(&old.data);
    for more in ["-P", "-n", "--no-ensure-shutdown"] {
        let mut command = pg_rewind(&old, &new.conninfo());
        command.arg(more);
        let again = run(command);
        assert_eq!(again.code, 0, "{more}\n{again}");
        before.assert_unchanged(&old.data, &again.to_string());
        assert!(again.stderr.contains("no rewind required"), "{again}");
    }
    assert_follows(&mut old, &new);
}

/// R13: a string as Patroni writes it (escaped, several hosts, keywords that matter to no Unix socket), its environment,
/// and a password file. R14: a role with four grants and one connection only.
#[test]
fn r13_and_r14_connection_strings_and_rights() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.stop();
    new.sql("ALTER ROLE rewind_user CONNECTION LIMIT 1");
    let (host, port) = (new.host(), new.port);
    let conninfo = format!(
        "dbname=postgres user=rewind_user host=/nix,{host} port={port},{port} application_name=node\\ one \
         connect_timeout=5 gssencmode=disable channel_binding=prefer target_session_attrs=read-write"
    );
    let passfile = sandbox.path("pgpass");
    std::fs::write(&passfile, "*:*:*:*:secret\n").expect("write a password file");
    std::fs::set_permissions(&passfile, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("chmod");
    let mut command = pg_rewind(&old, &conninfo);
    command.env("PGOPTIONS", "-c statement_timeout=0").env("PGPASSFILE", &passfile).env("LC_ALL", "C");
    let done = run(command);
    assert_eq!(done.code, 0, "{done}");
    assert!(done.stderr.ends_with("pg_rewind: Done!\n") && !done.stderr.contains("secret"), "{done}");
    assert_follows(&mut old, &new);
}

/// R15: the server program is that beside the program as it was called, else beside its file, else where `pg_config` says, else
/// on `PATH`; one of another major version is passed over. `--bindir` alone counts if it is given.
#[test]
fn r15_the_server_program_is_found_and_fits_the_target() {
    // Where the program is, too: it is linked.
    let sandbox = Sandbox::on_disk();
    let Failover { mut old, new } = diverged(&sandbox);
    old.kill();
    let [called, real, configured, path, named] =
        ["called", "real", "configured", "path", "named"].map(|name| sandbox.make_dir(name));
    std::fs::copy(binary(), real.join("kbrecover")).expect("copy the program");
    std::os::unix::fs::symlink(real.join("kbrecover"), called.join("pg_rewind")).expect("make a link");
    let other = Installation::of(14).bindir.join("postgres");
    // What it says of itself when it is run for good.
    let server = |directory: &Path| {
        let log = directory.join("log");
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] || echo \"$@\" >> {}\nexec {} \"$@\"\n",
            log.display(),
            bindir().join("postgres").display()
        );
        script(&directory.join("postgres"), &text);
        log
    };
    let rewind = |name: &str, extra: &str| {
        let target = old.copy(name);
        let mut command = Command::new(called.join("pg_rewind"));
        command.args(["-N", "-D"]).arg(&target.data).arg(format!("--source-server={}", new.conninfo()));
        command.env("KBRECOVER_OPTIONS", format!("--ensure-shutdown {extra}")).env("PATH", &path);
        command.as_server_user();
        (target, run(command))
    };
    let expect_run = |log: &Path, done: &Run| {
        assert_eq!(done.code, 0, "{done}");
        let ran = std::fs::read_to_string(log)
            .unwrap_or_else(|e| panic!("not run: {}: {e}\n{done}", log.display()));
        assert!(ran.contains("--single") && ran.lines().count() == 1, "{ran}");
        std::fs::remove_file(log).expect("remove the log");
    };

    // From the last place to the first: the one that is added is the one that counts.
    script(&path.join("pg_config"), &format!("#!/bin/sh\necho {}\n", configured.display()));
    let places = [&path, &configured, &real, &called];
    let logs: Vec<_> = places
        .iter()
        .enumerate()
        .map(|(number, place)| {
            let log = server(place);
            expect_run(&log, &rewind(&format!("place-{number}"), "").1);
            log
        })
        .collect();

    std::fs::remove_file(called.join("postgres")).expect("remove the program");
    std::os::unix::fs::symlink(other, called.join("postgres")).expect("make a link");
    expect_run(&logs[2], &rewind("passed-over", "").1);
    let log = server(&named);
    expect_run(&log, &rewind("by-name", &format!("--bindir {}", named.display())).1);
    let before = Tree::of(&old.data);
    let (target, refused) = rewind("refused", &format!("--bindir {}", called.display()));
    before.assert_unchanged(&target.data, &refused.to_string());
    let expected = "program \"postgres\" of PostgreSQL 15 is needed but was not found";
    assert!(refused.code == 1 && refused.stderr.contains(expected), "{refused}");
}

/// Makes a program of the servers' user.
fn script(path: &Path, text: &str) {
    std::fs::write(path, text).expect("write a script");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
}

/// R17: root is sent away before anything is looked at.
#[test]
fn r17_not_as_root() {
    let link = binary().with_file_name("pg_rewind");
    let _ = std::os::unix::fs::symlink(binary(), &link);
    // Who is not root is it in a user namespace of his own. The other half, modes that stay, is in group_access.rs.
    let mut command = Command::new(if is_root() { "env" } else { "unshare" });
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg(link);
    command.args(["-D", "/nix", "--source-server=host=/nix"]);
    let run = run(command);
    assert_eq!(run.code, 1);
    let expected = "pg_rewind: error: cannot be executed by \"root\"";
    assert!(run.stderr.lines().any(|line| line == expected), "{run}");
}

/// R18: the configuration is the source's afterwards, as managers count on. R19: nothing of our own stays, and what an
/// unfinished run has left on a source is not copied.
#[test]
fn r18_and_r19_what_is_in_the_directory_afterwards() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.configure("# of the old primary");
    new.configure("# of the new primary");
    new.write("kbrecover.journal", "left");
    old.kill();
    assert_eq!(run(pg_rewind(&old, &new.conninfo())).code, 0);
    let configuration =
        |server: &Server| std::fs::read_to_string(server.data.join("postgresql.conf")).expect("read");
    assert_eq!(configuration(&old), configuration(&new));
    let mut pending = vec![old.data.clone()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).expect("list") {
            let entry = entry.expect("an entry");
            assert!(!entry.file_name().to_string_lossy().contains("kbrecover"), "{}", entry.path().display());
            if entry.file_type().expect("type").is_dir() {
                pending.push(entry.path());
            }
        }
    }
    std::fs::remove_file(new.data.join("kbrecover.journal")).expect("remove");
    assert_follows(&mut old, &new);
}

/// R20, by a better way: a crashed target is rewound though no server program can be found, with standby.signal or
/// without; --no-ensure-shutdown refuses it in the original's words.
#[test]
fn r20_an_unclean_target_needs_no_server_program() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = diverged(&sandbox);
    old.kill();
    let mut refused = pg_rewind(&old, &new.conninfo());
    refused.arg("--no-ensure-shutdown");
    let before = Tree::of(&old.data);
    let refused = run(refused);
    before.assert_unchanged(&old.data, &refused.to_string());
    let last = refused.stderr.lines().next_back();
    assert_eq!(last, Some("pg_rewind: error: target server must be shut down cleanly"), "{refused}");
    assert_eq!(refused.code, 1);

    old.write("standby.signal", "");
    let mut command = pg_rewind(&old, &new.conninfo());
    command.env("PATH", "/nix");
    let done = run(command);
    assert_eq!(done.code, 0, "{done}");
    assert_follows(&mut old, &new);
}

/// A target that crashed exactly where the source left its history has nothing to lose. The original lets it recover
/// first, which makes it diverge, and then makes all files the source's: so it is done under this name, and not under our own.
#[test]
fn r20_a_crashed_target_that_has_nothing_of_its_own_gets_the_source_s_files() {
    let sandbox = Sandbox::new();
    let (old, new) = sandbox.pair();
    let mut failover = Failover { old, new };
    failover.old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 3000)");
    failover.old.sql("CHECKPOINT");
    failover.new.catch_up(&failover.old);
    failover.old.kill();
    failover.new.promote();
    let Failover { mut old, new } = failover;
    new.write("of_the_source", "x");
    old.write("of_the_target", "x");
    let ours = crate::harness::Rewind::of(&old).arg("--source-server").arg(new.conninfo());
    ours.run_leaving_target_alone().expect_not_needed();
    let done = run(pg_rewind(&old, &new.conninfo()));
    assert_eq!(done.code, 0, "{done}");
    assert!(done.stderr.ends_with("pg_rewind: Done!\n"), "{done}");
    assert!(old.data.join("of_the_source").exists() && !old.data.join("of_the_target").exists(), "{done}");
    assert_follows(&mut old, &new);
}
