//! The command `kbrecover`.
//!
//! Text goes to standard error, standard output carries results only: cluster managers take any line
//! there for an answer.

use std::process::ExitCode;

mod args;
mod commands;
mod faults;

mod failure;
mod report;

mod logging;
mod progress;
mod screen;

use args::{Command, Invocation};

fn main() -> ExitCode {
    match args::parse(std::env::args_os()) {
        Invocation::Run(Command::Rewind(args)) => commands::rewind::run(&args),
        Invocation::Run(Command::Status(args)) => commands::status::run(&args),
        Invocation::Run(Command::Inspect(args)) => commands::inspect::run(&args),
        Invocation::Help(text) => {
            screen::to_stdout(&text);
            ExitCode::SUCCESS
        }
        Invocation::Wrong(wrong) => screen::Screen::stderr().usage_error(&wrong.message, &wrong.command),
    }
}
