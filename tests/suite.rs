//! The scenarios on real PostgreSQL servers.

#![allow(
    clippy::disallowed_methods,
    reason = "the rule that all writes go through the target is for the program"
)]
#![allow(clippy::print_stderr, reason = "a failed test shows the servers' logs")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod bad_source;
mod bad_target;
mod bad_wal;
mod basic;
mod cli;
mod crashed_target;
mod databases;
mod dry_run;
mod extra_files;
mod fixtures;
mod group_access;
mod harness;
mod index_types;
mod just_promoted;
mod large_objects;
mod large_relation;
mod least_privilege;
mod min_recovery_point;
mod missing_wal;
mod not_needed;
mod pg_wal_symlink;
mod prepared_transactions;
mod recovery_conf;
mod repeated_failover;
mod same_timeline;
mod second_run;
mod sizes;
mod standby_source;
mod standby_target;
mod tablespaces;
mod unlogged_tables;
mod wal_files;
mod wal_records;
mod zoo;
