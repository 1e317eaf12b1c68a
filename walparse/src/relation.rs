//! Relations and the names of their files.

use std::fmt;

use crate::control::ControlFile;
use crate::lsn::BlockNumber;
use crate::version::Version;

const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;

/// The physical identity of a relation (`RelFileLocator`, `RelFileNode` before 16), ordered by tablespace, database and
/// relation number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Relation {
    /// `spcOid`: 1663 is pg_default, 1664 pg_global.
    pub tablespace: u32,
    /// `dbOid`: 0 for shared relations.
    pub database: u32,
    /// `relNumber` (`relNode`)
    pub number: u32,
}

impl fmt::Display for Relation {
    /// As printed by pg_waldump: `1663/5/16384`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

/// A fork of a relation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fork {
    /// The main fork, with the data.
    Main,
    /// The free space map.
    FreeSpaceMap,
    /// The visibility map.
    VisibilityMap,
    /// The initialization fork of an unlogged relation.
    Init,
}

impl Fork {
    pub(crate) fn from_raw(raw: u8) -> Option<Fork> {
        Some(match raw {
            0 => Fork::Main,
            1 => Fork::FreeSpaceMap,
            2 => Fork::VisibilityMap,
            3 => Fork::Init,
            _ => return None,
        })
    }

    /// The name in file names and in the output of pg_waldump: `main`, `fsm`, `vm` or `init`.
    pub fn name(self) -> &'static str {
        match self {
            Fork::Main => "main",
            Fork::FreeSpaceMap => "fsm",
            Fork::VisibilityMap => "vm",
            Fork::Init => "init",
        }
    }
}

/// A segment file of a relation's main fork.
///
/// ```
/// use walparse::{RelSegment, Relation, Version};
///
/// let version = Version::find(1300, 202_209_061).expect("PostgreSQL 15");
/// let file = RelSegment::parse("base/5/16384.1", version).expect("a relation's file");
/// assert_eq!(file.relation, Relation { tablespace: 1663, database: 5, number: 16384 });
/// assert_eq!((file.segment, file.path(version)), (1, "base/5/16384.1".to_owned()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelSegment {
    /// The relation.
    pub relation: Relation,
    /// The number of the file, which is the suffix of its name; the file 0 has no suffix.
    pub segment: u32,
}

impl RelSegment {
    /// The path relative to the data directory, with slashes.
    pub fn path(&self, version: Version) -> String {
        let Relation { tablespace, database, number } = self.relation;
        let mut path = match tablespace {
            GLOBAL_TABLESPACE => format!("global/{number}"),
            DEFAULT_TABLESPACE => format!("base/{database}/{number}"),
            _ => format!(
                "{}/{tablespace}/{}/{database}/{number}",
                version.names().tablespace_dir,
                version.tablespace_version_dir()
            ),
        };
        if self.segment > 0 {
            path.push_str(&format!(".{}", self.segment));
        }
        path
    }

    /// The number in the relation of the block at `offset` of the file. `control` is the cluster's control file.
    pub fn block_at(&self, offset: u64, control: &ControlFile) -> BlockNumber {
        let first = self.segment.saturating_mul(control.relation_segment_blocks());
        let in_file = u32::try_from(offset / u64::from(control.block_size())).unwrap_or(u32::MAX);
        BlockNumber(first.saturating_add(in_file))
    }

    /// Parses a path relative to the data directory; `None` if it is not a segment file of a main fork.
    ///
    /// Only names that the server generates are accepted: no leading zeros, no suffix `.0`, no temporary relations.
    pub fn parse(path: &str, version: Version) -> Option<RelSegment> {
        let mut parts = path.split('/');
        let (tablespace, database) = match parts.next()? {
            "global" => (GLOBAL_TABLESPACE, 0),
            "base" => (DEFAULT_TABLESPACE, canonical_number(parts.next()?)?),
            directory if directory == version.names().tablespace_dir => {
                let tablespace = canonical_number(parts.next()?)?;
                if !version.is_tablespace_version_dir(parts.next()?) {
                    return None;
                }
                (tablespace, canonical_number(parts.next()?)?)
            }
            _ => return None,
        };
        let file = parts.next()?;
        if parts.next().is_some() {
            return None;
        }
        let (number, segment) = match file.split_once('.') {
            None => (file, 0),
            Some((number, segment)) => (number, canonical_number(segment).filter(|&segment| segment > 0)?),
        };
        let number = canonical_number(number)?;
        Some(RelSegment { relation: Relation { tablespace, database, number }, segment })
    }
}

/// Parses a decimal number without sign and leading zeros.
fn canonical_number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_relation_path_round_trips(
            tablespace in prop_oneof![Just(DEFAULT_TABLESPACE), Just(GLOBAL_TABLESPACE), 16_384u32..],
            database: u32,
            number: u32,
            segment in prop_oneof![Just(0u32), any::<u32>()],
        ) {
            let database = if tablespace == GLOBAL_TABLESPACE { 0 } else { database };
            let file = RelSegment { relation: Relation { tablespace, database, number }, segment };
            for version in Version::of_all_flavors() {
                prop_assert_eq!(RelSegment::parse(&file.path(version), version), Some(file));
            }
        }

        #[test]
        fn a_parsed_path_is_the_generated_path(path in "(base|global|pg_tblspc)(/[0-9._]{1,6}){1,4}") {
            if let Some(file) = RelSegment::parse(&path, v15()) {
                prop_assert_eq!(file.path(v15()), path);
            }
        }
    }

    fn v15() -> Version {
        Version::find(1300, 202_209_061).unwrap()
    }

    #[test]
    fn paths_round_trip() {
        for path in ["global/1262", "base/5/16384", "base/5/16384.12", "pg_tblspc/999/PG_15_202209061/5/77.1"]
        {
            let segment = RelSegment::parse(path, v15()).expect(path);
            assert_eq!(segment.path(v15()), path);
        }
    }

    #[test]
    fn only_main_fork_files_are_accepted() {
        for path in [
            "base/5/16384_fsm",
            "base/5/16384.0",
            "base/5/016384",
            "base/5/t3_16384",
            "base/5/16384.1.2",
            "base/5/PG_VERSION",
            "base/5/16384/x",
            "base/16384",
            "global/pg_control",
            "global/1262_vm",
            "pg_tblspc/999/PG_14_202107181/5/77",
            "pg_xact/0000",
            "base/5/+1",
            "base/5/99999999999",
        ] {
            assert_eq!(RelSegment::parse(path, v15()), None, "{path}");
        }
    }
}
