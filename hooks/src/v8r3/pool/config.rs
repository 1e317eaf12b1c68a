//! The settings of `HAmodule.conf` about the pool's own process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::settings::SettingsError;
use crate::v8r3::config::{HaModuleError, Keys};

/// The settings that the check of the pool uses. Optional ones have a default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolModule {
    /// `POOL_EXENAME` in the directory `CLUSTER_BIN_PATH`: the pool's program.
    pub program: PathBuf,
    /// `POOL_OPTIONS`: its options, in addition to `-n`. A setting of this program.
    pub options: Vec<String>,
    /// `KINGBASECLUSTERSOCKET1` to `KINGBASECLUSTERSOCKET4`: the sockets that it leaves behind when it is killed.
    pub sockets: Vec<PathBuf>,
    /// The regular files that it leaves behind when it is killed. `CLUSTER_STAT_FILE`: the states of the nodes.
    /// `POOL_PID_FILE`, a setting of this program: the file with its process ID, with which it would not start if the system
    /// still knows a process of that ID.
    pub files: Vec<PathBuf>,
    /// `CLUSTER_LOG_NAME` in the directory `CLUSTER_LOG_PATH`: the file to which its output is appended.
    pub output: PathBuf,
    /// `POOL_RESTART`: the log of the checks.
    pub log: PathBuf,
    /// `KB_POOL_EXECUTE_SYS_USER`: the user that cron runs the check as.
    pub user: String,
    /// `KB_GATEWAY_IP`: the trusted gateways, one of which must respond to a ping.
    pub gateways: Vec<String>,
    /// `PING_TIMES`
    pub ping_times: u32,
    /// `HEALTH_CHECK_MAX_RETRIES`
    pub retries: u32,
    /// `HEALTH_CHECK_RETRY_DELAY`
    pub retry_delay: Duration,
}

const REQUIRED: [&str; 4] = ["CLUSTER_BIN_PATH", "CLUSTER_LOG_PATH", "POOL_RESTART", "KB_GATEWAY_IP"];

const SOCKETS: [&str; 4] =
    ["KINGBASECLUSTERSOCKET1", "KINGBASECLUSTERSOCKET2", "KINGBASECLUSTERSOCKET3", "KINGBASECLUSTERSOCKET4"];

impl PoolModule {
    /// Reads the file.
    ///
    /// # Errors
    /// It does not exist, cannot be parsed, or a setting is missing or not valid.
    pub fn read(path: &Path) -> Result<PoolModule, HaModuleError> {
        let keys = Keys::read(path)?;
        let names: Vec<_> = REQUIRED.into_iter().filter(|name| keys.text(name).is_empty()).collect();
        if !names.is_empty() {
            return Err(SettingsError::Missing { path: path.to_owned(), names }.into());
        }
        let or = |name: &str, default: &str| match keys.text(name) {
            "" => default.to_owned(),
            text => text.to_owned(),
        };
        let below = |directory: &str, name: String| Path::new(keys.text(directory)).join(name);
        Ok(PoolModule {
            program: below("CLUSTER_BIN_PATH", or("POOL_EXENAME", "kingbasecluster")),
            options: keys.text("POOL_OPTIONS").split_whitespace().map(str::to_owned).collect(),
            sockets: SOCKETS.iter().filter_map(|name| keys.path_of(name)).collect(),
            files: ["CLUSTER_STAT_FILE", "POOL_PID_FILE"]
                .iter()
                .filter_map(|name| keys.path_of(name))
                .collect(),
            output: below("CLUSTER_LOG_PATH", or("CLUSTER_LOG_NAME", "cluster.log")),
            log: keys.text("POOL_RESTART").into(),
            user: or("KB_POOL_EXECUTE_SYS_USER", "root"),
            gateways: keys.gateways(),
            ping_times: keys.number("PING_TIMES", 3)?,
            retries: keys.number("HEALTH_CHECK_MAX_RETRIES", 3)?,
            retry_delay: Duration::from_secs(keys.number("HEALTH_CHECK_RETRY_DELAY", 3)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_installer_s_defaults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            PoolModule::read(file.path())
        };
        let whole = "CLUSTER_BIN_PATH=/c/bin\nCLUSTER_LOG_PATH=/c/log\nPOOL_RESTART=/c/log/cluster_restart.log\nKB_GATEWAY_IP=10.0.0.254\n";
        let module = read(whole).unwrap();
        assert_eq!((module.program.to_str(), module.user.as_str()), (Some("/c/bin/kingbasecluster"), "root"));
        assert_eq!((module.output.to_str(), module.sockets.len()), (Some("/c/log/cluster.log"), 0));
        let more = format!(
            "{whole}POOL_EXENAME=pgpool\nKINGBASECLUSTERSOCKET2=/tmp/.s.KINGBASE.9898\nPOOL_OPTIONS='-f /c/etc'\n"
        );
        let module = read(&more).unwrap();
        assert_eq!((module.program.to_str(), module.options.len()), (Some("/c/bin/pgpool"), 2));
        assert_eq!(module.sockets, [PathBuf::from("/tmp/.s.KINGBASE.9898")]);
        let missing = read("CLUSTER_BIN_PATH=/c\n").unwrap_err().to_string();
        assert!(missing.ends_with("does not set CLUSTER_LOG_PATH, POOL_RESTART, KB_GATEWAY_IP"), "{missing}");
    }
}
