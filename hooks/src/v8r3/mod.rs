//! The recovery flow of KingbaseES V8R3: what cron calls each minute on every node.
//!
//! It takes the place of `network_rewind.sh`, reads the same `HAmodule.conf` and writes the same log. The order
//! of its steps is its safety: everything that can be a reason to refuse is looked at before anything is
//! stopped, and a server is started only on a directory that a rewind has finished with.
//!
//! ```text
//! everywhere     disk, network, pool
//! as primary     virtual address, synchronous standbys
//! as standby     virtual address, health; if it must be recovered:
//!                back-off, permission, templates, primary, note of slots, detach, stop, slots, rewind,
//!                configuration, recovery settings, start, slots again
//!                and always: streaming, synchronous standbys, attach
//! ```

mod attach;
mod attempts;
mod config;
mod disk;
mod health;
mod observe;
mod pool_nodes;
mod primary;
mod recover;
mod recovery_settings;
mod refuse;
mod slots;
mod standstill;
mod vip;

use std::path::{Path, PathBuf};

use kbrecover_rewind::conninfo::ConninfoText;
use kbrecover_rewind::source::Answer;

pub use config::{HaModule, HaModuleError};
pub use pool_nodes::PoolNode;

use crate::flow::{self, FlowReport, Run, StepResult, StepState, Watch};
use crate::recovery_log::{RecoveryLog, timestamp};
use crate::rejoin::Rewinder;
use crate::server::LocalServer;
use crate::sql::Server;

/// Who asked for a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Cron: an old primary is recovered only if the configuration allows it.
    ByCron,
    /// A person (`--force`), who has decided.
    ByHand,
}

/// What a run is given.
pub struct Request<'a> {
    /// The node's configuration.
    pub config: &'a HaModule,
    /// Who asked.
    pub asked: Asked,
    /// Whether anything is changed.
    pub run: Run,
    /// Where the files of the flow are that must not outlive a restart of the machine.
    pub run_dir: &'a Path,
    /// Whether the run before was interrupted.
    pub interrupted: bool,
    /// The engine.
    pub rewinder: &'a dyn Rewinder,
    /// The log.
    pub log: &'a RecoveryLog,
    /// Hears of each action.
    pub watch: Watch<'a>,
}

/// The context of the steps: what is known of this node and its cluster.
pub(crate) struct Node<'a> {
    config: &'a HaModule,
    asked: Asked,
    run_dir: &'a Path,
    interrupted: bool,
    rewinder: &'a dyn Rewinder,
    log: &'a RecoveryLog,
    server: LocalServer,
    /// As the pool tells them; empty before it was asked.
    nodes: Vec<PoolNode>,
    need: Option<Need>,
    /// A standby that does not receive, as it is now.
    seen: Option<standstill::Seen>,
}

/// Why this node must be recovered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// A rewind was begun and not finished.
    Unfinished,
    /// It was the primary, and another node is now.
    OldPrimary,
    /// It is a standby whose server is down.
    Down,
    /// It is a standby that runs but does not receive.
    NotStreaming,
}

impl Need {
    fn words(self) -> &'static str {
        match self {
            Need::Unfinished => "a rewind of this node has not been finished",
            Need::OldPrimary => "this node was the primary and another one is now",
            Need::Down => "the server of this standby is down",
            Need::NotStreaming => "this standby does not receive from the primary",
        }
    }
}

/// Looks at the node and its cluster, and recovers it if it must be.
pub fn recover(request: &Request<'_>) -> FlowReport {
    let mut node = Node::new(request);
    let log = request.log;
    log.line("---------------------------------------------------------------------");
    log.line(&format!("{} recover beging...", timestamp()));
    log.line(&format!("my pid is {},officially began to perform recovery", std::process::id()));
    let mut report = part(&mut node, request, &observe::steps());
    if !is_over(&report) {
        if node.is_primary() {
            report = joined(report, part(&mut node, request, &primary::steps()));
        } else {
            report = joined(report, part(&mut node, request, &health::steps()));
            if !is_over(&report) && node.need.is_some() {
                report = joined(report, part(&mut node, request, &recover::steps()));
            }
            if !is_over(&report) {
                report = joined(report, part(&mut node, request, &attach::steps()));
            }
        }
    }
    if request.run == Run::Real {
        attempts::note(&node, &report);
        standstill::note(&node, report.is_success());
    }
    log.line(&closing_line(&node, &report));
    if !is_quiet(&node, &report) {
        log.speak();
    }
    report
}

/// Whether a run has nothing to say: all is well, or the time for the next try has not come.
fn is_quiet(node: &Node<'_>, report: &FlowReport) -> bool {
    let has_acted = report.steps.iter().any(|step| matches!(step.state, StepState::Done | StepState::Would));
    let waits = report.steps.last().is_some_and(|step| match step.name {
        attempts::STEP => true,
        health::STEP => node.seen.as_ref().is_some_and(standstill::Seen::was_told),
        _ => false,
    });
    waits || (report.is_success() && node.need.is_none() && !has_acted)
}

