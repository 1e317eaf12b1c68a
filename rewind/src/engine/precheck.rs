//! Everything that can fail is checked before the first change: whether files and directories of the target can be
//! written, whether there is enough free space, and whether the source's server can read its files.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::space;
use crate::apply::save_diverged::Saving;
use crate::causes::with_causes;
use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::EntryKind;
use crate::datadir::keep::is_data;
use crate::datadir::label::label_path;
use crate::datadir::server::control_path;
use crate::options::{Options, SpaceCheck};
use crate::outcome::SpaceNeed;
use crate::plan::Planned;
use crate::shown::Size;
use crate::source::{ChunkSink, FetchRange, Source, SourceError};
use crate::target::journal::NewJournal;
use crate::target::{Target, TargetError};

/// Why the rewind cannot be done. The target is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrecheckError {
    /// A file or directory of the target cannot be written, created or removed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A file of the source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file system has too little free space.
    #[error("not enough free space: {}", shortage_list(shortages))]
    NoSpace {
        /// These file systems, with the space needed and available.
        shortages: Vec<SpaceNeed>,
    },
}

impl PrecheckError {
    /// A hint for the operator: what to do next, if there is anything to suggest.
    pub fn hint(&self) -> Option<String> {
        match self {
            PrecheckError::Target(error) => Some(error.hint()),
            PrecheckError::Source(error) => error.hint(),
            PrecheckError::NoSpace { .. } => Some(
                "Free space there. The space of files that the rewind removes is not counted, because they are removed last. To skip this check, use --ignore-free-space."
                    .to_owned(),
            ),
        }
    }
}

/// Space needed and available on each of these file systems.
fn shortage_list(shortages: &[SpaceNeed]) -> String {
    let one = |short: &SpaceNeed| {
        let (needed, free) = (Size(short.needed), Size(short.available));
        format!("the file system of \"{}\" needs {needed} and has {free}", short.directory.display())
    };
    shortages.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Checks everything that can fail, and returns the space needed on each file system.
///
/// # Errors
/// The error that the rewind would fail with.
pub(crate) fn precheck(
    options: &Options,
    target: &Target,
    source: &dyn Source,
    planned: &Planned<'_>,
    journal: &NewJournal<'_>,
    saving: Option<&Saving>,
) -> Result<Vec<SpaceNeed>, PrecheckError> {
    check_target(target, planned)?;
    planned.facts.external.check()?;
    check_source(source, planned)?;
    let saved = saving.map(|saving| saving.need(planned));
    let needs = match space::needs(target.root(), planned, journal.size(), saved) {
        Err(error) if error.action == space::READ_FREE_SPACE => {
            tracing::warn!("the free space is not checked: {}", with_causes(&error));
            Vec::new()
        }
        needs => needs?,
    };
    let shortages = space::shortages(&needs);
    if !shortages.is_empty() {
        let error = PrecheckError::NoSpace { shortages };
        match options.space {
            SpaceCheck::Enforce => return Err(error),
            SpaceCheck::Ignore => tracing::warn!("{error}"),
        }
    }
    Ok(needs)
}

/// Checks that files can be written, names created and removed, and tablespaces created.
fn check_target(target: &Target, planned: &Planned<'_>) -> Result<(), PrecheckError> {
    let plan = &planned.plan;
    let wal_dir = planned.facts.clusters.target.version().wal_dir();
    let wal = plan.wal.copy.iter().map(|file| &file.name).chain(&plan.wal.elsewhere);
    let wal: Vec<DataPath> =
        wal.filter_map(|name| DataPath::parse(format!("{wal_dir}/{name}")).ok()).collect();
    let sealed = [control_path(planned.facts.clusters.target.version().names()), label_path()];

    let created = plan.create.iter().chain(&plan.remove).map(|(path, _)| path);
    let copied = plan.copy.iter().map(|(path, _)| path);
    let named = created.chain(copied.clone()).chain(&plan.wal.remove).chain(&wal).chain(&sealed);
    let directories: BTreeSet<_> = named.map(DataPath::parent).collect();
    directories.iter().try_for_each(|directory| target.check_directory(directory.as_ref()))?;
    for (_, kind) in &plan.create {
        if let EntryKind::Symlink { target: directory } = kind {
            target.check_tablespace(directory)?;
        }
    }

    let whole = copied.chain(plan.truncate.iter().map(|(path, _)| path));
    let whole = whole.chain(plan.patch.iter().map(|patch| &patch.path));
    let parts = plan.copy_tail.iter().map(|tail| &tail.path).chain(plan.blocks.iter().map(|(path, _)| path));
    let written: Vec<_> = whole.chain(parts).chain(&wal).chain(&sealed).collect();
    written.into_par_iter().try_for_each(|path| target.check_writable(path))?;
    let gone: Vec<_> = plan.remove.iter().map(|(path, _)| path).chain(&plan.wal.remove).collect();
    Ok(gone.into_par_iter().try_for_each(|path| target.check_removable(path))?)
}

/// Reads the first byte of every file to copy that is not part of the server's data: its permissions may keep the
/// source's server from reading it. Of the data one file copied whole and one relation are read, which shows that the
/// role may read files at all. Files that were compared have been read already.
fn check_source(source: &dyn Source, planned: &Planned<'_>) -> Result<(), PrecheckError> {
    let plan = &planned.plan;
    let copied = plan.copy.iter().map(|(path, _)| path);
    let foreign = copied.clone().filter(|path| !is_data(path));
    let data =
        copied.filter(|path| is_data(path)).take(1).chain(plan.blocks.iter().map(|(path, _)| path).take(1));
    let files: Vec<DataPath> = foreign.chain(data).cloned().collect();
    let range = |file| FetchRange { file, offset: 0, length: 1 };
    let ranges: Vec<_> = (0..files.len() as u32).map(range).collect();
    source.fetch(&files, &ranges, &Nothing).map_err(|error| SourceError::from(error).into())
}

/// Discards the bytes. A file that is gone is no error: it need not be copied.
struct Nothing;

impl ChunkSink for Nothing {
    fn write(&self, _: FetchRange, _: Option<&[u8]>) -> std::io::Result<()> {
        Ok(())
    }
}
