//! `HAmodule.conf`: the configuration file that the installer of V8R3 writes on each node for its scripts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use kbrecover_rewind::KeepRoot;

use crate::keep::keep_root;
use crate::secret::Secret;
use crate::server::LocalServer;
use crate::settings::SettingsError;
use crate::shell_config::{self, ShellConfigError, Value};
use crate::sql::limit_of;
use crate::virtual_address::VirtualAddress;

/// The settings that the recovery flow uses. Optional ones have a default.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HaModule {
    /// The path of the file.
    pub file: PathBuf,
    /// `KB_DATA_PATH`: the data directory.
    pub data: PathBuf,
    /// `KB_PATH`: the directory of the server's programs, or the one above their `bin`.
    pub programs: PathBuf,
    /// `KB_LD_PATH`: the directory of the server's libraries.
    pub libraries: Option<PathBuf>,
    /// `KB_ETC_PATH`: the directory with templates of this node's configuration files.
    pub etc: PathBuf,
    /// `CLUSTER_BIN_PATH`: the directory of the PCP programs, if it is not that of the server's programs.
    pub cluster_programs: Option<PathBuf>,
    /// `KB_LOCALHOST_IP`: the host of this node in the configuration of the pool.
    pub local_host: String,
    /// `KB_PORT`
    pub port: u16,
    /// `KB_USER`
    pub user: String,
    /// `KB_PASS`, decoded
    pub password: Secret,
    /// `KB_DATANAME`: the database to connect to.
    pub database: String,
    /// `KB_POOL_VIP`: the host of the pool.
    pub pool_host: String,
    /// `KB_POOL_PORT`
    pub pool_port: u16,
    /// `KB_POOL_PCP_PORT`
    pub pcp_port: u16,
    /// `PCP_USER`
    pub pcp_user: String,
    /// `PCP_PASS`, decoded
    pub pcp_password: Secret,
    /// `KB_GATEWAY_IP`: the trusted gateways, one of which must respond to a ping.
    pub gateways: Vec<String>,
    /// `PING_TIMES`
    pub ping_times: u32,
    /// `KB_VIP`, `DEV`, `CMD_IP_PATH` and `CMD_ARPING_PATH`: the address that the primary holds; `None` if `KB_VIP` is empty.
    pub vip: Option<VirtualAddress>,
    /// `RECOVERY_LOG_DIR`: the path of the log file, despite its name.
    pub log: PathBuf,
    /// `KB_CLUSTER_STATUS`: the file in which the scripts keep the result of `show pool_nodes`.
    pub status_file: Option<PathBuf>,
    /// `CONNECTTIMEOUT`
    pub connect_timeout: Duration,
    /// `HEALTH_CHECK_MAX_RETRIES`
    pub retries: u32,
    /// `HEALTH_CHECK_RETRY_DELAY`
    pub retry_delay: Duration,
    /// `AUTO_PRIMARY_RECOVERY`: whether an old primary is recovered automatically.
    pub auto_primary_recovery: bool,
    /// `ALL_NODE_NAME`: the application names of all nodes.
    pub node_names: Vec<String>,
    /// `NODE_NAME`: this node's application name.
    pub node_name: String,
    /// `SYNC_FLAG`: whether the cluster replicates synchronously.
    pub synchronous: bool,
    /// `MOUNT_POINT_DIR_LIST`: the directories that must be writable.
    pub mount_points: Vec<PathBuf>,
    /// `USE_CHECK_DISK`: whether the server is stopped if one of them is not writable.
    pub stops_on_disk_failure: bool,
    /// `MOUNT_CHECK_MAX_RETRIES`
    pub disk_retries: u32,
    /// `DATA_SIZE_DIFF`: the maximum lag, in bytes, of a standby that is attached to the pool.
    pub max_lag: u64,
    /// `STOP_DB_WITHOUT_GATEWAY`: whether the server is stopped if no gateway responds, as the script did. A setting of this
    /// program.
    pub stops_without_gateway: bool,
    /// `MAX_AVAILABLE_LEVEL`: whether the old primary starts itself when all servers are down.
    pub starts_when_all_are_down: bool,
    /// `KB_ALL_IP`: the hosts of all nodes.
    pub all_hosts: Vec<String>,
    /// `REMOTE_COMMAND`: a shell command that runs `%c` on host `%h`, instead of ssh. A setting of this program.
    pub remote_command: Option<String>,
    /// `REWIND_ALWAYS`: whether a node on the primary's timeline is rewound even if it has not diverged, as the script did. A
    /// setting of this program.
    pub rewinds_always: bool,
    /// `REWIND_COMPARE`: whether the data of both sides is compared if WAL cannot tell what differs. A setting of this
    /// program.
    pub rewinds_by_comparing: bool,
    /// `KEEP_DIVERGED_DIR`: where what a rewind gives up is kept; `None`: it is not kept. A setting of this program.
    pub keep_root: Option<KeepRoot>,
    /// `MAX_LOST_TRANSACTIONS`: the largest number of committed transactions that a rewind may give up; `None`: any. A setting of
    /// this program.
    pub max_lost: Option<u64>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HaModuleError {
    /// The file cannot be read.
    #[error("No configuration files! could not open \"{}\"", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The file cannot be parsed.
    #[error("could not parse configuration file \"{}\"", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line and the problem.
        #[source]
        source: ShellConfigError,
    },
    /// A setting is missing or not valid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The settings without default.
