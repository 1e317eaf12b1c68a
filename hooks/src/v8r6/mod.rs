//! The recovery flow of KingbaseES V8R6: what its `kbha` does, on repmgr's configuration and metadata.
//!
//! - [`daemon`]: on the primary, looks after the other nodes; a standby that is down is started, an old primary
//!   rejoined, on their own machines and by this same program.
//! - [`start_database`]: starts this node's server.
//! - [`rejoin`]: makes this node a standby of the new primary, rewound if it has diverged.
//! - [`status`]: what the cluster looks like from here.

mod cluster;
mod config;
mod daemon;
mod log;
mod rejoin;
mod remote;
mod start;
mod status;

pub use config::{Recovery, RepmgrConf, RepmgrConfError};
pub use daemon::{DaemonRequest, daemon};
pub use rejoin::{Force, RejoinRequest, rejoin};
pub use start::start_database;
pub use status::{NodeStatus, status};

use crate::server::LocalServer;

impl RepmgrConf {
    /// The server of this node.
    pub fn server(&self) -> LocalServer {
        LocalServer {
            data: self.data.clone(),
            programs: self.programs.clone().unwrap_or_default(),
            libraries: None,
        }
    }

    /// How this node's own server is reached.
    fn own_server(&self) -> crate::sql::Server {
        cluster::server(self, &self.conninfo, self.server().prefixes())
    }
}
