//! `rejoin`: makes this node a standby of another one.
//!
//! The reasons to refuse are checked first and are reported as repmgr reports them. A node that has not diverged is
//! attached as it is; a node that has diverged is rewound if that was requested.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kbrecover_rewind::conninfo::ConninfoText;

use super::cluster::{self, NodeRecord};
use super::config::RepmgrConf;
use super::log::{Level, exact_time, say};
use super::start::start_database;
use crate::files;
use crate::flow::{
    self, Decision, FlowReport, Run, Step, StepError, StepResult, StepState, Watch, no_action,
};
use crate::host;
use crate::latest_wal;
use crate::recovery_log::RecoveryLog;
use crate::rejoin::{RewindJob, RewindPlan, RewindResult, Rewinder};
use crate::server::LocalServer;
use crate::slots;
use crate::sql::Server;

/// Whether a rejoin may rewind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Force {
    /// It may not: a node that has diverged is refused.
    None,
    /// `--force-rewind`: the node is rewound if it has diverged.
    Rewind,
    /// `--force-rewind --no-check-wal`: the node is rewound even if its timeline is ahead of the target's.
    RewindWithoutCheck,
}

/// The input of [`rejoin`].
#[non_exhaustive]
pub struct RejoinRequest<'a> {
    /// This node's configuration.
    pub config: &'a RepmgrConf,
    /// How to reach the target: `host` and, if necessary, `port`, `user` and `dbname`. All else is taken from this node's
    /// conninfo.
    pub target: ConninfoText,
    /// Whether the node may be rewound.
    pub force: Force,
    /// Whether the steps act or only check.
    pub run: Run,
    /// The engine.
    pub rewinder: &'a dyn Rewinder,
    /// The log.
    pub log: &'a RecoveryLog,
    /// Called at the beginning and the end of each action.
    pub watch: Watch<'a>,
}

impl<'a> RejoinRequest<'a> {
    /// A rejoin that attaches the node without a rewind.
    pub fn new(
        config: &'a RepmgrConf,
        target: ConninfoText,
        rewinder: &'a dyn Rewinder,
        log: &'a RecoveryLog,
    ) -> RejoinRequest<'a> {
        let (force, run, watch) = (Force::None, Run::Real, flow::UNWATCHED);
        RejoinRequest { config, target, force, run, rewinder, log, watch }
    }
}

struct Rejoin<'a> {
    config: &'a RepmgrConf,
    force: Force,
    rewinder: &'a dyn Rewinder,
    log: &'a RecoveryLog,
    server: LocalServer,
    primary: Server,
    /// The records of this node and of the target.
    records: Option<(NodeRecord, NodeRecord)>,
    plan: Option<RewindPlan>,
    /// The server is running and follows the target: an earlier rejoin started it and was then interrupted.
    is_started: bool,
}

/// Limit for a started node to attach.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);

fn steps<'a>() -> [Step<Rejoin<'a>>; 10] {
    [
        Step::new("metadata", check_metadata, no_action),
        Step::new("target", check_target, no_action),
        Step::new("stopped", check_server, no_action),
        Step::new("timeline", check_timeline, no_action),
        Step::new("divergence", check_divergence, no_action),
        Step::new("rewind", check_rewind, rewind),
        Step::new("slots", check_slots, drop_slots),
        Step::new("settings", check_settings, write_settings),
        Step::new("start", check_start, start),
        Step::new("register", check_registration, register),
    ]
}

