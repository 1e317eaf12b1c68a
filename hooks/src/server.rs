//! The server of this node: is it running, start it, stop it, with its own control program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kbrecover_rewind::command::{self, CommandError, ExitReason, Finished};
use walparse::{Flavor, Names};

use crate::files;
use crate::flow::StepError;

/// How long starting and stopping may take, as the scripts have it.
const CONTROL_SECONDS: u64 = 90;

/// The server of a data directory.
#[derive(Clone, Debug)]
pub struct LocalServer {
    /// The data directory.
    pub data: PathBuf,
    /// Where its programs are.
    pub programs: PathBuf,
    /// Where its libraries are, if the system does not find them.
    pub libraries: Option<PathBuf>,
}

impl LocalServer {
    /// The flavor of the data directory, found by looking. Where it looks like several the engine will say so.
    pub fn flavor(&self) -> Flavor {
        let found = kbrecover_rewind::flavor_of_directory(&self.data, None).ok();
        found.or_else(|| Flavor::all().next()).unwrap_or_else(|| unreachable!("the table has rows"))
    }

    /// What its files and programs are called.
    pub fn names(&self) -> &'static Names {
        self.flavor().names()
    }

    /// What the names of its system functions and views may begin with, the likeliest first.
    pub fn prefixes(&self) -> &'static [&'static str] {
        if self.flavor().is_fork() { &["sys", "pg"] } else { &["pg"] }
    }

    /// The major version: 9 for all before 10.
    ///
    /// # Errors
    /// There is no version file, or it holds no number.
    pub fn major_version(&self) -> Result<u32, StepError> {
        let path = self.data.join(self.names().version_file);
        let text = fs::read_to_string(&path).map_err(|error| file_error("read", &path, &error))?;
        let number = text.trim().split('.').next().unwrap_or_default();
        number.parse().map_err(|_| StepError::new(format!("file \"{}\" names no version", path.display())))
    }

    /// Whether the directory says that its server is a standby: by `standby.signal` or, up to 11, by a
    /// `recovery.conf` that sets `primary_conninfo`.
    ///
    /// # Errors
    /// `recovery.conf` is there but cannot be read.
    pub fn is_standby(&self) -> Result<bool, StepError> {
        if self.data.join("standby.signal").exists() {
            return Ok(true);
        }
        let text = files::read(&self.data.join("recovery.conf"))?.unwrap_or_default();
        let settings =
            kbrecover_rewind::config::parse(text.as_bytes()).map_err(|error| StepError::of(&error))?;
        // A line that is a comment does not count.
        Ok(settings.iter().any(|setting| setting.name == "primary_conninfo"))
    }

    /// The process of the running server that the lock file names.
    ///
    /// # Errors
    /// The lock file cannot be read.
    pub fn running(&self) -> Result<Option<u32>, StepError> {
        kbrecover_rewind::lock_file_process(&self.data, self.names()).map_err(|error| StepError::of(&error))
    }

    /// Starts the server and waits until it is up. What it says goes to `log`.
    ///
    /// # Errors
    /// The program is missing, or the server does not come up in time.
    pub fn start(&self, log: &Path) -> Result<(), StepError> {
        let mut command = self.control_program("start");
        command.arg("-l").arg(log);
        // Up to 11 the server stays in the group of the program that starts it: to end that one is to end the server.
        self.run(
            command,
            command::run_to_its_end,
            Some(format!("the server's words are in \"{}\"", log.display())),
        )
    }

    /// Stops the server and waits until it is down: orderly at first, then at once.
    ///
    /// # Errors
    /// It is still running then.
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
            .hint("Stop it by hand. Nothing else has been done."))
    }

    /// The path of one of the server's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        let direct = self.programs.join(name);
        if direct.exists() { direct } else { self.programs.join("bin").join(name) }
    }

    /// A command with the environment of the server's programs.
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

/// A way to run a program to its end, within a limit.
type Runner = fn(&mut Command, Option<Duration>) -> Result<Finished, CommandError>;

/// A file that could not be used.
pub(crate) fn file_error(action: &str, path: &Path, error: &io::Error) -> StepError {
    StepError::new(format!("could not {action} file \"{}\": {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fake_program;

    fn server(dir: &Path) -> LocalServer {
        LocalServer { data: dir.join("data"), programs: dir.to_owned(), libraries: None }
    }

    #[test]
    fn a_lock_file_counts_if_its_process_works_there() {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path());
        fs::create_dir(&server.data).unwrap();
        assert_eq!(server.running().unwrap(), None);
        fs::write(server.data.join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(server.running().unwrap(), None, "this process works elsewhere");
        let mut child = Command::new("sleep").arg("60").current_dir(&server.data).spawn().unwrap();
        fs::write(server.data.join("postmaster.pid"), format!("{}\nx\n", child.id())).unwrap();
        assert_eq!(server.running().unwrap(), Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(server.running().unwrap(), None);
    }

    #[test]
    fn the_product_is_found_by_looking() {
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
    fn the_control_program_is_called_and_its_failure_told() {
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
