//! Which flavor a data directory has, found by looking at it.
//!
//! Three things are looked at: which control file is there, which version stands in it, and which WAL
//! directory is there. A row of the table of flavors that all three fit is the answer; if there is none, the
//! one that most fits, so that what is missing is missed under its own name.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use walparse::{ControlFile, Flavor, PageHeader, SegmentNo, WalFileName};

/// Why the flavor could not be found.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FlavorError {
    /// It looks like several.
    #[error("data directory looks like more than one product: {}", products.join(", "))]
    Ambiguous {
        /// Which.
        products: Vec<&'static str>,
    },
    /// A flavor of this name is not in the table.
    #[error("unknown flavor \"{key}\"")]
    Unknown {
        /// What was asked for.
        key: String,
    },
}

impl FlavorError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        format!("Say which it is with --flavor: {}.", Flavor::keys().join(", "))
    }
}

/// What was seen of a data directory.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Control files that are there, and the `pg_control_version` in each, if it is long enough.
    pub(crate) control_files: Vec<(&'static str, Option<u32>)>,
    /// WAL directories that are there.
    pub(crate) wal_dirs: BTreeSet<&'static str>,
}

/// The control files to look for.
pub(crate) fn control_files() -> BTreeSet<&'static str> {
    Flavor::all().map(|flavor| flavor.names().control_file).collect()
}

/// The WAL directories to look for.
pub(crate) fn wal_dirs() -> BTreeSet<&'static str> {
    Flavor::all().map(Flavor::wal_dir).collect()
}

