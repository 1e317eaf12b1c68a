//! The daemon: on the primary, it brings back the nodes that are missing.
//!
//! It runs on every node, and acts only where the server is the primary, or was the last one that was. Nothing is
//! done on a node unless it is certain what it is: a standby is started only if its directory says that it is one,
//! an old primary is rejoined only if the configuration says `automatic`, and nothing is done at all while two
//! nodes say that they are primaries.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use kbrecover_rewind::StopFlag;

use super::cluster::{self, NodeRecord};
use super::known::Known;
use super::log::{Level, say, thread};
use super::{RepmgrConf, address, all_down, recover};
use crate::flow::StepError;
use crate::recovery_log::RecoveryLog;

/// What the daemon is given.
pub struct DaemonRequest<'a> {
    /// This node's configuration.
    pub config: RepmgrConf,
    /// How this program is called on the other nodes: its path there.
    pub program: &'a str,
    /// The log.
    pub log: &'a RecoveryLog,
    /// Looks this often, or for ever.
    pub rounds: Option<u32>,
    /// Ends what is being done on another node, and then the daemon.
    pub stop: StopFlag,
}

/// What the daemon is told while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// To look at the stop flag.
    Stop,
    /// To read its configuration again and to go on in a new log file.
    Reload,
}

/// The daemon between two looks.
pub(super) struct Daemon<'a> {
    pub(super) config: RepmgrConf,
    pub(super) program: &'a str,
    pub(super) log: &'a RecoveryLog,
    pub(super) stop: StopFlag,
    pub(super) known: Known,
    missing: BTreeMap<i32, Missing>,
    /// About this node.
    pub(super) own: Missing,
    /// About the virtual address.
    pub(super) address: Missing,
    /// About the file of known nodes.
    notes: Missing,
}

/// What is remembered of something that is not as it should be.
#[derive(Default)]
pub(super) struct Missing {
    /// Tries since it was last seen as it should be, also those that seemed to succeed.
    pub(super) tries: u32,
    next_try: Option<Instant>,
    /// Why nothing was done, so that it is said once.
    said: Option<String>,
}

/// Looks after the cluster until it is told to stop, or as often as asked for.
pub fn daemon(request: DaemonRequest<'_>, orders: &Receiver<Order>) {
    let DaemonRequest { config, program, log, rounds, stop } = request;
    let known = Known::read(&config.known_nodes_file());
    let mut daemon = Daemon {
        config,
        program,
        log,
        stop,
        known,
        missing: BTreeMap::new(),
        own: Missing::default(),
        address: Missing::default(),
        notes: Missing::default(),
    };
    daemon.announce("started");
    let mut looks = 0;
    loop {
        match daemon.look() {
            Ok(()) => {}
            Err(_) if daemon.stop.is_requested() => {}
            Err(error) => daemon.own.say_once(log, Level::Error, &error.to_string()),
        }
        looks += 1;
        if rounds.is_some_and(|most| looks >= most) || !daemon.wait(orders) {
            break;
        }
    }
    say(log, Level::Notice, "recovery daemon stopped");
}

