//! Removes the state files of transactions that were prepared after the start of replay.
//!
//! The source writes the state of a prepared transaction to a file with the next checkpoint after it. If replay starts
//! before that, the file is from its future, and the record of the preparation is still to be replayed. A server of 17 or
//! 18 that finds such a file says that it removes it, fails to, then takes the transaction for one whose state has been
//! restored, and forgets it: its rows look like those of an aborted transaction, and hint bits make them so for ever.
//! (Seen on 18.4 after base backups and rewinds; `restoreTwoPhaseData` and `PrepareRedoAdd` in twophase.c.) No server needs
//! such a file.

use std::fs;

use walparse::{SegmentStore, WalGeometry, WalReader, next_xid};

use crate::apply::error::ApplyError;
use crate::datadir::data_path::DataPath;
use crate::outcome::CheckpointAt;
use crate::target::Target;
use crate::wal::error::WalError;

/// Removes the state files of prepared transactions that began after the checkpoint `start`, whose record is in `store`.
///
/// # Errors
/// The record could not be read, or a file could not be removed.
pub(super) fn remove_later_prepared<S: SegmentStore + ?Sized>(
    target: &Target,
    store: &S,
    geometry: WalGeometry,
    start: &CheckpointAt,
) -> Result<(), ApplyError> {
    let directory = format!("{}twophase", geometry.version.names().prefix);
    let Ok(files) = fs::read_dir(target.root().join(&directory)) else { return Ok(()) };
    let names = files.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let prepared: Vec<(u32, String)> = names.filter_map(|name| Some((xid_of(&name)?, name))).collect();
    if prepared.is_empty() {
        return Ok(());
    }
    let next = next_xid_at(store, geometry, start)?;
    for (_, name) in prepared.into_iter().filter(|(xid, _)| is_at_or_after(*xid, next)) {
        tracing::debug!("removing \"{directory}/{name}\": replay prepares this transaction");
        target.remove_file(&DataPath::parse(format!("{directory}/{name}"))?)?;
    }
    Ok(())
}

/// The transaction ID in the name of a state file: 8 hexadecimal digits, from 17 on 16 with the epoch before it.
fn xid_of(name: &str) -> Option<u32> {
    let digits = match name.len() {
        8 => name,
        16 => &name[8..],
        _ => return None,
    };
    u32::from_str_radix(digits, 16).ok()
}

/// Whether a transaction ID is `next` or one that follows it, in the circle of transaction IDs.
fn is_at_or_after(xid: u32, next: u32) -> bool {
    xid.wrapping_sub(next) < 1 << 31
}

/// The first transaction ID that had not been assigned at a checkpoint.
fn next_xid_at<S: SegmentStore + ?Sized>(
    store: &S,
    geometry: WalGeometry,
    at: &CheckpointAt,
) -> Result<u32, ApplyError> {
    let mut reader = WalReader::new(store, geometry, at.lsn);
    let broken = |fault| ApplyError::from(WalError::Checkpoint { lsn: at.lsn, source: fault });
    let record = reader.read().map_err(WalError::from)?.map_err(|end| broken(end.fault))?;
    let mut buffer = Vec::new();
    let payload = record.decode(&geometry, &mut buffer).map_err(broken)?;
    next_xid(payload.main_data, geometry.version)
        .ok_or_else(|| broken(walparse::WalFault::Fragment("too short for a checkpoint")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_transaction_at_their_end() {
        assert_eq!((xid_of("0000031D"), xid_of("000000010000031D")), (Some(0x31D), Some(0x31D)));
        assert_eq!((xid_of("31D"), xid_of("0000031G"), xid_of("")), (None, None, None));
    }

    #[test]
    fn transactions_are_ordered_in_a_circle() {
        assert!(is_at_or_after(797, 797) && is_at_or_after(798, 797) && !is_at_or_after(796, 797));
        assert!(is_at_or_after(3, u32::MAX - 5) && !is_at_or_after(u32::MAX - 5, 3));
    }
}