/// The control version in the front of a control file.
pub(crate) fn control_version(front: &[u8]) -> Option<u32> {
    front.get(8..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

/// The same, of a front that is written in hexadecimal.
pub(crate) fn control_version_in_hex(front: &str) -> Option<u32> {
    let bytes = (16..24).step_by(2).map(|at| u8::from_str_radix(front.get(at..at + 2)?, 16).ok());
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    bytes.first_chunk().map(|four| u32::from_le_bytes(*four))
}

/// Chooses among all flavors, or among those of one key.
pub(crate) fn choose(seen: &Seen, key: Option<&str>) -> Result<Flavor, FlavorError> {
    let fit = |flavor: &Flavor| {
        let file = flavor.names().control_file;
        let version = seen.control_files.iter().find(|(name, _)| *name == file).map(|(_, version)| *version);
        let has_version = version.flatten().is_some_and(|version| flavor.has_control_version(version));
        (version.is_some(), has_version, seen.wal_dirs.contains(flavor.wal_dir()))
    };
    let candidates = Flavor::all().filter(|flavor| key.is_none_or(|key| flavor.key() == key));
    let mut best: Vec<Flavor> = Vec::new();
    for flavor in candidates {
        match best.first().map(&fit) {
            Some(so_far) if so_far > fit(&flavor) => {}
            Some(so_far) if so_far == fit(&flavor) => best.push(flavor),
            _ => best = vec![flavor],
        }
    }
    let Some(&first) = best.first() else {
        return Err(FlavorError::Unknown { key: key.unwrap_or_default().to_owned() });
    };
    let mut products: Vec<_> = best.iter().map(|flavor| flavor.product()).collect();
    products.dedup();
    if fit(&first) == (true, true, true) && products.len() > 1 {
        return Err(FlavorError::Ambiguous { products });
    }
    Ok(first)
}

/// Looks at a data directory on this machine. One that is none has some flavor, too: what reads it next
/// says what is missing.
///
/// # Errors
/// It looks like several flavors, or `key` is none.
pub fn flavor_of_directory(root: &Path, key: Option<&str>) -> Result<Flavor, FlavorError> {
    let mut seen = Seen::default();
    for file in control_files() {
        if let Some(front) = front(&root.join(file)) {
            seen.control_files.push((file, control_version(&front)));
        }
    }
    seen.wal_dirs = wal_dirs().into_iter().filter(|dir| root.join(dir).is_dir()).collect();
    choose(&seen, key)
}

/// The first bytes of a file, enough for the header of a WAL segment.
fn front(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(40).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The segments among the names of a WAL directory that may tell the magic number of this cluster's WAL pages:
/// the newest first, none behind the checkpoint.
pub(crate) fn segments(
    control: &ControlFile,
    names: impl IntoIterator<Item = String>,
) -> impl Iterator<Item = (SegmentNo, String)> {
    let size = control.geometry().segment_size;
    let newest = size.segment_of(control.checkpoint_lsn());
    let mut segments: Vec<(SegmentNo, String)> = names
        .into_iter()
        .filter_map(|name| match WalFileName::parse(&name, size) {
            Some(WalFileName::Segment(_, segment)) if segment <= newest => Some((segment, name)),
            _ => None,
        })
        .collect();
    segments.sort_unstable();
    segments.into_iter().rev()
}

/// The flavor with the magic number in the first 40 bytes of a segment, if that is this cluster's in all else.
pub(crate) fn with_magic_of(
    flavor: Flavor,
    control: &ControlFile,
    segment: SegmentNo,
    front: &[u8],
) -> Option<Flavor> {
    let geometry = control.geometry();
    let start = geometry.segment_size.start_of(segment);
    PageHeader::magic_of_segment(front, start, &geometry).map(|magic| flavor.with_wal_magic(magic))
}

/// For a fork on this machine, the flavor with the magic number of its WAL pages, which may be another than
/// that of the PostgreSQL it was made from.
pub fn look_at_wal(flavor: Flavor, root: &Path, control: &ControlFile) -> Flavor {
    if !flavor.is_fork() {
        return flavor;
    }
    let directory = root.join(flavor.wal_dir());
    let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found = segments(control, names).filter_map(|(segment, name)| {
        with_magic_of(flavor, control, segment, &front(&directory.join(name))?)
    });
    found.next().unwrap_or(flavor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&'static str, u32)], dirs: &[&'static str], key: Option<&str>) -> String {
        let seen = Seen {
            control_files: files.iter().map(|(file, version)| (*file, Some(*version))).collect(),
            wal_dirs: dirs.iter().copied().collect(),
        };
        choose(&seen, key).map_or_else(|error| error.to_string(), |flavor| format!("{flavor:?}"))
    }

    #[test]
    fn what_is_there_says_which_flavor_it_is() {
        let (pg, sys) = ("global/pg_control", "global/sys_control");
        for (files, dirs, expected) in [
            (&[(pg, 1300)][..], &["pg_wal"][..], "postgresql (pg_wal)"),
            (&[(pg, 960)], &["pg_xlog"], "postgresql (pg_xlog)"),
            (&[(sys, 960)], &["sys_xlog"], "kingbase-v8r3 (sys_xlog)"),
            (&[(sys, 960)], &["sys_wal"], "kingbase-v8r3 (sys_wal)"),
            (&[(sys, 1201)], &["sys_wal"], "kingbase-v8r6 (sys_wal)"),
            // What is missing will be missed under the name it should have.
            (&[(sys, 1201)], &[], "kingbase-v8r6 (sys_wal)"),
            (&[(sys, 4711)], &["sys_wal"], "kingbase-v8r3 (sys_wal)"),
            (&[], &[], "postgresql (pg_wal)"),
            // A leftover directory does not confuse.
            (&[(pg, 1201)], &["pg_wal", "sys_wal"], "postgresql (pg_wal)"),
            (
                &[(pg, 1201), (sys, 1201)],
                &["pg_wal", "sys_wal"],
                "data directory looks like more than one product: PostgreSQL, KingbaseES V8R6",
            ),
        ] {
            assert_eq!(found(files, dirs, None), expected, "{files:?} {dirs:?}");
        }
        let both = [(pg, 1201), (sys, 1201)];
        assert_eq!(found(&both, &["pg_wal", "sys_wal"], Some("kingbase-v8r6")), "kingbase-v8r6 (sys_wal)");
        assert_eq!(found(&[(sys, 960)], &["sys_wal"], Some("kingbase-v8r3")), "kingbase-v8r3 (sys_wal)");
        assert_eq!(found(&[], &[], Some("oracle")), "unknown flavor \"oracle\"");
    }

    #[test]
    fn a_control_version_is_found_in_both_forms() {
        let front: Vec<u8> = [0; 8].into_iter().chain(1201u32.to_le_bytes()).chain([1, 2, 3, 4]).collect();
        let hex: String = front.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((control_version(&front), control_version_in_hex(&hex)), (Some(1201), Some(1201)));
        assert_eq!((control_version(&front[..11]), control_version_in_hex(&hex[..23])), (None, None));
    }
}
