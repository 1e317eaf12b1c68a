//! Files that are no part of a cluster: they come from the source, and what only the target has goes.
//!
//!              before the fork      target           source           afterwards
//!     both/    shared               + lost           + kept           shared, kept
//!     lost/    -                    created          -                -
//!     kept/    -                    -                created          created
//!     changed  shared               lost             kept             kept
//!     .DS_Store is left alone, on both sides; odd names are only names.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Failover, Feature, Rewind, Sandbox, Server, SourceKind, assert_follows, assert_sound};

/// Everything that has a meaning to a shell, to SQL, to COPY or to a terminal.
const ODD_NAMES: [&str; 6] =
    ["with spaces", "it's \"quoted\"", "line\nbreak", "Größe-表-🐘", "back\\slash", "%p $(x);*?"];

fn write(server: &Server, name: &str, content: &str) {
    for (end, _) in name.match_indices('/') {
        if !server.data.join(&name[..end]).exists() {
            server.make_dir(&name[..end]);
        }
    }
    server.write(name, content);
}

/// Names and contents of all files of this scenario in a data directory; a directory's content is "/".
fn files(data: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![data.join("extra")];
    while let Some(path) = pending.pop() {
        let name =
            path.strip_prefix(data).expect("below the data directory").to_str().expect("UTF-8").to_string();
        if path.is_dir() {
            pending
                .extend(std::fs::read_dir(&path).expect("list").map(|entry| entry.expect("an entry").path()));
            found.insert(name, "/".into());
        } else {
            found.insert(name, std::fs::read_to_string(&path).expect("read"));
        }
    }
    found
}

/// Directories and files of the administrator's own.
pub const EXTRA_FILES: Feature = Feature {
    name: "extra_files",
    shared: |old| {
        // The standby gets them as a base backup would bring them.
        let new = old.beside("new");
        for name in ["extra/both/shared", "extra/changed", "extra/emptied/file"] {
            write(old, name, "shared");
        }
        for name in ODD_NAMES {
            write(old, &format!("extra/{name}/{name}"), name);
        }
        crate::harness::copy_tree(&old.data.join("extra"), &new.join("extra"));
    },
    lost: |old| {
        old.sql("CREATE TABLE lost ()");
        for name in ["extra/both/lost", "extra/lost/deep/down/file", "extra/changed", "extra/both/.DS_Store"]
        {
            write(old, name, "lost, and longer than what is shared");
        }
        for name in ODD_NAMES {
            write(old, &format!("extra/lost/{name}/{name}"), "lost");
        }
        std::fs::remove_file(old.data.join("extra/emptied/file")).expect("remove a file");
    },
    kept: |new| {
        new.sql("CREATE TABLE kept ()");
        for name in ["extra/both/kept", "extra/kept/deep/down/file", "extra/changed", "extra/kept/.DS_Store"]
        {
            write(new, name, "kept");
        }
        write(new, "extra/kept/empty file", "");
        new.make_dir("extra/kept/empty directory");
        write(new, "extra/kept/of 3 MB", &"0123456789abcdef".repeat(3 << 16));
        for name in ODD_NAMES {
            write(new, &format!("extra/kept/{name}/{name}"), "kept");
        }
    },
    check: |rewound, source| {
        let (mut here, mut there) = (files(&rewound.data), files(&source.data));
        assert_eq!(
            here.remove("extra/both/.DS_Store").as_deref(),
            Some("lost, and longer than what is shared")
        );
        assert_eq!(there.remove("extra/kept/.DS_Store").as_deref(), Some("kept"));
        assert_eq!(here, there, "files of the target and of the source");
        assert_eq!(here["extra/emptied/file"], "shared");
        assert!(here.contains_key("extra/kept/line\nbreak/line\nbreak"), "an odd name: {:?}", here.keys());
    },
};

#[test]
fn come_from_the_source() {
    EXTRA_FILES.rewind_both_ways();
}

/// As keys of certificates are often kept: even their owner cannot write to them, and he may replace them all the same.
#[test]
fn read_only_ones_are_replaced() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::new(
        &sandbox,
        |_| (),
        |old| {
            old.sql("CREATE TABLE lost ()");
            for (name, content) in [("server.key", "lost"), ("same.key", "the same")] {
                old.write(name, content);
                let read_only = std::fs::Permissions::from_mode(0o400);
                std::fs::set_permissions(old.data.join(name), read_only).expect("close a file");
            }
        },
        |new| {
            new.sql("CREATE TABLE kept ()");
            new.write("server.key", "kept");
            new.write("same.key", "the same");
        },
    );
    old.stop();
    Rewind::of(&old).from(&new, SourceKind::Server).args(["--keep", "none"]).run().expect_done();
    assert_eq!(std::fs::read_to_string(old.data.join("server.key")).expect("read"), "kept");
    assert_follows(&mut old, &new);
    assert_sound(&mut old);
}
