//! Decides what is done in the WAL directory: which segments and history files are copied, and which are removed.
//!
//! After a rewind the target must have, or be able to stream, every byte from the redo location of the common
//! checkpoint to the minRecoveryPoint in the **source's** history. Before the fork both sides have the same bytes,
//! so the target's segments stay. From the fork on the target's segments belong to the diverged history and are
//! removed. Segments of the source beyond the end of its WAL (recycled or preallocated) are never copied.
//!
//! Files of the target that are not archived yet (`archive_status/NAME.ready`) stay with their status file, as on a
//! server that switches to another timeline. This is safe for files of a timeline older than the source's: replay
//! does not read them, because the source's history names a newer timeline for the same segment, and that segment
//! exists. A file whose name the source's history uses, or may use later, cannot stay.

use std::collections::{BTreeSet, HashMap};

use walparse::{Lsn, SegmentNo, TimelineHistory, Version, WalFileName, WalGeometry};

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::{EntryKind, Inventory};

/// What is done in the WAL directory. Names are those of files in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct WalPlan {
    /// Files to copy from the source.
    pub(crate) copy: Vec<WalCopy>,
    /// Segments that replay needs and that neither side has. They must be found elsewhere.
    pub(crate) elsewhere: Vec<String>,
    /// Files to remove, also from `archive_status`: paths below the data directory.
    pub(crate) remove: Vec<DataPath>,
    /// Segments of the target that stay although the source does not have them, because replay may need them.
    pub(crate) keep: Vec<String>,
    /// Files that stay only because the target has not archived them yet.
    pub(crate) waiting: Vec<String>,
    /// Files that the target has not archived yet and that cannot stay.
    pub(crate) unarchived: Vec<String>,
}

/// A file of the WAL directory to copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WalCopy {
    /// Its name.
    pub(crate) name: String,
    /// Valid bytes at its start. The rest of a segment is filled with zeros.
    pub(crate) length: u64,
    /// Its length on the target, in bytes.
    pub(crate) full_length: u64,
}

/// The input of this part of the plan.
pub(crate) struct WalPlanInput<'a> {
    pub(crate) geometry: WalGeometry,
    pub(crate) source_history: &'a TimelineHistory,
    /// Names and sizes of the files in the source's WAL directory.
    pub(crate) source: &'a [(String, u64)],
    /// The listing of the target's data directory.
    pub(crate) target: &'a Inventory,
    /// Redo location where replay will start.
    pub(crate) redo: Lsn,
    /// Up to here the WAL of both sides is the same.
    pub(crate) fork: Lsn,
    /// How far the source's WAL is on its disk.
    pub(crate) available: Lsn,
    /// When an unfinished rewind is resumed: the names of the target's own files. That run may have copied others,
    /// possibly incompletely.
    pub(crate) own_files: Option<&'a BTreeSet<String>>,
}

/// Whether a path is planned here and not with the other files.
pub(crate) fn is_planned_there(path: &DataPath, version: Version) -> bool {
    let mut parts = path.parts();
    if parts.next() != Some(version.wal_dir().as_bytes()) {
        return false;
    }
    match (parts.next(), parts.next(), parts.next()) {
        (Some(b"archive_status"), Some(_), None) => true,
        (Some(name), None, None) => is_wal_name(name),
        _ => false,
    }
}

/// Whether a name is that of a segment, partial segment, backup history file, timeline history file, or a segment
/// that is being created (`xlogtemp`).
fn is_wal_name(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let stem = name.split('.').next().unwrap_or_default();
    let is_hex = stem.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    (is_hex && (stem.len() == 24 || (stem.len() == 8 && name.ends_with(".history")))) || stem == "xlogtemp"
}

/// Plans the WAL directory.
pub(crate) fn plan(input: &WalPlanInput<'_>) -> WalPlan {
    let mut plan = WalPlan::default();
    segments(input, &mut plan);
    histories(input, &mut plan);
    // Files copied from the source or from elsewhere.
    let copied = plan.copy.iter().map(|file| &file.name).chain(&plan.elsewhere);
    let copied: BTreeSet<String> = copied.cloned().collect();
    let in_place = |name: &&str| copied.contains(*name) && is_waiting(input, name) && !is_common(input, name);
    plan.unarchived.extend(target_names(input).filter(in_place).map(str::to_owned));
    for name in target_names(input) {
        if !copied.contains(name) && !plan.keep.iter().any(|kept| kept == name) {
            old_file(input, &mut plan, name);
        }
    }
    archive_status(input, &mut plan, &copied);
    plan
}

