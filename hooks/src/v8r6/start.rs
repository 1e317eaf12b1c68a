//! Starts this node's server, by the configured command or by its control program.

use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, ExitReason};

use super::config::RepmgrConf;
use super::log::{Level, exact_time, say};
use crate::files;
use crate::flow::StepError;
use crate::recovery_log::RecoveryLog;
use crate::slots;

/// Starts the server of this node and waits until it is up. Does nothing if it is already running.
///
/// # Errors
/// A rewind of the data directory is unfinished, or the server does not start.
///
/// ```no_run
/// use std::path::Path;
///
/// use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
/// use kbrecover_hooks::v8r6::{RepmgrConf, start_database};
///
/// let config = RepmgrConf::read(Path::new("/etc/repmgr.conf"))?;
/// let log = RecoveryLog::open(config.log.as_deref(), Echo::On)?;
/// log.release();
/// let _lock = config.lock()?;
/// start_database(&config, &log)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn start_database(conf: &RepmgrConf, log: &RecoveryLog) -> Result<(), StepError> {
    let server = conf.server();
    if let Some(process) = server.running()? {
        say(log, Level::Notice, &format!("the server is already running (process {process})"));
        return Ok(());
    }
    if files::is_half_rewound(&server.data)? {
        let data = server.data.display();
        return Err(StepError::new(format!(
            "the rewind of \"{data}\" is unfinished: no server can start on it"
        ))
        .hint("Run the rejoin again: it continues the rewind."));
    }
    slots::finish_drops(&server)?;
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
        return Err(StepError::new("the server was started but is not running"));
    }
    say(log, Level::Notice, &format!("start server finish at {}", exact_time()));
    Ok(())
}
