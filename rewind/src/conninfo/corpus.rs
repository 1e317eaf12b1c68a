//! Compares our parser with libpq on every string of `corpus.jsonl`. `tests/conninfo_corpus.py` wrote libpq's results, and
//! checks them again in the scenario tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::options::{OPTIONS, Origin, Values};
use super::{Conninfo, Environment, syntax};

/// An empty environment.
struct Nothing;

impl Environment for Nothing {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn os_user(&self) -> Option<String> {
        None
    }

    fn home(&self) -> Option<PathBuf> {
        Some("/nonexistent".into())
    }
}

/// Options that are rejected here although libpq accepts them (`docs/reference/connecting.md`).
const REFUSED: [&str; 4] =
    ["sslcertmode=require", "min_protocol_version=3.2", "min_protocol_version=latest", "scram_"];

fn lines() -> impl Iterator<Item = (String, Value)> {
    let lines = include_str!("corpus.jsonl").lines();
    lines.map(|line| {
        let value: Value = serde_json::from_str(line).expect("a JSON object");
        (value["text"].as_str().expect("a text").to_owned(), value)
    })
}

fn options(values: &Values) -> BTreeMap<&'static str, &str> {
    let known = OPTIONS.iter().map(|option| option.keyword);
    let given = known.filter(|keyword| values.origin(keyword) == Some(Origin::Text));
    given.filter_map(|keyword| Some((keyword, values.raw(keyword)?))).collect()
}

/// Whether two messages agree. Where libpq shows text that may be a password, ours may omit it or name the part of the
/// URI instead.
fn same_words(ours: &str, libpqs: &str) -> bool {
    let up_to = |mark: &str| ours.split(mark).next().filter(|front| front.len() < ours.len());
    let hidden = ours.split_once("\"...\"");
    ours == libpqs
        || libpqs.starts_with(&format!("{ours}: \""))
        || hidden.is_some_and(|(front, back)| libpqs.starts_with(front) && libpqs.ends_with(back))
        || up_to(" in the ").is_some_and(|front| libpqs.starts_with(&format!("{front}: \"")))
        || up_to(": the ").is_some_and(|front| libpqs.starts_with(&format!("{front}: \"")))
        || ours.starts_with("unexpected spaces found in the ")
            && libpqs.starts_with("unexpected spaces found in \"")
        || ours.starts_with("unexpected character behind") && libpqs.starts_with("unexpected character \"")
}

#[test]
fn strings_mean_what_they_mean_to_libpq() {
    let mut wrong = Vec::new();
    for (text, libpq) in lines().filter(|(_, libpq)| libpq.get("connect").is_none()) {
        let ours = syntax::parse(&text).map(|(values, _)| values);
        let same = match (&ours, libpq["error"].as_str()) {
            (Ok(values), None) => serde_json::json!(options(values)) == libpq["options"],
            (Err(error), Some(message)) => same_words(&error.to_string(), message),
            _ => false,
        };
        if !same {
            let ours = ours.as_ref().map(options).map_err(ToString::to_string);
            wrong.push(format!("{text:?}\n    ours  {ours:?}\n    libpq {libpq}"));
        }
    }
    assert!(wrong.is_empty(), "{} strings differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn values_are_refused_as_by_libpq() {
    let mut wrong = Vec::new();
    let lines = lines().filter_map(|(text, libpq)| Some((text, libpq.get("connect")?.clone())));
    for (text, libpq) in lines.filter(|(text, _)| !REFUSED.iter().any(|refused| text.contains(refused))) {
        let ours = Conninfo::parse(&text, &Nothing).err().map(|error| error.to_string());
        let same = match (&ours, libpq.as_str()) {
            (None, None) => true,
            (Some(ours), Some(libpq)) => same_words(ours, libpq),
            _ => false,
        };
        if !same {
            wrong.push(format!("{text:?}\n    ours  {ours:?}\n    libpq {libpq}"));
        }
    }
    assert!(wrong.is_empty(), "{} strings differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_corpus_is_large() {
    let (with, without): (Vec<_>, Vec<_>) = lines().partition(|(_, libpq)| libpq["error"].is_string());
    assert!(with.len() > 200 && without.len() > 700, "{} {}", with.len(), without.len());
}
