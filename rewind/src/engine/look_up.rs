//! Asks a running source what it has in the place of lost rows. It only reads.

use std::time::Duration;

use crate::conninfo::Conninfo;
use crate::lost::export::{LookUp, NotTold};
use crate::options::{Options, SourceChoice};
use crate::source::{SourceError, ask};

/// How long one query may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Asks the source, if it is a running server.
pub(super) fn look_up(options: &Options) -> Option<LookUp<'_>> {
    let SourceChoice::Server(conninfo) = &options.source else { return None };
    Some(Box::new(move |database, query| {
        options.stop.check().map_err(|_| NotTold::Stopped)?;
        let conninfo: Conninfo = conninfo.with_database(database);
        ask(&conninfo, query, LIMIT).map(|answer| answer.rows).map_err(|error| not_told(&error))
    }))
}

/// The system identifier of the source, if it is a running server; or why it is not known.
pub(super) fn system_identifier(options: &Options) -> Option<Result<String, String>> {
    let SourceChoice::Server(conninfo) = &options.source else { return None };
    let answer = ask(conninfo, "SELECT system_identifier FROM pg_catalog.pg_control_system()", LIMIT);
    Some(match answer {
        Ok(answer) => match answer.rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()) {
            Some(found) => Ok(found),
            None => Err("it does not tell its system identifier".to_owned()),
        },
        Err(error) => Err(error.with_reasons().to_string()),
    })
}

/// Why the source does not tell. The server's own text may have values in it, which not everyone may see.
fn not_told(error: &SourceError) -> NotTold {
    let table = |why: &str| NotTold::Table(why.to_owned());
    match error.sqlstate() {
        Some("42501") => table("permission denied: SELECT on it and USAGE on its schema are needed"),
        Some("42P01" | "3F000") => table("it is not there"),
        Some("42703" | "42883" | "42704" | "42804") => table("its columns are not the same there"),
        Some("57014" | "55P03") => table("the query was cancelled"),
        Some("3D000") => NotTold::Database("it is not there".to_owned()),
        Some("28000" | "28P01") => NotTold::Database("the login there was refused".to_owned()),
        Some(code) => NotTold::Table(format!("the query failed with SQLSTATE {code}")),
        None if matches!(error, SourceError::Silent { .. }) => table("the query took too long"),
        None => NotTold::Database("the connection failed".to_owned()),
    }
}
