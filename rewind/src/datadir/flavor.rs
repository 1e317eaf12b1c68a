//! Detection of a data directory's flavor: the product that created it, and its file names.
//!
//! Three properties are compared with the table of flavors: which control file exists, the `pg_control_version` in it,
//! and which WAL directory exists. The flavor that matches all three is chosen, or else the one that matches best, so
//! that a later error names the missing file as that flavor calls it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use walparse::{ControlFile, Flavor, PageHeader, SegmentNo, WalFileName};

/// Why the flavor of a data directory could not be determined.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlavorError {
    /// The directory matches several flavors of different products.
    #[error("data directory looks like more than one product: {}", products.join(", "))]
    Ambiguous {
        /// The names of these products.
        products: Vec<&'static str>,
    },
    /// There is no flavor with this key.
    #[error("unknown flavor \"{key}\"")]
    Unknown {
        /// The key that was given.
        key: String,
    },
}

impl FlavorError {
    /// A hint for the operator: what to do next.
    pub fn hint(&self) -> String {
        format!("Specify the flavor with --flavor: {}.", Flavor::keys().join(", "))
    }
}

/// What was found in a data directory.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The paths of existing control files, each with its `pg_control_version` if the file is long enough.
    pub(crate) control_files: Vec<(&'static str, Option<u32>)>,
    /// The names of existing WAL directories.
    pub(crate) wal_dirs: BTreeSet<&'static str>,
}

/// The paths of the control files of all flavors.
pub(crate) fn control_files() -> BTreeSet<&'static str> {
    Flavor::all().map(|flavor| flavor.names().control_file).collect()
}

/// The names of the WAL directories of all flavors.
pub(crate) fn wal_dirs() -> BTreeSet<&'static str> {
    Flavor::all().map(Flavor::wal_dir).collect()
}

/// The `pg_control_version` (offset 8, little endian) in the first bytes of a control file.
pub(crate) fn control_version(front: &[u8]) -> Option<u32> {
    front.get(8..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

/// As [`control_version`], for first bytes in hexadecimal.
pub(crate) fn control_version_in_hex(front: &str) -> Option<u32> {
    let bytes = (16..24).step_by(2).map(|at| u8::from_str_radix(front.get(at..at + 2)?, 16).ok());
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    bytes.first_chunk().map(|four| u32::from_le_bytes(*four))
}

/// Chooses among all flavors, or among those with this key.
pub(crate) fn choose(seen: &Seen, key: Option<&str>) -> Result<Flavor, FlavorError> {
    let score = |flavor: &Flavor| {
        let file = flavor.names().control_file;
        let version = seen.control_files.iter().find(|(name, _)| *name == file).map(|(_, version)| *version);
        let has_version = version.flatten().is_some_and(|version| flavor.has_control_version(version));
        (version.is_some(), has_version, seen.wal_dirs.contains(flavor.wal_dir()))
    };
    let candidates = Flavor::all().filter(|flavor| key.is_none_or(|key| flavor.key() == key));
    let mut best: Vec<Flavor> = Vec::new();
    for flavor in candidates {
        match best.first().map(&score) {
            Some(so_far) if so_far > score(&flavor) => {}
            Some(so_far) if so_far == score(&flavor) => best.push(flavor),
            _ => best = vec![flavor],
        }
    }
    let Some(&first) = best.first() else {
        return Err(FlavorError::Unknown { key: key.unwrap_or_default().to_owned() });
    };
    let mut products: Vec<_> = best.iter().map(|flavor| flavor.product()).collect();
    products.dedup();
    if score(&first) == (true, true, true) && products.len() > 1 {
        return Err(FlavorError::Ambiguous { products });
    }
    Ok(first)
}

/// Determines the flavor of the data directory `root` on this machine. `key` (`postgresql`, `kingbase-v8r3` or
/// `kingbase-v8r6`) restricts the choice to one product.
///
/// Also returns a flavor if `root` is no data directory: reading its control file then reports what is missing.
///
/// # Errors
/// [`FlavorError::Ambiguous`] if the directory matches several products, [`FlavorError::Unknown`] if there is no flavor
/// with this key.
///
/// ```
/// use kbrecover_rewind::flavor_of_directory;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// std::fs::create_dir_all(directory.path().join("sys_wal"))?;
/// std::fs::create_dir_all(directory.path().join("global"))?;
/// let mut control = vec![0; 8192];
/// control[8..12].copy_from_slice(&1201u32.to_le_bytes());
/// std::fs::write(directory.path().join("global/sys_control"), control)?;
/// let flavor = flavor_of_directory(directory.path(), None)?;
/// assert_eq!((flavor.key(), flavor.product()), ("kingbase-v8r6", "KingbaseES V8R6"));
/// # Ok(())
/// # }
/// ```
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

/// The first 40 bytes of a file, the length of a segment's header; fewer if the file is shorter.
fn front(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(40).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The segments among the file names of a WAL directory, up to the segment of the last checkpoint, newest first. Later
/// segments may be recycled files that still hold older WAL.
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

/// The flavor with the page magic number in the first 40 bytes of a segment; `None` if the rest of that header does not
/// fit this cluster.
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

/// The flavor with the page magic number found in the WAL of the data directory `root`, whose control file is `control`.
///
/// The magic number of a fork may differ from that of the PostgreSQL version it derives from. For PostgreSQL, and if no
/// segment with a valid header is found, `flavor` is returned unchanged.
pub fn with_wal_magic_of_directory(flavor: Flavor, root: &Path, control: &ControlFile) -> Flavor {
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
    fn the_best_matching_flavor_is_chosen() {
        let (pg, sys) = ("global/pg_control", "global/sys_control");
        for (files, dirs, expected) in [
            (&[(pg, 1300)][..], &["pg_wal"][..], "postgresql (pg_wal)"),
            (&[(pg, 960)], &["pg_xlog"], "postgresql (pg_xlog)"),
            (&[(sys, 960)], &["sys_xlog"], "kingbase-v8r3 (sys_xlog)"),
            (&[(sys, 960)], &["sys_wal"], "kingbase-v8r3 (sys_wal)"),
            (&[(sys, 1201)], &["sys_wal"], "kingbase-v8r6 (sys_wal)"),
            // A later error will name the missing file as this flavor calls it.
            (&[(sys, 1201)], &[], "kingbase-v8r6 (sys_wal)"),
            (&[(sys, 4711)], &["sys_wal"], "kingbase-v8r3 (sys_wal)"),
            (&[], &[], "postgresql (pg_wal)"),
            // A leftover WAL directory does not matter.
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
