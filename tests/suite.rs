//! The scenarios on real PostgreSQL servers.

#![allow(clippy::disallowed_methods, reason = "the rule that all writes go through the target is for the program")]
#![allow(clippy::print_stderr, reason = "a failed test shows the servers' logs")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod harness;
mod basic;
mod crashed_target;
mod standby_target;
mod standby_source;
mod just_promoted;
mod repeated_failover;
mod not_needed;
mod tablespaces;
mod unlogged_tables;
mod databases;
mod sizes;
mod index_types;
mod prepared_transactions;
mod large_objects;
mod pg_wal_symlink;
mod extra_files;
mod least_privilege;
mod group_access;
mod same_timeline;
mod second_run;
mod dry_run;
mod recovery_conf;
mod wal_files;
mod missing_wal;
mod min_recovery_point;
mod large_relation;
mod bad_target;
mod bad_source;
mod bad_wal;
mod cli;
mod zoo;
