//! Databases that the source copied file by file, and that replay would copy again.

use walparse::{DatabaseDir, Effect, FileEvent, FileEventKind, Lsn, Relation, WalReadError, WalReader, rmgr};

use crate::survey::content::{ContentError, Since};
use crate::survey::error::SurveyError;
use crate::wal::error::WalError;
use crate::wal::replay::ReplayWal;

/// Checks that replay from `start` copies no database from files that have changed since the source copied them.
///
/// Replay of such a record copies the directory as it is at that time on the rewound target, and that is as the
/// source has it now (`dbase_redo`).
///
/// # Errors
/// A copied directory has changed since, or the source's WAL could not be read.
pub(super) fn check_copied_databases(
    wal: &ReplayWal<'_>,
    since: &Since<'_>,
    start: Lsn,
) -> Result<(), SurveyError> {
    for event in since.replayed_from(start) {
        let FileEventKind::CopyDatabase { to, from } = event.kind else { continue };
        if is_changed(wal, event, from)? {
            return Err(ContentError::CopiedDatabase { lsn: event.lsn, from, to }.into());
        }
    }
    Ok(())
}

/// Whether a record after `event` concerns a file of the directory.
fn is_changed(wal: &ReplayWal<'_>, event: &FileEvent, directory: DatabaseDir) -> Result<bool, WalError> {
    let geometry = wal.source.geometry;
    let mut reader = WalReader::new(wal, geometry, event.lsn);
    let mut blocks = Vec::new();
    while let Ok(record) = reader.read()? {
        if record.end <= event.end {
            continue;
        }
        let payload = record
            .decode(&geometry, &mut blocks)
            .map_err(|source| WalReadError::Undecodable { lsn: record.lsn, source })?;
        // An image that was logged for hint bits only changes no content.
        if !rmgr::is_hint_image(&record.header)
            && blocks.iter().any(|block| is_in(directory, &block.relation))
        {
            return Ok(true);
        }
        let effect = Effect::of(&record.header, payload.main_data, geometry.version);
        if effect.is_some_and(|effect| concerns(&effect, directory)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_in(directory: DatabaseDir, relation: &Relation) -> bool {
    (relation.tablespace, relation.database) == (directory.tablespace, directory.database)
}

fn concerns(effect: &Effect, directory: DatabaseDir) -> bool {
    match effect {
        Effect::CreateRelation { relation, .. } | Effect::TruncateRelation { relation, .. } => {
            is_in(directory, relation)
        }
        Effect::Finish(finish) => finish.dropped.iter().any(|relation| is_in(directory, relation)),
        Effect::CopyDatabase { to, .. } | Effect::CreateDatabase(to) => *to == directory,
        Effect::DropDatabase(directories) => directories.contains(&directory),
        Effect::UpdateRelationMap(of) => *of == directory,
        _ => false,
    }
}