const REQUIRED: [&str; 14] = [
    "KB_DATA_PATH",
    "KB_PATH",
    "KB_ETC_PATH",
    "KB_LOCALHOST_IP",
    "KB_PORT",
    "KB_USER",
    "KB_DATANAME",
    "KB_POOL_VIP",
    "KB_POOL_PORT",
    "PCP_USER",
    "KB_GATEWAY_IP",
    "RECOVERY_LOG_DIR",
    "ALL_NODE_NAME",
    "NODE_NAME",
];

impl HaModule {
    /// Reads the file.
    ///
    /// # Errors
    /// It does not exist, cannot be parsed, or a setting is missing or not valid.
    pub fn read(path: &Path) -> Result<HaModule, HaModuleError> {
        HaModule::of(&Keys::read(path)?)
    }

    fn of(keys: &Keys<'_>) -> Result<HaModule, HaModuleError> {
        let path = keys.path;
        let names: Vec<_> = REQUIRED.into_iter().filter(|name| keys.text(name).is_empty()).collect();
        if !names.is_empty() {
            return Err(SettingsError::Missing { path: path.to_owned(), names }.into());
        }
        let data = PathBuf::from(keys.text("KB_DATA_PATH"));
        let mut mount_points: Vec<PathBuf> = keys.list("MOUNT_POINT_DIR_LIST").map(PathBuf::from).collect();
        if mount_points.is_empty() {
            mount_points.push(data.clone());
        }
        Ok(HaModule {
            file: path.to_owned(),
            programs: keys.text("KB_PATH").into(),
            libraries: keys.path_of("KB_LD_PATH"),
            etc: keys.text("KB_ETC_PATH").into(),
            cluster_programs: keys.path_of("CLUSTER_BIN_PATH"),
            local_host: keys.text("KB_LOCALHOST_IP").to_owned(),
            port: keys.number("KB_PORT", 54321)?,
            user: keys.text("KB_USER").to_owned(),
            password: keys.password("KB_PASS")?,
            database: keys.text("KB_DATANAME").to_owned(),
            pool_host: keys.text("KB_POOL_VIP").to_owned(),
            pool_port: keys.number("KB_POOL_PORT", 9999)?,
            pcp_port: keys.number("KB_POOL_PCP_PORT", 9898)?,
            pcp_user: keys.text("PCP_USER").to_owned(),
            pcp_password: keys.password("PCP_PASS")?,
            gateways: keys.gateways(),
            ping_times: keys.number("PING_TIMES", 3)?,
            vip: keys.virtual_address()?,
            log: keys.text("RECOVERY_LOG_DIR").into(),
            status_file: keys.path_of("KB_CLUSTER_STATUS"),
            connect_timeout: limit_of(Some(keys.number("CONNECTTIMEOUT", 10)?)),
            retries: keys.number("HEALTH_CHECK_MAX_RETRIES", 3)?,
            retry_delay: Duration::from_secs(keys.number("HEALTH_CHECK_RETRY_DELAY", 3)?),
            auto_primary_recovery: keys.is_on("AUTO_PRIMARY_RECOVERY"),
            node_names: keys.list("ALL_NODE_NAME").map(str::to_owned).collect(),
            node_name: keys.text("NODE_NAME").to_owned(),
            synchronous: keys.is_on("SYNC_FLAG"),
            mount_points,
            stops_on_disk_failure: !keys.is_off("USE_CHECK_DISK"),
            disk_retries: keys.number("MOUNT_CHECK_MAX_RETRIES", 6)?,
            max_lag: keys.number::<u64>("DATA_SIZE_DIFF", 16)?.saturating_mul(1 << 20),
            stops_without_gateway: keys.is_on("STOP_DB_WITHOUT_GATEWAY"),
            starts_when_all_are_down: keys.is_on("MAX_AVAILABLE_LEVEL"),
            all_hosts: keys.list("KB_ALL_IP").map(str::to_owned).collect(),
            remote_command: Some(keys.text("REMOTE_COMMAND").to_owned()).filter(|text| !text.is_empty()),
            rewinds_always: keys.is_on("REWIND_ALWAYS"),
            rewinds_by_comparing: keys.is_on("REWIND_COMPARE"),
            keep_root: keep_root(keys.text("KEEP_DIVERGED_DIR"), &data),
            max_lost: match keys.text("MAX_LOST_TRANSACTIONS") {
                "" => None,
                _ => Some(keys.number("MAX_LOST_TRANSACTIONS", 0)?),
            },
            data,
        })
    }
}

