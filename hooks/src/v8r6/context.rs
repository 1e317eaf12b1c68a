//! What every part of the daemon works with: its node, the nodes it knows, and the back-off of its attempts.

use std::time::{Duration, Instant};

use kbrecover_rewind::StopFlag;

use super::cluster::{self, NodeRecord};
use super::config::RepmgrConf;
use super::known::KnownNodes;
use super::log::{Level, say};
use crate::flow::StepError;
use crate::ping;
use crate::recovery_log::RecoveryLog;
use crate::sql::Server;

/// The daemon's view of its node and of the cluster.
#[derive(Clone)]
pub(super) struct Context<'a> {
    pub(super) config: RepmgrConf,
    /// Path of this program on the other nodes.
    pub(super) program: &'a str,
    pub(super) log: &'a RecoveryLog,
    pub(super) stop: StopFlag,
    pub(super) known: KnownNodes,
}

/// The attempts to repair one thing, and the last message about it. Reset once it is in order.
#[derive(Default)]
pub(super) struct Backoff {
    /// Attempts since it was last in order, including those that reported success.
    pub(super) attempts: u32,
    next_attempt: Option<Instant>,
    last_message: Option<String>,
}

impl Context<'_> {
    /// Another node whose server says that it is a primary.
    pub(super) fn other_primary(&self) -> Option<String> {
        let others = self.known.others(self.config.node_id);
        let is_primary = |node: &&NodeRecord| self.is_primary(node) == Some(true);
        others.iter().find(is_primary).map(NodeRecord::shown)
    }

    /// Whether a node's server is a primary; `None` if it does not respond, or how to reach it is not known.
    pub(super) fn is_primary(&self, node: &NodeRecord) -> Option<bool> {
        cluster::is_primary(&self.server(node).ok()?)
    }

    /// Whether a node's server responds, even if only with an error.
    ///
    /// # Errors
    /// How to reach it is not known.
    pub(super) fn responds(&self, node: &NodeRecord) -> Result<bool, StepError> {
        Ok(cluster::responds(&self.server(node)?))
    }

    fn server(&self, node: &NodeRecord) -> Result<Server, StepError> {
        Ok(cluster::server(&self.config, node.conninfo()?, self.config.own_server().prefixes))
    }

    /// Whether this node may be isolated from the network: trusted servers are configured, and none responds.
    pub(super) fn is_isolated(&self) -> Result<bool, StepError> {
        let trusted = &self.config.trusted_servers;
        for host in trusted {
            if ping::responds(host, 2)? {
                return Ok(false);
            }
        }
        Ok(!trusted.is_empty())
    }
}

impl Backoff {
    /// Whether the next attempt may begin.
    pub(super) fn is_due(&self) -> bool {
        self.next_attempt.is_none_or(|next| Instant::now() >= next)
    }

    /// Counts an attempt. Returns the pause until the next one, which doubles with each attempt.
    pub(super) fn record_attempt(&mut self, config: &RepmgrConf) -> Duration {
        self.attempts += 1;
        let pause = config.interval * (1 << self.attempts.min(7));
        self.next_attempt = Some(Instant::now() + pause);
        pause
    }

    /// Logs a message unless it is the same as the last one.
    pub(super) fn report_once(&mut self, log: &RecoveryLog, level: Level, text: &str) {
        if self.last_message.as_deref() != Some(text) {
            say(log, level, text);
            self.last_message = Some(text.to_owned());
        }
    }

    /// Forgets the last message: the situation has changed, so the next message is logged in any case.
    pub(super) fn forget_message(&mut self) {
        self.last_message = None;
    }

    /// Whether neither a message has been logged nor an attempt been made.
    pub(super) fn is_new(&self) -> bool {
        self.last_message.is_none() && self.attempts == 0
    }
}
