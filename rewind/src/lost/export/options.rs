//! What is exported, and why it may fail.

use std::io;
use std::path::PathBuf;

use super::filter::LostFilter;
use super::names::LostNameError;
use crate::lost::model::SinkError;

/// What is exported, and what is left out for readers who may not see it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExportOptions {
    /// Columns whose values are written as `***`: `column`, `table.column` or `schema.table.column`. The case of letters
    /// does not matter. `apply.sql` has no rows of their tables.
    pub mask: Vec<String>,
    /// Whether only the columns of keys are written. There is no `apply.sql` then.
    pub no_values: bool,
    /// Transactions and tables that are asked for.
    pub filter: LostFilter,
}

/// Why an export could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The directory cannot be used.
    #[error("cannot export to directory \"{}\": {problem}", path.display())]
    Place {
        /// The directory.
        path: PathBuf,
        /// Why it cannot be used.
        problem: &'static str,
    },
    /// The directory could not be created or read.
    #[error("could not create directory \"{}\"", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name of a table or of a column to be masked cannot be read.
    #[error(transparent)]
    Name(#[from] LostNameError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] SinkError),
}

impl ExportError {
    /// A hint for the operator: what to do next.
    pub fn hint(&self) -> String {
        let hint = match self {
            ExportError::Place { .. } => "Name a directory that is empty or does not exist.",
            ExportError::Create { .. } => {
                "Make sure that its parent directory exists and that this user can write there."
            }
            ExportError::Name(_) => {
                "Write TABLE, SCHEMA.TABLE or DATABASE.SCHEMA.TABLE; for a mask COLUMN, TABLE.COLUMN or SCHEMA.TABLE.COLUMN."
            }
            ExportError::Write(_) => {
                "Make sure that there is enough free space. The files can be read as far as they go."
            }
        };
        hint.to_owned()
    }
}
