//! `rejoin`: makes this node a standby of another one.
//!
//! The refusals come first and have repmgr's words. A node that has not diverged is attached as it is; one that
//! has is rewound, if that was asked for.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kbrecover_rewind::conninfo::ConninfoText;
use walparse::{ControlFile, SegmentSize};

use super::cluster::{self, NodeRecord};
use super::log::{Level, exact_time, say};
use super::{RepmgrConf, start_database};
use crate::files;
use crate::flow::{self, Decision, FlowReport, Run, Step, StepError, StepResult, StepState, Watch, nothing};
use crate::recovery_log::RecoveryLog;
use crate::rejoin::{RewindJob, RewindPlan, RewindResult, Rewinder};
use crate::server::{LocalServer, file_error};
use crate::slots;
use crate::sql::Server;

/// What a person or the daemon has decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Force {
    /// Attach only.
    None,
    /// `--force-rewind`: rewind if the node has diverged.
    Rewind,
    /// `--force-rewind --no-check-wal`: also if this node's timeline is ahead.
    RewindWithoutCheck,
}

/// What a rejoin is given.
pub struct RejoinRequest<'a> {
    /// This node's configuration.
    pub config: &'a RepmgrConf,
    /// Where the other node is: `host`, perhaps `port`, `user`, `dbname`; the rest is as this node's conninfo has it.
    pub target: ConninfoText,
    /// What may be done.
    pub force: Force,
    /// Whether anything is changed.
    pub run: Run,
    /// The engine.
    pub rewinder: &'a dyn Rewinder,
    /// The log.
    pub log: &'a RecoveryLog,
    /// Hears of each action.
    pub watch: Watch<'a>,
}

struct Rejoin<'a> {
    config: &'a RepmgrConf,
    force: Force,
    rewinder: &'a dyn Rewinder,
    log: &'a RecoveryLog,
    server: LocalServer,
    primary: Server,
    /// This node's and the target's records.
    records: Option<(NodeRecord, NodeRecord)>,
    plan: Option<RewindPlan>,
    /// The server runs and follows the target: an earlier rejoin has come that far.
    is_started: bool,
}

/// How long a node may take to attach.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);

fn steps<'a>() -> [Step<Rejoin<'a>>; 10] {
    [
        Step { name: "metadata", look: look_at_metadata, act: nothing },
        Step { name: "target", look: look_at_target, act: nothing },
        Step { name: "stopped", look: look_at_server, act: nothing },
        Step { name: "timeline", look: look_at_timeline, act: nothing },
        Step { name: "divergence", look: look_at_divergence, act: nothing },
        Step { name: "rewind", look: look_for_rewind, act: rewind },
        Step { name: "slots", look: look_for_slots, act: drop_slots },
        Step { name: "settings", look: look_at_settings, act: write_settings },
        Step { name: "start", look: look_for_start, act: start },
        Step { name: "register", look: look_for_registration, act: register },
    ]
}

/// Makes this node a standby of the target.
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
    let mut tell = |result: &StepResult| match result.state {
        StepState::Failed | StepState::Refused => say(log, Level::Error, &result.text),
        StepState::Would => say(log, Level::Notice, &format!("would {}: {}", result.name, result.text)),
        _ => {}
    };
    let report = flow::run(&steps(), &mut context, request.run, request.watch, &mut |_, _| {}, &mut tell);
    if let Some(hint) = &report.hint {
        say(log, Level::Hint, hint);
    }
    report
}

fn look_at_server(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    let Some(process) = rejoin.server.running()? else { return Ok(Decision::Skip(String::new())) };
    let (path, text) = wanted_settings(rejoin)?;
    if rejoin.server.is_standby()? && files::read_bytes(&path)? == Some(text) {
        rejoin.is_started = true;
        return Ok(Decision::Skip(format!("the server (process {process}) follows the target already")));
    }
    Ok(Decision::Refuse(format!("database is still running (process {process}): stop it first")))
}

