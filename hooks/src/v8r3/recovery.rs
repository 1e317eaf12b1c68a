//! Recovers a node: first the reasons to refuse, then the steps that change something.

use std::time::{Duration, Instant};

use super::node::{Need, Node};
use super::{attach, attempts, pcp, recovery_settings, refuse, slots};
use crate::files;
use crate::flow::{Decision, Run, Step, StepError, no_action};
use crate::recovery_log::timestamp;
use crate::rejoin::{RewindJob, RewindPlan, RewindResult};

pub(super) fn steps<'a>() -> [Step<Node<'a>>; 15] {
    [
        Step::new(attempts::STEP, attempts::check, no_action),
        Step::new("permission", refuse::check_permission, no_action),
        Step::new("programs", refuse::check_programs, no_action),
        Step::new("templates", refuse::check_template, no_action),
        Step::new("primary", refuse::check_primary, no_action),
        Step::new("logins", refuse::check_logins, no_action),
        Step::new("record of slots", slots::check_record, no_action),
        Step::new("detach", check_detach, detach),
        Step::new("stop", check_stop, stop),
        Step::new("slots", slots::check_old, slots::drop_old),
        Step::new("rewind", check_rewind, rewind),
        Step::new("configuration", check_configuration, change_configuration),
        Step::new("recovery settings", recovery_settings::check, recovery_settings::write),
        Step::new("slot on the primary", recovery_settings::check_slot, recovery_settings::create_slot),
        Step::new("start", check_start, start),
    ]
}

/// Limit for a started server to answer a query.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

fn check_detach(node: &mut Node<'_>) -> Result<Decision, StepError> {
    node.log.line("if recover node up, let it down , for rewind");
    let is_up = node.me().is_some_and(|me| me.is_up);
    if !is_up || node.server.running()?.is_none() {
        return Ok(Decision::Skip(String::new()));
    }
    Ok(Decision::Act("try detach current node from cluster".into()))
}

fn detach(node: &mut Node<'_>) -> Result<String, StepError> {
    pcp::run(node, pcp::DETACH)?;
    Ok(String::new())
}

fn check_stop(node: &mut Node<'_>) -> Result<Decision, StepError> {
    Ok(match node.server.running()? {
        Some(process) => Decision::Act(format!("stop the server (process {process})")),
        None => Decision::Skip(String::new()),
    })
}

fn stop(node: &mut Node<'_>) -> Result<String, StepError> {
    node.server.stop()?;
    Ok(String::new())
}

fn check_rewind(node: &mut Node<'_>) -> Result<Decision, StepError> {
    let primary = node.primary_server()?;
    let what = format!("rewind {} to {}", node.server.data.display(), primary.name());
    // A real run finds out when it rewinds. In a dry run nothing has stopped the server, and only a stopped one has a plan.
    if node.run == Run::Real || node.server.running()?.is_some() {
        return Ok(Decision::Act(format!("{what}, if it has diverged")));
    }
    Ok(match node.rewinder.plan(&job(node)?) {
        Ok(RewindPlan::Needed { fork, lost }) => {
            Decision::Act(format!("{what}: it has diverged at {fork}; transactions lost by it: {lost}"))
        }
        Ok(_) => Decision::Skip("this node has not diverged and is started as it is".into()),
        Err(failed) if starts_despite_failure(node.need, failed.is_unfinished) => Decision::Act(format!(
            "{what}, which will fail ({}): this standby is started as it is",
            failed.message
        )),
        Err(failed) => return Err(failed.into_step(|why| format!("sys_rewind would fail: {why}"))),
    })
}

fn job(node: &Node<'_>) -> Result<RewindJob, StepError> {
    let config = node.config;
    Ok(RewindJob {
        data: node.server.data.clone(),
        source: node.primary_server()?,
        always: config.rewinds_always,
        compares: config.rewinds_by_comparing,
        keep_root: config.keep_root.clone(),
        max_lost: config.max_lost,
    })
}

