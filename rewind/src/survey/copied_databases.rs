//! Databases that the source copied file by file, and that replay would copy again.

use std::collections::BTreeMap;

use walparse::{
    DatabaseDir, Effect, FileEvent, FileEventKind, Lsn, Relation, SegmentStore, WalGeometry, WalReadError,
    WalReader, rmgr,
};

/// The first of these copies whose template has changed since, if any. `wal` is the source's, to its end.
///
/// Replay of such a record copies the directory as it is at that time on the rewound target, and that is as the
/// source has it now (`dbase_redo`).
///
/// # Errors
/// The WAL could not be read.
pub(crate) fn with_changed_template<'a, S: SegmentStore + ?Sized>(
    wal: &S,
    geometry: WalGeometry,
    events: impl IntoIterator<Item = &'a FileEvent>,
) -> Result<Option<&'a FileEvent>, WalReadError> {
    let mut templates: BTreeMap<DatabaseDir, &FileEvent> = BTreeMap::new();
    for event in events {
        let FileEventKind::CopyDatabase { from, .. } = event.kind else { continue };
        let first = templates.entry(from).or_insert(event);
        if event.lsn < first.lsn {
            *first = event;
        }
    }
    let Some(start) = templates.values().map(|event| event.lsn).min() else { return Ok(None) };
    let mut reader = WalReader::new(wal, geometry, start);
    let mut blocks = Vec::new();
    while let Ok(record) = reader.read()? {
        let payload = record
            .decode(&geometry, &mut blocks)
            .map_err(|source| WalReadError::Undecodable { lsn: record.lsn, source })?;
        let changed = |directory: DatabaseDir| changed_since(&templates, directory, record.end);
        // An image that was logged for hint bits only changes no content.
        let relations = blocks.iter().filter(|_| !rmgr::is_hint_image(&record.header));
        let by_block = relations.map(|block| directory_of(&block.relation)).find_map(changed);
        let effect = || Effect::of(&record.header, payload.main_data, geometry.version);
        let found = by_block.or_else(|| effect().iter().flat_map(directories).find_map(changed));
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The copy of `directory` that is older than a record that ends at `end`.
fn changed_since<'a>(
    templates: &BTreeMap<DatabaseDir, &'a FileEvent>,
    directory: DatabaseDir,
    end: Lsn,
) -> Option<&'a FileEvent> {
    templates.get(&directory).copied().filter(|event| event.end < end)
}

fn directory_of(relation: &Relation) -> DatabaseDir {
    DatabaseDir { tablespace: relation.tablespace, database: relation.database }
}

/// The directories whose files a record creates, removes or truncates.
fn directories(effect: &Effect) -> Vec<DatabaseDir> {
    match effect {
        Effect::CreateRelation { relation, .. } | Effect::TruncateRelation { relation, .. } => {
            vec![directory_of(relation)]
        }
        Effect::Finish(finish) => finish.dropped.iter().map(directory_of).collect(),
        Effect::CopyDatabase { to, .. } => vec![*to],
        Effect::CreateDatabase(directory) | Effect::UpdateRelationMap(directory) => vec![*directory],
        Effect::DropDatabase(directories) => directories.clone(),
        _ => Vec::new(),
    }
}
