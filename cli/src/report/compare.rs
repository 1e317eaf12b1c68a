//! What `kbrecover compare` has found, as text and as JSON.

use std::fmt::Write;

use jiff::tz::TimeZone;
use kbrecover_rewind::{Comparison, DifferentFile, Size};
use serde::Serialize;

use super::json::{SidesObject, VerifiedObject, to_json};
use super::side_text;
use crate::failure::Failed;

/// The largest number of files that are listed in text.
const LISTED: usize = 20;

/// The result as text.
pub(crate) fn text(comparison: &Comparison) -> String {
    let Comparison { sides, complete_to, blocks, different_files, surplus_files, .. } = comparison;
    let zone = TimeZone::system();
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<28}{value}");
    };
    row("node", &side_text(&sides.target, &zone));
    row("source", &side_text(&sides.source, &zone));
    if let Some(at) = comparison.divergence {
        row("diverged", &format!("at {} on timeline {}: the node must be rewound", at.lsn, at.timeline));
    }
    row("node is complete to", &complete_to.to_string());
    row("compared", &format!("{} in {} relation files", Size(blocks.bytes), blocks.files));
    row("replay will change", &format!("{} blocks", blocks.replayed));
    row("different in hint bits only", &format!("{} blocks", blocks.not_logged));
    row("different in contents", &format!("{} blocks", blocks.different));
    for DifferentFile { path, blocks, first, .. } in different_files.iter().take(LISTED) {
        let _ = writeln!(text, "  {path}: {blocks} blocks, the first is block {}", first.0);
    }
    if let Some(more) = different_files.len().checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more files (all are in the output of --format json)");
    }
    if !surplus_files.is_empty() {
        let _ = writeln!(
            text,
            "files that only the node has  {}, dropped since or left by a crash: {}",
            surplus_files.len(),
            surplus_files.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ")
        );
    }
    let conclusion = match comparison.is_equal() {
        true => "The node has what the source had then.",
        false => "The node differs from its source. \"kbrecover rewind --compare-data\" copies what differs.",
    };
    let _ = writeln!(text, "\n{conclusion}");
    text
}

/// The result as one JSON object. Programs rely on its fields: they may be added, but not renamed.
pub(crate) fn json(comparison: &Comparison) -> String {
    let file = |file: &DifferentFile| FileObject {
        path: file.path.clone(),
        blocks: file.blocks,
        first: file.first.0,
    };
    let object = ComparisonObject {
        outcome: if comparison.is_equal() { "equal" } else { "different" },
        sides: SidesObject::of(&comparison.sides),
        diverged_at: comparison.divergence.map(|at| at.lsn.to_string()),
        complete_to: comparison.complete_to.to_string(),
        blocks: VerifiedObject::of(comparison.blocks),
        different_files: comparison.different_files.iter().map(file).collect(),
        surplus_files: &comparison.surplus_files,
    };
    to_json(&object)
}

/// A failure as one JSON object.
pub(crate) fn json_of_failure(failed: &Failed) -> String {
    to_json(&FailureObject { outcome: "failed", error: &failed.message, hint: failed.hint.as_deref() })
}

#[derive(Serialize)]
struct ComparisonObject<'a> {
    outcome: &'static str,
    sides: SidesObject<'a>,
    diverged_at: Option<String>,
    complete_to: String,
    blocks: VerifiedObject,
    different_files: Vec<FileObject>,
    surplus_files: &'a [String],
}

#[derive(Serialize)]
struct FileObject {
    path: String,
    blocks: u64,
    first: u32,
}

#[derive(Serialize)]
struct FailureObject<'a> {
    outcome: &'static str,
    error: &'a str,
    hint: Option<&'a str>,
}
