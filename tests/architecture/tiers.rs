//! Every scenario runs: each file is a module of tests/suite.rs, each word of tests/tiers.sh names modules, each script that
//! checks something is called by tests/run.sh.

use std::collections::BTreeSet;
use std::path::Path;

/// Scripts that check nothing: a demonstration, a show of logs, and parts of the others.
const NO_CHECKS: [&str; 7] =
    ["run.sh", "debian_server.sh", "demo.sh", "flows.sh", "postgresql.sh", "servers.sh", "tiers.sh"];

pub fn check(repository: &Path) {
    let read = |path: &str| {
        std::fs::read_to_string(repository.join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"))
    };
    let names = |extension: &str| -> BTreeSet<String> {
        let list = std::fs::read_dir(repository.join("tests")).expect("list tests").flatten();
        let names = list.map(|entry| entry.file_name().into_string().expect("a UTF-8 name"));
        names.filter(|name| name.ends_with(extension)).collect()
    };
    let suite = read("tests/suite.rs");
    let declared = suite.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let declared: BTreeSet<&str> = declared.filter(|name| *name != "harness").collect();
    let files: BTreeSet<String> =
        names(".rs").iter().map(|name| name.trim_end_matches(".rs").to_owned()).collect();
    let files: BTreeSet<&str> = files.iter().map(String::as_str).filter(|name| *name != "suite").collect();
    assert_eq!(declared, files, "modules of tests/suite.rs, and files beside it");

    let (tiers, run) = (read("tests/tiers.sh"), read("tests/run.sh"));
    for tier in ["T1", "MANAGERS", "OTHER_SIZES"] {
        let words = words_of(&tiers, tier);
        assert!(!words.is_empty(), "{tier} is empty");
        for word in words {
            let is_meant = |module: &&&str| format!("{module}::").starts_with(&word);
            assert!(declared.iter().any(|module| is_meant(&module)), "{tier}: {word} names no module");
        }
    }
    // What is not in t3 is in t2, by the same list.
    assert!(tiers.contains("not_managers=(\"${MANAGERS[@]/#/--skip=}\")"), "t2 is all that is not in t3");
    for part in
        [r#""${T1[@]}""#, r#""${MANAGERS[@]}""#, r#""${not_managers[@]}""#, r#""${not_other_sizes[@]}""#]
    {
        assert!(run.contains(part), "tests/run.sh does not use {part}");
    }
    let script = read("tests/other_sizes.sh");
    for word in words_of(&tiers, "OTHER_SIZES") {
        assert!(script.contains(&word), "tests/other_sizes.sh does not run {word}");
    }

    for script in names(".sh").iter().filter(|name| !NO_CHECKS.contains(&name.as_str())) {
        assert!(run.contains(&format!("tests/{script}")), "tests/run.sh does not run tests/{script}");
    }
    assert!(run.contains("tests/fuzz/run.sh"), "tests/run.sh does not run the fuzz targets");
}

/// The words of an array of bash: `NAME=(a b)`, on one line or more.
fn words_of(script: &str, name: &str) -> Vec<String> {
    let (_, rest) = script.split_once(&format!("\n{name}=(")).unwrap_or_else(|| panic!("no {name}"));
    let (inside, _) = rest.split_once(')').expect("a closing parenthesis");
    inside.split_whitespace().map(str::to_owned).collect()
}