/// Plans the segments that replay needs, from its start to the end of the source's WAL.
fn segments(input: &WalPlanInput<'_>, plan: &mut WalPlan) {
    let size = input.geometry.segment_size;
    let last = size.segment_before(input.available);
    let sizes: HashMap<&str, u64> =
        input.source.iter().map(|(name, length)| (name.as_str(), *length)).collect();
    for segment in (size.segment_of(input.redo).0..=last.0).map(SegmentNo) {
        let name = size.file_name(input.source_history.timeline_of_segment(segment, size), segment);
        if size.end_of(segment) <= input.fork && has_whole_segment(input, &name) {
            continue;
        }
        if sizes.get(name.as_str()) == Some(&size.bytes()) {
            let length = input.available.0.min(size.end_of(segment).0) - size.start_of(segment).0;
            plan.copy.push(WalCopy { name, length, full_length: size.bytes() });
        } else if input.own_files.is_some_and(|own| !own.contains(&name)) && has_file(input, &name) {
            // The unfinished run copied it, and the source has recycled it since. Whether it is complete is verified
            // before the target is sealed.
            plan.keep.push(name);
        } else {
            plan.elsewhere.push(name);
        }
    }
}

/// Plans the timeline history files of the source. They are small, so they are copied even if the target has them.
fn histories(input: &WalPlanInput<'_>, plan: &mut WalPlan) {
    for (name, length) in input.source {
        if let Some(WalFileName::History(timeline)) = WalFileName::parse(name, input.geometry.segment_size)
            && timeline <= input.source_history.timeline()
        {
            plan.copy.push(WalCopy { name: name.clone(), length: *length, full_length: *length });
        }
    }
}

/// Plans a file of the target that is not replaced.
fn old_file(input: &WalPlanInput<'_>, plan: &mut WalPlan, name: &str) {
    let size = input.geometry.segment_size;
    let on_source = || input.source.iter().any(|(other, _)| other == name);
    let is_old = |segment: SegmentNo| size.end_of(segment) <= input.fork;
    let stays = match WalFileName::parse(name, size) {
        Some(WalFileName::Segment(timeline, segment)) => {
            // A diverged segment could be replayed instead of the right one.
            let is_ours = timeline == input.source_history.timeline_of_segment(segment, size);
            // If replay starts beyond the fork, none of the old segments is needed, and there would be a gap between
            // them and the new ones. The WAL summarizer (version 17) would wait for the missing ones for ever.
            let is_useful = input.redo < input.fork || is_waiting(input, name);
            // One of another size is damaged, and neither replay nor a standby could use it.
            let is_usable = is_useful && has_file(input, name);
            is_old(segment) && is_usable && (is_ours || segment < size.segment_of(input.redo))
        }
        Some(WalFileName::Partial(_, segment) | WalFileName::Backup(_, segment)) => is_old(segment),
        // The history of a timeline above the source's would be taken for the newest.
        Some(WalFileName::History(_)) | None => false,
    };
    if !stays && is_waiting(input, name) {
        if may_wait(input, name) {
            plan.waiting.push(name.to_owned());
            return;
        }
        plan.unarchived.push(name.to_owned());
    }
    if !stays {
        plan.remove.extend(DataPath::parse(format!("{}/{name}", input.geometry.version.wal_dir())));
    } else if !on_source() {
        plan.keep.push(name.to_owned());
    }
}

/// Whether a file is the target's own and not archived yet.
fn is_waiting(input: &WalPlanInput<'_>, name: &str) -> bool {
    let status = format!("{}/archive_status/{name}.ready", input.geometry.version.wal_dir());
    input.own_files.is_none_or(|own| own.contains(name))
        && DataPath::parse(status).is_ok_and(|status| input.target.get(&status).is_some())
}

