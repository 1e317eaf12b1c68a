//! The nodes of the cluster as this node last saw them, recorded in a file: while all servers are down, their metadata
//! cannot be read.

use std::path::{Path, PathBuf};

use kbrecover_rewind::conninfo::ConninfoText;

use super::cluster::NodeRecord;
use crate::files;
use crate::flow::StepError;

/// The nodes, and the file in which they are recorded.
#[derive(Clone)]
pub(super) struct KnownNodes {
    file: PathBuf,
    nodes: Vec<NodeRecord>,
    is_written: bool,
}

impl KnownNodes {
    /// Reads the file. If it is missing or damaged, no nodes are known.
    pub(super) fn read(file: &Path) -> KnownNodes {
        let text = files::read(file).ok().flatten().unwrap_or_default();
        let nodes = text.lines().map(parse).collect::<Option<Vec<_>>>().unwrap_or_default();
        KnownNodes { file: file.to_owned(), nodes, is_written: true }
    }

    /// Replaces the nodes by those in the metadata, and records them if they have changed.
    pub(super) fn update(&mut self, nodes: Vec<NodeRecord>) -> Result<(), StepError> {
        let (old, new) = (text(&self.nodes), text(&nodes));
        self.nodes = nodes;
        if self.is_written && old == new {
            return Ok(());
        }
        let written = files::replace(&self.file, &new);
        self.is_written = written.is_ok();
        written
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes except the one with this ID.
    pub(super) fn others(&self, own: i32) -> Vec<NodeRecord> {
        self.nodes.iter().filter(|node| node.id != own).cloned().collect()
    }
}

fn text(nodes: &[NodeRecord]) -> String {
    let line = |node: &NodeRecord| {
        let NodeRecord { id, name, kind, upstream, conninfo, config_file, slot } = node;
        let upstream = upstream.map(|id| id.to_string()).unwrap_or_default();
        let conninfo = match conninfo {
            Ok(conninfo) => conninfo.text(),
            // White space of any kind separates its words.
            Err(text) => text.replace(char::is_whitespace, " "),
        };
        format!("{id}\t{name}\t{kind}\t{upstream}\t{conninfo}\t{config_file}\t{slot}\n")
    };
    nodes.iter().map(line).collect()
}

fn parse(line: &str) -> Option<NodeRecord> {
    let fields: Vec<_> = line.split('\t').collect();
    let [id, name, kind, upstream, conninfo, config_file, slot] = fields[..] else { return None };
    Some(NodeRecord {
        id: id.parse().ok()?,
        name: name.to_owned(),
        kind: kind.to_owned(),
        upstream: upstream.parse().ok(),
        conninfo: ConninfoText::parse(conninfo).map_err(|_| conninfo.to_owned()),
        config_file: config_file.to_owned(),
        slot: slot.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_nodes_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kbha.nodes");
        let mut known = KnownNodes::read(&file);
        assert!(known.is_empty());
        let node = |id: i32| NodeRecord {
            id,
            name: format!("node{id}"),
            kind: "standby".to_owned(),
            upstream: Some(3),
            conninfo: match id {
                3 => Err("host=10.0.0.3 hots=b".to_owned()),
                _ => Ok(ConninfoText::parse(&format!("host=10.0.0.{id} user='a b'")).unwrap()),
            },
            config_file: "/etc/repmgr.conf".to_owned(),
            slot: String::new(),
        };
        known.update(vec![node(1), node(2), node(3)]).unwrap();
        let again = KnownNodes::read(&file).others(1);
        assert_eq!(
            (again.len(), again[0].host().unwrap(), again[0].config_file.as_str()),
            (2, "10.0.0.2", "/etc/repmgr.conf")
        );
        assert_eq!(again[1].conninfo.as_ref().err().map(String::as_str), Some("host=10.0.0.3 hots=b"));
        // A file that could not be written is written by a later update.
        known.file = dir.path().join("later/kbha.nodes");
        known.update(vec![node(1)]).unwrap_err();
        std::fs::create_dir(dir.path().join("later")).unwrap();
        known.update(vec![node(1)]).unwrap();
        assert!(known.file.exists());
        std::fs::write(&file, "1\tnode1\n").unwrap();
        assert!(KnownNodes::read(&file).is_empty());
    }
}
