//! `kbrecover hook v8r6`: the options and exit statuses of the V8R6 flow.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use clap::{Args, Subcommand};
use kbrecover_hooks::flow::{FlowReport, Run, StepError};
use kbrecover_hooks::pid_file::{PidFile, PidFileError};
use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
use kbrecover_hooks::v8r6::{self, DaemonRequest, Force, NodeStatus, Order, RejoinRequest, RepmgrConf};
use kbrecover_rewind::StopFlag;
use kbrecover_rewind::conninfo::ConninfoText;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::engine::{Engine, log_messages};
use super::report;
use crate::failure::chain;
use crate::faults;
use crate::owner::refuse_root;
use crate::report as directory_report;
use crate::screen::{self, Kind, Screen};
use crate::signals;
use crate::values::Format;

/// The options of `kbrecover hook v8r6`.
#[derive(Args)]
pub(super) struct V8r6Args {
    /// repmgr.conf of this node
    #[arg(short = 'f', long, value_name = "FILE", global = true)]
    config_file: Option<PathBuf>,

    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start this node's server
    Startdb(FormatArgs),
    /// Attach this node to the cluster as a standby of another node
    Rejoin(Box<RejoinArgs>),
    /// Monitor the cluster; on the primary, recover nodes that are not attached
    Daemon(DaemonArgs),
    /// Show the nodes of the cluster
    Status(FormatArgs),
    /// Check whether this node is a standby that only needs to be started (exit status 0: yes, 3: no)
    IsStandby(FormatArgs),
    /// Check whether this node's server is running (exit status 0: yes, 3: no)
    IsRunning(FormatArgs),
}

#[derive(Args)]
struct RejoinArgs {
    /// Show this help
    // Not -h, which is the host here, as in repmgr.
    #[arg(short = '?', long, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,

    /// Host of the node to follow
    #[arg(short = 'h', long, value_name = "HOST")]
    host: String,

    /// Port of that node's server
    #[arg(short = 'p', long, value_name = "PORT")]
    port: Option<u16>,

    /// User to connect as
    #[arg(short = 'U', long, value_name = "NAME")]
    username: Option<String>,

    /// Database with repmgr's metadata
    #[arg(short = 'd', long, value_name = "NAME")]
    dbname: Option<String>,

    /// Rewind this node if it has diverged; changes that only it has made are lost
    #[arg(long)]
    force_rewind: bool,

    /// Rejoin even if this node's timeline is ahead (requires --force-rewind)
    #[arg(long, requires = "force_rewind")]
    no_check_wal: bool,

    /// Show what each step would do, without doing it
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    shown: FormatArgs,
}

#[derive(Args)]
struct DaemonArgs {
    /// Path of this program on the other nodes
    #[arg(long, value_name = "FILE")]
    program: Option<String>,

    /// Exit after this many rounds
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
}

