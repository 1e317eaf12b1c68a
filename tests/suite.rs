//! The scenarios on real PostgreSQL servers: what each file is about.
//!
//! Every one builds its clusters, makes them diverge, rewinds, starts the target as a standby, and compares all content.
//! They need PostgreSQL 15; without it they fail.

#![allow(
    clippy::disallowed_methods,
    reason = "the rule that all writes go through the target is for the program"
)]
#![allow(clippy::print_stderr, reason = "a failed test shows the servers' logs")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

// Servers, the program, and the proofs. Begin here.
mod harness;

// The main job: clean and crashed target, running and stopped source.
mod basic;

// What the target may be: killed under load, a standby, on the source's own timeline, rewound before.
mod crashed_target;
mod replay_start;
mod open_subtransactions;
mod summaries;
mod same_timeline;
mod look_alikes;
mod second_run;
mod rebuilt_blocks;
mod interrupted;
mod crash_sweep;
mod crash_images;
mod full_disk;
mod target_in_use;
mod keep_diverged;
mod restore;
mod standby_target;

// Where WAL does not tell what differs.
mod compare_cut;
mod compare_data;
mod compare_resumed;

// What a rewound node, or any other, has of its source's blocks.
mod verify;
mod compare_command;

// What the source may be: a standby, promoted a moment ago, reached in every way, read by a role with few rights, away
// for a while.
mod connecting;
mod no_password;
mod just_promoted;
mod least_privilege;
mod role_settings;
mod damaged_source;
mod faulty_source;
mod changing_files;
mod hostile_source;
mod source_away;
mod checkpoint_source;
mod one_server;
mod standby_source;

// How the histories may lie: many timelines, a fork at a boundary, nothing to rewind.
mod fork_position;
mod not_needed;
mod repeated_failover;

// Features of the data; most of them are parts of the zoo, too.
mod databases;
mod index_types;
mod large_objects;
mod large_relation;
mod lost_transactions;
mod lost_rows;
mod lost_from_disk;
mod lost_export;
mod lost_given_back;
mod lost_decoded;
mod lost_on_source;
mod prepared_transactions;
mod sizes;
mod tablespaces;
mod unlogged_tables;
mod zoo;

// Features of the directory.
mod extra_files;
mod group_access;
mod keep;
mod links;
mod pg_wal_symlink;
mod surroundings;

// WAL: what is kept, what is missing, where replay must arrive; and every record of it against pg_waldump; what is shown of it.
mod min_recovery_point;
mod missing_wal;
mod wal_files;
mod unarchived;
mod wal_kept;
mod wal_records;
mod inspect;

// Versions: real servers, and what programs of versions left of which there are none.
mod fixtures;
mod kingbase;
mod modes;
mod versions;
mod custom_rmgr;

// Recovery flows on real cluster managers.
mod hook_v8r3;
mod hook_v8r3_all_down;
mod hook_v8r3_faults;
mod hook_v8r3_pool;
mod hook_v8r6;
mod hook_v8r6_daemon;
mod hook_v8r6_faults;
mod hook_v8r6_nodes;
mod hook_managers;

// Cluster managers that call this program by the name pg_rewind.
mod patroni;
mod pg_auto_failover;
mod pgbouncer;
mod pgpool;
mod repmgr;

// How much is fetched, and how fast.
mod fetched;

// The command: its options and its words.
mod cli;
mod quickstart;
mod terminal;
mod drop_in;
mod drop_in_rules;
mod check;
mod dry_run;
mod recovery_conf;
mod status;
mod status_wait;

// What is refused, with the target untouched.
mod bad_source;
mod bad_target;
mod bad_wal;

// What exit status 0 means: the node's content is the source's, also where WAL says less than what changed on disk.
mod truth_proof;
mod truth_databases;
mod truth_file_numbers;
mod truth_full_pages;
mod truth_hints;
mod truth_histories;
mod truth_direction;
mod truth_next_start;
mod truth_refusals;
mod truth_tablespaces;

// What no scenario has thought of.
mod soak;
