//! The recovery flow of KingbaseES V8R6: the tasks of its `kbha`, based on repmgr's configuration and metadata.
//!
//! - [`daemon`]: on the primary, recovers the other nodes. A standby that is down is started, and an old primary is
//!   rejoined; both are done on the node's own machine, by this same program.
//! - [`start_database`]: starts this node's server.
//! - [`rejoin`]: makes this node a standby of the new primary. It is rewound if it has diverged.
//! - [`status`]: the nodes of the cluster as this node sees them.

mod address;
mod all_down;
mod cluster;
mod config;
mod context;
mod daemon;
mod known;
mod log;
mod recover;
mod rejoin;
mod remote;
mod start;
mod status;
mod this_node;

pub use config::{Recovery, RepmgrConf, RepmgrConfError};
pub use daemon::{DaemonRequest, Order, daemon};
pub use rejoin::{Force, RejoinRequest, rejoin};
pub use remote::NO;
pub use start::start_database;
pub use status::{NodeStatus, status};
