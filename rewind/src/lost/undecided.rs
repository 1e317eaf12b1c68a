//! Transactions that were prepared and are undecided: by the WAL and by their files.

use std::collections::BTreeMap;

use walparse::{Lsn, prepared_name};

use super::model::Undecided;
use super::node::Target;

/// Finds them; `fork` is the point of divergence.
pub(super) fn find(target: &Target<'_>, fork: Lsn) -> Vec<Undecided> {
    let in_wal = target.index.prepared.iter();
    let mut found: BTreeMap<u32, Undecided> = in_wal
        .map(|(xid, (gid, lsn))| (*xid, Undecided { xid: *xid, gid: gid.clone(), is_on_source: *lsn < fork }))
        .collect();
    // A checkpoint writes the files. Those of transactions that the WAL decides are older than it.
    for (xid, gid) in files(target).unwrap_or_default() {
        if !target.index.ends.contains_key(&xid) {
            found.entry(xid).or_insert(Undecided { xid, gid, is_on_source: true });
        }
    }
    found.into_values().collect()
}

/// The files of prepared transactions: `None` if there is no such directory. Their names are hexadecimal numbers.
fn files(target: &Target<'_>) -> Option<Vec<(u32, String)>> {
    let version = target.control.version();
    let directory = target.root.join(format!("{}twophase", version.names().prefix));
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        // From 17 on with the epoch in the high half.
        let number = u64::from_str_radix(entry.file_name().to_str()?, 16).ok()?;
        let xid = (number & u64::from(u32::MAX)) as u32;
        let contents = std::fs::read(entry.path()).ok()?;
        Some((xid, prepared_name(xid, &contents, version)?))
    };
    Some(std::fs::read_dir(directory).ok()?.filter_map(file).collect())
}
