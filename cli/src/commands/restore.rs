//! `kbrecover restore`: a data directory as it was before a rewind.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use kbrecover_rewind::{RestoreRequest, Restored, Size};

use crate::commands::common::ShownArgs;
use crate::failure::Failed;
use crate::faults;
use crate::logging;
use crate::output;
use crate::persona::KBRECOVER;
use crate::screen::{Kind, Screen};
use crate::signals;
use crate::values::Format;

const AFTER_HELP: &str = "\
With --keep-diverged-blocks a rewind saves what it overwrites and removes. The rest is taken from the rewound directory, and so this \
must come before a server is started on it. With --keep-diverged-all the rewind saves everything, and the rewound directory is not \
needed.

Start the restored directory alone: on another port, without its archive_command, and without clients that take it for the primary.";

/// The options of `kbrecover restore`.
#[derive(Args)]
#[command(display_name = "kbrecover", after_help = AFTER_HELP)]
pub(crate) struct RestoreArgs {
    /// Directory that a rewind has made with --keep-diverged and --keep-diverged-blocks or --keep-diverged-all
    #[arg(value_name = "DIR")]
    kept: PathBuf,

    /// Directory to restore to, which must not exist or be empty
    #[arg(long, value_name = "NEWDIR", overrides_with = "to")]
    to: PathBuf,

    /// The rewound data directory, if it is not where it was
    #[arg(short = 'D', long, value_name = "REWOUND", overrides_with = "target_data")]
    #[arg(visible_alias = "target-pgdata", visible_alias = "target-kingbase-data")]
    target_data: Option<PathBuf>,

    /// Restore the tablespace in directory OLDDIR to NEWDIR; may be repeated
    #[arg(short = 'T', long, value_name = "OLDDIR=NEWDIR", value_parser = tablespace_mapping)]
    tablespace_mapping: Vec<(PathBuf, PathBuf)>,

    #[command(flatten)]
    shown: ShownArgs,

    /// Format of standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Two directories with an equals sign between them; `\=` is one that belongs to a name, as for pg_basebackup.
fn tablespace_mapping(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let is_separator = |at: &usize| !text[..*at].ends_with('\\');
    let places: Vec<usize> = text.match_indices('=').map(|(at, _)| at).filter(is_separator).collect();
    let [at] = places[..] else { return Err("must be OLDDIR=NEWDIR".to_owned()) };
    let directory = |part: &str| PathBuf::from(part.replace("\\=", "="));
    let (old, new) = (directory(&text[..at]), directory(&text[at + 1..]));
    match old.is_absolute() && new.is_absolute() {
        true => Ok((old, new)),
        false => Err("both directories must be absolute".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn run(args: &RestoreArgs) -> ExitCode {
    let screen = Arc::new(Screen::of(KBRECOVER));
    logging::init(Arc::clone(&screen), args.shown.verbosity());
    match restore(args, &screen) {
        Ok(restored) => {
            for path in &restored.left_out {
                screen.message(Kind::Warning, &format!("\"{path}\" was not a file, and is not restored"));
            }
            let shown = match args.format {
                Format::Text => text(&restored, args),
                Format::Json => json(&restored, args),
            };
            output::print(&shown, ExitCode::SUCCESS)
        }
        Err(failed) => failed.show(&screen),
    }
}

fn restore(args: &RestoreArgs, screen: &Arc<Screen>) -> Result<Restored, Failed> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let mut request = RestoreRequest::new(absolute(&args.kept), absolute(&args.to));
    request.rewound = args.target_data.as_ref().map(absolute);
    request.tablespace_mapping = args.tablespace_mapping.clone();
    request.observer = faults::from_environment();
    signals::listen(&request.stop, &request.to, screen)?;
    Ok(kbrecover_rewind::restore(&request)?)
}

fn text(restored: &Restored, args: &RestoreArgs) -> String {
    let to = args.to.display();
    let Restored { files, bytes, from_rewound, .. } = restored;
    format!(
        "restored {files} files with {} in \"{to}\", {} of them from the rewound directory\n",
        Size(*bytes),
        Size(*from_rewound)
    )
}

/// One JSON object and a newline.
fn json(restored: &Restored, args: &RestoreArgs) -> String {
    let object = serde_json::json!({
        "directory": args.to.display().to_string(),
        "files": restored.files,
        "bytes": restored.bytes,
        "bytes_from_rewound": restored.from_rewound,
        "left_out": restored.left_out,
    });
    object.to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_has_two_directories() {
        let mapping = |old: &str, new: &str| Ok((PathBuf::from(old), PathBuf::from(new)));
        assert_eq!(tablespace_mapping("/a=/b"), mapping("/a", "/b"));
        assert_eq!(tablespace_mapping(r"/a\=b=/c\=="), Err("must be OLDDIR=NEWDIR".to_owned()));
        assert_eq!(tablespace_mapping(r"/a\=b=/c\="), mapping("/a=b", "/c="));
        for wrong in ["", "/a", "/a=", "a=/b", "/a=b", "/a=/b=/c"] {
            assert!(tablespace_mapping(wrong).is_err(), "{wrong}");
        }
    }
}