/// The server of the node that a configuration describes.
pub(super) fn server_of(config: &HaModule) -> LocalServer {
    LocalServer {
        data: config.data.clone(),
        programs: config.programs.clone(),
        libraries: config.libraries.clone(),
    }
}

/// The values of the file, and how they are interpreted.
pub(super) struct Keys<'a> {
    path: &'a Path,
    values: BTreeMap<String, Value>,
}

impl<'a> Keys<'a> {
    /// Reads the file.
    ///
    /// # Errors
    /// It does not exist or cannot be parsed.
    pub(super) fn read(path: &'a Path) -> Result<Keys<'a>, HaModuleError> {
        let bytes = fs::read(path).map_err(|source| HaModuleError::Open { path: path.to_owned(), source })?;
        // Comments may be in any encoding.
        Keys::parse(path, &String::from_utf8_lossy(&bytes), &|name| std::env::var(name).ok())
    }

    fn parse(
        path: &'a Path,
        text: &str,
        outside: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Keys<'a>, HaModuleError> {
        let values = shell_config::parse(text, outside)
            .map_err(|source| HaModuleError::Syntax { path: path.to_owned(), source })?;
        Ok(Keys { path, values })
    }

    /// `KB_GATEWAY_IP`
    pub(super) fn gateways(&self) -> Vec<String> {
        self.text("KB_GATEWAY_IP").split(',').map(|host| host.trim().to_owned()).collect()
    }

    /// A value as text; of an array, the first word, as in a shell.
    pub(super) fn text(&self, name: &str) -> &str {
        self.list(name).next().unwrap_or_default().trim()
    }

    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let words = self.values.get(name).map_or(&[][..], Value::words);
        words.iter().map(String::as_str).filter(|word| !word.is_empty())
    }

    fn virtual_address(&self) -> Result<Option<VirtualAddress>, HaModuleError> {
        let (address, device) = (self.text("KB_VIP").to_owned(), self.text("DEV").to_owned());
        if address.is_empty() {
            return Ok(None);
        }
        if device.is_empty() {
            return Err(SettingsError::Missing { path: self.path.to_owned(), names: vec!["DEV"] }.into());
        }
        let (ip, arping) = (self.path_of("CMD_IP_PATH"), self.path_of("CMD_ARPING_PATH"));
        Ok(Some(VirtualAddress::new(address, device, ip.as_deref(), arping.as_deref())))
    }

    pub(super) fn path_of(&self, name: &str) -> Option<PathBuf> {
        Some(PathBuf::from(self.text(name))).filter(|path| !path.as_os_str().is_empty())
    }

    pub(super) fn number<N: std::str::FromStr>(
        &self,
        name: &'static str,
        default: N,
    ) -> Result<N, HaModuleError> {
        match self.text(name) {
            "" => Ok(default),
            text => text.parse().map_err(|_| self.invalid(name, "a number in its valid range")),
        }
    }

    fn password(&self, name: &'static str) -> Result<Secret, HaModuleError> {
        let invalid = || self.invalid(name, "a password encoded in base64");
        let bytes = STANDARD.decode(self.text(name)).map_err(|_| invalid())?;
        let text = String::from_utf8(bytes).map_err(|_| invalid())?;
        // A newline at the end comes from encoding by hand with `echo` without `-n`.
        Ok(Secret::new(text.trim_end_matches('\n')))
    }

    fn is_on(&self, name: &str) -> bool {
        matches!(self.text(name).to_ascii_lowercase().as_str(), "1" | "on" | "true" | "yes")
    }

    fn is_off(&self, name: &str) -> bool {
        matches!(self.text(name).to_ascii_lowercase().as_str(), "0" | "off" | "false" | "no")
    }

