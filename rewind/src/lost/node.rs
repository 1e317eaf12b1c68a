//! The node whose history is listed.

use std::path::Path;

use walparse::{ControlFile, SegmentStore, WalGeometry};

use super::blocks::DiskBlocks;
use super::index::WalIndex;
use super::request::LostRequest;
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

impl<'a> Target<'a> {
    pub(super) fn new(request: &LostRequest<'a>, index: &'a WalIndex) -> Target<'a> {
        Target {
            root: request.root,
            control: request.control,
            geometry: request.control.geometry(),
            wal: request.wal,
            disk: DiskBlocks::new(request.root, request.control),
            index,
            statuses: Statuses::new(request.root, request.control.version(), index),
        }
    }
}
