//! The command `kbrecover`.
//!
//! Messages go to standard error. Standard output carries results only, because cluster managers read
//! every line there as an answer.

use std::process::ExitCode;

mod process_list;
mod passwords;

mod role;
mod command_line;
mod manual;
mod commands;
mod values;

mod color;
mod report;
mod failure;

mod signals;
mod logging;
mod output;
mod progress;
mod screen;
mod persona;

mod owner;
mod faults;
mod surroundings;

use command_line::{Command, Invocation, WrongUsage};
use persona::KBRECOVER;
use role::Role;
use screen::{Kind, Screen};

fn main() -> ExitCode {
    surroundings::save_address_space();
    signals::know_children();
    surroundings::with_large_stack(run_program)
}

fn run_program() -> ExitCode {
    let arguments = process_list::arguments();
    if let Some(role) = arguments.first().and_then(|program| Role::of(program)) {
        // Under these names a failure of any kind, even a panic, exits with status 1.
        return std::panic::catch_unwind(|| role.run(&arguments)).unwrap_or(ExitCode::FAILURE);
    }
    run(command_line::parse(arguments))
}

fn run(invocation: Invocation) -> ExitCode {
    match invocation {
        Invocation::Run(Command::Rewind(args)) => commands::rewind::run(&args, KBRECOVER),
        Invocation::Run(Command::Compare(args)) => commands::compare::run(&args),
        Invocation::Run(Command::Lost(args)) => commands::lost::run(&args),
        Invocation::Run(Command::Restore(args)) => commands::restore::run(&args),
        Invocation::Run(Command::Status(args)) => commands::status::run(&args),
        Invocation::Run(Command::Grants(args)) => commands::grants::run(&args),
        Invocation::Run(Command::Hook(args)) => commands::hook::run(&args),
        Invocation::Run(Command::Inspect(args)) => commands::inspect::run(&args),
        Invocation::Run(Command::Completions(args)) => {
            commands::package::completions(&args, command_line::description())
        }
        Invocation::Run(Command::Man(args)) => commands::package::man(&args, command_line::description()),
        Invocation::Run(Command::Help(args)) => run(command_line::help_of(&args.command)),
        Invocation::Run(Command::Version) => run(command_line::version()),
        Invocation::Help(text) => output::print(&text, ExitCode::SUCCESS),
        Invocation::Wrong(WrongUsage { message, help: Some(help), .. }) => {
            let screen = Screen::stderr();
            screen.message(Kind::Error, &message);
            screen.line(help.trim_end());
            ExitCode::FAILURE
        }
        Invocation::Wrong(WrongUsage { message, meant, command, help: None }) => {
            Screen::stderr().usage_error(&message, meant.as_deref(), &command)
        }
    }
}
