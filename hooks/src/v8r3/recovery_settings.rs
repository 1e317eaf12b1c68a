//! The settings that make this node a standby of the new primary.
//!
//! They are taken from the node's template (`etc/recovery.done`), with the address of the current primary. Up to version
//! 11, and thus in KingbaseES V8R3, they are written to `recovery.conf`; later servers need them in their configuration,
//! and a `standby.signal`.

use std::path::PathBuf;

use kbrecover_rewind::config::Setting;
use kbrecover_rewind::conninfo::ConninfoText;

use super::node::Node;
use crate::flow::{Decision, StepError};
use crate::{files, slots};

/// The template of this node's recovery settings in `KB_ETC_PATH`.
pub(super) const TEMPLATE: &str = "recovery.done";

/// The first major version without `recovery.conf`.
const WITHOUT_RECOVERY_CONF: u32 = 12;

pub(super) fn check(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let (path, text) = wanted(node)?;
    let is_there = files::read_bytes(&path)? == Some(text);
    if is_there && node.server.is_standby()? {
        let primary = node.primary().map_or("", |primary| primary.host.as_str());
        return Ok(Decision::Skip(format!("no need change {}, primary node is {primary}", file_name(&path))));
    }
    Ok(Decision::Act(format!("change {}", file_name(&path))))
}

pub(super) fn write(node: &mut Node<'_>) -> Result<String, StepError> {
    let (path, text) = wanted(node)?;
    files::replace(&path, &text)?;
    if node.server.major_version()? >= WITHOUT_RECOVERY_CONF {
        files::replace(&node.server.data.join("standby.signal"), "")?;
    }
    Ok(String::new())
}

/// The slot on the primary from which this node receives WAL, according to its template.
pub(super) fn check_slot(node: &mut Node<'_>) -> Result<Decision, StepError> {
    match slot(node)? {
        Some(slot) if !slot.is_empty() => {
            Ok(Decision::Act(format!("create slot {slot} on the primary unless it exists")))
        }
        _ => Ok(Decision::Skip(String::new())),
    }
}

pub(super) fn create_slot(node: &mut Node<'_>) -> Result<String, StepError> {
    if let Some(slot) = slot(node)? {
        slots::create(&node.primary_server()?, &slot)?;
    }
    Ok(String::new())
}

fn slot(node: &Node<'_>) -> Result<Option<String>, StepError> {
    let settings = template(node)?.unwrap_or_default();
    let slot = settings.into_iter().find(|setting| setting.name == "primary_slot_name");
    Ok(slot.map(|setting| setting.value))
}

/// The path and the content of the file that must be written.
fn wanted(node: &Node<'_>) -> Result<(PathBuf, Vec<u8>), StepError> {
    let template = template(node)?.unwrap_or_default();
    let conninfo = conninfo_to_primary(node, &template)?;
    let mut settings: Vec<(String, String)> =
        template.into_iter().map(|setting| (setting.name, setting.value)).collect();
    if let Some(conninfo) = conninfo {
        for (_, value) in settings.iter_mut().filter(|(name, _)| name == "primary_conninfo") {
            *value = conninfo.text();
        }
    }
    let data = &node.server.data;
    let major = node.server.major_version()?;
    let settings = for_version(major, settings);
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    if major < WITHOUT_RECOVERY_CONF {
        return Ok((data.join("recovery.conf"), files::with_settings(b"", &settings)));
    }
    let path = data.join(node.server.names().auto_config_file);
    let old = files::read_bytes(&path)?.unwrap_or_default();
    Ok((path, files::with_settings(&old, &settings)))
}

/// The settings as this major version needs them. Up to version 11, a server whose `recovery.conf` does not turn on
/// `standby_mode` would become a primary, so it is always turned on; later versions have `standby.signal` instead.
fn for_version(major: u32, mut settings: Vec<(String, String)>) -> Vec<(String, String)> {
    settings.retain(|(name, _)| name != "standby_mode");
    if major < WITHOUT_RECOVERY_CONF {
        settings.push(("standby_mode".to_owned(), "on".to_owned()));
    } else {
        settings.retain(|(name, _)| name != "trigger_file");
    }
    settings
}

/// The settings in the template; `None` if there is no template.
pub(super) fn template(node: &Node<'_>) -> Result<Option<Vec<Setting>>, StepError> {
    let path = node.config.etc.join(TEMPLATE);
    let Some(text) = files::read(&path)? else { return Ok(None) };
    let failed =
        |why: String| StepError::new(format!("could not read template \"{}\": {why}", path.display()));
    let settings =
        kbrecover_rewind::config::parse(text.as_bytes()).map_err(|error| failed(error.to_string()))?;
    // Comments may be in any encoding, but a value with replaced characters would be written as another value.
    let invalid = settings.iter().find(|setting| setting.value.contains(char::REPLACEMENT_CHARACTER));
    match invalid {
        Some(setting) => Err(failed(format!("the value of {} is not UTF-8", setting.name))),
        None => Ok(Some(settings)),
    }
}

/// The last `primary_conninfo` among these settings.
pub(super) fn primary_conninfo(settings: &[Setting]) -> Result<Option<ConninfoText>, StepError> {
    let Some(setting) = settings.iter().rev().find(|setting| setting.name == "primary_conninfo") else {
        return Ok(None);
    };
    ConninfoText::parse(&setting.value).map(Some).map_err(|error| {
        StepError::new(format!(
            "primary_conninfo in template \"{TEMPLATE}\" is not a valid connection string: {error}"
        ))
    })
}

/// The template's `primary_conninfo` with the address of the new primary.
pub(super) fn conninfo_to_primary(
    node: &Node<'_>,
    template: &[Setting],
) -> Result<Option<ConninfoText>, StepError> {
    let (Some(mut conninfo), Some(primary)) = (primary_conninfo(template)?, node.primary()) else {
        return Ok(None);
    };
    conninfo.set("host", primary.host.as_str());
    conninfo.set("port", primary.port.to_string());
    conninfo.remove("hostaddr");
    Ok(Some(conninfo))
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standby_mode_does_not_depend_on_the_template() {
        let names = |major: u32, template: &[(&str, &str)]| {
            let template = template.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let settings = for_version(major, template.collect());
            settings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        for template in [
            &[("primary_conninfo", "x"), ("trigger_file", "t")][..],
            &[("standby_mode", "off"), ("primary_conninfo", "x"), ("trigger_file", "t")],
        ] {
            assert_eq!(names(9, template), ["primary_conninfo=x", "trigger_file=t", "standby_mode=on"]);
            assert_eq!(names(12, template), ["primary_conninfo=x"]);
        }
    }
}
