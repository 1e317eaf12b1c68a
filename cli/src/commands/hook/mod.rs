//! `kbrecover hook`: the recovery flows that cron and cluster managers call.

mod cron;
mod engine;
mod report;
mod v8r3;
mod v8r3_pool;
mod v8r6;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// The options of `kbrecover hook`.
#[derive(Args)]
pub(crate) struct HookArgs {
    #[command(subcommand)]
    flow: Flow,
}

#[derive(Subcommand)]
enum Flow {
    /// Recover this node of a KingbaseES V8R3 cluster; replaces network_rewind.sh
    V8r3(Box<v8r3::V8r3Args>),
    /// Start, rejoin and monitor nodes of a KingbaseES V8R6 or repmgr cluster; replaces kbha
    V8r6(Box<v8r6::V8r6Args>),
}

/// Runs the command.
pub(crate) fn run(args: &HookArgs) -> ExitCode {
    match &args.flow {
        Flow::V8r3(args) => v8r3::run(args),
        Flow::V8r6(args) => v8r6::run(args),
    }
}
