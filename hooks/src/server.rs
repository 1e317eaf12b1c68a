//! The server of this node: whether it is running, and starting and stopping it by its own control program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, CommandError, ExitReason, Finished};
use walparse::{Flavor, Names};

use crate::files::{self, file_error};
use crate::flow::StepError;

/// Limit for starting and stopping, as in the KingbaseES scripts.
const CONTROL_SECONDS: u64 = 90;

/// The server of a data directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocalServer {
    /// The data directory.
    pub data: PathBuf,
    /// The directory of its programs, or the one above their `bin`.
    pub programs: PathBuf,
    /// The directory of its libraries, if the system does not find them.
    pub libraries: Option<PathBuf>,
}

impl LocalServer {
    /// The server of this data directory, with these programs.
    pub fn new(data: impl Into<PathBuf>, programs: impl Into<PathBuf>) -> LocalServer {
        LocalServer { data: data.into(), programs: programs.into(), libraries: None }
    }

    /// The flavor of the data directory, detected from its files. If that is ambiguous, the first flavor is assumed here;
    /// the engine reports it.
    pub fn flavor(&self) -> Flavor {
        let found = kbrecover_rewind::flavor_of_directory(&self.data, None).ok();
        found.or_else(|| Flavor::all().next()).unwrap_or_else(|| unreachable!("the table has rows"))
    }

    /// The names of its files and programs.
    pub fn names(&self) -> &'static Names {
        self.flavor().names()
    }

    /// The possible prefixes of the names of its system functions and views, the most likely one first.
    pub fn prefixes(&self) -> &'static [&'static str] {
        if self.flavor().is_fork() { &["sys", "pg"] } else { &["pg"] }
    }

    /// The first number of the version: 15 for 15.2, 9 for 9.6.
    ///
    /// # Errors
    /// The version file does not exist or contains no number.
    pub fn major_version(&self) -> Result<u32, StepError> {
        let path = self.data.join(self.names().version_file);
        let text = fs::read_to_string(&path).map_err(|error| file_error("read", &path, &error))?;
        let number = text.trim().split('.').next().unwrap_or_default();
        number
            .parse()
            .map_err(|_| StepError::new(format!("file \"{}\" does not contain a version", path.display())))
    }

    /// Whether the server is a standby according to its data directory: there is a `standby.signal` or, up to version 11, a
    /// `recovery.conf` that sets `primary_conninfo`.
    ///
    /// # Errors
    /// `recovery.conf` exists but cannot be read.
    pub fn is_standby(&self) -> Result<bool, StepError> {
        if self.data.join("standby.signal").exists() {
            return Ok(true);
        }
        let text = files::read(&self.data.join("recovery.conf"))?.unwrap_or_default();
        let settings =
            kbrecover_rewind::config::parse(text.as_bytes()).map_err(|error| StepError::of(&error))?;
        // Parsed, because a setting that is commented out does not count.
        Ok(settings.iter().any(|setting| setting.name == "primary_conninfo"))
    }

    /// The process ID of the running server, from its lock file; `None` if it is not running.
    ///
    /// # Errors
    /// The lock file cannot be read.
    pub fn running(&self) -> Result<Option<u32>, StepError> {
        kbrecover_rewind::lock_file_process(&self.data, self.names()).map_err(|error| StepError::of(&error))
    }

    /// Starts the server and waits until it is up. Its output goes to `log`.
    ///
    /// # Errors
    /// The control program is missing, or the server does not start in time.
    pub fn start(&self, log: &Path) -> Result<(), StepError> {
        let mut command = self.control_program("start");
        command.arg("-l").arg(log);
        // Up to version 11, the server stays in the process group of the control program. Ending that group would end the
        // server.
        self.run(
            command,
            command::run_to_its_end,
            Some(format!("See the server's log \"{}\".", log.display())),
        )
    }

    /// Stops the server and waits until it is down: first in mode `fast`, then in mode `immediate`.
    ///
    /// # Errors
    /// It is still running afterwards.
    pub fn stop(&self) -> Result<(), StepError> {
        for mode in ["fast", "immediate"] {
            let mut command = self.control_program("stop");
            command.args(["-m", mode]);
            let stopped = self.run(command, command::run, None);
            if self.running()?.is_none() {
                return Ok(());
            }
            if let Err(error) = stopped {
                tracing::warn!("{error}");
            }
        }
        Err(StepError::new(format!("the server in \"{}\" could not be stopped", self.data.display()))
            .hint("Stop it manually. Nothing else has been changed."))
    }

    /// The path of one of the server's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        let direct = self.programs.join(name);
        if direct.exists() { direct } else { self.programs.join("bin").join(name) }
    }

    /// A command with the environment that the server's programs need.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    fn control_program(&self, action: &str) -> Command {
        let mut command = self.command(&self.program(self.names().ctl_program));
        command.arg(action).args(["-w", "-t", &CONTROL_SECONDS.to_string(), "-D"]).arg(&self.data);
        command
    }

    fn run(&self, mut command: Command, run: Runner, hint: Option<String>) -> Result<(), StepError> {
        let limit = Duration::from_secs(CONTROL_SECONDS + 30);
        let program = Path::new(command.get_program()).display().to_string();
        let action = command.get_args().next().unwrap_or_default().to_string_lossy().into_owned();
        let finished = run(&mut command, Some(limit)).map_err(|error| StepError::of(&error))?;
        if finished.status.success() {
            return Ok(());
        }
        let why = ExitReason(finished.status);
        Err(StepError { message: format!("\"{program} {action}\" failed: {why}"), hint })
    }
}

