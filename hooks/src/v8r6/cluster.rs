//! The nodes of the cluster according to repmgr's metadata, and the state of their servers.

use kbrecover_rewind::conninfo::ConninfoText;

use super::config::RepmgrConf;
use crate::flow::StepError;
use crate::host;
use crate::sql::{Server, limit_of};

/// A record of `repmgr.nodes`.
#[derive(Clone, Debug)]
pub(super) struct NodeRecord {
    pub(super) id: i32,
    pub(super) name: String,
    /// `type`: `primary` or `standby`.
    pub(super) kind: String,
    /// `upstream_node_id`
    pub(super) upstream: Option<i32>,
    /// If it is not a valid connection string, its text. That may contain a password and must not be logged.
    pub(super) conninfo: Result<ConninfoText, String>,
    pub(super) config_file: String,
    pub(super) slot: String,
}

impl NodeRecord {
    /// How to connect to the node.
    ///
    /// # Errors
    /// Its record has no valid connection string.
    pub(super) fn conninfo(&self) -> Result<&ConninfoText, StepError> {
        self.conninfo.as_ref().map_err(|_| {
            let shown = self.shown();
            StepError::new(format!("{shown}: its conninfo in repmgr.nodes is not a valid connection string"))
                .hint(
                    "Correct conninfo in the configuration of that node, and register it again with --force.",
                )
        })
    }

    /// The node's host, both for connections and for ssh.
    ///
    /// # Errors
    /// As [`NodeRecord::conninfo`].
    pub(super) fn host(&self) -> Result<&str, StepError> {
        Ok(self.conninfo()?.host().unwrap_or("localhost"))
    }

    /// The port of the node's server.
    pub(super) fn port(&self) -> &str {
        self.conninfo.as_ref().ok().and_then(|conninfo| conninfo.get("port")).unwrap_or("5432")
    }

    /// Whether the node is reached at this host and port. The host may be its name or its address.
    pub(super) fn is_at(&self, host: &str, port: &str) -> bool {
        let Ok(conninfo) = &self.conninfo else { return false };
        let hosts = [conninfo.host(), conninfo.get("hostaddr")];
        self.port() == port && hosts.into_iter().flatten().any(|own| host::is_same(own, host))
    }

    /// `node "node2" (ID: 2)`
    pub(super) fn shown(&self) -> String {
        format!("node \"{}\" (ID: {})", self.name, self.id)
    }
}

/// The nodes of the cluster according to one of its servers, without witnesses.
pub(super) fn nodes(server: &Server) -> Result<Vec<NodeRecord>, StepError> {
    let answer = server
        .ask("SELECT node_id, node_name, type, upstream_node_id, conninfo, config_file, slot_name FROM repmgr.nodes WHERE type <> 'witness' ORDER BY 1")
        .map_err(|error| StepError::of(&error))?;
    let record = |row: &Vec<Option<String>>| {
        let text = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
        Some(NodeRecord {
            id: text(0).parse().ok()?,
            name: text(1),
            kind: text(2),
            upstream: text(3).parse().ok(),
            conninfo: ConninfoText::parse(&text(4)).map_err(|_| text(4)),
            config_file: text(5),
            slot: text(6),
        })
    };
    let invalid =
        || StepError::new(format!("{} returned a record of repmgr.nodes that is not valid", server.name()));
    answer.rows.iter().map(|row| record(row).ok_or_else(invalid)).collect()
}

/// Whether a server is a primary; `None` if it does not respond.
pub(super) fn is_primary(server: &Server) -> Option<bool> {
    server
        .ask_named(|prefix| format!("SELECT {prefix}_is_in_recovery()"))
        .ok()
        .map(|answer| !answer.is_true())
}

/// Whether a server responds, even if only with an error.
pub(super) fn responds(server: &Server) -> bool {
    server.ask("SELECT 1").map_or_else(|error| error.is_from_server(), |_| true)
}

/// The application names of the standbys that receive WAL from a primary.
pub(super) fn attached(server: &Server) -> Result<Vec<String>, StepError> {
    let names = |prefix: &str| {
        format!(
            "SELECT application_name FROM {prefix}_stat_replication WHERE state IN ('streaming', 'catchup')"
        )
    };
    let answer = server.ask_named(names).map_err(|error| StepError::of(&error))?;
    Ok(answer.rows.into_iter().flatten().flatten().collect())
}

/// Records in the metadata that a node follows the primary, unless it says so already. A rejoin that was interrupted
/// may have attached the node without recording it. The transaction does not wait for a synchronous standby: the one
/// that is being recovered may be the only one.
pub(super) fn record_standby(primary: &Server, node: &NodeRecord, upstream: i32) -> Result<(), StepError> {
    if node.kind == "standby" && node.upstream == Some(upstream) {
        return Ok(());
    }
    let own = node.id;
    let update = format!(
        "SET synchronous_commit = local; \
         UPDATE repmgr.nodes SET type = 'standby', active = true, upstream_node_id = {upstream} WHERE node_id = {own}; \
         INSERT INTO repmgr.events (node_id, event, successful, details) \
         VALUES ({own}, 'node_rejoin', true, 'node {own} is now attached to node {upstream}')"
    );
    primary.ask(&update).map(drop).map_err(|error| StepError::of(&error))
}

/// How to reach a node: by its connection string, completed with the password in this node's own configuration.
pub(super) fn server(
    conf: &RepmgrConf,
    conninfo: &ConninfoText,
    prefixes: &'static [&'static str],
) -> Server {
    let mut conninfo = conninfo.clone();
    if let (None, Some(password)) = (conninfo.get("password"), conf.conninfo.get("password")) {
        conninfo.set("password", password.to_owned());
    }
    let seconds = conninfo.get("connect_timeout").and_then(|seconds| seconds.parse().ok());
    Server { conninfo, prefixes, limit: limit_of(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_node_comes_from_its_conninfo() {
        let node = |conninfo: &str| NodeRecord {
            id: 1,
            name: "a".to_owned(),
            kind: "standby".to_owned(),
            upstream: None,
            conninfo: ConninfoText::parse(conninfo).map_err(|_| conninfo.to_owned()),
            config_file: String::new(),
            slot: String::new(),
        };
        let host = |conninfo: &str| node(conninfo).host().unwrap().to_owned();
        assert_eq!(host("host=db1 hostaddr=10.0.0.1"), "db1");
        assert_eq!(host("hostaddr=10.0.0.1 port=1"), "10.0.0.1");
        assert_eq!(host("port=1"), "localhost");
        let error = node("host=a password='secret").host().unwrap_err();
        assert!(error.message.contains("node \"a\" (ID: 1)") && !error.message.contains("secret"), "{error}");
        let known = node("host=db1 hostaddr=fd00:0:0:0::1 port=1");
        for (host, port, is_it) in [
            ("db1", "1", true),
            ("DB1", "1", true),
            ("fd00::1", "1", true),
            ("db2", "1", false),
            ("db1", "2", false),
        ] {
            assert_eq!(known.is_at(host, port), is_it, "{host} {port}");
        }
    }
}
