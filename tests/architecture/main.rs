//! The architecture of the sources, held by tests: no import circle between files, the rooms of the engine in their order,
//! every scenario in a tier of `tests/run.sh`, no link in a document that leads nowhere, and every error message explained. No
//! server is needed.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod documents;
mod imports;
mod messages;
mod rooms;
mod source;
mod tiers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const CRATES: [&str; 4] = ["walparse", "rewind", "hooks", "cli"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn imports_of(name: &str) -> imports::Imports {
    let files = imports::read_files(&repository().join(name).join("src"));
    assert!(files.len() > 5, "only {} files in {name}", files.len());
    imports::imports(&files)
}

#[test]
fn no_files_import_each_other() {
    let mut found = String::new();
    for name in CRATES {
        for circle in imports::circles(&imports_of(name)) {
            found += &format!("\n{name}/src:\n    {}\n", circle.join("\n    "));
        }
    }
    assert!(found.is_empty(), "circles of imports:\n{found}");
}

#[test]
fn the_rooms_of_the_engine_import_only_rooms_below() {
    let wrong = rooms::upward(&imports_of("rewind"));
    assert!(wrong.is_empty(), "imports from below to above in rewind/src:\n    {}", wrong.join("\n    "));
    for room in rooms::ROOMS {
        assert!(repository().join("rewind/src").join(room).is_dir(), "there is no room {room}");
    }
}

#[test]
fn every_scenario_is_in_a_tier() {
    tiers::check(&repository());
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut broken = String::new();
    let all = documents::documents(&repository());
    assert!(all.len() > 20, "only {} documents", all.len());
    for document in all {
        for link in documents::broken_links(&document) {
            broken += &format!("\n    {}: {link}", document.display());
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:{broken}");
}

#[test]
fn blocks_to_be_copied_hold_commands_only() {
    for name in ["README.md", "docs/quickstart.md"] {
        let text = std::fs::read_to_string(repository().join(name)).expect("read a document");
        let wrong = documents::uncopyable_blocks(&text);
        assert!(wrong.is_empty(), "{name}:\n    {}", wrong.join("\n    "));
        assert!(text.contains("```sh\n"), "{name} has no commands");
    }
}

#[test]
fn the_book_has_every_page() {
    let docs = repository().join("docs");
    let contents = std::fs::read_to_string(docs.join("SUMMARY.md")).expect("read docs/SUMMARY.md");
    let all = documents::documents(&repository());
    let below = all.iter().filter_map(|path| path.strip_prefix(&docs).ok());
    let pages: BTreeSet<String> =
        below.map(|path| path.display().to_string()).filter(|path| path != "SUMMARY.md").collect();
    assert_eq!(documents::pages_of(&contents), pages, "pages of docs/SUMMARY.md, and files in docs");
    let book = std::fs::read_to_string(repository().join("book.toml")).expect("read book.toml");
    assert!(book.contains("src = \"docs\""), "{book}");
    // A site has nothing else.
    let docs = documents::plain(&docs);
    for document in all.iter().map(|path| documents::plain(path)).filter(|path| path.starts_with(&docs)) {
        let out = documents::links_out_of(&docs, &document);
        assert!(out.is_empty(), "{} has links that lead out of the book: {out:?}", document.display());
    }
}

#[test]
fn every_error_message_is_explained() {
    let page = repository().join("docs/reference/messages.md");
    let entries = messages::entries(&std::fs::read_to_string(page).expect("read the page of messages"));
    let explained: BTreeSet<String> = entries.iter().cloned().collect();
    assert_eq!(entries.len(), explained.len(), "docs/reference/messages.md has an entry twice");
    let files = CRATES.map(|name| imports::read_files(&repository().join(name).join("src")));
    let messages: BTreeSet<String> = files.iter().flat_map(messages::messages).collect();
    assert!(messages.len() > 200, "only {} messages", messages.len());
    let list = |texts: Vec<&String>| texts.iter().map(|text| format!("\n    {text}")).collect::<String>();
    let missing = list(messages.difference(&explained).collect());
    assert!(missing.is_empty(), "messages without an entry in docs/reference/messages.md:{missing}");
    let stale = list(explained.difference(&messages).collect());
    assert!(stale.is_empty(), "entries of docs/reference/messages.md that are no message:{stale}");
}

#[test]
fn the_readme_is_short() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("read the README");
    assert!(readme.len() < 8 << 10, "the README has {} bytes: details belong into docs/", readme.len());
    assert!(readme.contains("](docs/fork.svg)"), "the README has no picture of the two timelines");
}

#[cfg(test)]
mod made_up {
    use super::documents::uncopyable_blocks;
    use super::imports::{Files, arrow, circles, imports};
    use super::messages::{entries, messages};
    use super::rooms::upward;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }

    fn arrows(list: &[(&str, &str)]) -> Vec<String> {
        let imports = imports(&files(list));
        let pairs = imports.iter().flat_map(|(from, to)| to.keys().map(move |to| (from, to)));
        pairs.map(|(from, to)| arrow(&imports, from, to)).collect()
    }

    #[test]
    fn blocks_with_more_than_commands_are_found() {
        let fine = "Text\n\n```sh\nkbrecover rewind \\\n    -n\nbash x\n```\n\n```text\noutput\n```\n";
        assert!(uncopyable_blocks(fine).is_empty(), "{:?}", uncopyable_blocks(fine));
        for wrong in ["```sh\nkbrecover x\noutput\n```\n", "\n    kbrecover x\n", "```\nkbrecover x\n```\n"] {
            assert_eq!(uncopyable_blocks(wrong).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn messages_are_read_as_the_page_writes_them() {
        let text = r##"
            #[error("could not {action} \"{}\"{}", path.display(), more())]
            #[error(transparent)]
            #[error("{0}")]
            #[error(
                "a \
                 long one: {found:02X}",
            )]
            #[cfg(test)]
mod tests { #[error("of a test")] }
        "##;
        let found = messages(&files(&[("error.rs", text)]));
        let found: Vec<_> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["a long one: …", "could not … \"…\"…"]);
        assert_eq!(entries("## Part\n\n### `one … \"two\"`\n\n### other\n"), ["one … \"two\""]);
    }

    #[test]
    fn imports_are_read_in_all_their_forms() {
        let found = arrows(&[
            ("lib.rs", "mod a; pub mod b; pub use a::Alpha; fn f() { b::deep::one(); }"),
            (
                "a.rs",
                "use crate::b::{self, deep::{One as Uno, Two}}; pub struct Alpha; fn f() { b::top::<u8>() }",
            ),
            ("b/mod.rs", "pub mod deep; mod inner { fn f() { super::super::a::x(); } } pub fn top<T>() {}"),
            (
                "b/deep.rs",
                "use crate::Alpha; pub fn one() {} pub struct One; pub struct Two; fn g() -> super::Top {}",
            ),
        ]);
        let expected = [
            "a.rs -> b/deep.rs (One, Two)",
            "a.rs -> b/mod.rs (top)",
            "b/deep.rs -> a.rs (Alpha)",
            "b/deep.rs -> b/mod.rs (Top)",
            "b/mod.rs -> a.rs (x)",
            "lib.rs -> b/deep.rs (one)",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn comments_literals_tests_and_other_crates_are_left_out() {
        let found = arrows(&[
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod tests; mod t { #[cfg(test)] mod tests { use crate::a::X; } }"),
            (
                "a.rs",
                "// use crate::b::X;\n/* crate::b::X */ const S: &str = \"crate::b::X\"; const R: &str = r#\"crate::b::X\"#;
                 const C: char = '\"'; fn f<'a>(x: &'a u8) { std::mem::drop(x); other::b::X; '\\''; b'\\\\' }
                 #[cfg(test)] use crate::b::X; #[cfg(test)] #[allow(dead_code)] fn t(x: [u8; 2]) { crate::b::X }",
            ),
            ("b.rs", "use std::a::{X}; pub struct X;"),
            ("tests.rs", "use crate::a::X; use crate::b::X as Y;"),
        ]);
        assert_eq!(found, [] as [&str; 0]);
    }

    #[test]
    fn re_exports_lead_to_where_a_name_is_defined() {
        let room = "mod one; mod two; pub use one::One; pub use two::*; pub struct Three;";
        let list = |room| {
            [
                ("lib.rs", "mod a; mod room;"),
                ("a.rs", "use crate::room::{One, Two, Three};"),
                ("room/mod.rs", room),
                ("room/one.rs", "use super::Three; pub struct One;"),
                ("room/two.rs", "pub struct Two;"),
            ]
        };
        let expected = [
            "a.rs -> room/mod.rs (Three)",
            "a.rs -> room/one.rs (One)",
            "a.rs -> room/two.rs (Two)",
            "room/one.rs -> room/mod.rs (Three)",
        ];
        assert_eq!(arrows(&list(room)), expected);
        // What is passed on and used, too, is imported.
        let used = format!("{room} fn f() -> One {{}}");
        assert!(arrows(&list(&used)).contains(&"room/mod.rs -> room/one.rs (One)".to_owned()));
    }

    #[test]
    fn each_circle_is_shown_once_and_by_the_shortest_way() {
        let list = [
            ("lib.rs", "mod a; mod b; mod c; use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::c::C; pub struct B;"),
            ("c.rs", "use crate::{a::A, b::B}; pub struct C;"),
        ];
        let found = circles(&imports(&files(&list)));
        let all = ["a.rs -> b.rs (B)", "b.rs -> c.rs (C)", "c.rs -> a.rs (A)"].map(str::to_owned);
        let two = ["b.rs -> c.rs (C)", "c.rs -> b.rs (B)"].map(str::to_owned);
        assert_eq!(found, [all.to_vec(), two.to_vec()]);
        let list = [&list[..3], &[("c.rs", "pub struct C;")]].concat();
        assert_eq!(circles(&imports(&files(&list))), [] as [Vec<String>; 0]);
    }

    #[test]
    fn an_import_from_below_to_above_is_found() {
        let imports = imports(&files(&[
            ("lib.rs", "mod engine; mod plan; mod wal; mod flat; mod conninfo;"),
            ("engine/mod.rs", "use crate::{plan::Plan, flat::F, wal::W}; pub struct E;"),
            ("plan/mod.rs", "use crate::engine::E; pub struct Plan;"),
            ("wal/mod.rs", "use crate::{plan::Plan as P, flat::F, conninfo::C}; pub struct W;"),
            ("conninfo/mod.rs", "use crate::flat::F; pub struct C;"),
            ("flat.rs", "use crate::conninfo::C; pub struct F;"),
        ]));
        let expected = ["plan/mod.rs -> engine/mod.rs (E)", "wal/mod.rs -> plan/mod.rs (Plan)"];
        assert_eq!(upward(&imports), expected);
    }
}
