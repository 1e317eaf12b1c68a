//! Kept local files: files of the target that are neither overwritten from the source nor removed.
//!
//! A glob is matched against the path relative to the data directory. `*` and `?` do not match a `/`; `**` does. A
//! directory that matches is kept with everything in it. A file that matches and exists only on the source is not
//! copied. The server's data files cannot be kept, because a rewind must make them those of the source.

use std::collections::BTreeSet;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::datadir::data_path::DataPath;

/// Files that usually differ between the nodes of a cluster, by their names in PostgreSQL and in KingbaseES.
const STANDARD: &[&str] = &[
    // Configuration files, including pg_hba.conf, postgresql.auto.conf and included files. A server does not start if
    // an included file is missing.
    "*.conf",
    "conf.d",
    // Keys and certificates, in any directory.
    "**/*.key",
    "**/*.crt",
    "**/*.crl",
    "**/*.pem",
    // Log directories, and the file that names the current log file. The configured log_directory is added to these.
    "log",
    "pg_log",
    "sys_log",
    "current_logfiles",
    // How this node starts. Copied from a standby, these would make the target follow the source's primary.
    "standby.signal",
    "recovery.signal",
    "recovery.done",
];

/// The globs that select kept local files.
///
/// ```
/// use kbrecover_rewind::{KeepError, KeepRules};
///
/// // The standard set and one more directory.
/// let rules = KeepRules::parse(&["scripts"])?;
/// // Only that directory.
/// let only = KeepRules::parse(&["none", "scripts"])?;
/// assert_ne!(rules, only);
/// assert!(matches!(KeepRules::parse(&["base/*"]), Err(KeepError::Data { .. })));
/// # Ok::<(), KeepError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeepRules {
    has_standard: bool,
    given: Vec<String>,
}

/// Why a glob of `--keep` cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The syntax of the glob is invalid.
    #[error("invalid glob \"{glob}\" for --keep")]
    Syntax {
        /// The glob.
        glob: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
    /// The glob matches a data file of the server.
    #[error("cannot keep \"{path}\", which --keep \"{glob}\" matches")]
    Data {
        /// The glob.
        glob: String,
        /// The path that it matches.
        path: String,
    },
}

impl KeepError {
    /// A hint for the operator: what to do next.
    pub fn hint(&self) -> String {
        match self {
            KeepError::Syntax { .. } => "A glob is a path below the data directory with *, ?, [...], {a,b} or **.",
            KeepError::Data { .. } => {
                "A rewind makes the server's data the source's. Use a glob that matches only local files of this node."
            }
        }
        .to_owned()
    }
}

impl KeepRules {
    /// Keeps nothing: every file becomes that of the source.
    pub fn none() -> KeepRules {
        KeepRules { has_standard: false, given: Vec::new() }
    }

    /// The standard set: configuration files, keys and certificates, logs, and signal files.
    pub fn standard() -> KeepRules {
        KeepRules { has_standard: true, given: Vec::new() }
    }

    /// The standard set and the `given` globs. An element `none` discards the standard set and all elements before it.
    ///
    /// # Errors
    /// [`KeepError::Syntax`] for an invalid glob, [`KeepError::Data`] for one that matches data files which every server
    /// has. A match with other data files is found only during the rewind, before the first change.
    pub fn parse<S: AsRef<str>>(given: &[S]) -> Result<KeepRules, KeepError> {
        let mut rules = KeepRules::standard();
        for glob in given.iter().map(AsRef::as_ref) {
            if glob == "none" {
                rules = KeepRules::none();
            } else {
                rules.given.push(glob.trim_end_matches('/').to_owned());
            }
        }
        let keep = Keep::new(&rules, None)?;
        for path in ["base/1/1259", "global/1262", "pg_xact/0000", "pg_wal/000000010000000000000001"] {
            let Ok(path) = DataPath::parse(path) else { continue };
            let mut at = Some(path);
            while let Some(path) = at {
                keep.matches(&path)?;
                at = path.parent();
            }
        }
        Ok(rules)
    }

    /// Whether the standard set is included.
    pub(crate) fn has_standard(&self) -> bool {
        self.has_standard
    }
}

/// Compiled [`KeepRules`].
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    patterns: Vec<String>,
    /// Index of the first pattern given by the user. Only such a pattern is an error if it matches data.
    given_from: usize,
    globs: GlobSet,
    /// Mount points, which cannot be removed.
    mounts: BTreeSet<DataPath>,
}

impl Keep {
    /// Compiles the rules. `log_directory` is the setting of the target's configuration, if that could be read.
    pub(crate) fn new(rules: &KeepRules, log_directory: Option<&Path>) -> Result<Keep, KeepError> {
        let mut patterns = Vec::new();
        if rules.has_standard {
            patterns.extend(STANDARD.iter().map(|&glob| glob.to_owned()));
            patterns.extend(log_directory.and_then(Path::to_str).map(globset::escape));
        }
        let given_from = patterns.len();
        patterns.extend(rules.given.iter().cloned());
        Keep::compile(patterns, given_from)
    }

    /// Compiles the patterns of an earlier run, from its journal.
    pub(crate) fn again(patterns: &[String]) -> Result<Keep, KeepError> {
        Keep::compile(patterns.to_vec(), patterns.len())
    }

    fn compile(patterns: Vec<String>, given_from: usize) -> Result<Keep, KeepError> {
        let mut globs = GlobSetBuilder::new();
        let failed = |glob: &str| {
            let glob = glob.to_owned();
            move |source| KeepError::Syntax { glob, source }
        };
        for pattern in &patterns {
            let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
            globs.add(glob.map_err(failed(pattern))?);
        }
        let globs = globs.build().map_err(failed(&patterns.join(" ")))?;
        Ok(Keep { patterns, given_from, globs, mounts: BTreeSet::new() })
    }

