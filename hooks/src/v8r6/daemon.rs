//! The daemon: on the primary, it recovers the nodes that are not attached.
//!
//! It runs on every node and acts only where the server is the primary, or was the last primary. It acts on a node
//! only if the node's role is certain: a standby is started only if its data directory is that of a standby, an old
//! primary is rejoined only with `recovery='automatic'`, and no node is recovered while two nodes say that they are
//! primaries.
//!
//! Each node is recovered on a thread of its own, since a command on another node may take hours. Meanwhile the daemon
//! goes on looking: at the other nodes, and whether this node may still hold the virtual address.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{Builder, Scope, ScopedJoinHandle};
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

struct Daemon<'scope, 'a> {
    context: Context<'a>,
    /// Where the threads run that recover nodes.
    scope: &'scope Scope<'scope, 'a>,
    /// The nodes that are not attached, by their IDs.
    missing: BTreeMap<i32, Missing<'scope>>,
    own: Backoff,
    address: Backoff,
    known_nodes_file: Backoff,
    metadata: Backoff,
}

/// A node that is not attached.
enum Missing<'scope> {
    /// The next attempt to recover it has not begun.
    Waiting(Backoff),
    /// It is being recovered by this thread, which returns the back-off.
    InProgress {
        thread: ScopedJoinHandle<'scope, Backoff>,
        /// The configuration has been read again since: the attempts so far do not count.
        is_reset: bool,
    },
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
    std::thread::scope(|scope| {
        let mut daemon = Daemon {
            context: Context { config, program, log, stop, known },
            scope,
            missing: BTreeMap::new(),
            own: Backoff::default(),
            address: Backoff::default(),
            known_nodes_file: Backoff::default(),
            metadata: Backoff::default(),
        };
        daemon.announce("started");
        daemon.run(rounds, orders);
    });
    say(log, Level::Notice, "recovery daemon stopped");
}

impl<'scope, 'a> Daemon<'scope, 'a> {
    /// Checks the cluster until the daemon is to stop, and waits for the recoveries that are in progress.
    fn run(&mut self, rounds: Option<u32>, orders: &Receiver<Order>) {
        let mut done = 0;
        loop {
            match self.check() {
                Ok(()) => {}
                Err(_) if self.context.stop.is_requested() => {}
                Err(error) => self.own.report_once(self.context.log, Level::Error, &error.to_string()),
            }
            done += 1;
            if rounds.is_some_and(|rounds| done >= rounds) || !self.wait(orders) {
                break;
            }
        }
        for (_, missing) in std::mem::take(&mut self.missing) {
            if let Missing::InProgress { thread, .. } = missing {
                // It has logged how it ended.
                let _ = thread.join();
            }
        }
    }

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
        self.missing.retain(|_, missing| match missing {
            Missing::Waiting(_) => false,
            Missing::InProgress { is_reset, .. } => {
                *is_reset = true;
                true
            }
        });
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
        let mut problem = None;
        for node in self.context.known.others(own_id) {
            let mut backoff = match self.missing.remove(&node.id) {
                Some(Missing::InProgress { thread, is_reset }) if !thread.is_finished() => {
                    self.missing.insert(node.id, Missing::InProgress { thread, is_reset });
                    continue;
                }
                Some(Missing::InProgress { thread, is_reset }) => self.ended(&node, thread, is_reset),
                Some(Missing::Waiting(backoff)) => backoff,
                None => Backoff::default(),
            };
            if attached.contains(&node.name) {
                let recorded = cluster::record_standby(&server, &node, own_id);
                problem = problem.or(recorded.err().map(|error| format!("{}: {error}", node.shown())));
                continue;
            }
            if backoff.is_new() {
                say(self.context.log, Level::Debug, &format!("child node: {}; attached: no", node.id));
            }
            let is_due = recover::is_due(&self.context, &node, &mut backoff);
            let id = node.id;
            let missing = if is_due { self.begin(node, backoff) } else { Missing::Waiting(backoff) };
            self.missing.insert(id, missing);
        }
        match problem {
            Some(text) => self.metadata.report_once(self.context.log, Level::Error, &text),
            None => self.metadata.forget_message(),
        }
        self.own = Backoff::default();
        Ok(())
    }

    /// Begins to recover a node on a thread of its own.
    fn begin(&mut self, node: NodeRecord, mut backoff: Backoff) -> Missing<'scope> {
        let context = self.context.clone();
        let shown = node.shown();
        let started = Builder::new().name(shown.clone()).spawn_scoped(self.scope, move || {
            recover(&context, &node, &mut backoff);
            backoff
        });
        match started {
            Ok(thread) => Missing::InProgress { thread, is_reset: false },
            Err(error) => {
                let text = format!("{shown}: could not start a thread for the recovery: {error}");
                self.own.report_once(self.context.log, Level::Error, &text);
                Missing::Waiting(Backoff::default())
            }
        }
    }

    /// The back-off after a recovery that has ended.
    fn ended(&self, node: &NodeRecord, thread: ScopedJoinHandle<'_, Backoff>, is_reset: bool) -> Backoff {
        let Context { config, log, .. } = &self.context;
        match thread.join() {
            Ok(_) if is_reset => Backoff::default(),
            Ok(backoff) => backoff,
            Err(_) => {
                let text = format!("{}: the recovery was ended by an error in this program", node.shown());
                say(log, Level::Error, &text);
                let mut backoff = Backoff::default();
                backoff.record_attempt(config);
                backoff
            }
        }
    }
}

/// Makes one attempt to recover a node, and logs why it failed.
fn recover(context: &Context<'_>, node: &NodeRecord, backoff: &mut Backoff) {
    let Err(error) = recover::recover(context, node, backoff) else { return };
    let Context { config, log, stop, .. } = context;
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
