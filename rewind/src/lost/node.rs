//! The node whose history is listed.

use std::path::Path;

use walparse::{ControlFile, SegmentStore, WalGeometry};

use super::blocks::DiskBlocks;
use super::index::WalIndex;
use super::status::Statuses;

/// The target as the parts of this room see it.
pub(super) struct Target<'a> {
    pub(super) root: &'a Path,
    pub(super) control: &'a ControlFile,
    pub(super) geometry: WalGeometry,
    pub(super) wal: &'a dyn SegmentStore,
    pub(super) disk: DiskBlocks<'a>,
    pub(super) index: &'a WalIndex,
    pub(super) statuses: Statuses<'a>,
}