fn look_at_metadata(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    let nodes = cluster::nodes(&rejoin.primary)?;
    let find = |is_it: &dyn Fn(&NodeRecord) -> bool| nodes.iter().find(|node| is_it(node)).cloned();
    let own = find(&|node| node.id == rejoin.config.node_id);
    let Some(own) = own else {
        return Err(StepError::new("no metadata record for this node - terminating")
            .hint("Register it with \"repmgr standby register\" or \"repmgr primary register\"."));
    };
    let host = rejoin.primary.host().to_owned();
    let port = rejoin.primary.port().to_owned();
    let target = find(&|node| node.host() == host && node.conninfo.get("port").unwrap_or("5432") == port);
    let Some(target) = target else {
        return Err(StepError::new(format!("the metadata knows no node at {}", rejoin.primary.name())));
    };
    if target.id == own.id {
        return Ok(Decision::Refuse("a node cannot rejoin itself".into()));
    }
    rejoin.records = Some((own, target));
    Ok(Decision::Skip(String::new()))
}

fn look_at_target(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    match cluster::is_primary(&rejoin.primary) {
        Some(true) => Ok(Decision::Skip(String::new())),
        Some(false) => Ok(Decision::Refuse(format!("{} is not a primary", rejoin.primary.name()))),
        None => Err(StepError::new(format!("could not connect to {}", rejoin.primary.name()))),
    }
}

fn look_at_timeline(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    if rejoin.is_started {
        return Ok(Decision::Skip(String::new()));
    }
    let ours = own_timeline(&rejoin.server)?;
    let theirs = timeline_of(&rejoin.primary)?;
    if ours <= theirs || rejoin.force == Force::RewindWithoutCheck {
        return Ok(Decision::Skip(String::new()));
    }
    say(
        rejoin.log,
        Level::Detail,
        &format!("this node's timeline is {ours}, rejoin target node's timeline is {theirs}"),
    );
    Ok(Decision::Refuse(
        "this node's timeline is ahead of the rejoin target node's timeline (--force-rewind --no-check-wal rewinds it all the same)"
            .into(),
    ))
}

/// The latest timeline that this node has WAL of. Its control file need not name it: one that was promoted and lost
/// before its first checkpoint still has the old one there. Segments that wait for archiving are left out: they stay
/// when a node is rewound, and the one that a server was writing does not wait yet.
fn own_timeline(server: &LocalServer) -> Result<u32, StepError> {
    let control = control(server)?;
    let path = server.data.join(control.version().wal_dir());
    let failed = |error| file_error("read", &path, &error);
    let mut latest = control.timeline().0;
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if let Some(timeline) = timeline_of_segment(&name, control.geometry().segment_size)
            && timeline > latest
            && !path.join(format!("archive_status/{name}.ready")).exists()
        {
            latest = timeline;
        }
    }
    Ok(latest)
}

/// The timeline in the name of a segment file. A history file is none: a standby has those of its primary, too.
fn timeline_of_segment(name: &str, size: SegmentSize) -> Option<u32> {
    size.parse_file_name(name).map(|(timeline, _)| timeline.0)
}

/// The timeline that a primary writes: the one that it was promoted to may not be in its control file yet, so it is
/// taken from the name of its WAL file.
fn timeline_of(primary: &Server) -> Result<u32, StepError> {
    let named =
        primary.ask_named(|prefix| format!("SELECT {prefix}_walfile_name({prefix}_current_wal_lsn())"));
    let named = match named {
        Err(error) if error.is_unknown_name() => primary
            .ask_named(|prefix| format!("SELECT {prefix}_xlogfile_name({prefix}_current_xlog_location())")),
        named => named,
    };
    let named = named.map_err(|error| StepError::of(&error))?;
    let number = named.value().and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok());
    number.ok_or_else(|| StepError::new(format!("{} did not tell its timeline", primary.name())))
}

fn look_at_divergence(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
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
            Decision::Skip(String::new())
        }
        RewindPlan::Needed { fork } => {
            say(rejoin.log, Level::Detail, &format!("rejoin target node's fork point: {fork}"));
            match rejoin.force {
                Force::None => {
                    let text = "this node cannot attach to rejoin target node: it has written on behind the fork point";
                    return Err(StepError::new(text)
                        .hint("use --force-rewind; what only this node has written is then lost"));
                }
                _ => Decision::Skip(String::new()),
            }
        }
    };
    rejoin.plan = Some(plan);
    Ok(decision)
}