    fn invalid(&self, name: &'static str, wanted: &'static str) -> HaModuleError {
        SettingsError::Invalid { path: self.path.to_owned(), name, wanted }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "KB_DATA_PATH=/d\nKB_PATH=/b\nKB_ETC_PATH=/e\nKB_LOCALHOST_IP=10.0.0.1\nKB_PORT=54321\n\
        KB_USER=SUPERMANAGER_V8ADMIN\nKB_PASS=c2VjcmV0Cg==\nKB_DATANAME=TEST\nKB_POOL_VIP=10.0.0.9\nKB_POOL_PORT=9999\n\
        PCP_USER=kingbase\nKB_GATEWAY_IP=\"10.0.0.254, 10.0.0.253\"\nRECOVERY_LOG_DIR=/l/recovery.log\n\
        ALL_NODE_NAME=(node1 node2)\nNODE_NAME=node1\nKB_VIP=\n";

    fn read(extra: &str) -> Result<HaModule, HaModuleError> {
        HaModule::of(&Keys::parse(Path::new("/etc/HAmodule.conf"), &format!("{WHOLE}{extra}"), &|_| None)?)
    }

    #[test]
    fn comments_may_be_in_any_encoding() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [b"# \xb6\xcb\xbf\xda\n", WHOLE.as_bytes()].concat()).unwrap();
        assert_eq!(HaModule::read(file.path()).unwrap().node_name, "node1");
    }

    #[test]
    fn omitted_settings_have_defaults() {
        let module = read("").unwrap();
        assert_eq!((module.pcp_port, module.retries, module.max_lag), (9898, 3, 16 << 20));
        assert!(
            !module.auto_primary_recovery && module.stops_on_disk_failure && !module.stops_without_gateway
        );
        assert_eq!(module.mount_points, [PathBuf::from("/d")]);
        assert_eq!((module.vip, module.node_names.len()), (None, 2));
        let vip = read("KB_VIP=10.0.0.9/24\nDEV=eth0\nCMD_IP_PATH=/sbin\n").unwrap().vip.unwrap();
        assert_eq!((vip.ip, vip.device.as_str()), (PathBuf::from("/sbin/ip"), "eth0"));
        assert!(read("KB_VIP=10.0.0.9/24\n").unwrap_err().to_string().ends_with("does not set DEV"));
        assert_eq!(module.gateways, ["10.0.0.254", "10.0.0.253"]);
        assert_eq!(module.password.reveal(), "secret");
        // Zero would leave no time for an answer.
        assert_eq!(read("CONNECTTIMEOUT=0\n").unwrap().connect_timeout.as_secs(), 10);
    }

    #[test]
    fn switches_accept_the_spellings_of_the_scripts() {
        for (spelling, on) in
            [("1", true), ("on", true), ("YES", true), ("true", true), ("0", false), ("x", false)]
        {
            let module = read(&format!("AUTO_PRIMARY_RECOVERY=\"{spelling}\"\n")).unwrap();
            assert_eq!(module.auto_primary_recovery, on, "{spelling}");
        }
        assert!(
            read("REWIND_COMPARE=1").unwrap().rewinds_by_comparing && !read("").unwrap().rewinds_by_comparing
        );
        let kept = read("KEEP_DIVERGED_DIR=/k\nMAX_LOST_TRANSACTIONS=0\n").unwrap();
        assert_eq!((kept.keep_root, kept.max_lost), (Some(KeepRoot::new("/k".into())), Some(0)));
        let unset = read("MAX_LOST_TRANSACTIONS=\n").unwrap();
        assert_eq!((unset.keep_root, unset.max_lost), (Some(KeepRoot::beside(&unset.data)), None));
        assert_eq!(read("KEEP_DIVERGED_DIR=\"off\"\n").unwrap().keep_root, None);
        assert!(read("MAX_LOST_TRANSACTIONS=many\n").is_err());
        assert!(!read("USE_CHECK_DISK=off").unwrap().stops_on_disk_failure);
        assert!(read("USE_CHECK_DISK=maybe").unwrap().stops_on_disk_failure);
    }

    #[test]
    fn an_error_names_all_missing_keys_and_shows_no_password() {
        let path = Path::new("/etc/HAmodule.conf");
        let error = HaModule::of(&Keys::parse(path, "KB_PATH=/b\nNODE_NAME=\n", &|_| None).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("KB_DATA_PATH, KB_ETC_PATH") && error.contains("NODE_NAME"), "{error}");
        let error = read("KB_PASS='not base64!'").unwrap_err().to_string();
        assert!(error.contains("KB_PASS") && !error.contains("not base64!"), "{error}");
        assert!(!format!("{:?}", read("").unwrap()).contains("secret"));
    }
}
