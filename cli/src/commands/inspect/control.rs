//! `kbrecover inspect control`: every field of a control file.

use std::io::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use walparse::{ControlFields, FieldValue};

use super::args::ControlArgs;
use super::error::InspectError;
use super::open::{Key, control_bytes, control_path};
use crate::values::Format;

/// The column at which pg_controldata prints values.
const COLUMN: usize = 38;

/// Shows a control file, even if its checksum is wrong; returns a warning then.
pub(super) fn show(
    args: &ControlArgs,
    key: Key<'_>,
    out: &mut dyn Write,
) -> Result<Option<String>, InspectError> {
    let (path, flavor) = control_path(&args.path, key)?;
    let control = control_bytes(&path, flavor)?.1;
    let text = match args.format {
        Format::Text => text(&control, &TimeZone::system()),
        Format::Json => json(&control),
    };
    out.write_all(text.as_bytes())?;
    let wrong = "calculated CRC checksum does not match value stored in file: the file is damaged, or a \
                 running server is writing it";
    Ok((!control.is_checksum_valid).then(|| wrong.to_owned()))
}

fn text(control: &ControlFields, zone: &TimeZone) -> String {
    let mut text = String::new();
    for field in &control.fields {
        let value = match &field.value {
            FieldValue::Time(seconds) => local(*seconds, zone),
            value => value.to_string(),
        };
        text.push_str(&format!("{:<COLUMN$}{value}\n", format!("{}:", field.label)));
    }
    text
}

/// `Sun Nov 22 08:34:24 2026`, as in the C locale; a time outside the range of the calendar in seconds.
fn local(seconds: i64, zone: &TimeZone) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%a %b %e %H:%M:%S %Y").to_string(),
        Err(_) => seconds.to_string(),
    }
}

/// One JSON object with the C names of the fields, and a newline.
fn json(control: &ControlFields) -> String {
    let mut object = Map::new();
    for field in &control.fields {
        object.insert(field.name.to_string(), value(&field.value));
    }
    object.insert("is_checksum_valid".to_owned(), Value::Bool(control.is_checksum_valid));
    serde_json::to_string_pretty(&object).unwrap_or_default() + "\n"
}

fn value(value: &FieldValue) -> Value {
    match value {
        FieldValue::Number(number) => Value::from(*number),
        FieldValue::Float(number) => Value::from(*number),
        FieldValue::Flag { is_set, .. } => Value::Bool(*is_set),
        FieldValue::Time(seconds) => {
            Timestamp::from_second(*seconds).map_or(Value::Null, |t| t.to_string().into())
        }
        // As text: JSON readers that use floating point would round the system identifier.
        other => Value::String(other.to_string()),
    }
}
