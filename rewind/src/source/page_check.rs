//! Checks pages of relations that are read from the source: a damaged block must not be spread, nor be taken for the right one.
//!
//! A running server may have been writing a page while it was read; such a page is right when it is read again. And a page
//! that was changed after the position where replay starts may stay as it is: the first of these changes brings an image of
//! it. A base backup makes the same exception.

use std::time::Duration;

use walparse::{BlockNumber, ControlFile, Lsn, RelSegment, WrongChecksum, check_page};

use crate::datadir::data_path::DataPath;
use crate::source::{Source, SourceError, WalPosition};

/// How often blocks that may have been torn by reading them are read again, and the pause before. A server writes a page in
/// microseconds.
pub(crate) const TRIES: u32 = 5;
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Blocks of the source are damaged.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "checksum of block {block} of source file \"{path}\" is wrong: calculated {calculated}, but the page has {stored}{}",
    and_others(*others)
)]
#[non_exhaustive]
pub struct DamagedBlocks {
    /// The file.
    pub path: DataPath,
    /// The number of the first damaged block in the relation.
    pub block: BlockNumber,
    /// The checksum of its contents.
    pub calculated: u16,
    /// The checksum in its header.
    pub stored: u16,
    /// How many other ranges of blocks contain a damaged one.
    pub others: usize,
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        _ => format!("; so it is in {others} other range(s) of blocks"),
    }
}

impl DamagedBlocks {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        "The block is damaged on the source, and nothing of it was copied. Repair it there, or use another source, for example a standby on which pg_checksums finds no fault; then run the same command again.".to_owned()
    }
}

/// How pages of the source are checked.
#[derive(Clone, Copy)]
pub(crate) struct PageCheck<'a> {
    /// The source's control file.
    control: &'a ControlFile,
    /// Where replay starts.
    redo: Lsn,
}

/// A page whose checksum is wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DamagedPage {
    /// Its number in the relation.
    pub(crate) block: BlockNumber,
    pub(crate) wrong: WrongChecksum,
}

impl DamagedPage {
    /// The error for this page of this file, and `others`.
    pub(crate) fn error(self, path: DataPath, others: usize) -> DamagedBlocks {
        let DamagedPage { block, wrong: WrongChecksum { calculated, stored, .. } } = self;
        DamagedBlocks { path, block, calculated, stored, others }
    }
}

impl PageCheck<'_> {
    /// None if the pages of this source have no checksums that are known.
    pub(crate) fn of(control: &ControlFile, redo: Lsn) -> Option<PageCheck<'_>> {
        control.every_page_has_checksum().then_some(PageCheck { control, redo })
    }

    /// Where the WAL of the source ends now.
    ///
    /// # Errors
    /// The connection was lost.
    pub(crate) fn wal_end(&self, source: &dyn Source) -> Result<Lsn, SourceError> {
        let known = self.control.checkpoint_lsn().max(self.control.min_recovery_point());
        Ok(match source.position()? {
            WalPosition::Primary { insert, .. } => insert,
            WalPosition::Standby { received, .. } => received.max(known),
            WalPosition::Stopped => known,
        })
    }

    /// Whether this is a file with pages: one of a main fork. The server makes damaged pages of the other forks anew.
    pub(crate) fn applies_to(&self, path: &DataPath) -> bool {
        self.relation_file(path).is_some()
    }

    /// The first damaged page among the bytes at `offset` of a file. One whose last change lies between the start of replay
    /// and `replayed_until` is not damaged.
    pub(crate) fn first_damaged(
        &self,
        path: &DataPath,
        offset: u64,
        bytes: &[u8],
        replayed_until: Option<Lsn>,
    ) -> Option<DamagedPage> {
        let file = self.relation_file(path)?;
        let size = self.control.block_size();
        let pages = bytes.chunks_exact(size as usize);
        // Ranges of these files begin with a block.
        let blocks = (offset..).step_by(size as usize).map(|at| file.block_at(at, self.control));
        pages.zip(blocks).find_map(|(page, block)| {
            let wrong = check_page(page, block).err()?;
            let is_replayed = replayed_until.is_some_and(|end| self.redo <= wrong.lsn && wrong.lsn <= end);
            (!is_replayed).then_some(DamagedPage { block, wrong })
        })
    }

    fn relation_file(&self, path: &DataPath) -> Option<RelSegment> {
        RelSegment::parse(path.as_str()?, self.control.version())
    }
}
