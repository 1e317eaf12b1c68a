//! Somebody else comes to the target while it is rewound.
//!
//!     rewind  ── journal ─ mark ──── copy ──── seal ─ commit
//!             ╳ a server starts: refused, it goes on undisturbed
//!                              ╳ a lock file of a live process: stopped, marked; run again once it is gone
//!                         ╳ a second kbrecover: it says who holds the directory, and changes nothing
//!
//! A running server is recognised where /proc shows nothing, too.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{
    AsServerUser, Change, Failover, Rewind, Run, Sandbox, Server, SourceKind, assert_follows, assert_sound,
    binary, could_not_mount, record_changes, run, run_command, unless_busy,
};

/// As [`Rewind::run`], with a shell command run before a change.
fn run_with(rewind: Rewind, at: usize, command: &str) -> Run {
    rewind.env("KBRECOVER_FAULT", format!("{at}:sh {command}")).run()
}

/// In an undisturbed run of one thread the places of the mark, and of the control file at the end.
fn places(failover: &Failover) -> (usize, usize) {
    let copy = failover.old.copy("undisturbed");
    let changes = record_changes(rewind_of(&copy, &failover.new), &copy);
    let mark = changes.iter().position(|change| change.to == Path::new("backup_label"));
    let is_seal = |change: &Change| change.kind == "write" && change.path == Path::new("global/pg_control");
    let seal = changes.iter().rposition(is_seal).expect("a control file");
    (mark.expect("a mark") + 1, seal + 1)
}

fn rewind_of(target: &Server, source: &Server) -> Rewind {
    Rewind::of(target).from(source, SourceKind::Directory).args(["--jobs", "1"])
}

#[test]
fn a_server_is_started() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::of_one_table(&sandbox);
    failover.new.stop();
    let (mark, seal) = places(&failover);
    let pid_file = failover.old.data.join("postmaster.pid");

    // Before the mark: it is the server's directory now.
    let pg_ctl = failover.old.installation.program("pg_ctl").get_program().to_owned();
    let data = failover.old.data.display().to_string();
    let start = format!(
        "{} start -w -D {data} -o '-p {} -k {} -c listen_addresses=' > /dev/null 2>&1",
        Path::new(&pg_ctl).display(),
        failover.old.port,
        failover.old.host()
    );
    for at in [1, mark] {
        let run = run_with(rewind_of(&failover.old, &failover.new), at, &start);
        assert_eq!(run.code, 1, "a server started before change {at}: {run}");
        assert!(run.stderr.contains("target server must be shut down: lock file"), "{run}");
        assert!(!failover.old.data.join("backup_label").exists(), "marked: {run}");
        assert!(!failover.old.data.join("kbrecover.journal").exists(), "a journal is left: {run}");
        assert_eq!(failover.old.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"), 3000);
        let mut pg_ctl = failover.old.installation.program("pg_ctl");
        let stopped = pg_ctl.args(["stop", "-w", "-m", "fast", "-D"]).arg(&failover.old.data).output();
        assert!(stopped.expect("run pg_ctl").status.success() && !pid_file.exists());
    }

    // After it: no server gets so far, but one that tries has a lock file for a moment, and somebody may remove the mark.
    let live = format!("cd {data} && {{ sleep 100 > /dev/null 2>&1 & echo $! > postmaster.pid; }}");
    for at in [mark + 3, seal] {
        let target = failover.old.copy(&format!("visited-{at}"));
        let live = live.replace(&data, &target.data.display().to_string());
        let run = run_with(rewind_of(&target, &failover.new), at, &live);
        let again = rewind_of(&target, &failover.new).run();
        let pid = std::fs::read_to_string(target.data.join("postmaster.pid")).expect("a lock file");
        let killed = std::process::Command::new("kill").arg(pid.trim()).status().expect("run kill");
        assert!(killed.success());
        assert_eq!(run.code, 2, "a lock file before change {at}: {run}");
        for run in [&run, &again] {
            let words = format!("names process {}", pid.trim());
            assert!(
                run.stderr.contains("target server must be shut down") && run.stderr.contains(&words),
                "{run}"
            );
        }
        assert_eq!(again.code, 2, "{again}");
        let done = rewind_of(&target, &failover.new).run().expect_done();
        done.expect_said("pid file found but it seems bogus. Trying to start rewind anyway...");
    }
    rewind_of(&failover.old, &failover.new).run().expect_done();
    failover.new.start();
    assert_follows(&mut failover.old, &failover.new);
    assert_sound(&mut failover.old);
}

#[test]
fn a_second_run_at_once() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::of_one_table(&sandbox);
    failover.new.stop();
    let (mark, seal) = places(&failover);
    let mut tried = 0;
    for (number, at) in [1, mark + 3, seal].into_iter().enumerate() {
        let target = failover.old.copy(&format!("shared-{number}"));
        let out = sandbox.make_dir(&format!("second-{number}"));
        // $PPID is the run that has the lock.
        let second = format!(
            "{} rewind -N -D {data} --source-data {} > {out}/said 2>&1; echo $? > {out}/code; echo $PPID > {out}/pid",
            binary().display(),
            failover.new.data.display(),
            data = target.data.display(),
            out = out.display()
        );
        // The second one must not do the same.
        let second = format!("unset KBRECOVER_FAULT; {second}");
        run_with(rewind_of(&target, &failover.new), at, &second).expect_done();
        let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("what the second run left");
        let expected = if at > mark { "2" } else { "1" };
        assert_eq!(read("code").trim(), expected, "before change {at}: {}", read("said"));
        let words = format!(
            "another kbrecover is working on directory \"{}\": process {}",
            target.data.display(),
            read("pid").trim()
        );
        assert!(read("said").contains(&words), "no word of: {words}\n{}", read("said"));
        tried += 1;
    }
    assert_eq!(tried, 3);
    rewind_of(&failover.old, &failover.new).run().expect_done();
    failover.new.start();
    assert_follows(&mut failover.old, &failover.new);
}

