//! Links and special files in the target: never followed, never written through.
//!
//!     target/pg_ident.conf ──▶ outside/…     stays a link, the file outside stays as it is
//!     target/log           ──▶ outside/…     the same, with all that the source has in its log/
//!     target/only/link     ──▶ nowhere       is in the target only, and goes with its directory

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::{Failover, Rewind, Sandbox, Server, SourceKind, assert_follows};

/// A file beside the data directory that everybody may write: only care keeps it as it is.
fn precious(server: &Server, name: &str) -> PathBuf {
    let path = server.beside(name);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("create a directory");
    std::fs::write(&path, "precious").expect("write a file");
    for open in [path.as_path(), path.parent().expect("a directory")] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).expect("open it to all");
    }
    path
}

fn assert_precious(path: &Path) {
    assert_eq!(std::fs::read_to_string(path).expect("read what was outside"), "precious");
}

#[test]
fn to_files_and_directories_stay() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    let log = precious(&old, "outside/x.log");
    let ident = precious(&old, "outside/ident.conf");
    std::fs::write(&ident, "# precious\n").expect("write a file");
    old.relink(&old.data.join("pg_ident.conf"), &ident);
    old.relink(&old.data.join("log"), log.parent().expect("a directory"));
    new.make_dir("log");
    new.write("log/x.log", "of the source");
    new.write("log/y.log", "of the source");
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server).args(["--keep", "none"]);
    rewind.run().expect_done().expect_said("it is left as it is");
    assert_precious(&log);
    assert_eq!(std::fs::read_to_string(&ident).expect("read it"), "# precious\n");
    assert!(!log.with_file_name("y.log").exists(), "written outside of the data directory");
    assert!(old.data.join("pg_ident.conf").is_symlink() && old.data.join("log").is_symlink());
    assert_follows(&mut old, &new);
}

#[test]
fn in_directories_of_the_target_alone_go() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    old.make_dir("only");
    old.relink(&old.data.join("only/link"), Path::new("/nowhere"));
    let _socket =
        std::os::unix::net::UnixListener::bind(old.data.join("only/socket")).expect("bind a socket");
    Rewind::of(&old).from(&new, SourceKind::Server).run().expect_done();
    assert!(!old.data.join("only").exists(), "a directory of the target alone was left");
    assert_follows(&mut old, &new);
}

#[test]
fn among_the_data_are_refused() {
    let sandbox = Sandbox::new();
    let Failover { old, new } = Failover::of_one_table(&sandbox);
    let outside = old.beside("xact");
    std::fs::rename(old.data.join("pg_xact"), &outside).expect("move pg_xact");
    old.relink(&old.data.join("pg_xact"), &outside);
    let rewind = Rewind::of(&old).from(&new, SourceKind::Server);
    rewind.expect_refusal("file \"pg_xact\" is of different type in source and target", "");
}