#[derive(Args)]
struct FormatArgs {
    /// Format of standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs the command.
pub(super) fn run(args: &V8r6Args) -> ExitCode {
    let screen = Screen::stderr();
    let Some(file) = &args.config_file else {
        return screen.usage_error("no configuration file specified (-f)", None, "kbrecover hook v8r6");
    };
    let config = match RepmgrConf::read(file) {
        Ok(config) => config,
        Err(error) => return failed(&screen, &chain(&error), None),
    };
    let makes_files = matches!(args.action, Action::Startdb(_) | Action::Rejoin(_) | Action::Daemon(_));
    if let (true, Err(error)) = (makes_files, refuse_root()) {
        let hint = "Run it as the user that owns the data directory.";
        return failed(&screen, &error.to_string(), Some(hint));
    }
    match &args.action {
        Action::Status(args) => show_status(&screen, &config, args.format),
        Action::IsStandby(args) => answer(&screen, "is_standby", config.is_startable_standby(), args.format),
        Action::IsRunning(args) => {
            let running = config.server().running().map(|process| process.is_some());
            answer(&screen, "is_running", running, args.format)
        }
        Action::Startdb(args) => by_hand(&screen, &config, |log| {
            let started = config.lock().and_then(|_lock| v8r6::start_database(&config, log));
            answer(&screen, "is_running", started.map(|()| true), args.format)
        }),
        Action::Rejoin(args) => by_hand(&screen, &config, |log| {
            // A dry run changes nothing, and so needs no lock.
            let lock = if args.dry_run { Ok(None) } else { config.lock().map(Some) };
            match lock {
                Ok(_lock) => rejoin(&config, args, log),
                Err(error) => show_error(&screen, &error),
            }
        }),
        Action::Daemon(args) => start_daemon(&screen, &config, args),
    }
}

fn rejoin(config: &RepmgrConf, args: &RejoinArgs, log: &RecoveryLog) -> ExitCode {
    let mut target = ConninfoText::default();
    target.set("host", args.host.as_str());
    if let Some(port) = args.port {
        target.set("port", port.to_string());
    }
    for (keyword, value) in [("user", &args.username), ("dbname", &args.dbname)] {
        if let Some(value) = value {
            target.set(keyword, value.as_str());
        }
    }
    let force = match (args.force_rewind, args.no_check_wal) {
        (true, true) => Force::RewindWithoutCheck,
        (true, false) => Force::Rewind,
        _ => Force::None,
    };
    let run = if args.dry_run { Run::Dry } else { Run::Real };
    let mut request = RejoinRequest::new(config, target, &Engine, log);
    request.force = force;
    request.run = run;
    request.watch = &faults::at_step;
    let report = v8r6::rejoin(&request);
    print(&report, args.shown.format, args.dry_run);
    if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(report: &FlowReport, format: Format, is_dry: bool) {
    match format {
        Format::Json => screen::to_stdout(&report::json(report)),
        Format::Text if is_dry => screen::to_stdout(&report::text(report)),
        Format::Text => {}
    }
}

/// A second daemon of a node exits at once with status 0, so that cron can restart a daemon that has died.
fn start_daemon(screen: &Screen, config: &RepmgrConf, args: &DaemonArgs) -> ExitCode {
    // Before anything is created that a signal would leave behind.
    let (stop, orders) = match listen() {
        Ok(listening) => listening,
        Err(error) => return failed(screen, &format!("could not set up signal handlers: {error}"), None),
    };
    let _held = match PidFile::take(&config.pid_file, "a daemon of this node") {
        Ok(held) => held,
        Err(error @ PidFileError::Taken { .. }) => {
            if io::stderr().is_terminal() {
                screen.message(Kind::Info, &chain(&error));
            }
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let hint = "Set kbha_pid_file to a file that this user can write.";
            return failed(screen, &chain(&error), Some(hint));
        }
    };
    let own = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let program = args.program.as_deref().unwrap_or(&own);
    with_log(screen, config, Echo::Off, |log| {
        let mut request = DaemonRequest::new(config.clone(), program, log);
        request.rounds = args.rounds;
        request.stop = stop;
        v8r6::daemon(request, &orders);
        ExitCode::SUCCESS
    })
}

/// SIGTERM and SIGINT stop the daemon, SIGHUP makes it reload its configuration.
fn listen() -> io::Result<(StopFlag, Receiver<Order>)> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let stop = StopFlag::default();
    let (asker, (sender, orders)) = (stop.clone(), channel());
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let order = if signal == SIGHUP { Order::Reload } else { Order::Stop };
            if order == Order::Stop {
                asker.request();
            }
            if sender.send(order).is_err() {
                break;
            }
        }
    })?;
    Ok((stop, orders))
}

#[derive(Serialize)]
struct Status<'a> {
    daemon: Daemon,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Daemon {
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<u32>,
}

#[derive(Serialize)]
struct Node<'a> {
    id: i32,
    name: &'a str,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attached: Option<bool>,
}

impl<'a> From<&'a NodeStatus> for Node<'a> {
    fn from(node: &'a NodeStatus) -> Node<'a> {
        Node { id: node.id, name: &node.name, role: node.role, attached: node.attached }
    }
}