fn look_for_rewind(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    Ok(match &rejoin.plan {
        Some(RewindPlan::Needed { fork }) => Decision::Act(format!(
            "rewind \"{}\" to where it left {} at {fork}",
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
            let state = if failed.is_unfinished { "half rewound, run this again" } else { "as it was" };
            Err(failed.into_step(|why| format!("sys_rewind failed: {why}; the data directory is {state}")))
        }
    }
}

fn look_for_slots(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    if rejoin.is_started {
        return Ok(Decision::Skip(String::new()));
    }
    let slots = slots::physical(&rejoin.server)?;
    Ok(match slots.len() {
        0 => Decision::Skip(String::new()),
        count => Decision::Act(format!("remove {count} replication slot(s) of the time before")),
    })
}

fn drop_slots(rejoin: &mut Rejoin<'_>) -> Result<String, StepError> {
    let node = rejoin.config.node_id;
    for name in slots::physical(&rejoin.server)? {
        slots::drop_stopped(&rejoin.server, &name)?;
        say(rejoin.log, Level::Notice, &format!("replication slot \"{name}\" deleted on node {node}"));
    }
    Ok(String::new())
}

fn look_at_settings(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
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

/// The file that makes this node follow the target, and its text.
fn wanted_settings(rejoin: &Rejoin<'_>) -> Result<(PathBuf, Vec<u8>), StepError> {
    let (own, target) = records(rejoin)?;
    let mut conninfo = target.conninfo.clone();
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

fn look_for_start(_: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    Ok(Decision::Act("start the server and wait until it is attached".into()))
}

fn start(rejoin: &mut Rejoin<'_>) -> Result<String, StepError> {
    start_database(rejoin.config, rejoin.log)?;
    let deadline = Instant::now() + ATTACH_LIMIT;
    let name = &records(rejoin)?.0.name;
    while !cluster::attached(&rejoin.primary)?.contains(name) {
        if rejoin.server.running()?.is_none() {
            return Err(
                StepError::new("the server ended again after it was started").hint("Its log tells why.")
            );
        }
        if Instant::now() >= deadline {
            return Err(StepError::new(format!("this node is not attached after {} seconds", ATTACH_LIMIT.as_secs()))
                .hint("Its server runs; its log tells why it does not receive (pg_hba.conf, a password, WAL that is gone)."));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(String::new())
}

fn look_for_registration(rejoin: &mut Rejoin<'_>) -> Result<Decision, StepError> {
    let (own, target) = records(rejoin)?;
    Ok(Decision::Act(format!("note in the metadata that node {} follows node {}", own.id, target.id)))
}

fn register(rejoin: &mut Rejoin<'_>) -> Result<String, StepError> {
    let (own, target) = records(rejoin)?;
    // Read again: the record of before may be the very one that this step changes.
    let nodes = cluster::nodes(&rejoin.primary)?;
    let current = nodes.iter().find(|node| node.id == own.id).unwrap_or(own);
    cluster::note_standby(&rejoin.primary, current, target.id)?;
    let (own, target) = (own.id, target.id);
    say(rejoin.log, Level::Notice, "NODE REJOIN successful");
    say(rejoin.log, Level::Detail, &format!("node {own} is now attached to node {target}"));
    say(rejoin.log, Level::Notice, &format!("kbha: node (ID: {own}) rejoin success. ({})", exact_time()));
    Ok(format!("node {own} is now attached to node {target}"))
}

fn job(rejoin: &Rejoin<'_>) -> RewindJob {
    RewindJob { data: rejoin.server.data.clone(), source: rejoin.primary.clone(), always: false }
}

fn records<'r>(rejoin: &'r Rejoin<'_>) -> Result<&'r (NodeRecord, NodeRecord), StepError> {
    rejoin.records.as_ref().ok_or_else(|| StepError::new("the metadata has not been read"))
}

/// The slot a node receives by, as repmgr names it.
fn slot_of(conf: &RepmgrConf, own: &NodeRecord) -> String {
    if own.slot.is_empty() { format!("repmgr_slot_{}", conf.node_id) } else { own.slot.clone() }
}

fn control(server: &LocalServer) -> Result<ControlFile, StepError> {
    let path = server.data.join(server.names().control_file);
    let bytes = std::fs::read(&path).map_err(|error| file_error("read", &path, &error))?;
    ControlFile::parse_as(&bytes, server.flavor())
        .map_err(|error| StepError::new(format!("file \"{}\": {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_tell_a_timeline() {
        let size = SegmentSize::new(16 << 20).unwrap();
        assert_eq!(timeline_of_segment("000000020000000000000001", size), Some(2));
        for name in ["00000003.history", "000000030000000000000001.partial", "archive_status"] {
            assert_eq!(timeline_of_segment(name, size), None, "{name}");
        }
    }
}
