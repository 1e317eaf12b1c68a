//! The node that a configuration describes: its server, its lock and its state file.

use std::path::{Path, PathBuf};

use super::cluster;
use super::config::RepmgrConf;
use crate::files;
use crate::flow::StepError;
use crate::pid_file::{PidFile, PidFileError};
use crate::server::LocalServer;
use crate::sql::Server;

impl RepmgrConf {
    /// The server of this node.
    pub fn server(&self) -> LocalServer {
        LocalServer::new(&self.data, self.programs.as_deref().unwrap_or(Path::new("")))
    }

    /// Whether this node is a standby that can be started as it is: no rewind of its data directory is unfinished.
    ///
    /// # Errors
    /// The files in its data directory cannot be read.
    pub fn is_startable_standby(&self) -> Result<bool, StepError> {
        Ok(self.server().is_standby()? && !files::is_half_rewound(&self.data)?)
    }

    /// Takes the lock that a process must hold while it starts or rejoins this node, whether it was called by an
    /// administrator, by this node's daemon or by the daemon of another node.
    ///
    /// # Errors
    /// Another process, which the error names, holds the lock; or the lock file cannot be used.
    pub fn lock(&self) -> Result<PidFile, StepError> {
        let mut path = self.pid_file.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        PidFile::take(&path, "a start or rejoin of this node").map_err(|error| {
            let failed = StepError::of(&error);
            match error {
                PidFileError::Taken { .. } => {
                    failed.hint("Nothing was changed. Wait until that process ends, or stop it.")
                }
                PidFileError::File { .. } => {
                    failed.hint("Set kbha_pid_file to a file that this user may write.")
                }
            }
        })
    }

    /// The file in which the daemon records the nodes of the cluster.
    pub(super) fn known_nodes_file(&self) -> PathBuf {
        self.pid_file.with_extension("nodes")
    }

    /// How this node's own server is reached.
    pub(super) fn own_server(&self) -> Server {
        cluster::server(self, &self.conninfo, self.server().prefixes())
    }
}
