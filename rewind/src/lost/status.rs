//! Which transactions have committed, and when: by the WAL that was read, else by the commit log on disk.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use walparse::{Lsn, Version};

use super::index::{End, WalIndex};

/// Transactions in a block of the commit log, in a page of 8 kB: two bits each; and blocks in a file.
const PER_BYTE: u32 = 4;
const PAGE: u32 = 8192;
const PAGES_PER_FILE: u32 = 32;
const COMMITTED: u8 = 1;

/// Transaction IDs below this one are always committed: those of `initdb` and of frozen rows.
const FIRST_NORMAL: u32 = 3;

/// Bits of `t_infomask` that say that the transaction that wrote a row has committed. Both of `FROZEN` are set in a frozen row.
const XMIN_COMMITTED: u16 = 0x0100;

/// How transactions have ended.
pub(super) struct Statuses<'a> {
    ends: &'a HashMap<u32, End>,
    directory: PathBuf,
    /// Files of the commit log that have been read, by their numbers; `None` if one is missing.
    files: RefCell<HashMap<u32, Option<Vec<u8>>>>,
}

impl<'a> Statuses<'a> {
    /// The commit log is in the data directory `root`. Its name was `pg_clog` up to 9.6.
    pub(super) fn new(root: &Path, version: Version, index: &'a WalIndex) -> Statuses<'a> {
        let name = if version.server_version_num() < 100_000 { "clog" } else { "xact" };
        let directory = root.join(format!("{}{name}", version.names().prefix));
        Statuses { ends: &index.ends, directory, files: RefCell::default() }
    }

    /// Where a transaction has committed: [`Lsn::INVALID`] if that was before the WAL that was read; `None` if it has not.
    /// `infomask` is that of a row that it wrote, if there is one.
    pub(super) fn committed_at(&self, xid: u32, infomask: Option<u16>) -> Option<Lsn> {
        if let Some(end) = self.ends.get(&xid) {
            return end.is_commit.then_some(end.lsn);
        }
        let is_known = xid < FIRST_NORMAL || infomask.is_some_and(|mask| mask & XMIN_COMMITTED != 0);
        (is_known || self.is_committed_on_disk(xid)).then_some(Lsn::INVALID)
    }

    fn is_committed_on_disk(&self, xid: u32) -> bool {
        let in_file = xid % (PER_BYTE * PAGE * PAGES_PER_FILE);
        let number = xid / (PER_BYTE * PAGE * PAGES_PER_FILE);
        let mut files = self.files.borrow_mut();
        let file = files.entry(number).or_insert_with(|| {
            // A file that cannot be read says nothing about its transactions.
            std::fs::read(self.directory.join(format!("{number:04X}"))).ok()
        });
        let byte = file.as_ref().and_then(|bytes| bytes.get((in_file / PER_BYTE) as usize));
        byte.is_some_and(|byte| byte >> (2 * (in_file % PER_BYTE)) & 3 == COMMITTED)
    }
}
