//! Crash recovery of a target by its own server, as `pg_rewind` does it.
//!
//! A rewind does not need it, since the engine reads the WAL up to the last valid record. It helps if that WAL is damaged.

use std::path::{Path, PathBuf};
use std::process::Command;

use kbrecover_rewind::command::{self, ExitReason};
use kbrecover_rewind::config::Configuration;
use kbrecover_rewind::{CrashRecovery, CrashRecoveryError, with_causes};
use walparse::{ControlFile, Names};

use crate::programs::{ProgramError, find_server};

/// Runs the server program in single-user mode (`--single`) on a target. The server performs crash recovery, reads the end
/// of its empty input and shuts down cleanly.
///
/// ```no_run
/// use kbrecover_hooks::SingleUserServer;
/// use kbrecover_rewind::conninfo::{Conninfo, ProcessEnvironment};
/// use kbrecover_rewind::{Options, Silent, SourceChoice, UncleanTarget, run};
///
/// let source = Conninfo::parse("host=db2 user=postgres dbname=postgres", &ProcessEnvironment::PostgreSql)?;
/// let mut server = SingleUserServer::default();
/// server.bindir = Some("/usr/lib/postgresql/15/bin".into());
/// let mut options = Options::new("/var/lib/postgresql/15/main".into(), SourceChoice::Server(Box::new(source)));
/// options.unclean_target = UncleanTarget::Recover(std::sync::Arc::new(server));
/// run(&options, &Silent)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SingleUserServer {
    /// The directory of the server's programs; if `None`, it is searched for.
    pub bindir: Option<PathBuf>,
    /// The target's `postgresql.conf`; if `None`, it is searched for in the usual places.
    pub config_file: Option<PathBuf>,
}

impl CrashRecovery for SingleUserServer {
    fn recover(&self, target: &Path, control: &ControlFile) -> Result<(), CrashRecoveryError> {
        let version = control.version();
        if let Some(file) = recovery_request(target) {
            return Err(CrashRecoveryError::new(
                format!(
                    "could not complete crash recovery of the target server: file \"{}\" exists",
                    file.display()
                ),
                Some(
                    "A server in single-user mode cannot be a standby, and would end archive recovery on a new timeline. \
                     Run again without --ensure-shutdown: the WAL of the target is then read without crash recovery."
                        .to_owned(),
                ),
            ));
        }
        let program = find_server(version, self.bindir.as_deref()).map_err(program_hint)?;
        let mut command = self.command(&program, target, version.names());
        tracing::info!("executing \"{}\" for target server to complete crash recovery", program.display());
        // No limit: recovery may take hours.
        let failed = |why: &dyn std::fmt::Display| {
            CrashRecoveryError::new(
                format!("{} single-user mode in target cluster failed: {why}", version.names().server_program),
            Some(
                "See the messages of the server. If it did not find its configuration, specify the file with --config-file; \
                 or start the server normally and stop it after recovery."
                    .to_owned(),
            ),
        )
        };
        let finished = command::run(&mut command, None).map_err(|error| failed(&with_causes(&error)))?;
        if finished.status.success() {
            return Ok(());
        }
        let reason = ExitReason(finished.status);
        Err(match finished.output.lines().rfind(|line| line.contains("FATAL:") || line.contains("PANIC:")) {
            Some(line) => failed(&format_args!("{reason} ({})", line.trim())),
            None => failed(&reason),
        })
    }
}

impl SingleUserServer {
    fn command(&self, program: &Path, target: &Path, names: &Names) -> Command {
        let mut command = Command::new(program);
        // -F: no fsync is needed, because an interrupted recovery can be repeated.
        command.args(["--single", "-F", "-D"]).arg(target);
        let config_file = self.config_file.clone().or_else(|| Configuration::locate(target, names));
        if let Some(file) = config_file.filter(|file| *file != target.join(names.config_file)) {
            let mut setting = std::ffi::OsString::from("config_file=");
            setting.push(file);
            command.arg("-c").arg(setting);
        }
        command.arg("template1");
        command
    }
}

