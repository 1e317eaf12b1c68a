//! The on-disk formats that a rewind reads: WAL, the control file, timeline history files, and the names of relation
//! files.
//!
//! The crate is synchronous, prints nothing and needs no server. Input is bytes; every length in them is checked before
//! it is used, so that no input makes the crate panic.
//!
//! From bytes to changed blocks:
//!
//! 1. [`ControlFile`] tells which [`Version`] a cluster has, and the sizes ([`WalGeometry`]) that it uses.
//! 2. [`TimelineHistory`] tells which timeline's file holds a given segment.
//! 3. [`WalReader`] reads records one after the other, with all checks that the server makes.
//! 4. [`scan::scan`] reads many segments in parallel, and returns the changed blocks as a [`PageMap`] and the last
//!    common checkpoint. Its results are tested against those of the sequential reader.
//!
//! # Examples
//! Print all valid records since the redo position of the latest checkpoint:
//!
//! ```
//! use std::path::Path;
//! use walparse::{ControlFile, TimelineHistory, WalDir, WalReader, operation, rmgr};
//!
//! fn print_records(data_directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
//!     let control = ControlFile::parse(&std::fs::read(data_directory.join("global/pg_control"))?)?;
//!     let (version, geometry) = (control.version(), control.geometry());
//!
//!     // Of a cluster that was never promoted. Otherwise read the history file with `TimelineHistory::parse`.
//!     let history = TimelineHistory::of_first(control.timeline());
//!     let wal = WalDir::new(data_directory.join(version.wal_dir()), history, geometry.segment_size);
//!
//!     let mut reader = WalReader::new(&wal, geometry, control.checkpoint().redo);
//!     let mut blocks = Vec::new();
//!     loop {
//!         match reader.read()? {
//!             Ok(record) => {
//!                 record.decode(&geometry, &mut blocks)?;
//!                 let (header, lsn) = (&record.header, record.lsn);
//!                 println!("{lsn} {} {}", rmgr::name(header.rmid, version), operation(header, version));
//!                 for block in &blocks {
//!                     println!("    {} {} block {}", block.relation, block.fork.name(), block.block);
//!                 }
//!             }
//!             // Every WAL ends with bytes that are not a valid record.
//!             Err(end) => {
//!                 println!("WAL ends at {}: {}", end.position, end.fault);
//!                 return Ok(());
//!             }
//!         }
//!     }
//! }
//! #
//! # use walparse::{Lsn, Version, control::testing::ControlFields, testing::{WalBuilder, small_geometry}};
//! # let version = Version::find(1800, 202_506_291).ok_or("PostgreSQL 18")?;
//! # let mut wal = WalBuilder::new(small_geometry(version));
//! # let redo = wal.checkpoint(Lsn(0x10_0028));
//! # let directory = tempfile::tempdir()?;
//! # std::fs::create_dir(directory.path().join("global"))?;
//! # std::fs::create_dir(directory.path().join("pg_wal"))?;
//! # let control = ControlFields { redo, ..ControlFields::clean(version) };
//! # std::fs::write(directory.path().join("global/pg_control"), control.build())?;
//! # for (_, bytes) in wal.segments() {
//! #     std::fs::write(directory.path().join("pg_wal/000000010000000000000001"), bytes)?;
//! # }
//! # print_records(directory.path())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With the feature `testing`, `testing::WalBuilder` builds WAL for tests.

#![warn(missing_docs)]

mod lsn;
mod segment;
mod timeline;

mod flavor;
mod control_layout;
mod version;
pub mod control;
mod control_fields;
mod checkpoint;
mod relation;
mod block;
mod data_page;

mod compression;
mod page;
mod record;
pub mod rmgr;
mod heap;

mod effect;
mod file_changes;
mod opcode;

mod crc;
mod mapped;
mod wal_dir;
mod reader;
mod page_map;
mod transactions;
mod changed_rows;
mod changes;
pub mod scan;

mod error;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use block::{BlockDifference, block_difference, block_lsn, heap_rows, is_unused_block};
pub use changed_rows::{ChangedRows, RelationChanges};
pub use checkpoint::{Checkpoint, next_xid};
pub use compression::{decompress_lz4, decompress_pglz};
pub use control::{ClusterState, ControlFile, WalLevel};
pub use control_fields::{ControlField, ControlFields, FieldValue};
pub use crc::crc32c_append;
pub use data_page::{WrongChecksum, check_page};
pub use effect::{DatabaseDir, Effect, Finish, Microseconds, RunningTransactions, relation_map_update};
pub use error::{ControlError, HistoryError, WalFault, WalReadError};
pub use file_changes::{FileChanges, FileEvent, FileEventKind, Truncation};
pub use flavor::{Flavor, Names};
pub use heap::{
    DeleteReason, HeapOperation, NewRow, NewRowContents, RowCounts, TUPLE_HEADER_LENGTH, has_heap_pages,
    heap_operation, sequence_value,
};
pub use lsn::{BlockNumber, Lsn, NameError, TimelineId};
pub use mapped::FileBytes;
pub use opcode::operation;
pub use page::PageHeader;
pub use page_map::{PageMap, RelationBlocks};
pub use reader::{WalEnd, WalReader, after_page_header, before_page_header};
pub use record::{BlockImage, BlockRef, Payload, Record, RecordHeader};
pub use relation::{Fork, RelSegment, Relation};
pub use segment::{SegmentNo, SegmentSize, WalFileName};
pub use timeline::{TimelineEntry, TimelineHistory};
pub use transactions::{Transactions, prepared_name};
pub use version::{Version, WalGeometry};
pub use wal_dir::{SegmentStore, WalDir};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