/// Whether a file that is replaced has the same contents on the source: a segment that ends before the fork, or the
/// history of a common timeline.
fn is_common(input: &WalPlanInput<'_>, name: &str) -> bool {
    let size = input.geometry.segment_size;
    match WalFileName::parse(name, size) {
        Some(WalFileName::Segment(_, segment)) => size.end_of(segment) <= input.fork,
        Some(WalFileName::History(timeline)) => {
            timeline <= input.source_history.timeline_at(Lsn(input.fork.0.saturating_sub(1)))
        }
        _ => false,
    }
}

/// Whether a file of the diverged history can stay: no server that follows the source ever reads it as its own.
fn may_wait(input: &WalPlanInput<'_>, name: &str) -> bool {
    let (size, history) = (input.geometry.segment_size, input.source_history);
    match WalFileName::parse(name, size) {
        Some(WalFileName::Segment(timeline, segment)) => {
            timeline < history.timeline() && timeline != history.timeline_of_segment(segment, size)
        }
        Some(WalFileName::History(timeline)) => timeline < history.timeline(),
        Some(WalFileName::Partial(..) | WalFileName::Backup(..)) => true,
        None => false,
    }
}

/// Plans `archive_status`: removes the status files of files that are removed or replaced.
fn archive_status(input: &WalPlanInput<'_>, plan: &mut WalPlan, copied: &BTreeSet<String>) {
    let directory = format!("{}/archive_status", input.geometry.version.wal_dir());
    let removed: BTreeSet<Vec<u8>> = plan.remove.iter().map(|path| path.file_name().to_vec()).collect();
    for (path, kind) in input.target.entries() {
        let is_there = path.parent().is_some_and(|parent| parent.as_bytes() == directory.as_bytes());
        if !is_there || !matches!(kind, EntryKind::File { .. }) {
            continue;
        }
        let name = path.file_name();
        let of = name.strip_suffix(b".ready").or_else(|| name.strip_suffix(b".done")).unwrap_or(name);
        // Copied files count as archived, like everything that a standby receives.
        let is_obsolete = removed.contains(of) || std::str::from_utf8(of).is_ok_and(|of| copied.contains(of));
        if is_obsolete {
            plan.remove.push(path.clone());
        }
    }
}

/// The names of the target's files in the WAL directory that are planned here.
fn target_names<'a>(input: &'a WalPlanInput<'_>) -> impl Iterator<Item = &'a str> {
    let wal_dir = input.geometry.version.wal_dir().as_bytes();
    input.target.entries().iter().filter_map(move |(path, kind)| {
        let mut parts = path.parts();
        let is_there = parts.next() == Some(wal_dir) && matches!(kind, EntryKind::File { .. });
        let name = parts.next().filter(|name| is_there && parts.next().is_none() && is_wal_name(name))?;
        std::str::from_utf8(name).ok()
    })
}

/// Whether the target's own WAL has the whole segment of this name.
fn has_whole_segment(input: &WalPlanInput<'_>, name: &str) -> bool {
    input.own_files.is_none_or(|own| own.contains(name)) && has_file(input, name)
}