fn part<'a>(node: &mut Node<'a>, request: &Request<'a>, steps: &[flow::Step<Node<'a>>]) -> FlowReport {
    let log = request.log;
    let mut tell = |result: &StepResult| {
        // What was found in order is told by the steps themselves, in the words of the scripts.
        match result.state {
            StepState::Failed => {
                log.line(&format!("{} ERROR: {}: {}", timestamp(), result.name, result.text))
            }
            StepState::Would => log.line(&format!("{} would {}: {}", timestamp(), result.name, result.text)),
            _ if !result.text.is_empty() => log.line(&result.text),
            _ => {}
        }
    };
    let mut begun = |name: &str, what: &str| log.line(&format!("{} {name}: {what}", timestamp()));
    flow::run(steps, node, request.run, request.watch, &mut begun, &mut tell)
}

fn is_over(report: &FlowReport) -> bool {
    matches!(report.end(), StepState::Finished | StepState::Refused | StepState::Failed)
}

fn joined(mut all: FlowReport, part: FlowReport) -> FlowReport {
    all.steps.extend(part.steps);
    all.hint = part.hint;
    all
}

fn closing_line(node: &Node<'_>, report: &FlowReport) -> String {
    match (report.end(), node.need) {
        (StepState::Failed, _) => {
            let hint = report.hint.as_deref().map(|hint| format!(" HINT: {hint}")).unwrap_or_default();
            format!("{} recovery failed, exit script with error.{hint}", timestamp())
        }
        (StepState::Refused, _) => format!("{} nothing was changed on this node", timestamp()),
        (_, Some(_)) => format!("{} recovery success,exit script with success", timestamp()),
        (_, None) => format!("{} nothing to recover, exit script with success", timestamp()),
    }
}

impl<'a> Node<'a> {
    fn new(request: &Request<'a>) -> Node<'a> {
        let config = request.config;
        Node {
            config,
            asked: request.asked,
            run_dir: request.run_dir,
            interrupted: request.interrupted,
            rewinder: request.rewinder,
            log: request.log,
            server: LocalServer {
                data: config.data.clone(),
                programs: config.programs.clone(),
                libraries: config.libraries.clone(),
            },
            nodes: Vec::new(),
            need: None,
            seen: None,
        }
    }

    /// This node as the pool sees it.
    fn me(&self) -> Option<&PoolNode> {
        self.nodes.iter().find(|node| node.host == self.config.local_host && node.port == self.config.port)
    }

    /// The primary as the pool sees it.
    fn primary(&self) -> Option<&PoolNode> {
        self.nodes.iter().find(|node| node.is_primary)
    }

    fn is_primary(&self) -> bool {
        self.me().is_some_and(|me| me.is_primary)
    }

    /// How to connect to a server of the cluster.
    fn server_at(&self, host: &str, port: u16) -> Server {
        let mut conninfo = ConninfoText::default();
        conninfo.set("host", host);
        conninfo.set("port", port.to_string());
        conninfo.set("user", self.config.user.as_str());
        conninfo.set("dbname", self.config.database.as_str());
        if !self.config.password.is_empty() {
            conninfo.set("password", self.config.password.reveal());
        }
        Server { conninfo, prefixes: self.server.prefixes(), limit: self.config.connect_timeout }
    }

    /// How to connect to the primary.
    fn primary_server(&self) -> Result<Server, flow::StepError> {
        let primary = self.primary().ok_or_else(|| flow::StepError::new("the pool names no primary"))?;
        Ok(self.server_at(&primary.host, primary.port))
    }

    /// How to connect to this node's own server.
    fn own_server(&self) -> Server {
        self.server_at(&self.config.local_host, self.config.port)
    }

    /// What the pool knows. One that is busy with a failover answers nobody for a while: it is asked again.
    fn ask_pool(&self) -> Result<Answer, flow::StepError> {
        let pool = self.server_at(&self.config.pool_host, self.config.pool_port);
        let mut tries = self.config.retries.max(1);
        loop {
            tries -= 1;
            match pool.ask("show pool_nodes") {
                Ok(answer) => return Ok(answer),
                Err(_) if tries > 0 => std::thread::sleep(self.config.retry_delay),
                Err(error) => {
                    let why = crate::chain(&error);
                    let mut hint = "Is the pool running, and do KB_POOL_VIP, KB_POOL_PORT, KB_USER and KB_PASS lead to it?".to_owned();
                    if self.config.wants_max_available {
                        hint.push_str(" MAX_AVAILABLE_LEVEL is not obeyed: if all servers are down, start the primary by hand.");
                    }
                    let text = format!("ksql execute failed ,will exit script with error: {why}");
                    return Err(flow::StepError::new(text).hint(hint));
                }
            }
        }
    }

    /// A file of the flow.
    fn run_file(&self, name: &str) -> PathBuf {
        self.run_dir.join(name)
    }
}
