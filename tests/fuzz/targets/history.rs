//! Timeline history files.
#![no_main]

use walparse::{Lsn, SegmentNo, SegmentSize, TimelineHistory, TimelineId};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let timeline = TimelineId(u32::MAX);
    let Ok(history) = TimelineHistory::parse(timeline, text) else { return };
    let size = SegmentSize::new(1 << 20).expect("a segment size");
    for entry in history.entries() {
        for lsn in [entry.begin, entry.end.unwrap_or(Lsn(u64::MAX))] {
            let _ = (history.timeline_at(lsn), history.timeline_of_segment(size.segment_of(lsn), size));
        }
    }
    let _ = history.timeline_of_segment(SegmentNo(u64::MAX), size);
    assert_eq!(history.timeline(), timeline);
    assert_eq!(history.common_with(&history), Some((timeline, None)));
});
