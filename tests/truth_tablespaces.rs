//! Tablespaces made after the fork: which directory a link leads to is in WAL, and replay makes the link anew.
//!
//!     old/pg_tblspc/16400 ─▶ old-space/     both servers made one, under one number
//!     new/pg_tblspc/16400 ─▶ new-space/     replay: old/pg_tblspc/16400 ─▶ new-space/, and two servers would write there

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::{
    Change, Failover, Installation, Sandbox, Server, Tree, assert_follows, assert_sound, bindir, copy_tree,
    give_to_server_user, record_changes,
};
use crate::interrupted::is_marked;
use crate::truth_proof::rewind;

/// Both sides give out the same numbers.
fn failover(sandbox: &Sandbox) -> Failover {
    let (mut old, new) = sandbox.pair();
    old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 1000)");
    new.catch_up(&old);
    old.stop();
    old.start();
    let mut failover = Failover { old, new };
    failover.fail_over();
    failover.new.sql("CHECKPOINT");
    failover
}

fn create(server: &Server, directory: &Path, origin: &str) {
    server.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", directory.display()));
    server.sql(&format!(
        "CREATE TABLE {origin} TABLESPACE space AS SELECT n, '{origin}' AS origin FROM generate_series(1, 3000) n"
    ));
}

fn places(server: &Server) -> Vec<PathBuf> {
    let list = fs::read_dir(server.data.join("pg_tblspc")).expect("list pg_tblspc");
    list.filter_map(|entry| fs::read_link(entry.expect("an entry").path()).ok()).collect()
}

/// On one machine there is no right place for it: the rewind is refused, or the node has a directory of its own.
fn one_number(with_checkpoint: bool) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = failover(&sandbox);
    let [old_space, new_space] = ["old-space", "new-space"].map(|name| sandbox.make_dir(name));
    create(&old, &old_space, "lost");
    create(&new, &new_space, "kept");
    let number =
        |server: &Server| server.value::<u32>("SELECT oid FROM pg_tablespace WHERE spcname = 'space'");
    assert_eq!(number(&old), number(&new), "the scenario needs one number for two tablespaces");
    if with_checkpoint {
        new.sql("CHECKPOINT");
    }
    let number = number(&new).to_string();
    old.stop();
    let before = Tree::of(&old.data);
    let run = rewind(&old, &new).run();
    if run.code == 0 {
        assert_follows(&mut old, &new);
        assert!(!places(&old).contains(&new_space), "two servers share {}", new_space.display());
        return assert_sound(&mut old);
    }
    assert_eq!(run.code, 1, "{run}");
    before.assert_unchanged(&old.data, &run.to_string());
    let error: String = run.stderr.lines().filter(|line| line.contains("error: ")).collect();
    assert!(error.contains(&number) && error.contains("new-space"), "{run}");
}

#[test]
fn one_number_at_two_places() {
    one_number(false);
}

#[test]
fn one_number_at_two_places_and_a_checkpoint_since() {
    one_number(true);
}

/// The same path on two machines: here the source's server sees a directory of its own there, by a mount that nobody else
/// sees. On the target's machine the directory is that of the tablespace which the rewind gives up.
fn one_path(sandbox: &Sandbox) -> (Failover, PathBuf) {
    let [space, elsewhere] = ["space", "elsewhere"].map(|name| sandbox.make_dir(name));
    let Failover { mut old, mut new } = failover(sandbox);
    new.stop();
    new.installation = on_another_machine(sandbox, &elsewhere, &space);
    new.start();
    // The numbers differ, as after any other failover.
    new.sql("CREATE TABLE before AS SELECT 1 AS n");
    create(&old, &space, "lost");
    create(&new, &space, "kept");
    assert_eq!(fs::read_dir(&elsewhere).expect("list a directory").count(), 1, "the source's own");
    old.stop();
    (Failover { old, new }, space)
}

#[test]
fn one_path_on_two_machines() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, space) = one_path(&sandbox);
    rewind(&old, &new).run().expect_done();
    assert_follows(&mut old, &new);
    assert_eq!(places(&old), std::slice::from_ref(&space));
    assert_sound(&mut old);
}

/// Killed before each change of a link and after it, and run again.
#[test]
fn one_path_on_two_machines_and_a_kill() {
    let sandbox = Sandbox::new();
    let (Failover { mut old, new }, space) = one_path(&sandbox);
    let directories = [old.data.clone(), space.clone()];
    let saved = ["saved-data", "saved-space"].map(|name| sandbox.path(name));
    for (directory, saved) in directories.iter().zip(&saved) {
        copy_tree(directory, saved);
    }
    let restore = || {
        for (directory, saved) in directories.iter().zip(&saved) {
            fs::remove_dir_all(directory).expect("remove what a run has changed");
            copy_tree(saved, directory);
        }
    };
    let rewind = |old: &Server| rewind(old, &new).args(["--jobs", "1"]);
    let changes = record_changes(rewind(&old), &old);
    let is_of_link = |change: &Change| change.path.parent() == Some(Path::new("pg_tblspc"));
    let links: Vec<usize> =
        changes.iter().enumerate().filter(|(_, change)| is_of_link(change)).map(|(at, _)| at + 1).collect();
    assert!(links.len() >= 2, "one link goes and another comes: {links:?}");
    let mut places_of_kills: Vec<usize> = links.iter().flat_map(|at| [*at, at + 1]).collect();
    places_of_kills.dedup();
    for at in places_of_kills {
        restore();
        let killed = rewind(&old).env("KBRECOVER_FAULT", format!("{at}:kill")).run_unless_killed();
        assert!(killed.is_none() && is_marked(&old), "not killed at change {at}");
        rewind(&old).run().expect_done();
        assert_eq!(places(&old), std::slice::from_ref(&space), "killed at change {at}");
        assert_follows(&mut old, &new);
        old.stop();
    }
    old.start();
    assert_sound(&mut old);
}

/// Server programs that find `there` in the place of `here`.
fn on_another_machine(sandbox: &Sandbox, there: &Path, here: &Path) -> &'static Installation {
    let directory = sandbox.make_dir("other-machine");
    for entry in fs::read_dir(bindir()).expect("list the server programs").flatten() {
        if entry.file_name() != "postgres" {
            std::os::unix::fs::symlink(entry.path(), directory.join(entry.file_name()))
                .expect("link a program");
        }
    }
    let program = directory.join("postgres");
    let script = format!(
        "#!/bin/sh\nexec unshare --user --mount --map-current-user --keep-caps sh -c 'mount --bind {} {} && exec {} \"$@\"' postgres \"$@\"\n",
        there.display(),
        here.display(),
        bindir().join("postgres").display()
    );
    fs::write(&program, script).expect("write a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make a program");
    give_to_server_user(&program);
    Box::leak(Box::new(Installation { major: 15, bindir: directory }))
}
