//! Entry points to private parsers, for the fuzz targets. Not part of the library's interface.

use crate::datadir::label::BackupLabel;

/// Parses `text` as a `backup_label`.
pub fn backup_label(text: &[u8]) {
    let _ = BackupLabel::parse(text);
}
