//! Verifies that the WAL of a fork has the format of the PostgreSQL version it is based on. Nothing else is known
//! of it.
//!
//! Any magic number of WAL pages is accepted. From the last checkpoint on, every page header must be valid, every
//! record must have the right checksum, link to the record before (`xl_prev`), and decode. The checkpoint record
//! must have the contents that the control file has.

use walparse::{ControlFile, Lsn, SegmentStore, WalFault, WalReadError, WalReader, rmgr};

use crate::plan::Clusters;
use crate::wal::error::WalError;
use crate::wal::source::{AroundRecord, SourceWal};
use crate::wal::target::TargetWal;

/// WAL pages fetched from the source for this: 1 MB. All WAL that the target must replay is verified before it is
/// sealed.
const SOURCE_PAGES: u64 = 128;

/// Checks the WAL of both sides if they are clusters of a fork.
///
/// # Errors
/// WAL could not be read, or does not have the expected format.
pub(crate) fn check(
    clusters: &Clusters,
    target: &TargetWal<'_>,
    source: &SourceWal<'_>,
) -> Result<(), WalError> {
    let version = clusters.target.version();
    if !version.flavor().is_fork() {
        return Ok(());
    }
    let ours = check_side("target", target, &clusters.target)?;
    let theirs = check_source(&clusters.source, source)?;
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(()) };
    if !version.has_known_wal_magic() {
        tracing::info!(
            "WAL page magic {:04X} is not known for {version}: accepted, because page headers, record checksums and back links verify from the checkpoint on, in the target for {ours} record(s) from {}, in the source for {theirs} from {}",
            version.wal_magic(),
            clusters.target.checkpoint_lsn(),
            clusters.source.checkpoint_lsn(),
        );
    }
    Ok(())
}

/// Checks the WAL of the source if it is a cluster of a fork. Returns the number of valid records.
///
/// # Errors
/// As for [`check`].
pub(crate) fn check_source(control: &ControlFile, source: &SourceWal<'_>) -> Result<Option<u64>, WalError> {
    if !control.version().flavor().is_fork() {
        return Ok(None);
    }
    let store = AroundRecord { wal: source, lsn: control.checkpoint_lsn(), pages: SOURCE_PAGES };
    check_side("source", &store, control)
}

/// The number of valid records; `None` if the WAL does not exist, which is reported when it is needed.
fn check_side<S: SegmentStore + ?Sized>(
    side: &'static str,
    store: &S,
    control: &ControlFile,
) -> Result<Option<u64>, WalError> {
    let read = |error: WalReadError| WalError::Scan(error.into());
    let (geometry, start) = (control.geometry(), control.checkpoint_lsn());
    let refuse = |position: Lsn, source: WalFault| WalError::UnknownFormat {
        side,
        version: control.version(),
        magic: match source {
            WalFault::PageMagic { found } => found,
            _ => control.version().wal_magic(),
        },
        position,
        source,
    };
    let mut reader = WalReader::new(store, geometry, start);
    let (mut blocks, mut records) = (Vec::new(), 0);
    // One segment is enough to recognize the format, and a running source goes on writing.
    let last = geometry.segment_size.end_of(geometry.segment_size.segment_of(start));
    while reader.position() < last {
        let record = match reader.read().map_err(read)? {
            Ok(record) => record,
            Err(end) if end.fault == WalFault::NoSegment => break,
            Err(end) if records == 0 => return Err(refuse(end.fault_at, end.fault)),
            Err(_) => break,
        };
        let payload = record.decode(&geometry, &mut blocks).map_err(|fault| refuse(record.lsn, fault))?;
        let is_checkpoint =
            || rmgr::is_checkpoint(&record.header) && control.is_checkpoint(payload.main_data);
        if records == 0 && !is_checkpoint() {
            let fault = WalFault::Fragment("not the checkpoint record the control file names");
            return Err(refuse(record.lsn, fault));
        }
        records += 1;
    }
    Ok((records > 0).then_some(records))
}
