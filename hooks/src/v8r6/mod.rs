//! The recovery flow of KingbaseES V8R6: what its `kbha` does, on repmgr's configuration and metadata.
//!
//! - [`daemon`]: on the primary, looks after the other nodes; a standby that is down is started, an old primary
//!   rejoined, on their own machines and by this same program.
//! - [`start_database`]: starts this node's server.
//! - [`rejoin`]: makes this node a standby of the new primary, rewound if it has diverged.
//! - [`status`]: what the cluster looks like from here.

mod address;
mod all_down;
mod cluster;
mod config;
mod daemon;
mod known;
mod log;
mod recover;
mod rejoin;
mod remote;
mod start;
mod status;

pub use config::{Recovery, RepmgrConf, RepmgrConfError};
pub use daemon::{DaemonRequest, Order, daemon};
pub use rejoin::{Force, RejoinRequest, rejoin};
pub use start::start_database;
pub use status::{NodeStatus, status};

use std::path::PathBuf;

use crate::files;
use crate::flow::StepError;
use crate::pid_file::{PidFile, PidFileError};
use crate::server::LocalServer;

/// The exit status by which a node answers no.
pub const NO: u8 = 3;

impl RepmgrConf {
    /// The server of this node.
    pub fn server(&self) -> LocalServer {
        LocalServer {
            data: self.data.clone(),
            programs: self.programs.clone().unwrap_or_default(),
            libraries: None,
        }
    }

    /// Whether this node is a standby that only has to be started.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn is_startable_standby(&self) -> Result<bool, StepError> {
        Ok(self.server().is_standby()? && !files::is_half_rewound(&self.data)?)
    }

    /// Takes the lock of whoever starts or rejoins this node: a person, this node's daemon, or that of another node.
    ///
    /// # Errors
    /// Somebody has it, and is named; or it cannot be used.
    pub fn lock(&self) -> Result<PidFile, StepError> {
        let mut path = self.pid_file.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        PidFile::take(&path, "a start or rejoin of this node is under way").map_err(|error| {
            let told = StepError::of(&error);
            match error {
                PidFileError::Taken { .. } => {
                    told.hint("Nothing was done. Wait for its end, or stop that process.")
                }
                PidFileError::File { .. } => {
                    told.hint("Set kbha_pid_file to a file that this user may write.")
                }
            }
        })
    }

    /// Where the daemon notes the nodes of the cluster.
    fn known_nodes_file(&self) -> PathBuf {
        self.pid_file.with_extension("nodes")
    }

    /// How this node's own server is reached.
    fn own_server(&self) -> crate::sql::Server {
        cluster::server(self, &self.conninfo, self.server().prefixes())
    }
}