impl Daemon<'_> {
    fn announce(&self, what: &str) {
        say(self.log, Level::Notice, &format!("recovery daemon {what}, recovery='{}'", self.config.recovery));
        for ignored in &self.config.ignored {
            say(self.log, Level::Notice, ignored);
        }
    }

    /// Waits until the next look is due; `false`: there is to be none.
    fn wait(&mut self, orders: &Receiver<Order>) -> bool {
        let deadline = Instant::now() + self.config.interval;
        loop {
            if self.stop.is_requested() {
                return false;
            }
            match orders.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Order::Stop) => {}
                Ok(Order::Reload) => self.reload(),
                Err(RecvTimeoutError::Timeout) => return !self.stop.is_requested(),
                // Nobody is there who could say anything.
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                    return !self.stop.is_requested();
                }
            }
        }
    }

    /// Tries are forgotten, too: whoever has changed something wants to see whether it helps.
    fn reload(&mut self) {
        match RepmgrConf::read(&self.config.file) {
            Ok(config) => self.config = config,
            Err(error) => {
                let why = crate::chain(&error);
                say(self.log, Level::Error, &format!("the configuration stays as it was: {why}"));
            }
        }
        let path = self.config.log.as_deref();
        if let Err(error) = self.log.reopen(path) {
            let path = path.unwrap_or(Path::new(""));
            say(self.log, Level::Error, &format!("could not open log file \"{}\": {error}", path.display()));
        }
        self.missing.clear();
        self.own = Missing::default();
        self.address = Missing::default();
        self.announce("has read its configuration again");
    }

    fn look(&mut self) -> Result<(), StepError> {
        let server = self.config.own_server();
        let is_primary = cluster::is_primary(&server);
        if is_primary.is_some() {
            match self.known.update(cluster::nodes(&server)?) {
                Ok(()) => self.notes.news(),
                Err(error) => self.notes.say_once(self.log, Level::Error, &error.to_string()),
            }
        }
        match is_primary {
            Some(true) => self.look_after_others(),
            // Another node looks after this one.
            Some(false) => {
                address::leave(self);
                Ok(())
            }
            None => self.look_without_answer(),
        }
    }

    /// Only a server that surely does not run is one whose address another node may take.
    fn look_without_answer(&mut self) -> Result<(), StepError> {
        if let Some(process) = self.config.server().running()? {
            let text = format!(
                "the server of this node runs (process {process}) but does not answer: nothing is done"
            );
            self.own.say_once(self.log, Level::Error, &text);
            return Ok(());
        }
        address::leave(self);
        all_down::bring_up(self)
    }

    fn look_after_others(&mut self) -> Result<(), StepError> {
        let server = self.config.own_server();
        let attached = cluster::attached(&server)?;
        address::hold(self);
        for node in self.known.others(self.config.node_id) {
            if attached.contains(&node.name) {
                self.missing.remove(&node.id);
                cluster::note_standby(&server, &node, self.config.node_id)?;
                continue;
            }
            let mut state = self.missing.remove(&node.id).unwrap_or_default();
            if state.said.is_none() && state.tries == 0 {
                say(self.log, Level::Debug, &format!("child node: {}; attached: no", node.id));
            }
            self.recover(&node, &mut state);
            self.missing.insert(node.id, state);
            if self.stop.is_requested() {
                break;
            }
        }
        self.own = Missing::default();
        Ok(())
    }

    fn recover(&self, node: &NodeRecord, state: &mut Missing) {
        let Err(error) = recover::recover(self, node, state) else { return };
        if self.stop.is_requested() {
            return;
        }
        let text = format!("{}{} auto-recovery failed: {error}", thread(), node.shown());
        say(self.log, Level::Error, &text);
        if let Some(hint) = &error.hint {
            say(self.log, Level::Hint, hint);
        }
        let pause = state.tried(&self.config);
        say(self.log, Level::Info, &format!("{}next try in {} seconds", thread(), pause.as_secs()));
    }

    /// Another node that says that it is a primary.
    pub(super) fn other_primary(&self) -> Option<String> {
        let others = self.known.others(self.config.node_id);
        let is_primary = |node: &&NodeRecord| self.asks_primary(node) == Some(true);
        others.iter().find(is_primary).map(NodeRecord::shown)
    }

    /// Whether a node's server answers and is a primary.
    pub(super) fn asks_primary(&self, node: &NodeRecord) -> Option<bool> {
        let prefixes = self.config.own_server().prefixes;
        cluster::is_primary(&cluster::server(&self.config, &node.conninfo, prefixes))
    }

    /// Whether a node's server answers, if only with an error.
    pub(super) fn answers(&self, node: &NodeRecord) -> bool {
        let prefixes = self.config.own_server().prefixes;
        cluster::answers(&cluster::server(&self.config, &node.conninfo, prefixes))
    }

    /// Whether this node may be cut off from the others.
    pub(super) fn is_cut_off(&self) -> Result<bool, StepError> {
        let trusted = &self.config.trusted_servers;
        for host in trusted {
            if crate::ping::answers(host, 2)? {
                return Ok(false);
            }
        }
        Ok(!trusted.is_empty())
    }
}

impl Missing {
    /// Whether the time for the next try has come.
    pub(super) fn is_due(&self) -> bool {
        self.next_try.is_none_or(|next| Instant::now() >= next)
    }

    /// Notes a try; the pause until the next one, which doubles with each.
    pub(super) fn tried(&mut self, config: &RepmgrConf) -> Duration {
        self.tries += 1;
        let pause = config.interval * (1 << self.tries.min(7));
        self.next_try = Some(Instant::now() + pause);
        pause
    }

    /// Says something that is no news the second time.
    pub(super) fn say_once(&mut self, log: &RecoveryLog, level: Level, text: &str) {
        if self.said.as_deref() != Some(text) {
            say(log, level, text);
            self.said = Some(text.to_owned());
        }
    }

    /// Something has happened: what is said next is news.
    pub(super) fn news(&mut self) {
        self.said = None;
    }
}