/// Whether the target has a file of this name that is as long as a segment.
fn has_file(input: &WalPlanInput<'_>, name: &str) -> bool {
    let whole = EntryKind::File { size: input.geometry.segment_size.bytes() };
    let path = DataPath::parse(format!("{}/{name}", input.geometry.version.wal_dir()));
    path.is_ok_and(|path| input.target.get(&path) == Some(&whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use walparse::testing::small_geometry;
    use walparse::{TimelineId, Version};

    const MIB: u64 = 1 << 20;

    fn listing(names: &[&str]) -> Inventory {
        let entries = names.iter().map(|name| {
            let size = if name.contains("status") { 0 } else { MIB };
            (DataPath::parse(format!("pg_wal/{name}")).unwrap(), EntryKind::File { size })
        });
        Inventory::new(entries.collect()).unwrap()
    }

    fn seg(timeline: u32, number: u64) -> String {
        format!("{timeline:08X}00000000{number:08X}")
    }

    fn make(source: &[String], target: &[String], redo: u64, fork: u64, available: u64) -> WalPlan {
        let history =
            TimelineHistory::parse(TimelineId(2), format!("1\t0/{fork:X}\tx\n").as_bytes()).unwrap();
        let source: Vec<_> = source.iter().map(|name| (name.clone(), MIB)).collect();
        let target: Vec<&str> = target.iter().map(String::as_str).collect();
        plan(&WalPlanInput {
            geometry: small_geometry(Version::find(1300, 202_209_061).unwrap()),
            source_history: &history,
            source: &source,
            target: &listing(&target),
            redo: Lsn(redo),
            fork: Lsn(fork),
            available: Lsn(available),
            own_files: None,
        })
    }

    fn names(paths: &[DataPath]) -> Vec<String> {
        paths
            .iter()
            .map(|path| String::from_utf8_lossy(&path.as_bytes()["pg_wal/".len()..]).into_owned())
            .collect()
    }

    #[test]
    fn common_segments_stay_and_diverged_ones_are_removed() {
        // Fork in the middle of segment 5; replay starts in segment 3; the source has recycled 8 and 9.
        let source =
            [seg(1, 4), seg(2, 5), seg(2, 6), seg(2, 7), seg(2, 8), seg(2, 9), "00000002.history".into()];
        let ready = format!("archive_status/{}.ready", seg(1, 6));
        let done = format!("archive_status/{}.done", seg(1, 3));
        let target = [
            seg(1, 2),
            seg(1, 3),
            seg(1, 4),
            seg(1, 5),
            seg(1, 6),
            seg(1, 7),
            "00000003.history".into(),
            ready,
            done,
        ];
        let plan = make(&source, &target, 3 * MIB + 80, 5 * MIB + 500, 7 * MIB + 1000);
        let copied: Vec<_> = plan.copy.iter().map(|file| (file.name.clone(), file.length)).collect();
        assert_eq!(
            copied,
            [(seg(2, 5), MIB), (seg(2, 6), MIB), (seg(2, 7), 1000), ("00000002.history".into(), MIB)]
        );
        let expected = [seg(1, 5), seg(1, 7), "00000003.history".into()];
        assert_eq!(names(&plan.remove), expected);
        assert_eq!(plan.waiting, [seg(1, 6)]);
        assert_eq!(plan.keep, [seg(1, 2), seg(1, 3)]);
        assert!(plan.elsewhere.is_empty());
    }

    #[test]
    fn unarchived_files_stay_where_replay_cannot_read_them_as_the_sources() {
        let ready = |name: String| format!("archive_status/{name}.ready");
        let source = [seg(2, 5), seg(2, 6), "00000002.history".into()];
        let mut target: Vec<String> = vec![
            seg(1, 4),
            seg(1, 5),
            seg(1, 6),
            seg(2, 6),
            seg(3, 6),
            format!("{}.partial", seg(1, 7)),
            "00000003.history".into(),
        ];
        let statuses: Vec<String> = target.iter().cloned().map(ready).collect();
        target.extend(statuses.clone());
        // Without a status file, so not waiting for archiving.
        target.push(seg(1, 8));
        let plan = make(&source, &target, 4 * MIB + 80, 5 * MIB + 500, 6 * MIB + 1000);
        assert_eq!(plan.waiting, [seg(1, 5), seg(1, 6), format!("{}.partial", seg(1, 7))]);
        assert_eq!(plan.unarchived, [seg(2, 6), "00000003.history".into(), seg(3, 6)]);
        // The last three status files belong to files that are removed.
        let mut gone = vec![seg(1, 8), "00000003.history".into(), seg(3, 6)];
        gone.extend([&statuses[6], &statuses[3], &statuses[4]].map(Clone::clone));
        let removed: BTreeSet<_> = names(&plan.remove).into_iter().collect();
        assert_eq!(removed, gone.into_iter().collect());
        assert_eq!(plan.keep, [seg(1, 4)]);
    }

    #[test]
    fn segments_of_a_wrong_size_are_copied_or_removed() {
        let history = TimelineHistory::parse(TimelineId(2), b"1\t0/500100\tx\n").unwrap();
        let source: Vec<_> = [seg(1, 4), seg(2, 5)].map(|name| (name, MIB)).into();
        let sized = [(seg(1, 1), MIB), (seg(1, 2), 0), (seg(1, 3), MIB / 2), (seg(1, 4), 2 * MIB)];
        let entries = sized.map(|(name, size)| {
            (DataPath::parse(format!("pg_wal/{name}")).unwrap(), EntryKind::File { size })
        });
        let plan = plan(&WalPlanInput {
            geometry: small_geometry(Version::find(1300, 202_209_061).unwrap()),
            source_history: &history,
            source: &source,
            target: &Inventory::new(entries.into()).unwrap(),
            redo: Lsn(4 * MIB + 80),
            fork: Lsn(0x50_0100),
            available: Lsn(5 * MIB + 900),
            own_files: None,
        });
        assert_eq!(
            plan.copy.iter().map(|file| file.name.clone()).collect::<Vec<_>>(),
            [seg(1, 4), seg(2, 5)]
        );
        assert_eq!(names(&plan.remove), [seg(1, 2), seg(1, 3)]);
        assert_eq!(plan.keep, [seg(1, 1)]);
    }

    #[test]
    fn segments_that_neither_side_has_are_named() {
        let plan = make(&[seg(2, 5)], &[seg(1, 4)], 3 * MIB + 80, 5 * MIB + 500, 5 * MIB + 600);
        assert_eq!(plan.elsewhere, [seg(1, 3)]);
        assert_eq!(plan.copy.len(), 1);
    }

    #[test]
    fn segments_copied_by_an_unfinished_run_stay_if_the_source_has_recycled_them() {
        let own = BTreeSet::from([seg(1, 4), seg(1, 5), seg(2, 7)]);
        let history = TimelineHistory::parse(TimelineId(2), b"1\t0/500100\tx\n").unwrap();
        let source = [(seg(2, 6), MIB)];
        let plan = plan(&WalPlanInput {
            geometry: small_geometry(Version::find(1300, 202_209_061).unwrap()),
            source_history: &history,
            source: &source,
            // Segment 7 of timeline 2 is older than that run: it is of another server whose timeline has the same
            // number.
            target: &listing(&[&seg(1, 4), &seg(1, 5), &seg(2, 5), &seg(2, 6), &seg(2, 7)]),
            redo: Lsn(4 * MIB + 80),
            fork: Lsn(0x50_0100),
            available: Lsn(7 * MIB + 10),
            own_files: Some(&own),
        });
        assert_eq!(plan.copy.iter().map(|file| file.name.clone()).collect::<Vec<_>>(), [seg(2, 6)]);
        assert_eq!(plan.elsewhere, [seg(2, 7)]);
        assert!(plan.keep.contains(&seg(2, 5)));
        // A segment found elsewhere replaces the one of its name.
        assert_eq!(names(&plan.remove), [seg(1, 5)]);
    }

    #[test]
    fn on_one_timeline_the_segments_from_the_fork_on_are_replaced() {
        let history = TimelineHistory::of_first(TimelineId(1));
        let source: Vec<_> = [seg(1, 4), seg(1, 5)].iter().map(|name| (name.clone(), MIB)).collect();
        let (four, five, six) = (seg(1, 4), seg(1, 5), seg(1, 6));
        let plan = plan(&WalPlanInput {
            geometry: small_geometry(Version::find(1300, 202_209_061).unwrap()),
            source_history: &history,
            source: &source,
            target: &listing(&[&four, &five, &six]),
            redo: Lsn(4 * MIB + 80),
            fork: Lsn(5 * MIB + 500),
            available: Lsn(5 * MIB + 900),
            own_files: None,
        });
        assert_eq!(plan.copy, [WalCopy { name: five, length: 900, full_length: MIB }]);
        assert_eq!(names(&plan.remove), [six]);
    }

    #[test]
    fn paths_that_are_planned_here() {
        let version = Version::find(1300, 202_209_061).unwrap();
        let planned = |path: &str| is_planned_there(&DataPath::parse(path).unwrap(), version);
        for path in [
            "pg_wal/000000010000000000000001",
            "pg_wal/000000010000000000000001.partial",
            "pg_wal/00000002.history",
            "pg_wal/xlogtemp.33",
            "pg_wal/archive_status/x.done",
        ] {
            assert!(planned(path), "{path}");
        }
        for path in [
            "pg_wal",
            "pg_wal/archive_status",
            "pg_wal/summaries/x.summary",
            "pg_wal/notes",
            "x/00000002.history",
        ] {
            assert!(!planned(path), "{path}");
        }
    }
}
