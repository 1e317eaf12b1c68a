//! The recovery flow of KingbaseES V8R3, which cron runs on every node each minute.
//!
//! It replaces `network_rewind.sh`, reads the same `HAmodule.conf` and writes the same log. Its safety depends on the
//! order of the steps: all reasons to refuse are checked before a server is stopped, and a server is started only on a
//! data directory without an unfinished rewind.
//!
//! ```text
//! every node     disk, network, pool
//! none is up     if MAX_AVAILABLE_LEVEL is on: this node, other nodes, start, virtual address, attach
//! primary        virtual address, synchronous standbys
//! standby        virtual address, health; if the node must be recovered:
//!                back-off, permission, programs, templates, primary, record of slots, detach, stop, slots, rewind,
//!                configuration, recovery settings, start
//!                in any case: slots of this node, streaming, lag, synchronous standbys,
//!                attach
//! ```

mod all_down;
mod attach;
mod attempts;
mod config;
mod disk;
mod health;
mod node;
mod node_state;
mod observe;
mod pcp;
mod pool;
mod pool_nodes;
mod primary;
mod recovery;
mod recovery_settings;
mod refuse;
mod run;
mod slots;
mod standstill;
mod vip;

pub use config::{HaModule, HaModuleError};
pub use node::Trigger;
pub use node_state::{NodeState, node_state};
pub use pool::{PoolModule, PoolRequest, watch_pool};
pub use pool_nodes::PoolNode;
pub use run::{Request, recover};
