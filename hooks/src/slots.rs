//! Physical replication slots, on a running server and in the data directory of a stopped one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::files::{self, file_error};
use crate::flow::StepError;
use crate::server::LocalServer;
use crate::sql::{Server, literal};

/// Offset of `ReplicationSlotPersistentData.database` in a slot's state file (slot.c, slot.h; unchanged from 9.6 to 19rc1).
/// Four `uint32` and the name precede it. Only a logical slot has a database.
const DATABASE: usize = 16 + 64;

/// Creates a physical slot on a server if it does not exist.
pub(crate) fn create(server: &Server, name: &str) -> Result<(), StepError> {
    let name = literal(name);
    let count =
        |prefix: &str| format!("SELECT count(*) FROM {prefix}_replication_slots WHERE slot_name = {name}");
    let found = server.ask_named(count).map_err(|error| StepError::of(&error))?;
    if found.value() != Some("0") {
        return Ok(());
    }
    let create = |prefix: &str| format!("SELECT {prefix}_create_physical_replication_slot({name})");
    server.ask_named(create).map(|_| ()).map_err(|error| StepError::of(&error))
}

/// Removes a slot from the data directory of a stopped server.
///
/// A server does not start if a slot has no state file. So the slot first gets a name by which a server takes it for one
/// whose removal was interrupted, and which it removes when it starts (`StartupReplicationSlots` in slot.c).
pub(crate) fn drop_stopped(server: &LocalServer, name: &str) -> Result<(), StepError> {
    let directory = server.data.join(server.names().slot_dir);
    let (slot, dropped) = (directory.join(name), directory.join(format!("{name}.tmp")));
    // That of an earlier removal that was interrupted.
    remove_tree(&dropped)?;
    fs::rename(&slot, &dropped).map_err(|error| file_error("rename", &slot, &error))?;
    files::sync_directory(&directory)?;
    remove_tree(&dropped)
}

/// Removes what interrupted removals have left of slots in the data directory of a stopped server: directories without a
/// state file, with which a server would not start.
pub(crate) fn finish_drops(server: &LocalServer) -> Result<(), StepError> {
    let directory = server.data.join(server.names().slot_dir);
    for name in slot_directories(&directory)? {
        let state = directory.join(&name).join("state");
        if !state.try_exists().map_err(|error| file_error("read", &state, &error))? {
            drop_stopped(server, &name)?;
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<(), StepError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|error| file_error("remove", path, &error)),
    }
}

/// The names of the physical slots in a data directory.
pub(crate) fn physical(server: &LocalServer) -> Result<BTreeSet<String>, StepError> {
    let directory = server.data.join(server.names().slot_dir);
    let mut names = slot_directories(&directory)?;
    names.retain(|name| {
        // A slot whose state cannot be read could not be created again either.
        let state = fs::read(directory.join(name).join("state")).unwrap_or_default();
        state.get(DATABASE..DATABASE + 4) == Some(&[0; 4])
    });
    Ok(names)
}

/// The directories in the directory of slots that have the name of a slot.
fn slot_directories(directory: &Path) -> Result<BTreeSet<String>, StepError> {
    let failed = |error| file_error("list", directory, &error);
    let mut names = BTreeSet::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_slot_name(&name) && entry.file_type().map_err(failed)?.is_dir() {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Whether a name is valid for a slot.
pub(crate) fn is_slot_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