fn rewind(node: &mut Node<'_>) -> Result<String, StepError> {
    let job = job(node)?;
    let source = &job.source;
    node.log.line(&format!("{} sys_rewind...", timestamp()));
    let (data, config) = (node.server.data.display(), node.config);
    let (host, port, user, database) = (source.host(), source.port(), &config.user, &config.database);
    let shown = format!("host={host} port={port} user={user} dbname={database}");
    node.log.line(&format!("sys_rewind  --target-data={data} --source-server=\"{shown}\""));
    match node.rewinder.rewind(&job) {
        Ok(RewindResult::Rewound) => Ok(String::new()),
        Ok(RewindResult::NotNeeded) => Ok("this node has not diverged and is started as it is".into()),
        // A standby that only serves reads is better than none. A later step checks whether it receives WAL.
        Err(failed) if starts_despite_failure(node.need, failed.is_unfinished) => {
            let error = failed.into_step(|why| format!("sys_rewind failed: {why}"));
            let hint = error.hint.map(|hint| format!(" HINT: {hint}")).unwrap_or_default();
            node.log.line(&format!("{} ERROR: {}{hint}", timestamp(), error.message));
            Ok("the data directory is unchanged: this standby is started as it is".into())
        }
        Err(failed) => {
            let state = if failed.is_unfinished {
                "the rewind is unfinished: the server is not started, and the next run continues the rewind"
            } else {
                "the data directory is unchanged: the server is not started"
            };
            Err(failed.into_step(|why| format!("sys_rewind failed: {why}; {state}")))
        }
    }
}

/// Whether the server is started although the rewind has failed.
fn starts_despite_failure(need: Option<Need>, is_unfinished: bool) -> bool {
    !is_unfinished && matches!(need, Some(Need::Down | Need::NotStreaming))
}

/// The node keeps its own configuration, except that a standby must not wait for synchronous standbys.
fn check_configuration(node: &mut Node<'_>) -> Result<Decision, StepError> {
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

/// The file with every line that sets `synchronous_standby_names` commented out.
fn without_synchronous(file: &[u8]) -> Vec<u8> {
    let mut new = Vec::new();
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        if files::sets(line, "synchronous_standby_names") {
            new.push(b'#');
        }
        new.extend_from_slice(line);
    }
    new
}

pub(super) fn check_start(node: &mut Node<'_>) -> Result<Decision, StepError> {
    Ok(match node.server.running()? {
        Some(_) => Decision::Skip(String::new()),
        None => Decision::Act("start up the kingbase...".into()),
    })
}

pub(super) fn start(node: &mut Node<'_>) -> Result<String, StepError> {
    crate::slots::finish_drops(&node.server)?;
    node.server.start(&node.config.log.with_file_name(attach::STARTED))?;
    let server = node.own_server();
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        let answer = server.ask("select 33333");
        match answer {
            Ok(answer) if answer.value() == Some("33333") => break,
            _ if node.server.running()?.is_none() => {
                return Err(StepError::new("the server stopped again after it was started")
                    .hint("See its log. Later runs try again, with longer pauses."));
            }
            Err(error) if Instant::now() >= deadline => return Err(StepError::of(&error)),
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
    Ok(if node.all_down { "start up primary successful!" } else { "start up standby successful!" }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unchanged_standby_is_started_after_a_failed_rewind() {
        for (need, starts) in [
            (Need::Down, true),
            (Need::NotStreaming, true),
            (Need::OldPrimary, false),
            (Need::Unfinished, false),
        ] {
            assert_eq!(starts_despite_failure(Some(need), false), starts, "{need:?}");
            assert!(!starts_despite_failure(Some(need), true), "{need:?}");
        }
    }

    #[test]
    fn only_lines_that_set_the_parameter_are_commented_out() {
        // The first line has a comment in GBK.
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
