//! Relations and the files they are stored in.

use std::fmt;

use crate::version::Version;

const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;

/// `RelFileLocator` (`RelFileNode` before 16): what names a relation's storage. The derived order is by
/// tablespace, database and relation number.
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
    /// As pg_waldump prints it: `1663/5/16384`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

/// The fork of a relation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fork {
    /// The data.
    Main,
    /// The free space map.
    FreeSpaceMap,
    /// The visibility map.
    VisibilityMap,
    /// What an unlogged relation is reset from.
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

    /// The name pg_waldump and file names use: `main`, `fsm`, `vm`, `init`.
    pub fn name(self) -> &'static str {
        match self {
            Fork::Main => "main",
            Fork::FreeSpaceMap => "fsm",
            Fork::VisibilityMap => "vm",
            Fork::Init => "init",
        }
    }
}

/// One segment file of a relation's main fork.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelSegment {
    /// The relation.
    pub relation: Relation,
    /// The number of the file: 0 has no suffix, 1 is `.1`, and so on.
    pub segment: u32,
}

impl RelSegment {
    /// The path below the data directory, with `/` between its parts.
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

    /// Reads a path below the data directory; `None` if it is not a main fork's segment file.
    ///
    /// Only the exact spelling the server uses counts: no leading zeros, no `.0`, no other fork, no
    /// temporary relation.
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

/// A decimal number spelled as the server prints it.
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
        fn every_relation_path_reads_back(
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
        fn a_path_that_is_read_is_the_one_that_is_written(path in "(base|global|pg_tblspc)(/[0-9._]{1,6}){1,4}") {
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
    fn only_main_fork_files_count() {
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
