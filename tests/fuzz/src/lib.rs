//! What several fuzz targets share: WAL from bytes, the comparison of the scan with the reader, a small data directory.

pub mod cluster;

use std::collections::BTreeMap;

use walparse::scan::{EndOfWal, RebuiltBlocks, ScanRequest, UnknownChanges, scan};
use walparse::testing::{WalBuilder, small_geometry};
use walparse::{
    FileBytes, Fork, Lsn, PageMap, SegmentNo, SegmentStore, Version, WalGeometry, WalReadError, WalReader,
    before_page_header, rmgr,
};

/// The size of a WAL page here.
const PAGE: usize = 8192;

/// The geometry of all WAL here: version 15, segments of 1 MiB.
pub fn geometry() -> WalGeometry {
    small_geometry(Version::find(1300, 202_209_061).expect("version 15"))
}

/// Segments by number, possibly shorter than they should be.
pub struct Segments(BTreeMap<u64, Vec<u8>>);

impl Segments {
    /// Makes the page headers those of this cluster, so that the input need not guess its numbers.
    pub fn with_headers(segments: [Vec<u8>; 2]) -> Segments {
        let geometry = geometry();
        let mut segments: BTreeMap<u64, Vec<u8>> = (1..).zip(segments).collect();
        for (segment, bytes) in &mut segments {
            for (index, page) in bytes.chunks_mut(PAGE).enumerate() {
                put(page, 0, &geometry.version.wal_magic().to_le_bytes());
                put(page, 8, &((segment << 20) + (index * PAGE) as u64).to_le_bytes());
                if index == 0 {
                    put(page, 24, &geometry.system_identifier.to_le_bytes());
                    put(page, 32, &(1u32 << 20).to_le_bytes());
                    put(page, 36, &8192u32.to_le_bytes());
                }
            }
        }
        Segments(segments)
    }

    /// The segments of a builder without the zeros at their ends, which would only have to be copied.
    pub fn of(wal: &WalBuilder) -> Segments {
        let trimmed = |bytes: &Vec<u8>| {
            let used = bytes.chunks(PAGE).rposition(|page| page != [0; PAGE]).map_or(0, |last| last + 1);
            bytes[..bytes.len().min((used + 1) * PAGE)].to_vec()
        };
        Segments(wal.segments().iter().map(|(number, bytes)| (*number, trimmed(bytes))).collect())
    }

    /// Makes checksums and back links of the records that lie on one page right, as far as they can be found.
    pub fn make_checksums_right(&mut self) {
        let mut previous = 0u64;
        for (segment, bytes) in &mut self.0 {
            for (index, page) in bytes.chunks_mut(PAGE).enumerate() {
                let mut at = if index == 0 { 40 } else { 24 };
                let continued = page
                    .get(16..20)
                    .map_or(0, |four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
                at += (continued as usize).next_multiple_of(8);
                while let Some(four) = page.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
                    let length = u32::from_le_bytes(*four) as usize;
                    let Some(record) = page.get_mut(at..at.saturating_add(length)).filter(|_| length >= 24)
                    else {
                        break;
                    };
                    record[8..16].copy_from_slice(&previous.to_le_bytes());
                    let crc = crc32c::crc32c_append(crc32c::crc32c(&record[24..]), &record[..20]);
                    record[20..24].copy_from_slice(&crc.to_le_bytes());
                    previous = (segment << 20) + (index * PAGE + at) as u64;
                    at += length.next_multiple_of(8);
                }
            }
        }
    }
}

fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = page.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl SegmentStore for Segments {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        Ok(self.0.get(&segment.0).map(|bytes| FileBytes::Owned(bytes.clone())))
    }

    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
        Ok(self.0.keys().next_back().map(|&number| SegmentNo(number)))
    }

    fn describe(&self, segment: SegmentNo) -> String {
        segment.to_string()
    }
}

/// Makes this thread the only one that scans, so that a run depends on its input only and nobody waits.
pub fn scan_in_this_thread() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build_global().expect("the first pool");
}

/// Reads WAL both ways.
///
/// # Panics
/// The scan succeeds and finds another end or other blocks than the sequential reader.
pub fn compare<S: SegmentStore>(store: &S) {
    let start = Lsn(1 << 20);
    let mut reader = WalReader::new(store, geometry(), start);
    let (mut map, mut checkpoint, mut blocks) = (PageMap::new(), None, Vec::new());
    let fork = Lsn((1 << 20) + 8192);
    let first = reader.seek_first_in(SegmentNo(1)).expect("nothing to go wrong in memory");
    let end = loop {
        if let Err(end) = first {
            break end.position;
        }
        let record = match reader.read().expect("nothing to go wrong in memory") {
            Ok(record) => record,
            Err(end) => break end.position,
        };
        if record.decode(&geometry(), &mut blocks).is_err() {
            return;
        }
        if rmgr::is_checkpoint(&record.header) && record.lsn < fork {
            map.clear();
            checkpoint = Some(record.lsn);
        }
        for block in blocks.iter().filter(|block| block.fork == Fork::Main) {
            map.insert(block.relation, block.block);
        }
    };
    // Unknown changes are ignored so that fewer scans fail.
    let request = ScanRequest::new(geometry(), fork, fork, start)
        .with_end(EndOfWal::Open)
        .with_unknown_changes(UnknownChanges::Ignore);
    let Ok(found) = scan(store, &request, &|_| {}) else { return };
    // Where no record was read, one of them may stand behind the page header.
    let boundary = |lsn| before_page_header(lsn, &geometry());
    assert_eq!(boundary(found.end), boundary(end), "the end");
    if let Some(diverged) = found.diverged {
        assert_eq!(Some(diverged.checkpoint_lsn), checkpoint, "the checkpoint");
        assert_eq!(diverged.page_map, map, "the blocks");
        let prove = RebuiltBlocks::Prove { replay_limit: Lsn(u64::MAX) };
        let proven = scan(store, &request.with_rebuilt(prove), &|_| {}).expect("the same WAL");
        let mut named = proven.diverged.expect("the same checkpoint");
        named.rebuilt.subtract(&named.page_map);
        assert!(named.rebuilt.is_empty(), "blocks that no record names are rebuilt");
    }
}
