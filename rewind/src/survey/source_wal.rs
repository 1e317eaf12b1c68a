//! What the source has written since the fork: its WAL is read before the target is marked.

use walparse::{DatabaseDir, Effect, FileEventKind, Lsn, WalReadError, WalReader, rmgr};

use crate::survey::content::{ContentError, Since};
use crate::survey::error::SurveyError;
use crate::wal::error::WalError;
use crate::wal::replay::ReplayWal;

/// Checks that replay copies no database from files that have changed since the source copied them.
///
/// Replay of such a record copies the directory as it is at that time on the rewound target, and that is as the
/// source has it now (`dbase_redo`).
pub(super) fn check_copied_databases(wal: &ReplayWal<'_>, since: &Since<'_>) -> Result<(), SurveyError> {
    for event in since.replayed() {
        let FileEventKind::CopyDatabase { to, from } = event.kind else { continue };
        if is_changed(wal, event.lsn, event.end, from)? {
            return Err(ContentError::CopiedDatabase { lsn: event.lsn, from, to }.into());
        }
    }
    Ok(())
}

/// Whether a record after the one from `lsn` to `end` concerns a file of the directory.
fn is_changed(wal: &ReplayWal<'_>, lsn: Lsn, end: Lsn, directory: DatabaseDir) -> Result<bool, WalError> {
    let geometry = wal.source.geometry;
    let mut reader = WalReader::new(wal, geometry, lsn);
    let mut blocks = Vec::new();
    let is_in = |relation: &walparse::Relation| {
        (relation.tablespace, relation.database) == (directory.tablespace, directory.database)
    };
    while let Ok(record) = reader.read()? {
        if record.end <= end {
            continue;
        }
        let payload = record
            .decode(&geometry, &mut blocks)
            .map_err(|source| WalReadError::Undecodable { lsn: record.lsn, source })?;
        // An image that was logged for hint bits only changes no content.
        if !rmgr::is_hint_image(&record.header) && blocks.iter().any(|block| is_in(&block.relation)) {
            return Ok(true);
        }
        let concerns = match Effect::of(&record.header, payload.main_data, geometry.version) {
            Some(Effect::CreateRelation { relation, .. } | Effect::TruncateRelation { relation, .. }) => {
                is_in(&relation)
            }
            Some(Effect::Finish(finish)) => finish.dropped.iter().any(is_in),
            Some(Effect::CopyDatabase { to, .. } | Effect::CreateDatabase(to)) => to == directory,
            Some(Effect::DropDatabase(directories)) => directories.contains(&directory),
            Some(Effect::UpdateRelationMap(of)) => of == directory,
            _ => false,
        };
        if concerns {
            return Ok(true);
        }
    }
    Ok(false)
}
