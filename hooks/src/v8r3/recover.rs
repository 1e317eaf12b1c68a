//! Bringing a node back: reasons to refuse first, then what changes something.

use std::time::{Duration, Instant};

use super::{Need, Node, attempts, recovery_settings, refuse, slots};
use crate::files;
use crate::flow::{Decision, Step, StepError, nothing};
use crate::recovery_log::timestamp;
use crate::rejoin::{RewindJob, RewindResult};

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 13] {
    [
        Step { name: attempts::STEP, look: attempts::look, act: nothing },
        Step { name: "permission", look: refuse::look_for_permission, act: nothing },
        Step { name: "templates", look: refuse::look_at_templates, act: nothing },
        Step { name: "primary", look: refuse::look_at_primary, act: nothing },
        Step { name: "note of slots", look: slots::look_at_note, act: nothing },
        Step { name: "detach", look: look_for_detach, act: detach },
        Step { name: "stop", look: look_for_stop, act: stop },
        Step { name: "slots", look: slots::look_for_old, act: slots::drop_old },
        Step { name: "rewind", look: look_for_rewind, act: rewind },
        Step { name: "configuration", look: look_at_configuration, act: change_configuration },
        Step { name: "recovery settings", look: recovery_settings::look, act: recovery_settings::write },
        Step {
            name: "slot on the primary",
            look: recovery_settings::look_for_slot,
            act: recovery_settings::create_slot,
        },
        Step { name: "start", look: look_for_start, act: start },
    ]
}

/// How long a started server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

fn look_for_detach(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.log.line("if recover node up, let it down , for rewind");
    let is_up = node.me().is_some_and(|me| me.is_up);
    if !is_up || node.server.running()?.is_none() {
        return Ok(Decision::Skip(String::new()));
    }
    Ok(Decision::Act("try detach current node from cluster".into()))
}

fn detach(node: &mut Node<'_>) -> Result<String, StepError> {
    super::attach::pcp(node, "pcp_detach_node")?;
    Ok(String::new())
}

fn look_for_stop(node: &mut Node<'_>) -> Result<Decision, StepError> {
    Ok(match node.server.running()? {
        Some(process) => Decision::Act(format!("stop the server (process {process})")),
        None => Decision::Skip(String::new()),
    })
}

fn stop(node: &mut Node<'_>) -> Result<String, StepError> {
    node.server.stop()?;
    Ok(String::new())
}

fn look_for_rewind(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let primary = node.primary_server()?;
    let data = node.server.data.display();
    Ok(Decision::Act(format!("rewind {data} to {}, if it has diverged", primary.name())))
}

fn rewind(node: &mut Node<'_>) -> Result<String, StepError> {
    let source = node.primary_server()?;
    node.log.line(&format!("{} sys_rewind...", timestamp()));
    let (data, config) = (node.server.data.display(), node.config);
    let (host, port, user, database) = (source.host(), source.port(), &config.user, &config.database);
    let shown = format!("host={host} port={port} user={user} dbname={database}");
    node.log.line(&format!("sys_rewind  --target-data={data} --source-server=\"{shown}\""));
    let job = RewindJob { data: node.server.data.clone(), source, always: node.config.rewinds_always };
    match node.rewinder.rewind(&job) {
        Ok(RewindResult::Rewound) => Ok(String::new()),
        Ok(RewindResult::NotNeeded) => Ok("this node has not diverged, it is started as it is".into()),
        // Nothing has been changed: better a standby that only answers questions than none. Whether it receives
        // is asked after its start.
        Err(failed) if starts_all_the_same(node.need, failed.is_unfinished) => {
            let error = failed.into_step(|why| format!("sys_rewind failed: {why}"));
            let hint = error.hint.map(|hint| format!(" HINT: {hint}")).unwrap_or_default();
            node.log.line(&format!("{} ERROR: {}{hint}", timestamp(), error.message));
            Ok("the data directory is as it was: this standby is started as it is".into())
        }
        Err(failed) => {
            let state = if failed.is_unfinished {
                "the data directory is half rewound: the server is not started, and the next run goes on"
            } else {
                "the data directory is as it was: the server is not started"
            };
            Err(failed.into_step(|why| format!("sys_rewind failed: {why}; {state}")))
        }
    }
}