/// A file that requests more than crash recovery. Up to version 11 that is `recovery.conf`; later servers do not start if
/// it exists.
fn recovery_request(target: &Path) -> Option<PathBuf> {
    let names = ["standby.signal", "recovery.signal", "recovery.conf"];
    names.iter().map(|name| target.join(name)).find(|file| file.exists())
}

fn program_hint(error: ProgramError) -> CrashRecoveryError {
    CrashRecoveryError::new(
        error.to_string(),
        Some("Specify the directory of the server's programs with --bindir.".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::fake_program;

    /// A control file of version 15, with only the fields that the reader requires.
    fn control() -> ControlFile {
        let mut bytes = vec![0; 8192];
        let mut put =
            |offset: usize, value: u32| bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        put(8, 1300);
        put(12, 202_209_061);
        put(16, 6);
        put(216, 8192);
        put(220, 131_072);
        put(224, 8192);
        put(228, 16 << 20);
        let crc = crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&crc.to_le_bytes());
        ControlFile::parse(&bytes).unwrap()
    }

    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
        })
    }

    /// A data directory, and a fake server that runs `script` unless it is called with `--version`.
    fn setup(script: &str) -> (tempfile::TempDir, SingleUserServer) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let version = "[ \"$1\" = --version ] && { echo 'postgres (PostgreSQL) 15.3'; exit 0; }";
        fake_program(&dir.path().join("postgres"), &format!("{version}\n{script}"));
        let server = SingleUserServer { bindir: Some(dir.path().to_owned()), config_file: None };
        (dir, server)
    }

    #[test]
    fn the_server_runs_in_single_user_mode_on_the_target() {
        let (dir, mut server) = setup("echo \"$@\" > \"$(dirname \"$0\")/args\"; cat");
        let data = dir.path().join("data");
        let args = || fs::read_to_string(dir.path().join("args")).unwrap();
        fs::write(data.join("postgresql.conf"), "").unwrap();
        server.recover(&data, &control()).unwrap();
        assert_eq!(args(), format!("--single -F -D {} template1\n", data.display()));

        server.config_file = Some(PathBuf::from("/etc/x.conf"));
        server.recover(&data, &control()).unwrap();
        assert_eq!(
            args(),
            format!("--single -F -D {} -c config_file=/etc/x.conf template1\n", data.display())
        );
    }

    #[test]
    fn the_error_of_a_failed_recovery_has_the_servers_message() {
        let (dir, server) = setup("echo '2026-01-01 FATAL:  no such thing' >&2; echo bye; exit 1");
        let error = server.recover(&dir.path().join("data"), &control()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "postgres single-user mode in target cluster failed: child process exited with exit code 1 \
             (2026-01-01 FATAL:  no such thing)"
        );
        assert!(error.hint.unwrap().contains("--config-file"));
    }

    #[test]
    fn a_standby_is_refused_without_running_the_server() {
        for name in ["standby.signal", "recovery.signal", "recovery.conf"] {
            let (dir, server) = setup("touch \"$(dirname \"$0\")/ran\"");
            let data = dir.path().join("data");
            fs::write(data.join(name), "").unwrap();
            let error = server.recover(&data, &control()).unwrap_err();
            assert!(error.to_string().contains(name) && error.hint.is_some(), "{error}");
            assert!(!dir.path().join("ran").exists() && data.join(name).exists());
        }
    }

    #[test]
    fn a_missing_server_program_is_reported_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let server = SingleUserServer { bindir: Some(dir.path().to_owned()), config_file: None };
        let error = server.recover(dir.path(), &control()).unwrap_err();
        assert_eq!(error.to_string(), "program \"postgres\" of PostgreSQL 15 is needed but was not found");
        assert!(error.hint.unwrap().contains("--bindir"));
    }
}
