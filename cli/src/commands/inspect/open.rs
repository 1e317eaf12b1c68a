//! Opens the WAL, control file or history that the user specified: finds its geometry, timeline history
//! and segments.
//!
//! Nothing is locked and no file is mapped into memory, because a running server may write, rename and
//! remove files while they are read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use kbrecover_rewind::{FlavorError, flavor_of_directory, with_wal_magic_of_directory};
use walparse::{
    ControlError, ControlFields, ControlFile, FileBytes, Flavor, PageHeader, RelSegment, SegmentNo,
    SegmentStore, TimelineHistory, TimelineId, WalFileName, WalGeometry, WalReadError,
};

use super::error::InspectError;

/// The `--flavor` that was given.
pub(super) type Key<'a> = Option<&'a str>;

/// Larger than any control file or history file.
const SMALL_FILE: u64 = 1 << 20;

/// WAL files by segment number.
pub(super) struct Wal {
    pub(super) geometry: WalGeometry,
    history: TimelineHistory,
    files: BTreeMap<SegmentNo, PathBuf>,
    /// Where the files are, for messages.
    place: PathBuf,
    /// The data directory, if one was given.
    cluster: Option<PathBuf>,
    /// The newest segment that is known to contain WAL of this history: not a recycled file.
    anchor: SegmentNo,
}

impl Wal {
    /// Opens the WAL of a data directory, of a directory of WAL files, or in single files.
    pub(super) fn open(
        paths: &[PathBuf],
        timeline: Option<TimelineId>,
        key: Key<'_>,
    ) -> Result<Wal, InspectError> {
        if let [directory] = paths
            && let Some(control) = cluster_control(directory, key)?
        {
            return Wal::of_cluster(directory, &control, timeline);
        }
        // Without a control file only --flavor tells a fork's WAL from PostgreSQL's.
        let flavor = key.and_then(|key| Flavor::all().find(|flavor| flavor.key() == key));
        match paths {
            [directory] if directory.is_dir() => Wal::of_directory(directory, timeline, flavor),
            files => Wal::of_files(files, flavor),
        }
    }

    fn of_cluster(
        directory: &Path,
        control: &ControlFile,
        timeline: Option<TimelineId>,
    ) -> Result<Wal, InspectError> {
        let place = directory.join(control.version().wal_dir());
        let history = read_history(&place, timeline.unwrap_or(control.timeline()))?;
        let geometry = control.geometry();
        let anchor = geometry.segment_size.segment_of(control.checkpoint().redo);
        let files = files_of(&history, &place, &geometry)?;
        Ok(Wal { geometry, history, files, place, cluster: Some(directory.to_owned()), anchor })
    }

    /// The geometry is taken from the first page of the first valid segment.
    fn of_directory(
        place: &Path,
        timeline: Option<TimelineId>,
        flavor: Option<Flavor>,
    ) -> Result<Wal, InspectError> {
        let mut names = file_names(place)?;
        names.sort_unstable();
        let is_segment_name = |name: &str| name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let candidates = names.iter().filter(|name| is_segment_name(name)).map(|name| place.join(name));
        let found = candidates
            .filter_map(|path| first_page(&path).ok())
            .find_map(|page| PageHeader::describe_segment(&page, flavor).ok());
        let (geometry, _) = found.ok_or_else(|| InspectError::NoSegments { path: place.to_owned() })?;
        let newest = names.iter().filter_map(|name| geometry.segment_size.parse_file_name(name)).max();
        let timeline = timeline.or(newest.map(|(timeline, _)| timeline)).unwrap_or(TimelineId(1));
        let history = read_history(place, timeline)?;
        let files = files_of(&history, place, &geometry)?;
        // A recycled file has the contents of an old segment under the name of a future one.
        let valid = files.iter().filter(|(segment, path)| {
            let start = geometry.segment_size.start_of(**segment);
            first_page(path).is_ok_and(|page| PageHeader::check(&page, start, &geometry).is_ok())
        });
        let anchor = valid.map(|(segment, _)| *segment).next_back();
        let anchor = anchor.ok_or_else(|| InspectError::NoSegments { path: place.to_owned() })?;
        Ok(Wal { geometry, history, files, place: place.to_owned(), cluster: None, anchor })
    }

