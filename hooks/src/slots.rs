//! Physical replication slots, on a running server and in the data directory of a stopped one.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use crate::files::file_error;
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
pub(crate) fn drop_stopped(server: &LocalServer, name: &str) -> Result<(), StepError> {
    let slot = server.data.join(server.names().slot_dir).join(name);
    fs::remove_dir_all(&slot).map_err(|error| file_error("remove", &slot, &error))
}

/// The names of the physical slots in a data directory.
pub(crate) fn physical(server: &LocalServer) -> Result<BTreeSet<String>, StepError> {
    let directory = server.data.join(server.names().slot_dir);
    let mut names = BTreeSet::new();
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries.map_err(|error| file_error("list", &directory, &error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| file_error("list", &directory, &error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // A slot whose state cannot be read could not be created again either.
        let Ok(state) = fs::read(entry.path().join("state")) else { continue };
        if state.get(DATABASE..DATABASE + 4) == Some(&[0; 4]) && is_slot_name(&name) {
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
