//! The end of a stopped server's WAL: on which timeline, and where.

use std::fs::File;
use std::io::Read;

use walparse::{ControlFile, Lsn, SegmentSize, TimelineHistory, TimelineId, WalDir, WalReader};

use crate::files::{self, file_error};
use crate::flow::StepError;
use crate::server::LocalServer;

/// Reads the control file.
pub(crate) fn control(server: &LocalServer) -> Result<ControlFile, StepError> {
    let path = server.data.join(server.names().control_file);
    let bytes = std::fs::read(&path).map_err(|error| file_error("read", &path, &error))?;
    ControlFile::parse_as(&bytes, server.flavor())
        .map_err(|error| StepError::new(format!("file \"{}\": {error}", path.display())))
}

/// The latest timeline of which a data directory has WAL.
///
/// The control file may name an older one: a node that was promoted and failed before its first checkpoint still has
/// the previous timeline there. Segments that are ready for archiving are ignored, because a rewind keeps them; the
/// segment that a server was writing is never among them.
pub(crate) fn timeline(server: &LocalServer) -> Result<u32, StepError> {
    let control = control(server)?;
    let path = server.data.join(control.version().wal_dir());
    let failed = |error| file_error("read", &path, &error);
    let mut latest = control.timeline().0;
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if let Some(timeline) = timeline_of_segment(&name, control.geometry().segment_size)
            && timeline > latest
            && !path.join(format!("archive_status/{name}.ready")).exists()
        {
            latest = timeline;
        }
    }
    Ok(latest)
}

/// The position after the last record, read from the latest checkpoint on.
pub(crate) fn end(server: &LocalServer) -> Result<Lsn, StepError> {
    let mut control = control(server)?;
    let directory = server.data.join(control.version().wal_dir());
    let history = history(server, timeline(server)?)?;
    let size = control.geometry().segment_size;
    let wal = WalDir::new(&directory, history, size);
    let start = control.checkpoint_lsn();
    let first = directory.join(wal.file_name(size.segment_of(start)));
    if server.flavor().is_fork() {
        // A fork has another magic number in its pages, the same in all of them.
        let mut magic = [0; 2];
        let read = File::open(&first).and_then(|mut file| file.read_exact(&mut magic));
        read.map_err(|error| file_error("read", &first, &error))?;
        control = control.with_wal_magic(u16::from_le_bytes(magic));
    }
    let mut reader = WalReader::new(&wal, control.geometry(), start);
    loop {
        match reader.read().map_err(|error| StepError::of(&error))? {
            Ok(_) => {}
            Err(end) if end.position > start => return Ok(end.position),
            Err(_) => {
                let name = first.display();
                return Err(StepError::new(format!("the latest checkpoint, {start}, is not in \"{name}\"")));
            }
        }
    }
}

/// The history of a timeline of which a data directory has WAL.
pub(crate) fn history(server: &LocalServer, timeline: u32) -> Result<TimelineHistory, StepError> {
    let timeline = TimelineId(timeline);
    if timeline.0 == 1 {
        return Ok(TimelineHistory::of_first(timeline));
    }
    let directory = server.data.join(control(server)?.version().wal_dir());
    let path = directory.join(timeline.history_file_name());
    let text = files::read_bytes(&path)?
        .ok_or_else(|| StepError::new(format!("file \"{}\" is missing", path.display())))?;
    TimelineHistory::parse(timeline, &text)
        .map_err(|error| StepError::new(format!("file \"{}\": {error}", path.display())))
}

/// The timeline in the name of a segment file. History files are ignored: a standby also has those of its primary.
fn timeline_of_segment(name: &str, size: SegmentSize) -> Option<u32> {
    size.parse_file_name(name).map(|(timeline, _)| timeline.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segment_names_have_a_timeline() {
        let size = SegmentSize::new(16 << 20).unwrap();
        assert_eq!(timeline_of_segment("000000020000000000000001", size), Some(2));
        for name in ["00000003.history", "000000030000000000000001.partial", "archive_status"] {
            assert_eq!(timeline_of_segment(name, size), None, "{name}");
        }
    }
}