    /// The same with the mount points in the target, which are kept where the source has nothing in their place.
    pub(crate) fn with_mounts(self, mounts: BTreeSet<DataPath>) -> Keep {
        Keep { mounts, ..self }
    }

    /// Whether there is a mount point at `path` of the target.
    pub(crate) fn is_mount(&self, path: &DataPath) -> bool {
        self.mounts.contains(path)
    }

    /// All patterns, for [`Keep::again`].
    pub(crate) fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// The patterns given by the user that match none of these paths.
    pub(crate) fn unmatched<'a>(&self, paths: impl Iterator<Item = &'a DataPath>) -> Vec<&str> {
        let mut unmatched: BTreeSet<usize> = (self.given_from..self.patterns.len()).collect();
        for path in paths {
            if unmatched.is_empty() {
                break;
            }
            for at in self.globs.matches(path.below(Path::new(""))) {
                unmatched.remove(&at);
            }
        }
        unmatched.into_iter().map(|at| self.patterns[at].as_str()).collect()
    }

    /// Whether the entry at `path` is kept, with everything below it.
    ///
    /// # Errors
    /// [`KeepError::Data`] if a pattern given by the user matches data.
    pub(crate) fn matches(&self, path: &DataPath) -> Result<bool, KeepError> {
        let found = self.globs.matches(path.below(Path::new("")));
        if !is_data(path) {
            return Ok(!found.is_empty());
        }
        match found.into_iter().find(|&at| at >= self.given_from) {
            Some(at) => Err(KeepError::Data { glob: self.patterns[at].clone(), path: path.to_string() }),
            None => Ok(false),
        }
    }
}

/// Whether the path holds data of the server, or a file that the rewind itself depends on.
pub(crate) fn is_data(path: &DataPath) -> bool {
    let first = path.parts().next().unwrap_or_default();
    let is_server_directory = (first.starts_with(b"pg_") || first.starts_with(b"sys_"))
        && !first.ends_with(b".conf")
        && !first.ends_with(b"_log");
    is_server_directory
        || matches!(
            first,
            b"base" | b"global" | b"PG_VERSION" | b"SYS_VERSION" | b"backup_label" | b"tablespace_map"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps(given: &[&str], path: &str) -> bool {
        let keep = Keep::new(&KeepRules::parse(given).unwrap(), Some(Path::new("my[logs]"))).unwrap();
        keep.matches(&DataPath::parse(path).unwrap()).unwrap()
    }

    #[test]
    fn given_patterns_without_a_match_are_told() {
        let paths = ["extra/own", "scripts", "scripts/a"].map(|path| DataPath::parse(path).unwrap());
        let unmatched = |given: &[&str]| {
            let keep = Keep::new(&KeepRules::parse(given).unwrap(), None).unwrap();
            keep.unmatched(paths.iter()).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(unmatched(&["extra/*", "extra", "scripts/", "other/**"]), ["extra", "other/**"]);
        assert!(unmatched(&[]).is_empty() && unmatched(&["none"]).is_empty());
    }

    #[test]
    fn the_standard_set() {
        for path in [
            "postgresql.conf",
            "postgresql.auto.conf",
            "postgresql.base.conf",
            "kingbase.conf",
            "es_rep.conf",
            "pg_hba.conf",
            "sys_hba.conf",
            "server.key",
            "certs/deep/ca.pem",
            "log",
            "sys_log",
            "my[logs]",
            "included.conf",
            "standby.signal",
            "current_logfiles",
        ] {
            assert!(keeps(&[], path), "{path}");
            assert!(!keeps(&["none"], path), "{path}");
        }
        for path in [
            "PG_VERSION",
            "base",
            "base/5/odd.key",
            "pg_wal",
            "pg_stat/odd.key",
            "logs",
            "sub/log",
            "mylogs",
            "my",
            "extra/postgresql.conf",
            "backup_label",
            "some.config",
        ] {
            assert!(!keeps(&[], path), "{path}");
        }
    }

    #[test]
    fn given_globs_are_added_to_the_standard_set() {
        assert!(keeps(&["some.file", "extra/*"], "some.file") && keeps(&["some.file"], "pg_hba.conf"));
        assert!(keeps(&["extra/*"], "extra/a") && !keeps(&["extra/*"], "extra/a/b"));
        assert!(keeps(&["extra/**"], "extra/a/b") && keeps(&["extra/"], "extra"));
        assert!(!keeps(&["x", "none", "y"], "x") && keeps(&["x", "none", "y"], "y"));
    }

    #[test]
    fn data_cannot_be_kept() {
        for glob in ["*", "**", "base", "base/*", "**/1259", "global/**", "pg_*", "{log,pg_xact}", "pg_wal/"]
        {
            let error = KeepRules::parse(&[glob]).unwrap_err();
            assert!(matches!(error, KeepError::Data { .. }), "{glob}: {error}");
        }
        assert!(matches!(KeepRules::parse(&["a[b"]), Err(KeepError::Syntax { .. })));
        // A match that is found only with the list of files.
        let keep = Keep::new(&KeepRules::parse(&["base/16402/*"]).unwrap(), None).unwrap();
        assert!(keep.matches(&DataPath::parse("base/16402/2619").unwrap()).is_err());
        assert!(
            Keep::again(keep.patterns()).unwrap().matches(&DataPath::parse("base/16402/1").unwrap())
                == Ok(false)
        );
    }
}
