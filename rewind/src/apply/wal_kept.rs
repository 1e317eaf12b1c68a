//! Whether the source keeps the WAL that a server on the rewound target still needs: from the end of what was copied until
//! the server streams.

use std::path::Path;

use walparse::ControlFile;

use crate::datadir::config::{Configuration, recovery};
use crate::options::{Options, SourceChoice};
use crate::outcome::{WalKept, WalSpan};
use crate::source::{SlotState, Source, SourceError};

/// The name that is proposed for a slot.
const SLOT: &str = "rewound_standby";

/// The source, and what it was asked before the first change.
pub(crate) struct Asked<'a> {
    pub(crate) source: &'a dyn Source,
    /// The bytes of WAL that it keeps by a setting, if that is known.
    pub(crate) kept: Option<u64>,
}

/// What keeps the WAL after `replay`, which has been copied to the target. `root` is the target's data directory, `control`
/// the source's control file. `None` if the source is stopped, or what is asked for cannot be found out.
pub(crate) fn wal_kept(
    options: &Options,
    root: &Path,
    control: &ControlFile,
    asked: &Asked<'_>,
    replay: &WalSpan,
) -> Option<WalKept> {
    if matches!(options.source, SourceChoice::Directory(_)) {
        return None;
    }
    let configuration = recovery::configuration(root, control.version(), options.config_file.as_deref());
    let found = find(configuration.ok().as_ref(), control, asked, replay);
    found.unwrap_or_else(|error| {
        tracing::debug!("could not ask the source whether it keeps WAL: {error}");
        None
    })
}

/// `configuration` is that of the target's recovery, if it is found.
fn find(
    configuration: Option<&Configuration>,
    control: &ControlFile,
    asked: &Asked<'_>,
    replay: &WalSpan,
) -> Result<Option<WalKept>, SourceError> {
    let size = control.geometry().segment_size;
    let setting = |name: &str| configuration?.get(name).filter(|value| !value.is_empty());
    let slot = setting("primary_slot_name");
    if let Some(name) = slot {
        // A server asks for whole segments, and a slot keeps whole ones.
        let needed = size.segment_before(replay.end);
        match asked.source.replication_slot(name)? {
            None => return Ok(None),
            Some(SlotState::Physical { restart_lsn: Some(kept), .. }) if size.segment_of(kept) <= needed => {
                return Ok(Some(WalKept::Slot { name: name.to_owned() }));
            }
            _ => {}
        }
    }
    let Some(kept) = asked.kept else { return Ok(None) };
    // While the copied WAL is replayed the source is expected to write no more than as much.
    let needed = replay.end.0.saturating_sub(replay.start.0).max(size.bytes());
    if kept >= needed {
        return Ok(Some(WalKept::Setting { bytes: kept }));
    }
    if setting("restore_command").is_some() {
        return Ok(Some(WalKept::Archive));
    }
    let prefix = control.version().names().prefix;
    let name = slot.unwrap_or(SLOT);
    let command =
        format!("SELECT {prefix}create_physical_replication_slot('{}', true)", name.replace('\'', "''"));
    Ok(Some(WalKept::Nothing { command, slot: name.to_owned(), is_named: slot.is_some() }))
}

#[cfg(test)]
mod tests {
    use walparse::control::testing::ControlFields;
    use walparse::{Lsn, TimelineId, Version};

    use super::*;
    use crate::datadir::data_path::DataPath;
    use crate::datadir::inventory::Inventory;
    use crate::source::{ChunkSink, Comparand, FetchError, FetchRange, WalPosition};

    /// A server with one slot.
    struct Server(SlotState);

    impl Source for Server {
        fn name(&self) -> String {
            "server".into()
        }
        fn replication_slot(&self, _: &str) -> Result<Option<SlotState>, SourceError> {
            Ok(Some(self.0))
        }
        fn control_file(&self) -> Result<ControlFile, SourceError> {
            unreachable!()
        }
        fn read_file(&self, _: &DataPath) -> Result<Option<Vec<u8>>, SourceError> {
            unreachable!()
        }
        fn list(&self) -> Result<Inventory, SourceError> {
            unreachable!()
        }
        fn list_wal(&self) -> Result<Vec<(String, u64)>, SourceError> {
            unreachable!()
        }
        fn archive(&self) -> Result<Option<Vec<(String, u64)>>, SourceError> {
            unreachable!()
        }
        fn read_archived(&self, _: &str) -> Result<Option<Vec<u8>>, SourceError> {
            unreachable!()
        }
        fn position(&self) -> Result<WalPosition, SourceError> {
            unreachable!()
        }
        fn fetch(&self, _: &[DataPath], _: &[FetchRange], _: &dyn ChunkSink) -> Result<(), FetchError> {
            unreachable!()
        }
        fn compare(
            &self,
            _: &[DataPath],
            _: &[FetchRange],
            _: u32,
            _: &dyn Comparand,
        ) -> Result<(), FetchError> {
            unreachable!()
        }
    }

    /// What keeps the WAL from 0/5000100 on, if 32 MB before it are replayed.
    fn kept(configuration: &str, slot: SlotState, kept: u64) -> WalKept {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("postgresql.conf"), configuration).unwrap();
        let version = Version::all().find(|version| version.name() == "15").unwrap();
        let configuration = recovery::configuration(directory.path(), version, None).unwrap();
        let control = ControlFile::parse(&ControlFields::clean(version).build()).unwrap();
        let replay = WalSpan {
            start: Lsn(0x300_0100),
            start_file: String::new(),
            end: Lsn(0x500_0100),
            end_timeline: TimelineId(2),
            end_file: String::new(),
        };
        find(Some(&configuration), &control, &Asked { source: &Server(slot), kept: Some(kept) }, &replay)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_slot_a_setting_or_an_archive_keeps_wal() {
        let slot = |lsn| SlotState::Physical { is_active: false, restart_lsn: lsn };
        let named = "primary_slot_name = 'node_a'";
        assert_eq!(kept(named, slot(Some(Lsn(0x500_0128))), 0), WalKept::Slot { name: "node_a".into() });
        let nothing = |slot: &str, is_named| WalKept::Nothing {
            command: format!("SELECT pg_create_physical_replication_slot('{slot}', true)"),
            slot: slot.into(),
            is_named,
        };
        for useless in [slot(Some(Lsn(0x600_0000))), slot(None), SlotState::Missing, SlotState::Logical] {
            assert_eq!(kept(named, useless, 0), nothing("node_a", true), "{useless:?}");
        }
        assert_eq!(kept("", slot(Some(Lsn(1))), 0), nothing("rewound_standby", false));
        assert_eq!(kept("", SlotState::Missing, (32 << 20) - 1), nothing("rewound_standby", false));
        assert_eq!(kept("", SlotState::Missing, 32 << 20), WalKept::Setting { bytes: 32 << 20 });
        assert_eq!(kept("restore_command = 'cp a b'", SlotState::Missing, 0), WalKept::Archive);
    }
}
