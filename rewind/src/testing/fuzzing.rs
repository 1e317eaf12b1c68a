//! A door for the fuzz targets to parsers that are nobody else's business. No part of the library's interface.

use crate::datadir::label::BackupLabel;

/// Reads a `backup_label`.
pub fn backup_label(text: &[u8]) {
    let _ = BackupLabel::parse(text);
}