/// Makes this node a standby of the target, and waits until it is attached.
///
/// An interrupted rejoin is completed by calling it again. [`FlowReport::is_success`] says whether the node is attached;
/// the log says why not.
///
/// ```no_run
/// use std::path::Path;
///
/// use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
/// use kbrecover_hooks::v8r6::{Force, RejoinRequest, RepmgrConf, rejoin};
/// # use kbrecover_hooks::{RewindFailed, RewindJob, RewindPlan, RewindResult, Rewinder};
/// # struct Engine;
/// # impl Rewinder for Engine {
/// #     fn plan(&self, _: &RewindJob) -> Result<RewindPlan, RewindFailed> { unimplemented!() }
/// #     fn rewind(&self, _: &RewindJob) -> Result<RewindResult, RewindFailed> { unimplemented!() }
/// # }
/// use kbrecover_rewind::conninfo::ConninfoText;
///
/// let config = RepmgrConf::read(Path::new("/etc/repmgr.conf"))?;
/// let log = RecoveryLog::open(config.log.as_deref(), Echo::On)?;
/// log.release();
/// let target = ConninfoText::parse("host=10.0.0.2")?;
/// // `Engine` implements `Rewinder`; see there for an example.
/// let mut request = RejoinRequest::new(&config, target, &Engine, &log);
/// request.force = Force::Rewind;
/// let _lock = config.lock()?;
/// assert!(rejoin(&request).is_success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn rejoin(request: &RejoinRequest<'_>) -> FlowReport {
    let config = request.config;
    let server = config.server();
    let mut conninfo = config.conninfo.clone();
    conninfo.remove("hostaddr");
    conninfo.merge(&request.target);
    let mut context = Rejoin {
        config,
        force: request.force,
        rewinder: request.rewinder,
        log: request.log,
        primary: cluster::server(config, &conninfo, server.prefixes()),
        server,
        records: None,
        plan: None,
        is_started: false,
    };
    let log = request.log;
    let mut report_step = |result: &StepResult| match result.state {
        StepState::Failed | StepState::Refused => say(log, Level::Error, &result.text),
        StepState::Would => say(log, Level::Notice, &format!("would {}: {}", result.name, result.text)),
        _ => {}
    };
    let report =
        flow::run(&steps(), &mut context, request.run, request.watch, &mut |_, _| {}, &mut report_step);
    if let Some(hint) = &report.hint {
        say(log, Level::Hint, hint);
    }
    report
}

fn check_server(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    let Some(process) = rejoin.server.running()? else { return Ok(Decision::Pass(String::new())) };
    let (path, text) = wanted_settings(rejoin)?;
    if rejoin.server.is_standby()? && files::read_bytes(&path)? == Some(text) {
        rejoin.is_started = true;
        return Ok(Decision::Skip(format!("the server (process {process}) already follows the target")));
    }
    Ok(Decision::Refuse(format!("database is still running (process {process}): stop it first")))
}

fn check_metadata(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    let nodes = cluster::nodes(&rejoin.primary)?;
    let find = |is_it: &dyn Fn(&NodeRecord) -> bool| nodes.iter().find(|node| is_it(node)).cloned();
    let own = find(&|node| node.id == rejoin.config.node_id);
    let Some(own) = own else {
        return Err(StepError::new("no metadata record for this node - terminating")
            .hint("Register it with \"repmgr standby register\" or \"repmgr primary register\"."));
    };
    let host = rejoin.primary.host().to_owned();
    let port = rejoin.primary.port().to_owned();
    let target = find(&|node| node.is_at(&host, &port)).or_else(|| {
        // It may be known by its name here and by its address there.
        find(&|node| node.host().is_ok_and(|own| host::resolves_to_same(own, &host)) && node.port() == port)
    });
    let Some(target) = target else {
        return Err(StepError::new(format!(
            "the metadata has no record of a node at {}",
            rejoin.primary.name()
        )));
    };
    if target.id == own.id {
        return Ok(Decision::Refuse("a node cannot rejoin itself".into()));
    }
    rejoin.records = Some((own, target));
    Ok(Decision::Pass(String::new()))
}

fn check_target(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    match cluster::is_primary(&rejoin.primary) {
        Some(true) => Ok(Decision::Pass(String::new())),
        Some(false) => Ok(Decision::Refuse(format!("{} is not a primary", rejoin.primary.name()))),
        None => Err(StepError::new(format!("could not connect to {}", rejoin.primary.name()))),
    }
}

fn check_timeline(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    if rejoin.is_started {
        return Ok(Decision::Skip(String::new()));
    }
    let ours = latest_wal::timeline(&rejoin.server)?;
    let theirs = timeline_of(&rejoin.primary)?;
    if ours <= theirs || rejoin.force == Force::RewindWithoutCheck {
        return Ok(Decision::Pass(String::new()));
    }
    say(
        rejoin.log,
        Level::Detail,
        &format!("this node's timeline is {ours}, rejoin target node's timeline is {theirs}"),
    );
    Ok(Decision::Refuse(
        "this node's timeline is ahead of the rejoin target node's timeline (use --force-rewind --no-check-wal to rewind it)"
            .into(),
    ))
}