fn show_status(screen: &Screen, config: &RepmgrConf, format: Format) -> ExitCode {
    let daemon = match PidFile::holder(&config.pid_file) {
        Ok(holder) => Daemon { running: holder.is_some(), process: holder.flatten() },
        Err(error) => return failed(screen, &chain(&error), None),
    };
    let nodes = v8r6::status(config);
    if format == Format::Text {
        screen::to_stdout(&match daemon {
            Daemon { running: true, process: Some(process) } => {
                format!("daemon of this node: running (process {process})\n")
            }
            Daemon { running: true, process: None } => "daemon of this node: running\n".to_owned(),
            Daemon { running: false, .. } => "daemon of this node: not running\n".to_owned(),
        });
    }
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(error) => {
            screen::to_stdout(&state_without_server(config, daemon, &error, format));
            return show_error(screen, &error);
        }
    };
    screen::to_stdout(&match format {
        Format::Text => nodes.iter().map(line).collect::<String>(),
        Format::Json => {
            let status = Status { daemon, nodes: nodes.iter().map(Node::from).collect() };
            // Serializing plain strings and numbers cannot fail.
            serde_json::to_string(&status).unwrap_or_default() + "\n"
        }
    });
    ExitCode::SUCCESS
}

/// The state of this node's data directory, for `status` when its server cannot be asked about the cluster.
fn state_without_server(config: &RepmgrConf, daemon: Daemon, error: &StepError, format: Format) -> String {
    let directory = kbrecover_rewind::status(&config.data);
    let (id, name) = (config.node_id, &config.node_name);
    if format == Format::Json {
        let directory = directory.as_ref().ok().map(directory_report::status::object);
        let node = serde_json::json!({"id": id, "name": name, "directory": directory});
        let status = serde_json::json!({"daemon": daemon, "node": node, "error": error.message});
        return status.to_string() + "\n";
    }
    let state = match directory {
        Ok(status) => directory_report::status::text(&status),
        Err(error) => format!("{}\n", chain(&error)),
    };
    format!("this node: {id} ({name}); the state of the cluster is unknown\n{state}")
}

fn line(node: &NodeStatus) -> String {
    let attached = match node.attached {
        Some(true) => "attached",
        Some(false) => "not attached",
        None => "",
    };
    format!(" {:<3} {:<16} {:<12} {attached}\n", node.id, node.name, node.role)
}

fn with_log(
    screen: &Screen,
    config: &RepmgrConf,
    echo: Echo,
    work: impl FnOnce(&Arc<RecoveryLog>) -> ExitCode,
) -> ExitCode {
    let log = match RecoveryLog::open(config.log.as_deref(), echo) {
        Ok(log) => Arc::new(log),
        Err(error) => {
            let path = config.log.as_deref().unwrap_or(Path::new("")).display();
            return failed(screen, &format!("could not open log file \"{path}\": {error}"), None);
        }
    };
    log.release();
    log_messages(&log);
    work(&log)
}

/// Runs what a person or another node's daemon has called: with messages on standard error, too, and
/// terminated by a signal.
fn by_hand(screen: &Screen, config: &RepmgrConf, work: impl FnOnce(&RecoveryLog) -> ExitCode) -> ExitCode {
    with_log(screen, config, Echo::On, |log| match signals::end_with_children(log) {
        Ok(()) => work(log),
        Err(error) => failed(screen, &format!("could not set up signal handlers: {error}"), None),
    })
}

/// The answer to a question: the exit status, and with JSON an object that has it under this name, or else the error.
fn answer(screen: &Screen, name: &str, answer: Result<bool, StepError>, format: Format) -> ExitCode {
    if format == Format::Json {
        let object = match &answer {
            Ok(answer) => serde_json::json!({ name: answer }),
            Err(error) => serde_json::json!({ "error": error.message, "hint": error.hint }),
        };
        screen::to_stdout(&(object.to_string() + "\n"));
    }
    match answer {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(v8r6::NO),
        Err(error) => show_error(screen, &error),
    }
}

fn show_error(screen: &Screen, error: &StepError) -> ExitCode {
    failed(screen, &error.message, error.hint.as_deref())
}

fn failed(screen: &Screen, message: &str, hint: Option<&str>) -> ExitCode {
    screen.message(Kind::Error, message);
    if let Some(hint) = hint {
        screen.message(Kind::Hint, hint);
    }
    ExitCode::FAILURE
}
