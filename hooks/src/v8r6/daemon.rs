//! The daemon: on the primary, it recovers the nodes that are not attached.
//!
//! It runs on every node and acts only where the server is the primary, or was the last primary. It acts on a node
//! only if the node's role is certain: a standby is started only if its data directory is that of a standby, an old
//! primary is rejoined only with `recovery='automatic'`, and no node is recovered while two nodes say that they are
//! primaries.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use kbrecover_rewind::{StopFlag, with_causes};

use super::cluster::{self, NodeRecord};
use super::config::RepmgrConf;
use super::context::{Backoff, Context};
use super::known::KnownNodes;
use super::log::{Level, say, thread};
use super::{address, all_down, recover};
use crate::flow::StepError;
use crate::recovery_log::RecoveryLog;

/// The input of [`daemon`].
#[non_exhaustive]
pub struct DaemonRequest<'a> {
    /// This node's configuration.
    pub config: RepmgrConf,
    /// Path of this program on the other nodes, where the daemon runs it.
    pub program: &'a str,
    /// The log.
    pub log: &'a RecoveryLog,
    /// The number of checks to make; `None` for no limit.
    pub rounds: Option<u32>,
    /// Ends a command that is running on another node, and then the daemon.
    pub stop: StopFlag,
}

impl<'a> DaemonRequest<'a> {
    /// A daemon that checks the cluster without limit until it is stopped.
    pub fn new(config: RepmgrConf, program: &'a str, log: &'a RecoveryLog) -> DaemonRequest<'a> {
        DaemonRequest { config, program, log, rounds: None, stop: StopFlag::default() }
    }
}

/// An order to a running daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Order {
    /// Examine the stop flag now.
    Stop,
    /// Read the configuration again and reopen the log file.
    Reload,
}

struct Daemon<'a> {
    context: Context<'a>,
    /// The nodes that are not attached, by their IDs.
    missing: BTreeMap<i32, Backoff>,
    own: Backoff,
    address: Backoff,
    known_nodes_file: Backoff,
}

/// Checks the cluster every [`RepmgrConf::interval`] and recovers nodes that are not attached. Returns when the stop
/// flag is set or after the requested number of rounds. `orders` interrupts the pause between two checks; if its
/// sender is gone, the daemon takes no more orders.
///
/// ```no_run
/// use std::path::Path;
/// use std::sync::mpsc::channel;
///
/// use kbrecover_hooks::recovery_log::{Echo, RecoveryLog};
/// use kbrecover_hooks::v8r6::{DaemonRequest, Order, RepmgrConf, daemon};
///
/// let config = RepmgrConf::read(Path::new("/etc/repmgr.conf"))?;
/// let log = RecoveryLog::open(config.log.as_deref(), Echo::Off)?;
/// log.release();
/// let request = DaemonRequest::new(config, "/usr/bin/kbrecover", &log);
/// let (orders, receiver) = channel();
/// let stop = request.stop.clone();
/// std::thread::spawn(move || {
///     std::thread::sleep(std::time::Duration::from_secs(3600));
///     stop.request();
///     orders.send(Order::Stop)
/// });
/// daemon(request, &receiver);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn daemon(request: DaemonRequest<'_>, orders: &Receiver<Order>) {
    let DaemonRequest { config, program, log, rounds, stop } = request;
    let known = KnownNodes::read(&config.known_nodes_file());
    let mut daemon = Daemon {
        context: Context { config, program, log, stop, known },
        missing: BTreeMap::new(),
        own: Backoff::default(),
        address: Backoff::default(),
        known_nodes_file: Backoff::default(),
    };
    daemon.announce("started");
    let mut done = 0;
    loop {
        match daemon.check() {
            Ok(()) => {}
            Err(_) if daemon.context.stop.is_requested() => {}
            Err(error) => daemon.own.report_once(log, Level::Error, &error.to_string()),
        }
        done += 1;
        if rounds.is_some_and(|rounds| done >= rounds) || !daemon.wait(orders) {
            break;
        }
    }
    say(log, Level::Notice, "recovery daemon stopped");
}