    /// Files may have any name: their first page tells which segment they contain.
    fn of_files(paths: &[PathBuf], flavor: Option<Flavor>) -> Result<Wal, InspectError> {
        let (mut geometry, mut timeline) = (None, TimelineId(0));
        let mut files = BTreeMap::new();
        for path in paths {
            let page = first_page(path)?;
            let no_segment = |source| InspectError::NoSegment { path: path.clone(), source };
            let (found, start) = PageHeader::describe_segment(&page, flavor).map_err(no_segment)?;
            let header = PageHeader::check(&page, start, &found).map_err(no_segment)?;
            timeline = timeline.max(header.timeline);
            if *geometry.get_or_insert(found) != found {
                return Err(InspectError::OtherCluster { path: path.clone() });
            }
            if let Some(one) = files.insert(found.segment_size.segment_of(start), path.clone()) {
                return Err(InspectError::SameSegment { one, other: path.clone() });
            }
        }
        let nothing = || InspectError::NoSegments { path: PathBuf::new() };
        let geometry = geometry.ok_or_else(nothing)?;
        let anchor = *files.keys().next_back().ok_or_else(nothing)?;
        let place = paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("")).to_owned();
        // It is used only to name missing segments.
        let history = TimelineHistory::of_first(timeline);
        Ok(Wal { geometry, history, files, place, cluster: None, anchor })
    }

    /// The first segment from which all segments up to the newest one exist.
    pub(super) fn oldest(&self) -> Result<SegmentNo, InspectError> {
        let exists = |segment: &SegmentNo| self.files.contains_key(segment);
        if !exists(&self.anchor) {
            return Err(InspectError::NoSegments { path: self.place.clone() });
        }
        let mut oldest = self.anchor;
        while oldest.0 > 0 && exists(&SegmentNo(oldest.0 - 1)) {
            oldest = SegmentNo(oldest.0 - 1);
        }
        Ok(oldest)
    }

    /// The path of a relation's file. In a tablespace of a fork it has the version directory that exists there.
    pub(super) fn path_of(&self, file: RelSegment) -> String {
        let version = self.geometry.version;
        let path = file.path(version);
        let usual = version.tablespace_version_dir();
        let Some((tablespace, _)) = path.split_once(&format!("/{usual}/")) else { return path };
        let directory = self.cluster.as_ref().map(|cluster| cluster.join(tablespace));
        let names = directory.and_then(|directory| file_names(&directory).ok()).unwrap_or_default();
        match names.iter().find(|name| version.is_tablespace_version_dir(name)) {
            Some(name) => path.replacen(&usual, name, 1),
            None => path,
        }
    }

    /// Whether WAL continues after this segment, so that its absence is a gap.
    pub(super) fn has_segments_after(&self, segment: SegmentNo) -> bool {
        self.anchor > segment
    }
}

