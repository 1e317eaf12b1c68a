//! Crash images: what changed on the target's disk, where a run is stopped on the way, and cheap copies to do that on.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::BufRead;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::control::patch_control_file;
use super::kbrecover::{Rewind, Run};
use super::program::give_to_server_user;
use super::server::Server;

/// One change to the target's disk, as a debug build of the program records it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The system call.
    pub kind: String,
    /// Below the data directory; as it is, if it is outside.
    pub path: PathBuf,
    /// Where a link leads or a renamed file goes.
    pub to: PathBuf,
    /// Of a write, or a length.
    pub number: u64,
    /// What is written.
    pub bytes: Vec<u8>,
}

/// Runs a rewind of this target to its end and returns what it changed on the disk.
pub fn record_changes(rewind: Rewind, target: &Server) -> Vec<Change> {
    recorded(rewind, target).1
}

/// Runs a rewind of this target. Returns the run, and what it changed on the disk.
pub fn recorded(rewind: Rewind, target: &Server) -> (Run, Vec<Change>) {
    let record = target.beside("changes");
    fs::write(&record, "").expect("make a file");
    fs::set_permissions(&record, fs::Permissions::from_mode(0o666)).expect("open a file");
    let run = rewind.env("KBRECOVER_CHANGES", &record).run().expect_rewound();
    (run, read_changes(&record, &target.data))
}

/// Reads a record of changes, made on the data directory `root`.
fn read_changes(record: &Path, root: &Path) -> Vec<Change> {
    let root = root.canonicalize().expect("a data directory");
    let mut record = std::io::BufReader::new(fs::File::open(record).expect("open a record of changes"));
    let mut changes = Vec::new();
    let mut line = String::new();
    while record.read_line(&mut line).expect("read a change") > 0 {
        let value: Value = serde_json::from_str(&line).expect("a change");
        let fields = value.as_object().expect("an object");
        let relative = |value: &Value| {
            let path = PathBuf::from(value.as_str().expect("a path"));
            path.strip_prefix(&root).map(Path::to_path_buf).unwrap_or(path)
        };
        let (kind, path) =
            fields.iter().find(|(key, value)| value.is_string() && *key != "to").expect("a kind");
        let number = ["offset", "length", "mode"].iter().find_map(|name| fields.get(*name)?.as_u64());
        let mut bytes =
            vec![0; if kind == "write" { fields["length"].as_u64().expect("a length") } else { 0 } as usize];
        std::io::Read::read_exact(&mut record, &mut bytes).expect("the bytes written");
        changes.push(Change {
            kind: kind.clone(),
            path: relative(path),
            to: fields.get("to").map(relative).unwrap_or_default(),
            number: number.unwrap_or(0),
            bytes,
        });
        line.clear();
    }
    changes
}

/// The files that are changed in place.
pub fn changed_in_place(changes: &[Change]) -> BTreeSet<PathBuf> {
    let in_place = |change: &&Change| ["write", "truncate", "chmod"].contains(&change.kind.as_str());
    changes.iter().filter(in_place).map(|change| change.path.clone()).collect()
}

/// Copies a stopped cluster with its tablespaces and its WAL directory. Only `changed` files are true copies; all
/// others are the same files under a second name, so they must not be written to.
pub fn linked_copy(server: &Server, name: &str, changed: &BTreeSet<PathBuf>) -> Server {
    let copy = server.at(name);
    copy_directory(&server.data, &copy.data, Path::new(""), changed);
    for link in followed_links(&copy.data) {
        let to = fs::read_link(copy.data.join(&link)).expect("read a link");
        let name = format!("{name}-{}", to.file_name().expect("a name").to_str().expect("UTF-8"));
        let own = copy.beside(&name);
        copy_directory(&to, &own, &link, changed);
        copy.relink(&copy.data.join(&link), &own);
    }
    copy
}

/// Removes what `linked_copy` made.
pub fn remove_copy(copy: Server) {
    for link in followed_links(&copy.data) {
        let _ = fs::remove_dir_all(fs::read_link(copy.data.join(link)).expect("read a link"));
    }
    fs::remove_dir_all(&copy.data).expect("remove a copy");
}

