//! `repmgr.conf`: the configuration file of repmgr and of KingbaseES V8R6's kbha on each node.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kbrecover_rewind::KeepRoot;
use kbrecover_rewind::config::{ConfigError, Configuration};
use kbrecover_rewind::conninfo::{ConninfoError, ConninfoText};

use crate::keep::keep_root;
use crate::settings::SettingsError;
use crate::virtual_address::VirtualAddress;

/// Which failed nodes are recovered automatically.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Recovery {
    /// None.
    Manual,
    /// Standbys only.
    Standby,
    /// All.
    Automatic,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Recovery::Manual => "manual",
            Recovery::Standby => "standby",
            Recovery::Automatic => "automatic",
        })
    }
}

/// The settings that the recovery flow uses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepmgrConf {
    /// The path of the file.
    pub file: PathBuf,
    /// `node_id`
    pub node_id: i32,
    /// `node_name`: also the node's `application_name`.
    pub node_name: String,
    /// `conninfo`: how the other nodes reach this one.
    pub conninfo: ConninfoText,
    /// `data_directory`
    pub data: PathBuf,
    /// `sys_bindir` or `pg_bindir`
    pub programs: Option<PathBuf>,
    /// `log_file`, else `kbha_log_file`: the log of the flow. `None` means standard error.
    pub log: Option<PathBuf>,
    /// `recovery`
    pub recovery: Recovery,
    /// `auto_cluster_recovery_level`: with 1 and above, a cluster whose servers are all down is started; 0 turns this off.
    pub cluster_recovery_level: u32,
    /// `service_start_command`: the command that starts the server, instead of its control program.
    pub start_command: Option<String>,
    /// `remote_command`: a shell command that runs `%c` on host `%h`, instead of ssh. A setting of this program.
    pub remote_command: Option<String>,
    /// `ssh_options`
    pub ssh_options: String,
    /// `use_replication_slots`
    pub uses_slots: bool,
    /// `trusted_servers`: one of these hosts must respond to a ping before another node is recovered.
    pub trusted_servers: Vec<String>,
    /// `virtual_ip`, `net_device`, `ipaddr_path` and `arping_path`: the address that the primary
    /// holds.
    pub virtual_ip: Option<VirtualAddress>,
    /// `kbha_pid_file`; by default `kbha.pid` in the directory of the configuration file. The daemon keeps the list of known
    /// nodes in the same directory.
    pub pid_file: PathBuf,
    /// The settings that the daemon does not obey, each described in one sentence.
    pub ignored: Vec<String>,
    /// `recovery_check_interval`, in seconds: the pause between two checks of the daemon. A setting of this program.
    pub interval: Duration,
    /// `recovery_max_attempts`: the number of failures in a row after which a node must be recovered manually. A setting of
    /// this program.
    pub max_attempts: u32,
    /// `rewind_compare`: whether the data of both sides is compared if WAL cannot tell what differs. A setting of this
    /// program.
    pub rewinds_by_comparing: bool,
    /// `keep_diverged_dir`: where what a rewind gives up is kept; `None`: it is not kept. A setting of this program.
    pub keep_root: Option<KeepRoot>,
    /// `recovery_max_lost_transactions`: the largest number of committed transactions that a rewind may give up; `None`: any. A
    /// setting of this program.
    pub max_lost: Option<u64>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepmgrConfError {
    /// The file cannot be read or parsed.
    #[error(transparent)]
    Read(#[from] ConfigError),
    /// A setting is missing or not valid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// `conninfo` is not valid.
    #[error("configuration file \"{}\": conninfo is not a valid connection string", path.display())]
    Conninfo {
        /// The file.
        path: PathBuf,
        /// Why it is not valid.
        #[source]
        source: ConninfoError,
    },
}

/// The settings without default.
const REQUIRED: [&str; 4] = ["node_id", "node_name", "conninfo", "data_directory"];

/// repmgr's default: no interactive questions, and a limit for a host that does not respond.
const SSH_OPTIONS: &str =
    "-q -o ConnectTimeout=10 -o StrictHostKeyChecking=no -o ServerAliveInterval=2 -o ServerAliveCountMax=5";

impl RepmgrConf {
    /// Reads the file.
    ///
    /// # Errors
    /// It does not exist, cannot be parsed, or a setting is missing or not valid.
    pub fn read(path: &Path) -> Result<RepmgrConf, RepmgrConfError> {
        if let Err(source) = std::fs::metadata(path) {
            return Err(ConfigError::Open { path: path.to_owned(), source }.into());
        }
        let configuration = Configuration::read_one(path)?;
        let get = |name: &str| configuration.get(name).map(str::trim).filter(|value| !value.is_empty());
        let names: Vec<_> = REQUIRED.into_iter().filter(|name| get(name).is_none()).collect();
        if !names.is_empty() {
            return Err(SettingsError::Missing { path: path.to_owned(), names }.into());
        }
        let text = |name: &str| get(name).unwrap_or_default().to_owned();
        let invalid = |name: &'static str, wanted| {
            RepmgrConfError::from(SettingsError::Invalid { path: path.to_owned(), name, wanted })
        };
        let number = |name: &'static str, default: u32| match get(name) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| invalid(name, "a number")),
        };
        let recovery = match get("recovery").unwrap_or("standby") {
            "manual" => Recovery::Manual,
            "standby" => Recovery::Standby,
            "automatic" => Recovery::Automatic,
            _ => return Err(invalid("recovery", "manual, standby or automatic")),
        };
        let conninfo = ConninfoText::parse(&text("conninfo"));
        let conninfo =
            conninfo.map_err(|source| RepmgrConfError::Conninfo { path: path.to_owned(), source })?;
        let directory = |name| get(name).map(Path::new);
        let virtual_ip = match (get("virtual_ip"), get("net_device")) {
            (None, _) => None,
            (Some(_), None) => {
                let names = vec!["net_device"];
                return Err(SettingsError::Missing { path: path.to_owned(), names }.into());
            }
            (Some(address), Some(device)) => {
                let (ip, arping) = (directory("ipaddr_path"), directory("arping_path"));
                Some(VirtualAddress::new(address.to_owned(), device.to_owned(), ip, arping))
            }
        };
        Ok(RepmgrConf {
            file: path.to_owned(),
            node_id: text("node_id").parse().map_err(|_| invalid("node_id", "a number"))?,
            node_name: text("node_name"),
            conninfo,
            data: text("data_directory").into(),
            programs: get("sys_bindir").or(get("pg_bindir")).map(PathBuf::from),
            log: get("log_file").or(get("kbha_log_file")).map(PathBuf::from),
            recovery,
            cluster_recovery_level: number("auto_cluster_recovery_level", 1)?,
            start_command: get("service_start_command").map(str::to_owned),
            remote_command: get("remote_command").map(str::to_owned),
            ssh_options: get("ssh_options").unwrap_or(SSH_OPTIONS).to_owned(),
            uses_slots: get("use_replication_slots").is_some_and(is_on),
            trusted_servers: hosts(&text("trusted_servers")),
            virtual_ip,
            pid_file: get("kbha_pid_file").map_or_else(|| path.with_file_name("kbha.pid"), PathBuf::from),
            ignored: ignored(&get),
            interval: Duration::from_secs(number("recovery_check_interval", 5)?.max(1).into()),
            max_attempts: number("recovery_max_attempts", 10)?,
            rewinds_by_comparing: get("rewind_compare").is_some_and(is_on),
            keep_root: keep_root(
                get("keep_diverged_dir").unwrap_or_default(),
                Path::new(&text("data_directory")),
            ),
            max_lost: match get("recovery_max_lost_transactions").filter(|text| !text.is_empty()) {
                Some(text) => {
                    Some(text.parse().map_err(|_| invalid("recovery_max_lost_transactions", "a number"))?)
                }
                None => None,
            },
        })
    }
}