impl SegmentStore for Wal {
    fn open(&self, segment: SegmentNo) -> Result<Option<FileBytes>, WalReadError> {
        let Some(path) = self.files.get(&segment) else { return Ok(None) };
        match read_up_to(path, self.geometry.segment_size.bytes()) {
            Ok(bytes) => Ok(Some(FileBytes::Owned(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(WalReadError::Open { path: path.clone(), source }),
        }
    }

    fn newest(&self) -> Result<Option<SegmentNo>, WalReadError> {
        Ok(self.files.keys().next_back().copied())
    }

    fn describe(&self, segment: SegmentNo) -> String {
        let size = self.geometry.segment_size;
        let name = || size.file_name(self.history.timeline_of_segment(segment, size), segment);
        let path = self.files.get(&segment).cloned();
        path.unwrap_or_else(|| self.place.join(name())).display().to_string()
    }
}

/// The files of a directory that contain the segments of a history. A `.partial` file counts if there is
/// no complete file of its segment.
fn files_of(
    history: &TimelineHistory,
    place: &Path,
    geometry: &WalGeometry,
) -> Result<BTreeMap<SegmentNo, PathBuf>, InspectError> {
    let size = geometry.segment_size;
    let (mut files, mut partial) = (BTreeMap::new(), BTreeMap::new());
    for name in file_names(place)? {
        let belongs = |timeline, segment| history.timeline_of_segment(segment, size) == timeline;
        match WalFileName::parse(&name, size) {
            Some(WalFileName::Segment(timeline, segment)) if belongs(timeline, segment) => {
                files.insert(segment, place.join(name));
            }
            Some(WalFileName::Partial(timeline, segment)) if belongs(timeline, segment) => {
                partial.insert(segment, place.join(name));
            }
            _ => {}
        }
    }
    for (segment, path) in partial {
        files.entry(segment).or_insert(path);
    }
    Ok(files)
}

/// Reads the history of a timeline from its file in a WAL directory. A missing file is not an error:
/// timeline 1 has none, and a directory may hold copies of segments only.
pub(super) fn read_history(place: &Path, timeline: TimelineId) -> Result<TimelineHistory, InspectError> {
    let path = place.join(timeline.history_file_name());
    match read_up_to(&path, SMALL_FILE) {
        Ok(text) => {
            TimelineHistory::parse(timeline, &text).map_err(|source| InspectError::History { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(TimelineHistory::of_first(timeline)),
        Err(source) => Err(InspectError::Read { path, source }),
    }
}

/// The control file of a data directory, which has the geometry of its WAL; `None` if `directory` is not one.
fn cluster_control(directory: &Path, key: Key<'_>) -> Result<Option<ControlFile>, InspectError> {
    let flavor = flavor_of_directory(directory, key)?;
    let path = directory.join(flavor.names().control_file);
    if !path.exists() {
        return Ok(None);
    }
    let control = read_control(&path, flavor)?;
    let flavor = with_wal_magic_of_directory(flavor, directory, &control);
    read_control(&path, flavor).map(Some)
}

/// Reads a control file, and requires its checksum to be valid.
fn read_control(path: &Path, flavor: Flavor) -> Result<ControlFile, InspectError> {
    let (bytes, _) = control_bytes(path, flavor)?;
    ControlFile::parse_as(&bytes, flavor)
        .map_err(|source| InspectError::Control { path: path.to_owned(), source })
}

/// Reads a control file and decodes its fields. Retries briefly while the checksum is wrong, because a
/// running server may be writing the file.
pub(super) fn control_bytes(path: &Path, flavor: Flavor) -> Result<(Vec<u8>, ControlFields), InspectError> {
    const TRIES: u32 = 5;
    let unreadable = |source: ControlError| InspectError::Control { path: path.to_owned(), source };
    let mut tries = 0;
    loop {
        let bytes = read_file(path)?;
        let fields = ControlFields::read_as(&bytes, flavor);
        tries += 1;
        match fields {
            Ok(fields) if fields.is_checksum_valid || tries == TRIES => return Ok((bytes, fields)),
            Err(error) if tries == TRIES => return Err(unreadable(error)),
            _ => sleep(Duration::from_millis(10)),
        }
    }
}

/// The control file at a path that names it or its data directory, and its flavor. The flavor of a
/// single file is taken from its name.
pub(super) fn control_path(path: &Path, key: Key<'_>) -> Result<(PathBuf, Flavor), InspectError> {
    if path.is_dir() {
        let flavor = flavor_of_directory(path, key)?;
        return Ok((path.join(flavor.names().control_file), flavor));
    }
    let is_called = |flavor: &Flavor| Path::new(flavor.names().control_file).file_name() == path.file_name();
    let flavors = || Flavor::all().filter(|flavor| key.is_none_or(|key| flavor.key() == key));
    let unknown = || FlavorError::Unknown { key: key.unwrap_or_default().to_owned() };
    let flavor = flavors().find(is_called).or_else(|| flavors().next()).ok_or_else(unknown)?;
    Ok((path.to_owned(), flavor))
}

/// The directory of the history files, and the cluster's timeline or the newest one that has a file.
pub(super) fn history_place(directory: &Path, key: Key<'_>) -> Result<(PathBuf, TimelineId), InspectError> {
    if let Some(control) = cluster_control(directory, key)? {
        return Ok((directory.join(control.version().wal_dir()), control.timeline()));
    }
    let names = file_names(directory)?;
    let number = |name: &String| {
        let digits = name.strip_suffix(".history").filter(|digits| digits.len() == 8)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let newest = names.iter().filter_map(number).max();
    let newest = newest.ok_or_else(|| InspectError::NoSegments { path: directory.to_owned() })?;
    Ok((directory.to_owned(), TimelineId(newest)))
}

/// Reads a small file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, InspectError> {
    read_up_to(path, SMALL_FILE).map_err(|source| InspectError::Read { path: path.to_owned(), source })
}

fn first_page(path: &Path) -> Result<Vec<u8>, InspectError> {
    // The page header is 40 bytes long, and no WAL page is larger than this.
    read_up_to(path, 65_536).map_err(|source| InspectError::Read { path: path.to_owned(), source })
}

fn read_up_to(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The names of the entries of a directory, without those that are not UTF-8.
fn file_names(directory: &Path) -> Result<Vec<String>, InspectError> {
    let unreadable = |source| InspectError::Read { path: directory.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        names.extend(entry.map_err(unreadable)?.file_name().into_string());
    }
    Ok(names)
}
