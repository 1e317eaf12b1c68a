//! Names and types without a server: the catalogs of a database as its files and WAL have them.
//!
//! A block of a catalog that WAL names is followed through the WAL, all others are read from disk. All versions of each row are
//! kept: a row that was changed before a table was renamed, altered or dropped gets the name and columns of its time.

mod database;
mod history;
mod layout;
mod map;
mod reader;

pub(super) use database::{Change, Class, Database, Databases, find_databases};
pub(super) use history::Moment;
pub(super) use map::parse as relation_map;
pub(super) use reader::FIRST_USER_OID;
