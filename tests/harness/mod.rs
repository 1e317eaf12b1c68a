//! What every scenario stands on: real servers, the program under test, and the proofs.
//!
//!     Sandbox ── a directory of its own, removed at the end
//!       ├─ Server "old"  ┐
//!       ├─ Server "new"  ┴─ Failover: a primary and its standby, then two histories
//!       ├─ sockets/         servers listen here, so ports never clash
//!       └─ *.log            beside the data directories, not inside them
//!
//!     Rewind  runs `kbrecover rewind` and holds what it printed
//!     Tree    every byte of a directory, to prove that nothing was touched
//!     compare every row of every database on two servers
//!     verify  a node follows, has equal content, passes pg_amcheck and pg_checksums
//!
//! What differs between nodes (port, sockets, primary_conninfo) is given on the server's command line. A rewind replaces
//! the configuration files by the source's, and a scenario need not care.

// Programs and the places they run in.
mod installation;
mod ports;
mod program;
mod sandbox;
mod server;
mod template;

// What scenarios begin with.
mod failover;
mod feature;
mod load;
mod seed;

// The program under test, and what it must leave.
mod compare;
mod image;
mod kbrecover;
mod proxy;
mod tree;
mod verify;

// Clusters with a manager.
mod autoctl_cluster;
mod nodes;
mod patroni_cluster;
mod pool_cluster;
mod repmgr_cluster;
mod sample_scripts;
mod sshd;

// What scenarios say of pg_control and of WAL.
mod control;
mod disguise;
mod wal;
mod waldump;

pub use compare::assert_same_content;
pub use control::{ControlData, PG_CONTROL_VERSION, SYSTEM_IDENTIFIER, patch_control_file};
pub use disguise::{Disguise, KINGBASE_V8R3, KINGBASE_V8R6, control_of};
pub use failover::Failover;
pub use feature::Feature;
#[allow(unused_imports, reason = "for some of those who use this harness")]
pub use image::{
    Change, changed_in_place, differences, forget_time, linked_copy, record_changes, recorded, remove_copy,
};
pub use installation::Installation;
pub use kbrecover::{
    Rewind, Run, Running, SourceKind, binary, command_as, end_with_children, run_command, run_kbrecover,
    spawn_kbrecover,
};
#[allow(unused_imports, reason = "for the benchmark, which uses this harness, too")]
pub use kbrecover::{command, unless_busy};
pub use load::Load;
#[allow(unused_imports, reason = "the benchmark, which uses this harness, too, starts no pooler")]
pub use ports::free_port;
pub use program::{AsServerUser, bindir, could_not_mount, give_to_server_user, is_root, run, server_program};
pub use proxy::{Proxy, Then};
pub use sandbox::{Sandbox, copy_tree};
#[allow(unused_imports, reason = "the benchmark, which uses this harness, too, picks nothing")]
pub use seed::{pick, seed};
pub use server::Server;
#[allow(unused_imports, reason = "the benchmark, which uses this harness, too, has no use for it")]
pub use server::WAL_LEVEL_MINIMAL;
#[allow(unused_imports, reason = "the benchmark, which uses this harness, too, has no use for it")]
pub use server::children_of;
pub use tree::Tree;
#[allow(unused_imports, reason = "for the benchmark, which uses this harness, too")]
pub use verify::{assert_cured_by_comparing, assert_follows, assert_rewinds_by_comparing, assert_sound};
pub use wal::{
    Lsn, SEGMENT_SIZE, Segment, WAL_PAGE_SIZE, fill_page, history_switch, insert_position, next_segment,
    record_starts, remove_wal_files, segments,
};
#[allow(unused_imports, reason = "the benchmark, which uses this harness, too, compares no records")]
pub use waldump::{record_line, waldump_line};
#[allow(unused_imports, reason = "the benchmark, which uses this harness, too, has no cluster manager")]
pub use {
    autoctl_cluster::AutoctlCluster, nodes::assert_logged, nodes::kill_at_each,
    patroni_cluster::PatroniCluster, pool_cluster::PoolCluster, repmgr_cluster::RepmgrCluster,
};
