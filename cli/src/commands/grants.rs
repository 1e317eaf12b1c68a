//! `kbrecover grants`: the SQL that grants a role the privileges to read a source server.

use std::process::ExitCode;

use clap::Args;

use crate::output;
use crate::values::Format;

/// The options of `kbrecover grants`.
#[derive(Args)]
#[command(display_name = "kbrecover", after_help = GRANTS_HELP)]
pub(crate) struct GrantsArgs {
    /// Major version of the source server: 9.6, 10, ... 19
    #[arg(long, value_name = "VERSION", value_parser = server_version, overrides_with = "source_version")]
    pub(crate) source_version: u32,

    /// Role that a rewind will connect as
    #[arg(long, value_name = "NAME", default_value = "rewind_user", overrides_with = "role")]
    pub(crate) role: String,

    /// Format of standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

const GRANTS_HELP: &str = "\
Does not connect to a server. Run the output as a superuser on the primary, in the database that the connection \
string names.";

/// Converts a version, with or without its minor number, to a `server_version_num`.
fn server_version(text: &str) -> Result<u32, String> {
    let major =
        |name: &str| text == name || text.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let known = walparse::Version::all().find(|version| major(version.name()));
    known
        .map(walparse::Version::server_version_num)
        .ok_or_else(|| "must be a PostgreSQL version from 9.6 to 19".to_owned())
}

/// Runs the command.
pub(crate) fn run(args: &GrantsArgs) -> ExitCode {
    let sql = kbrecover_rewind::source::grants(args.source_version, &args.role);
    let text = match args.format {
        Format::Text => sql,
        Format::Json => serde_json::json!({ "role": args.role, "sql": sql }).to_string() + "\n",
    };
    output::print(&text, ExitCode::SUCCESS)
}
