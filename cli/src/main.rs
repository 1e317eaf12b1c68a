//! The command `kbrecover`.
//!
//! Text goes to standard error, standard output carries results only: cluster managers take any line
//! there for an answer.

use std::process::ExitCode;

mod process_list;
mod passwords;

mod role;
mod command_line;
mod commands;
mod values;

mod report;
mod failure;

mod signals;
mod logging;
mod progress;
mod screen;
mod persona;

mod owner;
mod faults;

use command_line::{Command, Invocation};
use persona::KBRECOVER;
use role::Role;

fn main() -> ExitCode {
    let words = process_list::arguments();
    if let Some(role) = words.first().and_then(|program| Role::of(program)) {
        // Whatever happens: under these names there are two statuses only.
        return std::panic::catch_unwind(|| role.run(&words)).unwrap_or(ExitCode::FAILURE);
    }
    match command_line::parse(words) {
        Invocation::Run(Command::Rewind(args)) => commands::rewind::run(&args, KBRECOVER),
        Invocation::Run(Command::Status(args)) => commands::status::run(&args),
        Invocation::Run(Command::Grants(args)) => commands::grants::run(&args),
        Invocation::Run(Command::Hook(args)) => commands::hook::run(&args),
        Invocation::Run(Command::Inspect(args)) => commands::inspect::run(&args),
        Invocation::Run(Command::Completions(args)) => {
            commands::package::completions(&args, command_line::description())
        }
        Invocation::Run(Command::Man(args)) => commands::package::man(&args, command_line::description()),
        Invocation::Help(text) => {
            screen::to_stdout(&text);
            ExitCode::SUCCESS
        }
        Invocation::Wrong(wrong) => screen::Screen::stderr().usage_error(&wrong.message, &wrong.command),
    }
}
