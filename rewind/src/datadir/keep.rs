//! Files that are the target's own: neither copied from the source nor removed.
//!
//! A glob is matched against the path below the data directory. `*` and `?` do not match a `/`, `**`
//! does. A directory that matches is kept with all that is in it. What matches and is only on the source
//! does not arrive. Files in which the server keeps its data cannot be kept: a rewind makes them the
//! source's.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::datadir::data_path::DataPath;

/// What a node has for itself, in PostgreSQL's names and in those of KingbaseES.
const STANDARD: &[&str] = &[
    // Configuration, who may connect, what ALTER SYSTEM wrote, and whatever else one of these includes: a server
    // does not start without it.
    "*.conf",
    "conf.d",
    // Keys and certificates, wherever they are.
    "**/*.key",
    "**/*.crt",
    "**/*.crl",
    "**/*.pem",
    // Logs, and the file that names the present one. The configured directory comes to these.
    "log",
    "pg_log",
    "sys_log",
    "current_logfiles",
    // How this node starts. A source that is a standby must not make the target follow the source's primary.
    "standby.signal",
    "recovery.signal",
    "recovery.done",
];

/// Which files are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeepRules {
    has_standard: bool,
    given: Vec<String>,
}

/// Why files cannot be kept.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeepError {
    /// It is no glob.
    #[error("could not understand \"{glob}\" of --keep")]
    Syntax {
        /// What was given.
        glob: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
    /// It would keep data.
    #[error("cannot keep \"{path}\", which --keep \"{glob}\" matches")]
    Data {
        /// What was given.
        glob: String,
        /// What it matches.
        path: String,
    },
}

impl KeepError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            KeepError::Syntax { .. } => "A glob is a path below the data directory with *, ?, [...], {a,b} or **.",
            KeepError::Data { .. } => {
                "A rewind makes the server's data the source's. Give a glob that matches files of this node only."
            }
        }
        .to_owned()
    }
}

impl KeepRules {
    /// Nothing is kept: every file becomes the source's.
    pub fn none() -> KeepRules {
        KeepRules { has_standard: false, given: Vec::new() }
    }

    /// Configuration, keys, logs and how the node starts.
    pub fn standard() -> KeepRules {
        KeepRules { has_standard: true, given: Vec::new() }
    }

    /// What was given, in its order, added to the standard; "none" forgets all that stands before it.
    ///
    /// # Errors
    /// Something is no glob, or matches data.
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

    /// Whether the standard set is part of it.
    pub(crate) fn has_standard(&self) -> bool {
        self.has_standard
    }
}

/// The rules, ready for use.
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    patterns: Vec<String>,
    /// Where those begin that a user gave: only they are wrong if they match data.
    given_from: usize,
    globs: GlobSet,
}

impl Keep {
    /// `log_directory` is that of the target's configuration, if it could be read.
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

    /// The patterns of an earlier run.
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
        Ok(Keep { patterns, given_from, globs })
    }

    /// All patterns, for [`Keep::again`].
    pub(crate) fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether the entry at `path` is kept, with all that may be below it.
    ///
    /// # Errors
    /// What a user gave would keep data.
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

/// Whether the server keeps its data there, or what a rewind itself depends on.
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
    fn what_is_given_comes_to_it() {
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
        // What only the listing shows.
        let keep = Keep::new(&KeepRules::parse(&["base/16402/*"]).unwrap(), None).unwrap();
        assert!(keep.matches(&DataPath::parse("base/16402/2619").unwrap()).is_err());
        assert!(
            Keep::again(keep.patterns()).unwrap().matches(&DataPath::parse("base/16402/1").unwrap())
                == Ok(false)
        );
    }
}
