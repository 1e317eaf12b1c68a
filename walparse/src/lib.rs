//! The on-disk formats a rewind reads: WAL, the control file, timeline histories, relation paths.
//!
//! Everything here is synchronous, prints nothing and knows no server. Bytes come in as slices; every
//! length found in them is checked before it is used, so no input makes this crate panic.
//!
//! The way from bytes to an answer:
//!
//! 1. [`ControlFile`] says which [`Version`] a cluster has and which sizes ([`WalGeometry`]) hold there.
//! 2. [`TimelineHistory`] says which timeline's file holds a given segment.
//! 3. [`WalReader`] reads records one after the other, with every check the server makes.
//! 4. [`scan`] reads many segments in parallel and folds them into one [`PageMap`] and the last common
//!    checkpoint; the sequential reader is its oracle.

#![warn(missing_docs)]

mod lsn;
mod segment;
mod timeline;

mod flavor;
mod version;
pub mod control;
mod control_fields;
mod checkpoint;
mod relation;

mod page;
mod record;
pub mod rmgr;

mod effect;
mod opcode;

mod crc;
mod mapped;
mod wal_dir;
mod reader;
mod page_map;
mod changes;
pub mod scan;

mod error;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use checkpoint::Checkpoint;
pub use control::{ClusterState, ControlFile, WalLevel};
pub use control_fields::{ControlField, ControlFields, FieldValue};
pub use crc::crc32c_append;
pub use effect::{DatabaseDir, Effect, Finish, Microseconds};
pub use error::{ControlError, HistoryError, NameError, WalFault, WalReadError};
pub use flavor::{Flavor, Names};
pub use lsn::{BlockNumber, Lsn};
pub use mapped::FileBytes;
pub use opcode::operation;
pub use page::PageHeader;
pub use page_map::{PageMap, RelationBlocks};
pub use reader::{WalEnd, WalReader, after_page_header, before_page_header};
pub use record::{BlockImage, BlockRef, Payload, Record, RecordHeader};
pub use relation::{Fork, RelSegment, Relation};
pub use segment::{SegmentNo, SegmentSize, WalFileName};
pub use timeline::{TimelineEntry, TimelineHistory, TimelineId};
pub use version::{Version, WalGeometry};
pub use wal_dir::{SegmentStore, WalDir};
