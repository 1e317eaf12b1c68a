//! Exit status 0 means that the node's content is the source's: how the scenarios of this name prove it.
//!
//! The rewound node is read first, and only then the source. Reading sets hint bits, and the page images that these
//! bring to WAL would mend a node that is wrong.

use crate::harness::{Rewind, Run, Server, SourceKind, Tree, assert_follows, assert_sound};

/// A rewind of `old` to the running server `new`.
pub fn rewind(old: &Server, new: &Server) -> Rewind {
    Rewind::of(old).from(new, SourceKind::Server)
}

/// The rewind must succeed, and the node must have the source's content.
pub fn assert_rewinds(old: &mut Server, new: &Server) -> Run {
    let run = rewind(old, new);
    assert_rewinds_by(run, old, new)
}

/// The same for a rewind with other options.
pub fn assert_rewinds_by(rewind: Rewind, old: &mut Server, new: &Server) -> Run {
    let run = rewind.run().expect_done();
    assert_equal(old, new);
    run
}

/// The rewind must be refused before the target is marked: exit status 1, all these words in the error or its hints, and
/// the target as it was, byte for byte.
pub fn assert_refuses(old: &Server, new: &Server, words: &[&str]) -> Run {
    refused(rewind(old, new), words)
}

/// The same for a rewind with other options.
pub fn refused(rewind: Rewind, words: &[&str]) -> Run {
    let run = rewind.run_leaving_target_alone();
    check_refusal(&run, words);
    run
}

/// What replay cannot do right without a later checkpoint of the source: the rewind may be refused in these words. It must
/// never end well and be wrong. True if it succeeded.
pub fn assert_rewinds_or_refuses(rewind: Rewind, old: &mut Server, new: &Server, words: &[&str]) -> bool {
    let before = Tree::of(&old.data);
    let run = rewind.run();
    if run.code == 0 {
        run.expect_rewound();
        assert_equal(old, new);
        return true;
    }
    before.assert_unchanged(&old.data, &run.to_string());
    check_refusal(&run, words);
    false
}

/// The node follows, has every row that the source has and no other, and every index agrees with its table.
fn assert_equal(old: &mut Server, new: &Server) {
    assert_follows(old, new);
    assert_sound(old);
}

fn check_refusal(run: &Run, words: &[&str]) {
    assert_eq!(run.code, 1, "exit status of a refusal\n{run}");
    let lines = |kind: &str| -> Vec<&str> { run.stderr.lines().filter(|line| line.contains(kind)).collect() };
    let (errors, hints) = (lines("error: "), lines("hint: "));
    assert!(!errors.is_empty() && !hints.is_empty(), "a refusal has an error and a hint\n{run}");
    let said = [errors, hints].concat().join("\n").to_lowercase();
    for word in words {
        assert!(said.contains(&word.to_lowercase()), "the refusal does not say \"{word}\"\n{run}");
    }
}
