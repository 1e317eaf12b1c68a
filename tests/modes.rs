//! Any version in any mode: the usual run picks one of each by its seed, `tests/run.sh --full` goes through them all.
//!
//!     old  ──── shared ────┬──── lost ──── copies: kill -9, or shut down ╳
//!                          │                   rewound, each in a mode of its own
//!     new  ┄┄┄ streams ┄┄┄ └──── kept ──────────────────────────────────▶

use crate::harness::{Failover, Installation, Rewind, Sandbox, Server, SourceKind};
use crate::harness::{assert_follows, assert_sound, pick, remove_copy};
use crate::versions::{kept, lost, shared};

const VERSIONS: [u32; 9] = [10, 11, 12, 13, 14, 15, 16, 17, 18];

/// How the target was left, where the source is read, and options that must make no difference to the result.
#[derive(Clone, Copy, Debug)]
struct Mode {
    is_crashed: bool,
    source: SourceKind,
    options: &'static [&'static str],
}

const TARGETS: [bool; 2] = [true, false];
const SOURCES: [SourceKind; 2] = [SourceKind::Server, SourceKind::Directory];
const OPTIONS: [&[&str]; 6] = [
    &["--jobs", "1", "--delta", "off"],
    &["--jobs", "7", "--delta", "on"],
    &["--sync-method", "syncfs", "--copy-all-changed"],
    &["--sync-method", "fsync", "--keep", "none"],
    &["--keep", "*.local", "--jobs", "2"],
    &["--keep", "none", "--delta", "on", "--sync-method", "syncfs"],
];

/// Every target with every source and all options.
fn modes() -> Vec<Mode> {
    let of_target = |is_crashed| SOURCES.map(|source| (is_crashed, source));
    let pairs = TARGETS.into_iter().flat_map(of_target);
    let all =
        pairs.flat_map(|(is_crashed, source)| OPTIONS.map(|options| Mode { is_crashed, source, options }));
    all.collect()
}

fn rewind(crashed: &Server, new: &mut Server, name: &str, mode: Mode) {
    let mut target = crashed.copy(name);
    if !mode.is_crashed {
        target.start();
        target.stop();
    }
    if mode.source == SourceKind::Directory {
        new.stop();
    }
    let rewind = Rewind::of(&target).from(new, mode.source).args(mode.options);
    let rewind = if mode.options.contains(&"--sync-method") { rewind.synced() } else { rewind };
    rewind.run().expect_done();
    if mode.source == SourceKind::Directory {
        new.start();
    }
    assert_follows(&mut target, new);
    assert_eq!(target.value::<i64>("SELECT count(*) FROM account WHERE owner = 'lost'"), 0, "{mode:?}");
    assert_sound(&mut target);
    remove_copy(target);
}

#[test]
fn any_version_in_any_mode() {
    for major in pick("modes: version", &VERSIONS) {
        let sandbox = Sandbox::new();
        let (old, new) = sandbox.pair_of(sandbox.initdb("old", Installation::of(major), &[]));
        let Failover { mut old, mut new } = Failover::of(old, new, shared, lost, kept);
        old.kill();
        for (number, mode) in pick("modes: mode", &modes()).into_iter().enumerate() {
            rewind(&old, &mut new, &format!("target-{number}"), mode);
        }
    }
}