/// Whether a server is started although its rewind has failed.
fn starts_all_the_same(need: Option<Need>, is_unfinished: bool) -> bool {
    !is_unfinished && matches!(need, Some(Need::Down | Need::NotStreaming))
}

/// The node's own configuration stays; but a standby must not wait for standbys of its own.
fn look_at_configuration(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let names = node.server.names();
    let path = node.server.data.join(names.config_file);
    if is_empty(&files::read_bytes(&path)?) {
        let template = node.config.etc.join(names.config_file);
        if is_empty(&files::read_bytes(&template)?) {
            return Err(StepError::new(format!(
                "\"{}\" is missing, and so is its template \"{}\"",
                path.display(),
                template.display()
            )));
        }
        return Ok(Decision::Act(format!("restore {} from {}", names.config_file, template.display())));
    }
    for name in [names.config_file, names.auto_config_file] {
        let text = files::read_bytes(&node.server.data.join(name))?.unwrap_or_default();
        if without_synchronous(&text) != text {
            return Ok(Decision::Act(format!("sed conf change #synchronous_standby_names in {name}")));
        }
    }
    Ok(Decision::Skip(String::new()))
}

fn change_configuration(node: &mut Node<'_>) -> Result<String, StepError> {
    let names = node.server.names();
    for name in [names.config_file, names.auto_config_file] {
        let path = node.server.data.join(name);
        let old = files::read_bytes(&path)?;
        let from = match name == names.config_file && is_empty(&old) {
            true => files::read_bytes(&node.config.etc.join(name))?,
            false => old.clone(),
        };
        let new = without_synchronous(&from.unwrap_or_default());
        if new != old.unwrap_or_default() {
            files::replace(&path, &new)?;
        }
    }
    Ok(String::new())
}

fn is_empty(file: &Option<Vec<u8>>) -> bool {
    file.as_ref().is_none_or(|bytes| bytes.trim_ascii().is_empty())
}

/// The file with every line that sets `synchronous_standby_names` made a comment.
fn without_synchronous(file: &[u8]) -> Vec<u8> {
    let mut new = Vec::new();
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        if files::is_about(line, "synchronous_standby_names") {
            new.push(b'#');
        }
        new.extend_from_slice(line);
    }
    new
}

fn look_for_start(node: &mut Node<'_>) -> Result<Decision, StepError> {
    Ok(match node.server.running()? {
        Some(_) => Decision::Skip(String::new()),
        None => Decision::Act("start up the kingbase...".into()),
    })
}

fn start(node: &mut Node<'_>) -> Result<String, StepError> {
    node.server.start(&node.config.log.with_file_name("kbstart"))?;
    let server = node.own_server();
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        let answer = server.ask("select 33333");
        match answer {
            Ok(answer) if answer.value() == Some("33333") => break,
            _ if node.server.running()?.is_none() => {
                return Err(StepError::new("the server ended again after it was started")
                    .hint("Its log tells why; the flow tries again in its next runs, ever more rarely."));
            }
            Err(error) if Instant::now() >= deadline => return Err(StepError::of(&error)),
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
    Ok("start up standby successful!".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_standby_without_a_change_is_started_after_a_failed_rewind() {
        for (need, starts) in [
            (Need::Down, true),
            (Need::NotStreaming, true),
            (Need::OldPrimary, false),
            (Need::Unfinished, false),
        ] {
            assert_eq!(starts_all_the_same(Some(need), false), starts, "{need:?}");
            assert!(!starts_all_the_same(Some(need), true), "{need:?}");
        }
    }

    #[test]
    fn only_lines_that_set_it_become_comments() {
        // With a comment in GBK.
        let text =
            b"port = 1 # \xb6\xcb\nsynchronous_standby_names = '1 (a, b)'\n# synchronous_standby_names\n\
                     Synchronous_Standby_Names='x'\nsynchronous_commit = on";
        assert_eq!(
            without_synchronous(text),
            b"port = 1 # \xb6\xcb\n#synchronous_standby_names = '1 (a, b)'\n# synchronous_standby_names\n\
              #Synchronous_Standby_Names='x'\nsynchronous_commit = on"
        );
    }
}