impl Daemon<'_> {
    fn announce(&self, what: &str) {
        let Context { config, log, .. } = &self.context;
        say(log, Level::Notice, &format!("recovery daemon {what}, recovery='{}'", config.recovery));
        for ignored in &config.ignored {
            say(log, Level::Notice, ignored);
        }
    }

    /// Waits until the next check is due. Returns `false` if the daemon is to stop.
    fn wait(&mut self, orders: &Receiver<Order>) -> bool {
        let deadline = Instant::now() + self.context.config.interval;
        loop {
            if self.context.stop.is_requested() {
                return false;
            }
            match orders.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Order::Stop) => {}
                Ok(Order::Reload) => self.reload(),
                Err(RecvTimeoutError::Timeout) => return !self.context.stop.is_requested(),
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                    return !self.context.stop.is_requested();
                }
            }
        }
    }

    /// Also resets the back-off, so that a changed configuration is tried without delay.
    fn reload(&mut self) {
        let Context { config, log, .. } = &mut self.context;
        match RepmgrConf::read(&config.file) {
            Ok(new) => *config = new,
            Err(error) => {
                let why = with_causes(&error);
                say(log, Level::Error, &format!("the previous configuration stays in effect: {why}"));
            }
        }
        let path = config.log.as_deref();
        if let Err(error) = log.reopen(path) {
            let path = path.unwrap_or(Path::new(""));
            say(log, Level::Error, &format!("could not open log file \"{}\": {error}", path.display()));
        }
        self.missing.clear();
        self.own = Backoff::default();
        self.address = Backoff::default();
        self.announce("reloaded its configuration");
    }

    fn check(&mut self) -> Result<(), StepError> {
        let server = self.context.config.own_server();
        let is_primary = cluster::is_primary(&server);
        if is_primary.is_some() {
            match self.context.known.update(cluster::nodes(&server)?) {
                Ok(()) => self.known_nodes_file.forget_message(),
                Err(error) => {
                    self.known_nodes_file.report_once(self.context.log, Level::Error, &error.to_string());
                }
            }
        }
        match is_primary {
            Some(true) => self.check_others(),
            // The daemon of the primary recovers this node if necessary.
            Some(false) => {
                address::release(&self.context, &mut self.address);
                Ok(())
            }
            None => self.check_without_server(),
        }
    }

    /// The virtual address is released only if the server is certainly not running: otherwise it may still serve
    /// clients at that address.
    fn check_without_server(&mut self) -> Result<(), StepError> {
        if let Some(process) = self.context.config.server().running()? {
            let text = format!(
                "the server of this node is running (process {process}) but does not respond: no action is taken"
            );
            self.own.report_once(self.context.log, Level::Error, &text);
            return Ok(());
        }
        address::release(&self.context, &mut self.address);
        all_down::start_cluster(&self.context, &mut self.own)
    }

    fn check_others(&mut self) -> Result<(), StepError> {
        let own_id = self.context.config.node_id;
        let server = self.context.config.own_server();
        let attached = cluster::attached(&server)?;
        address::hold(&self.context, &mut self.address);
        for node in self.context.known.others(own_id) {
            if attached.contains(&node.name) {
                self.missing.remove(&node.id);
                cluster::record_standby(&server, &node, own_id)?;
                continue;
            }
            let mut backoff = self.missing.remove(&node.id).unwrap_or_default();
            if backoff.is_new() {
                say(self.context.log, Level::Debug, &format!("child node: {}; attached: no", node.id));
            }
            self.recover(&node, &mut backoff);
            self.missing.insert(node.id, backoff);
            if self.context.stop.is_requested() {
                break;
            }
        }
        self.own = Backoff::default();
        Ok(())
    }

    fn recover(&self, node: &NodeRecord, backoff: &mut Backoff) {
        let Err(error) = recover::recover(&self.context, node, backoff) else { return };
        let Context { config, log, stop, .. } = &self.context;
        if stop.is_requested() {
            return;
        }
        let text = format!("{}{} auto-recovery failed: {error}", thread(), node.shown());
        say(log, Level::Error, &text);
        if let Some(hint) = &error.hint {
            say(log, Level::Hint, hint);
        }
        let pause = backoff.record_attempt(config);
        say(log, Level::Info, &format!("{}next attempt in {} seconds", thread(), pause.as_secs()));
    }
}
