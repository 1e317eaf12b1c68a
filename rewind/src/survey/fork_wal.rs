//! WAL of a fork, of which only the PostgreSQL it was made from is known: proof that it has that format.
//!
//! The magic number of its pages may be any. What counts is that from the last checkpoint on every page
//! header is right, every record has the right checksum and leads back to the one before, and can be taken
//! apart; and that the checkpoint record says what the control file says.

use walparse::{ControlFile, Lsn, SegmentStore, WalFault, WalReadError, WalReader, rmgr};

use crate::plan::Clusters;
use crate::wal::error::WalError;
use crate::wal::source::{AroundRecord, SourceWal};
use crate::wal::target::TargetWal;

/// How much of the source's WAL is fetched for this: 1 MB of it. What the target will replay is read in whole
/// before it is sealed.
const SOURCE_PAGES: u64 = 128;

/// Checks the WAL of both sides, if they are a fork's.
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
    let lsn = clusters.source.checkpoint_lsn();
    let store = AroundRecord { wal: source, lsn, pages: SOURCE_PAGES };
    let theirs = check_side("source", &store, &clusters.source)?;
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

/// How many records are right; `None` if the WAL is not there, which is for others to deal with.
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
    // The source may be running, and one segment is enough to know the format by.
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
