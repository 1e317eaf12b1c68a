//! The context of the steps: this node and its cluster.

use std::path::{Path, PathBuf};

use kbrecover_rewind::conninfo::ConninfoText;
use kbrecover_rewind::source::Answer;
use kbrecover_rewind::with_causes;

use super::config::HaModule;
use super::pool_nodes::PoolNode;
use crate::flow::{Run, StepError};
use crate::host;
use crate::recovery_log::RecoveryLog;
use crate::rejoin::Rewinder;
use crate::server::LocalServer;
use crate::sql::Server;

/// Who started a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Trigger {
    /// Cron: an old primary is recovered only if the configuration allows it.
    Cron,
    /// An administrator (`--force`): an old primary is recovered, without delay after failures.
    Manual,
}

/// What the steps know of this node and its cluster.
pub(super) struct Node<'a> {
    pub(super) config: &'a HaModule,
    pub(super) trigger: Trigger,
    pub(super) run: Run,
    pub(super) run_dir: &'a Path,
    pub(super) interrupted: bool,
    pub(super) rewinder: &'a dyn Rewinder,
    pub(super) log: &'a RecoveryLog,
    pub(super) server: LocalServer,
    /// The nodes according to the pool; empty before the pool was queried.
    pub(super) nodes: Vec<PoolNode>,
    pub(super) need: Option<Need>,
    /// Whether the pool names no primary, and this node may have to start its server (`MAX_AVAILABLE_LEVEL`).
    pub(super) all_down: bool,
    /// The path of this program on the other nodes.
    pub(super) program: &'a str,
    /// The current state of a standby that does not receive WAL.
    pub(super) standstill: Option<Standstill>,
}

/// The state of a standby that does not receive WAL. Successive runs compare it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Standstill {
    /// The text that is recorded: the server's process ID and its replay position.
    pub(super) text: String,
    /// Whether an earlier run has reported it.
    pub(super) is_reported: bool,
}

/// Why this node must be recovered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// A rewind of it is unfinished.
    Unfinished,
    /// It was the primary, and another node is the primary now.
    OldPrimary,
    /// It is a standby whose server is down.
    Down,
    /// It is a standby that is running but does not receive WAL.
    NotStreaming,
}

impl Need {
    pub(super) fn description(self) -> &'static str {
        match self {
            Need::Unfinished => "the rewind of this node is unfinished",
            Need::OldPrimary => "this node was the primary, and another node is the primary now",
            Need::Down => "the server of this standby is down",
            Need::NotStreaming => "this standby does not receive WAL from the primary",
        }
    }
}

impl Standstill {
    /// Whether an earlier run has reported that this standby does not receive WAL.
    pub(super) fn is_reported(&self) -> bool {
        self.is_reported
    }
}

impl<'a> Node<'a> {
    /// This node according to the pool.
    pub(super) fn me(&self) -> Option<&PoolNode> {
        self.nodes
            .iter()
            .find(|node| host::is_same(&node.host, &self.config.local_host) && node.port == self.config.port)
    }

    /// The primary according to the pool.
    pub(super) fn primary(&self) -> Option<&PoolNode> {
        self.nodes.iter().find(|node| node.is_primary)
    }

    pub(super) fn is_primary(&self) -> bool {
        self.me().is_some_and(|me| me.is_primary)
    }

    /// How to connect to a server of the cluster.
    pub(super) fn server_at(&self, host: &str, port: u16) -> Server {
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
    pub(super) fn primary_server(&self) -> Result<Server, StepError> {
        let primary = self.primary().ok_or_else(|| StepError::new("the pool reports no primary"))?;
        Ok(self.server_at(&primary.host, primary.port))
    }

    /// How to connect to this node's own server.
    pub(super) fn own_server(&self) -> Server {
        self.server_at(&self.config.local_host, self.config.port)
    }

    /// Queries the nodes from the pool. Retries, because a pool does not answer during a failover.
    pub(super) fn query_pool(&self) -> Result<Answer, StepError> {
        let pool = self.server_at(&self.config.pool_host, self.config.pool_port);
        let mut attempts = self.config.retries.max(1);
        loop {
            attempts -= 1;
            match pool.ask("show pool_nodes") {
                Ok(answer) => return Ok(answer),
                Err(_) if attempts > 0 => std::thread::sleep(self.config.retry_delay),
                Err(error) => {
                    let why = with_causes(&error);
                    let hint = "Check that the pool is running and that KB_POOL_VIP, KB_POOL_PORT, KB_USER and KB_PASS are correct.";
                    let text = format!("ksql execute failed ,will exit script with error: {why}");
                    return Err(StepError::new(text).hint(hint));
                }
            }
        }
    }

    /// The path of a state file of the flow.
    pub(super) fn run_file(&self, name: &str) -> PathBuf {
        self.run_dir.join(name)
    }
}