/// The timeline that a primary writes, taken from the name of its current WAL file: until the first checkpoint after a
/// promotion, the control file names the previous one.
fn timeline_of(primary: &Server) -> Result<u32, StepError> {
    let name =
        primary.ask_named(|prefix| format!("SELECT {prefix}_walfile_name({prefix}_current_wal_lsn())"));
    let name = match name {
        Err(error) if error.is_unknown_name() => primary
            .ask_named(|prefix| format!("SELECT {prefix}_xlogfile_name({prefix}_current_xlog_location())")),
        name => name,
    };
    let name = name.map_err(|error| StepError::of(&error))?;
    let number = name.value().and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok());
    number.ok_or_else(|| StepError::new(format!("could not determine the timeline of {}", primary.name())))
}

fn check_divergence(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    if rejoin.is_started {
        return Ok(Decision::Skip(String::new()));
    }
    let plan = rejoin.rewinder.plan(&job(rejoin)).map_err(|failed| failed.into_step(str::to_owned))?;
    let (own, target) = records(rejoin)?;
    let decision = match &plan {
        RewindPlan::NotNeeded => {
            say(
                rejoin.log,
                Level::Info,
                &format!("local node {} can attach to rejoin target node {}", own.id, target.id),
            );
            Decision::Pass(String::new())
        }
        RewindPlan::Needed { fork, .. } => {
            say(rejoin.log, Level::Detail, &format!("rejoin target node's fork point: {fork}"));
            match rejoin.force {
                Force::None => {
                    let text =
                        "this node cannot attach to rejoin target node: it has WAL after the fork point";
                    return Err(StepError::new(text)
                        .hint("use --force-rewind; changes that exist only on this node are then lost"));
                }
                _ => Decision::Pass(String::new()),
            }
        }
    };
    rejoin.plan = Some(plan);
    Ok(decision)
}

fn check_rewind(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    Ok(match &rejoin.plan {
        Some(RewindPlan::Needed { fork, lost }) => Decision::Act(format!(
            "rewind \"{}\", which diverged from {} at {fork}; transactions lost by it: {lost}",
            rejoin.server.data.display(),
            rejoin.primary.name()
        )),
        _ => Decision::Skip(String::new()),
    })
}

fn rewind(rejoin: &mut Rejoin<'_>) -> Result<String, StepError> {
    say(rejoin.log, Level::Notice, &format!("executing sys_rewind against {}", rejoin.primary.name()));
    match rejoin.rewinder.rewind(&job(rejoin)) {
        Ok(RewindResult::Rewound | RewindResult::NotNeeded) => Ok(String::new()),
        Err(failed) => {
            let state = if failed.is_unfinished {
                "the rewind is unfinished, run the rejoin again"
            } else {
                "the data directory is unchanged"
            };
            Err(failed.into_step(|why| format!("sys_rewind failed: {why}; {state}")))
        }
    }
}

fn check_slots(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    if rejoin.is_started {
        return Ok(Decision::Skip(String::new()));
    }
    let slots = slots::physical(&rejoin.server)?;
    Ok(match slots.len() {
        0 => Decision::Skip(String::new()),
        count => Decision::Act(format!("remove {count} old replication slot(s)")),
    })
}

fn drop_slots(rejoin: &mut Rejoin<'_>) -> Result<String, StepError> {
    let node = rejoin.config.node_id;
    slots::finish_drops(&rejoin.server)?;
    for name in slots::physical(&rejoin.server)? {
        slots::drop_stopped(&rejoin.server, &name)?;
        say(rejoin.log, Level::Notice, &format!("replication slot \"{name}\" deleted on node {node}"));
    }
    Ok(String::new())
}

fn check_settings(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    if rejoin.is_started {
        return Ok(Decision::Skip(String::new()));
    }
    let (own, target) = records(rejoin)?;
    Ok(Decision::Act(format!("set node {}'s upstream to node {}", own.id, target.id)))
}