/// A server removes its lock file a moment before its last process ends, and a manager may call us within that moment:
/// the process is waited for. One that stays is refused.
#[test]
fn the_last_process_of_a_server_that_stops() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = Failover::of_one_table(&sandbox);
    new.stop();
    let program = sandbox.path("postgres");
    std::fs::copy("/bin/sleep", &program).expect("copy sleep");
    let sleep = |seconds: &str| {
        let mut sleep = std::process::Command::new(&program);
        sleep.arg(seconds).as_server_user().current_dir(&old.data);
        unless_busy(&mut sleep, std::process::Command::spawn)
    };
    let mut stays = sleep("100");
    let run = rewind_of(&old, &new).run_leaving_target_alone();
    assert!(run.code == 1 && run.stderr.contains(&format!("server process {}", stays.id())), "{run}");
    stays.kill().expect("kill sleep");
    stays.wait().expect("wait");

    let mut ends = sleep("1");
    // It is nobody's child any more only when somebody has waited for it.
    let waiter = std::thread::spawn(move || ends.wait().expect("wait"));
    rewind_of(&old, &new).run().expect_done();
    waiter.join().expect("join");
    new.start();
    assert_follows(&mut old, &new);
}

/// A server that has begun to stop is waited for: pg_auto_failover tells its own to stop, and calls us at once. A signal
/// ends the waiting.
#[test]
fn a_server_that_is_stopping() {
    let sandbox = Sandbox::new();
    let Failover { mut old, mut new } = Failover::of_one_table(&sandbox);
    new.stop();
    let pg_ctl = |arguments: &[&str]| {
        run(old
            .installation
            .program("pg_ctl")
            .args(arguments)
            .arg("-D")
            .arg(&old.data)
            .stdout(Stdio::null()));
    };
    let place = format!("-p {} -k {} -c listen_addresses=", old.port, old.host());
    pg_ctl(&["start", "-w", "-l", &sandbox.path("stopping.log").display().to_string(), "-o", &place]);
    let session = old.session();
    // It waits for the end of the session.
    pg_ctl(&["stop", "-W", "-m", "smart"]);
    let waiting = || {
        let mut command = rewind_of(&old, &new).command();
        let mut child = command.stderr(Stdio::piped()).spawn().expect("run kbrecover");
        let said = BufReader::new(child.stderr.take().expect("its standard error"));
        let mut lines = said.lines().map(|line| line.expect("UTF-8"));
        let is_waiting =
            lines.any(|line| line.contains("target server is shutting down: waiting for process"));
        assert!(is_waiting, "did not wait");
        (child, lines)
    };
    let (mut stopped, _lines) = waiting();
    run(std::process::Command::new("kill").args(["-TERM", &stopped.id().to_string()]));
    let begun = std::time::Instant::now();
    assert_eq!(stopped.wait().expect("wait").code(), Some(1));
    assert!(begun.elapsed().as_secs() < 8, "waited on after a signal: {:?}", begun.elapsed());

    let (mut done, lines) = waiting();
    drop(session);
    let said: Vec<String> = lines.collect();
    assert!(done.wait().expect("wait").success(), "{said:?}");
    assert!(said.iter().any(|line| line.ends_with("Done!")), "{said:?}");
    new.start();
    assert_follows(&mut old, &new);
}

/// `kbrecover rewind` in a name space of its own in which /proc is empty; `None` if nothing can be mounted here.
fn run_without_proc(target: &Server, source: &Server) -> Option<Run> {
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "sh", "-c", "mount -t tmpfs kbrecover-tests /proc"]);
    let probe = probe.output().expect("run unshare");
    if !probe.status.success() {
        could_not_mount("a run without /proc", &String::from_utf8_lossy(&probe.stderr));
        return None;
    }
    let script = "mount -t tmpfs kbrecover-tests /proc && exec setpriv --reuid=postgres --regid=postgres --clear-groups \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(binary()).args(["rewind", "--no-sync", "-D"]);
    command.arg(&target.data).arg("--source-server").arg(source.conninfo());
    Some(run_command(command))
}

#[test]
fn without_proc() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    old.start();
    let Some(run) = run_without_proc(&old, &new) else { return };
    assert_eq!(run.code, 1, "{run}");
    assert!(run.stderr.contains("target server must be shut down"), "{run}");
    assert_eq!(old.value::<i64>("SELECT count(*) FROM entry WHERE origin = 'lost'"), 3000);

    // Its lock file stays, and names a process that is gone.
    old.kill();
    let lock_file = std::fs::read_to_string(old.data.join("postmaster.pid")).expect("read the lock file");
    // Or one of another user, as in a container in which the server was process 1.
    let (_, rest) = lock_file.split_once('\n').expect("lines");
    let other = old.copy("other");
    other.write("postmaster.pid", format!("1\n{rest}"));
    for mut target in [old, other] {
        let run = run_without_proc(&target, &new).expect("what went before");
        run.expect_done();
        assert_follows(&mut target, &new);
        target.stop();
    }
}