/// Runs a program to its end, within a limit.
type Runner = fn(&mut Command, Option<Duration>) -> Result<Finished, CommandError>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fake_program;

    fn server(dir: &Path) -> LocalServer {
        LocalServer::new(dir.join("data"), dir)
    }

    #[test]
    fn a_lock_file_counts_if_its_process_works_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path());
        fs::create_dir(&server.data).unwrap();
        assert_eq!(server.running().unwrap(), None);
        fs::write(server.data.join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(server.running().unwrap(), None, "this process works in another directory");
        let mut child = Command::new("sleep").arg("60").current_dir(&server.data).spawn().unwrap();
        fs::write(server.data.join("postmaster.pid"), format!("{}\nx\n", child.id())).unwrap();
        assert_eq!(server.running().unwrap(), Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(server.running().unwrap(), None);
    }

    #[test]
    fn the_product_is_detected_from_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path());
        fs::create_dir_all(server.data.join("global")).unwrap();
        fs::write(server.data.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!((server.names().ctl_program, server.major_version().unwrap()), ("pg_ctl", 15));
        assert_eq!(server.prefixes(), ["pg"]);
        let mut front = [0; 40];
        front[8..12].copy_from_slice(&1201u32.to_le_bytes());
        fs::write(server.data.join("global/sys_control"), front).unwrap();
        fs::write(server.data.join("SYS_VERSION"), "12\n").unwrap();
        fs::create_dir(server.data.join("sys_wal")).unwrap();
        assert_eq!((server.names().ctl_program, server.major_version().unwrap()), ("sys_ctl", 12));
        assert_eq!(server.prefixes(), ["sys", "pg"]);
    }

    #[test]
    fn the_control_program_is_run_and_its_failure_reported() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path());
        fs::create_dir_all(&server.data).unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fake_program(
            &dir.path().join("bin/pg_ctl"),
            "echo \"$@\" >> \"$(dirname \"$0\")/calls\"; [ $1 = stop ]",
        );
        let error = server.start(Path::new("/tmp/server.log")).unwrap_err();
        assert!(error.message.ends_with("start\" failed: child process exited with exit code 1"), "{error}");
        server.stop().unwrap();
        let calls = fs::read_to_string(dir.path().join("bin/calls")).unwrap();
        let data = server.data.display();
        assert_eq!(
            calls,
            format!("start -w -t 90 -D {data} -l /tmp/server.log\nstop -w -t 90 -D {data} -m fast\n")
        );
    }
}
