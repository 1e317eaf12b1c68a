//! pg_control as pg_controldata shows it, and changed by hand where a scenario needs a wrong one.

use std::collections::BTreeMap;
use std::path::Path;

use super::program::{run, server_program};
use super::wal::Lsn;

/// The lines of pg_controldata.
pub struct ControlData {
    fields: BTreeMap<String, String>,
}

impl ControlData {
    /// Reads the control file of a data directory.
    pub fn of(data: &Path) -> ControlData {
        let output = run(server_program("pg_controldata").arg(data));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        ControlData {
            fields: fields.map(|(name, value)| (name.trim().into(), value.trim().into())).collect(),
        }
    }

    /// One field, by the name pg_controldata gives it.
    pub fn get(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("pg_controldata shows no \"{name}\""))
    }

    /// A field that is an LSN.
    pub fn lsn(&self, name: &str) -> Lsn {
        self.get(name).parse().unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

/// Offset of the checksum in version 15's control file, and of the two fields scenarios change.
const CRC: usize = 288;
/// `system_identifier`, 8 bytes.
pub const SYSTEM_IDENTIFIER: usize = 0;
/// `pg_control_version`, 4 bytes.
pub const PG_CONTROL_VERSION: usize = 8;

/// Overwrites bytes of a control file and makes its checksum right again.
pub fn patch_control_file(data: &Path, offset: usize, bytes: &[u8]) {
    let path = data.join("global/pg_control");
    let mut content = std::fs::read(&path).expect("read pg_control");
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&content[..CRC]);
    content[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, content).expect("write pg_control");
}

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), bit by bit: 288 bytes are no load.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1)))
    })
}
