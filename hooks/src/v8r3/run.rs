//! One run of the flow: the steps for the role of this node, and the log.

use std::path::Path;

use super::config::{HaModule, server_of};
use super::node::{Node, Standstill, Trigger};
use super::{all_down, attach, attempts, health, observe, primary, recovery, standstill};
use crate::flow::{self, FlowReport, Run, StepResult, StepState, Watch};
use crate::recovery_log::{RecoveryLog, timestamp};
use crate::rejoin::Rewinder;

/// The input of [`recover`].
#[non_exhaustive]
pub struct Request<'a> {
    /// The node's configuration.
    pub config: &'a HaModule,
    /// Who started the run.
    pub trigger: Trigger,
    /// Whether the steps act or only check.
    pub run: Run,
    /// The directory of the lock and the state files. These must not survive a reboot, so it should be in memory.
    pub run_dir: &'a Path,
    /// Whether the previous run was interrupted.
    pub interrupted: bool,
    /// The path of this program on the other nodes, which are asked if all servers are down.
    pub program: &'a str,
    /// The engine.
    pub rewinder: &'a dyn Rewinder,
    /// The log.
    pub log: &'a RecoveryLog,
    /// Called at the beginning and the end of each action.
    pub watch: Watch<'a>,
}

impl<'a> Request<'a> {
    /// A run as from cron, with its state files in `/dev/shm`.
    pub fn new(config: &'a HaModule, rewinder: &'a dyn Rewinder, log: &'a RecoveryLog) -> Request<'a> {
        Request {
            config,
            trigger: Trigger::Cron,
            run: Run::Real,
            run_dir: Path::new("/dev/shm"),
            interrupted: false,
            program: "kbrecover",
            rewinder,
            log,
            watch: flow::UNWATCHED,
        }
    }
}

/// Checks the node and its cluster, and recovers the node if that is necessary and allowed.
///
/// A run that was interrupted is completed by the next one. The caller prevents concurrent runs with a
/// [`Guard`](crate::guard::Guard).
///
/// ```no_run
/// use std::path::Path;
///
/// use kbrecover_hooks::guard::Guard;
/// use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
/// use kbrecover_hooks::v8r3::{HaModule, Request, Trigger, recover};
/// # use kbrecover_hooks::{RewindFailed, RewindJob, RewindPlan, RewindResult, Rewinder};
/// # struct Engine;
/// # impl Rewinder for Engine {
/// #     fn plan(&self, _: &RewindJob) -> Result<RewindPlan, RewindFailed> { unimplemented!() }
/// #     fn rewind(&self, _: &RewindJob) -> Result<RewindResult, RewindFailed> { unimplemented!() }
/// # }
///
/// let config = HaModule::read(Path::new("/home/kingbase/cluster/HAR3/db/etc/HAmodule.conf"))?;
/// let log = RecoveryLog::open(Some(&config.log), Echo::On)?;
/// let guard = Guard::take(Path::new("/dev/shm/kb.lock"), Path::new("/dev/shm/KB_RECOVERY_FLAG"))?;
/// // `Engine` implements `Rewinder`; see there for an example.
/// let mut request = Request::new(&config, &Engine, &log);
/// request.trigger = Trigger::Manual;
/// request.interrupted = guard.interrupted().is_some();
/// guard.begin()?;
/// let report = recover(&request);
/// if report.is_success() {
///     guard.finish()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn recover(request: &Request<'_>) -> FlowReport {
    let mut node = node_of(request);
    let log = request.log;
    log.line("---------------------------------------------------------------------");
    log.line(&format!("{} recover beging...", timestamp()));
    log.line(&format!("my pid is {},officially began to perform recovery", std::process::id()));
    let mut report = part(&mut node, request, &observe::steps());
    if !is_over(&report) {
        if node.all_down {
            report = joined(report, part(&mut node, request, &all_down::steps()));
        } else if node.is_primary() {
            report = joined(report, part(&mut node, request, &primary::steps()));
        } else {
            report = joined(report, part(&mut node, request, &health::steps()));
            if !is_over(&report) && node.need.is_some() {
                report = joined(report, part(&mut node, request, &recovery::steps()));
            }
            if !is_over(&report) {
                report = joined(report, part(&mut node, request, &attach::steps()));
            }
        }
    }
    if request.run == Run::Real {
        attempts::record(&node, &report);
        standstill::record(&node, report.is_success());
    }
    log.line(&closing_line(&node, &report));
    if !is_quiet(&node, &report) {
        log.release();
    }
    report
}

/// Whether a run has nothing to report: the node is healthy, or the next attempt is not due yet.
fn is_quiet(node: &Node<'_>, report: &FlowReport) -> bool {
    let has_acted = report.steps.iter().any(|step| matches!(step.state, StepState::Done | StepState::Would));
    let waits = report.steps.last().is_some_and(|step| match step.name {
        attempts::STEP => true,
        health::STEP => node.standstill.as_ref().is_some_and(Standstill::is_reported),
        _ => false,
    });
    waits || (report.is_success() && node.need.is_none() && !has_acted)
}

fn part<'a>(node: &mut Node<'a>, request: &Request<'a>, steps: &[flow::Step<Node<'a>>]) -> FlowReport {
    let log = request.log;
    let mut ended = |result: &StepResult| {
        // The texts of the other states are already lines in the form of the scripts.
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
    flow::run(steps, node, request.run, request.watch, &mut begun, &mut ended)
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
        (_, Some(_)) if node.run == Run::Dry => format!("{} dry run: nothing was done", timestamp()),
        (_, Some(_)) => format!("{} recovery success,exit script with success", timestamp()),
        (_, None) if node.all_down => {
            format!("{} all databases were down, exit script with success", timestamp())
        }
        (_, None) => format!("{} nothing to recover, exit script with success", timestamp()),
    }
}

fn node_of<'a>(request: &Request<'a>) -> Node<'a> {
    let config = request.config;
    Node {
        config,
        trigger: request.trigger,
        run: request.run,
        run_dir: request.run_dir,
        interrupted: request.interrupted,
        rewinder: request.rewinder,
        log: request.log,
        server: server_of(config),
        nodes: Vec::new(),
        need: None,
        all_down: false,
        program: request.program,
        standstill: None,
    }
}
