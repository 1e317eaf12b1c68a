//! Starting this node's server, by the configured command or by its control program.

use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, ExitReason};

use super::RepmgrConf;
use super::log::{Level, exact_time, say};
use crate::flow::StepError;
use crate::recovery_log::RecoveryLog;

/// Starts the server of this node and waits until it is up; one that runs already is fine.
///
/// # Errors
/// A directory on which a rewind has not finished, or a server that does not start.
pub fn start_database(conf: &RepmgrConf, log: &RecoveryLog) -> Result<(), StepError> {
    let server = conf.server();
    if let Some(process) = server.running()? {
        say(log, Level::Notice, &format!("the server is running already (process {process})"));
        return Ok(());
    }
    if crate::files::is_half_rewound(&server.data)? {
        let data = server.data.display();
        return Err(StepError::new(format!(
            "a rewind of \"{data}\" has not been finished: no server can start on it"
        ))
        .hint("Run the rejoin again: it goes on where it stopped."));
    }
    say(log, Level::Notice, &format!("begin to start server at {}", exact_time()));
    match &conf.start_command {
        Some(script) => {
            say(log, Level::Notice, &format!("starting server using \"{script}\""));
            say(log, Level::Info, "starting database ...");
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(script);
            let finished = command::run(&mut shell, Some(Duration::from_secs(120)))
                .map_err(|error| StepError::of(&error))?;
            if !finished.status.success() {
                let why = ExitReason(finished.status);
                return Err(StepError::new(format!("service_start_command failed: {why}")));
            }
        }
        None => {
            let logfile = conf.log.as_deref().unwrap_or(&server.data).with_file_name("logfile");
            let program = server.program(server.names().ctl_program);
            say(
                log,
                Level::Notice,
                &format!(
                    "starting server using \"{}  -w -t 90 -D '{}' -l {} start\"",
                    program.display(),
                    server.data.display(),
                    logfile.display()
                ),
            );
            say(log, Level::Info, "starting database ...");
            server.start(&logfile)?;
        }
    }
    if server.running()?.is_none() {
        return Err(StepError::new("the server was started but does not run"));
    }
    say(log, Level::Notice, &format!("start server finish at {}", exact_time()));
    Ok(())
}