/// The links that belong to a cluster.
fn followed_links(data: &Path) -> Vec<PathBuf> {
    let spaces = fs::read_dir(data.join("pg_tblspc")).expect("list pg_tblspc");
    let spaces = spaces.map(|entry| Path::new("pg_tblspc").join(entry.expect("an entry").file_name()));
    spaces.chain([PathBuf::from("pg_wal")]).filter(|link| data.join(link).is_symlink()).collect()
}

fn copy_directory(from: &Path, to: &Path, below: &Path, changed: &BTreeSet<PathBuf>) {
    fs::create_dir(to).unwrap_or_else(|e| panic!("create {}: {e}", to.display()));
    fs::set_permissions(to, fs::metadata(from).expect("stat").permissions()).expect("set a mode");
    give_to_server_user(to);
    for entry in fs::read_dir(from).expect("list a directory") {
        let entry = entry.expect("an entry");
        let (name, kind) = (entry.file_name(), entry.file_type().expect("a type"));
        let (from, to, below) = (entry.path(), to.join(&name), below.join(&name));
        if kind.is_dir() {
            copy_directory(&from, &to, &below, changed);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from).expect("read a link"), &to).expect("link");
            give_to_server_user(&to);
        } else if changed.contains(&below) {
            fs::copy(&from, &to).unwrap_or_else(|e| panic!("copy {}: {e}", from.display()));
            give_to_server_user(&to);
        } else {
            fs::hard_link(&from, &to).unwrap_or_else(|e| panic!("link {}: {e}", from.display()));
        }
    }
}

/// Every path that is not the same in two clusters; `is_ignored` says which count as no part of them.
pub fn differences(one: &Path, other: &Path, is_ignored: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    compare(one, other, Path::new(""), is_ignored, &mut found);
    found
}

fn compare(
    one: &Path,
    other: &Path,
    below: &Path,
    is_ignored: &dyn Fn(&Path) -> bool,
    found: &mut Vec<String>,
) {
    let names = |directory: &Path| -> BTreeSet<OsString> {
        let list = fs::read_dir(directory.join(below)).expect("list a directory");
        list.map(|entry| entry.expect("an entry").file_name()).collect()
    };
    for name in names(one).union(&names(other)) {
        let below = below.join(name);
        if is_ignored(&below) {
            continue;
        }
        // Links of a cluster lead each copy to a directory of its own.
        let is_followed = below == Path::new("pg_wal") || below.parent() == Some(Path::new("pg_tblspc"));
        let look = |root: &Path| {
            let path = root.join(&below);
            if is_followed { fs::metadata(path).ok() } else { fs::symlink_metadata(path).ok() }
        };
        let (Some(ours), Some(theirs)) = (look(one), look(other)) else {
            found.push(format!("{below:?}: {} and {}", look(one).is_some(), look(other).is_some()));
            continue;
        };
        let mode = |metadata: &fs::Metadata| metadata.permissions().mode();
        let read = |root: &Path| fs::read(root.join(&below)).expect("read a file");
        let link = |root: &Path| fs::read_link(root.join(&below)).expect("read a link");
        if mode(&ours) != mode(&theirs) {
            found.push(format!("{below:?}: mode {:o} and {:o}", mode(&ours), mode(&theirs)));
        } else if ours.is_dir() {
            compare(one, other, &below, is_ignored, found);
        } else if ours.is_symlink() && link(one) != link(other) {
            found.push(format!("{below:?}: links to different places"));
        } else if ours.is_file()
            && (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino())
            && read(one) != read(other)
        {
            found.push(format!("{below:?}: {} bytes and {}", ours.len(), theirs.len()));
        }
    }
}

/// Takes out of a rewound directory when that was done, so that two runs can be compared.
pub fn forget_time(data: &Path) {
    // `time` of struct ControlFileData.
    patch_control_file(data, 24, &[0; 8]);
    let path = data.join("backup_label");
    let label = fs::read_to_string(&path).expect("read backup_label");
    let lines = label.lines().filter(|line| !line.starts_with("START TIME: "));
    fs::write(&path, lines.collect::<Vec<_>>().join("\n")).expect("write backup_label");
}