fn write_settings(rejoin: &mut Rejoin<'_>) -> Result<String, StepError> {
    let (own, target) = records(rejoin)?.clone();
    say(rejoin.log, Level::Notice, &format!("setting node {}'s upstream to node {}", own.id, target.id));
    if rejoin.config.uses_slots {
        slots::create(&rejoin.primary, &slot_of(rejoin.config, &own))?;
    }
    let data = &rejoin.server.data;
    files::remove(&data.join("recovery.done"))?;
    let (path, text) = wanted_settings(rejoin)?;
    files::replace(&path, &text)?;
    if rejoin.server.major_version()? >= 12 {
        files::replace(&data.join("standby.signal"), "")?;
    }
    Ok(String::new())
}

/// The path and the content of the file that makes this node follow the target.
fn wanted_settings(rejoin: &Rejoin<'_>) -> Result<(PathBuf, Vec<u8>), StepError> {
    let (own, target) = records(rejoin)?;
    let mut conninfo = target.conninfo()?.clone();
    conninfo.set("application_name", own.name.as_str());
    conninfo.remove("dbname");
    let mut settings =
        vec![("primary_conninfo", conninfo.text()), ("recovery_target_timeline", "latest".to_owned())];
    if rejoin.config.uses_slots {
        settings.push(("primary_slot_name", slot_of(rejoin.config, own)));
    }
    let data = &rejoin.server.data;
    if rejoin.server.major_version()? < 12 {
        settings.push(("standby_mode", "on".to_owned()));
        return Ok((data.join("recovery.conf"), files::with_settings(b"", &settings)));
    }
    let path = data.join(rejoin.server.names().auto_config_file);
    let old = files::read_bytes(&path)?.unwrap_or_default();
    Ok((path, files::with_settings(&old, &settings)))
}

fn check_start(_: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    Ok(Decision::Act("start the server and wait until it is attached".into()))
}

fn start(rejoin: &mut Rejoin<'_>) -> Result<String, StepError> {
    start_database(rejoin.config, rejoin.log)?;
    let deadline = Instant::now() + ATTACH_LIMIT;
    let name = &records(rejoin)?.0.name;
    while !cluster::attached(&rejoin.primary)?.contains(name) {
        if rejoin.server.running()?.is_none() {
            return Err(StepError::new("the server stopped again after it was started").hint("See its log."));
        }
        if Instant::now() >= deadline {
            return Err(StepError::new(format!("this node is not attached after {} seconds", ATTACH_LIMIT.as_secs()))
                .hint("Its server is running but does not receive WAL: see its log (pg_hba.conf, a password, missing WAL)."));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(String::new())
}

fn check_registration(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    let (own, target) = records(rejoin)?;
    Ok(Decision::Act(format!("record in the metadata that node {} follows node {}", own.id, target.id)))
}

fn register(rejoin: &mut Rejoin<'_>) -> Result<String, StepError> {
    let (own, target) = records(rejoin)?;
    // Read again: the record may have changed since the first step.
    let nodes = cluster::nodes(&rejoin.primary)?;
    let current = nodes.iter().find(|node| node.id == own.id).unwrap_or(own);
    cluster::record_standby(&rejoin.primary, current, target.id)?;
    let (own, target) = (own.id, target.id);
    say(rejoin.log, Level::Notice, "NODE REJOIN successful");
    say(rejoin.log, Level::Detail, &format!("node {own} is now attached to node {target}"));
    say(rejoin.log, Level::Notice, &format!("kbha: node (ID: {own}) rejoin success. ({})", exact_time()));
    Ok(format!("node {own} is now attached to node {target}"))
}

fn job(rejoin: &Rejoin<'_>) -> RewindJob {
    RewindJob {
        data: rejoin.server.data.clone(),
        source: rejoin.primary.clone(),
        always: false,
        compares: rejoin.config.rewinds_by_comparing,
        keep_root: rejoin.config.keep_root.clone(),
        max_lost: rejoin.config.max_lost,
    }
}

fn records<'r>(rejoin: &'r Rejoin<'_>) -> Result<&'r (NodeRecord, NodeRecord), StepError> {
    rejoin.records.as_ref().ok_or_else(|| StepError::new("the metadata has not been read"))
}

/// The name of the slot from which a node receives WAL, formed as by repmgr.
fn slot_of(conf: &RepmgrConf, own: &NodeRecord) -> String {
    if own.slot.is_empty() { format!("repmgr_slot_{}", conf.node_id) } else { own.slot.clone() }
}