/// Settings that this program does not obey as KingbaseES does.
fn ignored<'a>(get: &dyn Fn(&str) -> Option<&'a str>) -> Vec<String> {
    let has_remote_command = get("remote_command").is_some();
    let cases = [
        (
            get("use_scmd").is_some_and(is_on) && !has_remote_command,
            "use_scmd='on' is not obeyed: other nodes are reached by ssh; set remote_command to reach them otherwise",
        ),
        (
            get("auto_cluster_recovery_level").is_some_and(|level| level == "2"),
            "auto_cluster_recovery_level='2' is treated as '1': this program never promotes a node",
        ),
        (
            get("running_under_failure_trusted_servers").is_some_and(is_off),
            "running_under_failure_trusted_servers='off' is not obeyed: the server keeps running when no trusted server \
             responds",
        ),
        (
            get("use_check_disk").is_some_and(is_on),
            "use_check_disk='on' is not obeyed: the server keeps running when a directory cannot be written",
        ),
    ];
    cases.into_iter().filter(|(is_set, _)| *is_set).map(|(_, text)| text.to_owned()).collect()
}

fn hosts(list: &str) -> Vec<String> {
    list.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect()
}

fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "on" | "true" | "yes")
}

fn is_off(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "0" | "off" | "false" | "no")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RepmgrConf, RepmgrConfError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repmgr.conf");
        std::fs::write(&path, text).unwrap();
        RepmgrConf::read(&path)
    }

    const WHOLE: &str = "node_id=1\nnode_name='node1'\nconninfo='host=10.0.0.1 user=esrep dbname=esrep port=54321'\n\
                         data_directory='/d'\n";

    #[test]
    fn omitted_settings_have_defaults() {
        let conf = read(WHOLE).unwrap();
        assert_eq!(
            (conf.recovery, conf.cluster_recovery_level, conf.uses_slots),
            (Recovery::Standby, 1, false)
        );
        assert_eq!((conf.node_id, conf.conninfo.get("port")), (1, Some("54321")));
        assert!(!conf.rewinds_by_comparing);
        assert!(read(&format!("{WHOLE}rewind_compare=on\n")).unwrap().rewinds_by_comparing);
        assert_eq!((conf.keep_root, conf.max_lost), (Some(KeepRoot::beside(Path::new("/d"))), None));
        let text = format!("{WHOLE}keep_diverged_dir='/k'\nrecovery_max_lost_transactions=7\n");
        let conf = read(&text).unwrap();
        assert_eq!((conf.keep_root, conf.max_lost), (Some(KeepRoot::new("/k".into())), Some(7)));
        assert_eq!(read(&format!("{WHOLE}keep_diverged_dir=off\n")).unwrap().keep_root, None);
        assert!(read(&format!("{WHOLE}recovery_max_lost_transactions=-1\n")).is_err());
        let conf = read(&format!(
            "{WHOLE}recovery=automatic\nuse_replication_slots=1\nsys_bindir='/b'\ntrusted_servers='a, b'\n"
        ));
        let conf = conf.unwrap();
        assert_eq!(
            (conf.recovery, conf.uses_slots, conf.trusted_servers.len()),
            (Recovery::Automatic, true, 2)
        );
        assert_eq!(conf.programs.as_deref(), Some(Path::new("/b")));
        assert!(conf.pid_file.ends_with("kbha.pid") && conf.ignored.is_empty() && conf.virtual_ip.is_none());
        let conf = read(&format!(
            "{WHOLE}use_scmd=on\nauto_cluster_recovery_level=2\nvirtual_ip='10.0.0.9/24'\nnet_device='eth0'\n\
             ipaddr_path='/sbin'\nkbha_pid_file='/run/kbha.pid'\n"
        ));
        let conf = conf.unwrap();
        assert_eq!((conf.ignored.len(), conf.pid_file.as_path()), (2, Path::new("/run/kbha.pid")));
        assert_eq!(conf.virtual_ip.unwrap().ip, Path::new("/sbin/ip"));
    }

    #[test]
    fn errors_name_the_setting() {
        let message = |text: &str| read(text).unwrap_err().to_string();
        assert!(message("node_id=1\n").ends_with("does not set node_name, conninfo, data_directory"));
        assert!(
            message(&format!("{WHOLE}recovery=always\n"))
                .ends_with("recovery is not manual, standby or automatic")
        );
        assert!(message(&WHOLE.replace("'host=", "'hots=")).contains("conninfo"));
        assert!(
            RepmgrConf::read(Path::new("/nonexistent/repmgr.conf"))
                .unwrap_err()
                .to_string()
                .contains("/nonexistent")
        );
    }
}
