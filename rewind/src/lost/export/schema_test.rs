//! What is written as JSON is as `docs/reference/lost.schema.json` says, and the schema knows every field.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::json::LostJson;
use super::made_up::{history, play, table, text};
use crate::lost::model::{LostHistory, LostSink, LostValue, OnSource, SourceRow, SourceState};

const SCHEMA: &str = include_str!("../../../../docs/reference/lost.schema.json");

/// As much of JSON Schema as the schema uses. Returns the names of the fields that it knows at each place that was
/// checked, or why the value is wrong.
struct Checker {
    schema: Value,
}

impl Checker {
    fn check(&self, value: &Value, schema: &Value, place: &str) -> Result<Vec<String>, String> {
        let mut known = Vec::new();
        let wrong = |what: &str| Err(format!("{place}: {what}: {value}"));
        for (keyword, rule) in schema.as_object().expect("a schema is an object") {
            match keyword.as_str() {
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#").expect("a place in this schema");
                    known.extend(self.check(
                        value,
                        self.schema.pointer(name).expect("a definition"),
                        place,
                    )?);
                }
                "type" => {
                    let types = rule.as_array().map_or(vec![rule], |types| types.iter().collect());
                    if !types.contains(&&json!(type_of(value))) {
                        return wrong("wrong type");
                    }
                }
                "const" if value != rule => return wrong("another constant"),
                "enum" if !rule.as_array().unwrap().contains(value) => return wrong("not in the list"),
                "required" => {
                    for name in rule.as_array().unwrap() {
                        if value.get(name.as_str().unwrap()).is_none() {
                            return wrong(&format!("{name} is missing"));
                        }
                    }
                }
                "properties" => {
                    known.extend(self.check_properties(value, rule.as_object().unwrap(), place)?)
                }
                "additionalProperties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        known.push(name.clone());
                        self.check_known(value, rule, &format!("{place}/{name}"))?;
                    }
                }
                "items" => {
                    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check_known(item, rule, &format!("{place}/{number}"))?;
                    }
                }
                "oneOf" => {
                    let results = rule.as_array().unwrap().iter().map(|rule| self.check(value, rule, place));
                    let mut fitting = results.filter_map(Result::ok);
                    match (fitting.next(), fitting.next()) {
                        (Some(names), None) => known.extend(names),
                        (None, _) => return wrong("fits none"),
                        (Some(_), Some(_)) => return wrong("fits several"),
                    }
                }
                _ => {}
            }
        }
        Ok(known)
    }

    fn check_properties(
        &self,
        value: &Value,
        properties: &Map<String, Value>,
        place: &str,
    ) -> Result<Vec<String>, String> {
        for (name, rule) in properties {
            if let Some(value) = value.get(name) {
                self.check_known(value, rule, &format!("{place}/{name}"))?;
            }
        }
        Ok(properties.keys().cloned().collect())
    }

    /// Checks a value, and that the schema has a name for each of its fields.
    fn check_known(&self, value: &Value, schema: &Value, place: &str) -> Result<(), String> {
        let known = self.check(value, schema, place)?;
        match value.as_object().into_iter().flatten().find(|(name, _)| !known.contains(name)) {
            Some((name, _)) => Err(format!("{place}: the schema does not know {name}")),
            None => Ok(()),
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn checked(all: &Value) -> Result<(), String> {
    let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let checker = Checker { schema: schema.clone() };
    checker.check_known(all, &schema, "")
}

fn written(play: impl FnOnce(&mut LostJson<Vec<u8>>)) -> Value {
    let mut json = LostJson::new(Vec::new(), "memory");
    play(&mut json);
    serde_json::from_slice(json.get_mut()).expect("JSON")
}

#[test]
fn what_is_written_is_as_the_schema_says() {
    assert_eq!(checked(&written(|json| play(json).unwrap())), Ok(()));
    let early = written(|json| {
        json.begin(&history()).unwrap();
        json.end_early(&history(), "x").unwrap();
    });
    assert_eq!(checked(&early), Ok(()));
    let table = Arc::new(table("shop", "sales", "payment"));
    let row = |state| SourceRow { table: table.clone(), key: vec![text("1"), LostValue::Unknown], state };
    let rows = vec![row(Some(SourceState::Gone)), row(None)];
    let compared = written(|json| {
        json.begin(&history()).unwrap();
        json.end(&LostHistory { on_source: Some(OnSource { rows }), ..history() }).unwrap();
    });
    assert_eq!(checked(&compared), Ok(()));
    assert_eq!(compared["on_source"]["rows"][0]["key"], json!({"id": "1"}));
    assert_eq!(compared["on_source"]["tables"][0]["gone"], 1);
}

#[test]
fn the_check_finds_what_is_wrong() {
    let good = written(|json| play(json).unwrap());
    for (pointer, value) in [
        ("/schema_version", json!(2)),
        ("/complete", json!("yes")),
        ("/cluster", json!({})),
        ("/transactions/0/xid", json!("764")),
        ("/transactions/0/changes/0/op", json!("upsert")),
        ("/transactions/0/changes/0/new", json!({"id": 1})),
        ("/transactions/0/changes/0/new", json!({"id": {"unchanged": true, "unknown": true}})),
        ("/transactions/0/changes/0/quality", json!(null)),
        ("/totals/tables/0", json!({"inserted": 1, "updated": 0, "deleted": 0})),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect("a value there") = value;
        assert!(checked(&bad).is_err(), "{pointer}");
    }
    let mut more = good;
    more["transactions"][0]["changes"][0]["surprise"] = json!(1);
    let error = checked(&more).unwrap_err();
    assert!(error.contains("surprise") || error.contains("fits none"), "{error}");
}
