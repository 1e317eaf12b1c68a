//! The command `kbrecover`.
//!
//! Text goes to standard error, standard output carries results only: cluster managers take any line
//! there for an answer.

use std::process::ExitCode;

mod process_list;
mod args;
mod persona;
mod commands;
mod faults;

mod failure;
mod report;

mod logging;
mod progress;
mod screen;
mod signals;

use args::{Command, Invocation};
use persona::{KBRECOVER, Role};

fn main() -> ExitCode {
    let words = process_list::arguments();
    if let Some(role) = words.first().and_then(|program| Role::of(program)) {
        // Whatever happens: under these names there are two statuses only.
        return std::panic::catch_unwind(|| role.run(&words)).unwrap_or(ExitCode::FAILURE);
    }
    match args::parse(words) {
        Invocation::Run(Command::Rewind(args)) => commands::rewind::run(&args, KBRECOVER),
        Invocation::Run(Command::Status(args)) => commands::status::run(&args),
        Invocation::Run(Command::Grants(args)) => {
            screen::to_stdout(&kbrecover_rewind::source::grants(args.source_version, &args.role));
            ExitCode::SUCCESS
        }
        Invocation::Run(Command::Hook(args)) => commands::hook::run(&args),
        Invocation::Run(Command::Inspect(args)) => commands::inspect::run(&args),
        Invocation::Run(Command::Completions(args)) => {
            commands::package::completions(&args, args::description())
        }
        Invocation::Run(Command::Man(args)) => commands::package::man(&args, args::description()),
        Invocation::Help(text) => {
            screen::to_stdout(&text);
            ExitCode::SUCCESS
        }
        Invocation::Wrong(wrong) => screen::Screen::stderr().usage_error(&wrong.message, &wrong.command),
    }
}
