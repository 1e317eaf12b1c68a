//! `kbrecover rewind`: passes the options to the engine and shows its outcome.

mod args;

use std::num::NonZeroU64;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kbrecover_hooks::SingleUserServer;
use kbrecover_rewind::{
    ContentError, DataDirectoryError, KeepDiverged, KeepRoot, KeepRules, Mode, OlderSource, Options, Outcome,
    PreflightError, RebuiltBlocks, RecoveryConf, ReplayFrom, RewindError, SameTimeline, SourceChoice,
    SpaceCheck, SurveyError, SyncChoice, UncleanTarget,
};

#[cfg(test)]
pub(crate) use args::DeltaChoice;
use args::SyncMethod;
pub(crate) use args::{ReplayFromChoice, RewindArgs, positive, rate};

use crate::commands::common;
use crate::failure::{Failed, SetupError};
use crate::faults;
use crate::logging;
use crate::output;
use crate::owner::adopt_owner_of;
use crate::persona::{Narration, Persona};
use crate::progress;
use crate::report;
use crate::screen::{self, Kind, Screen};
use crate::signals;
use crate::values::Format;

/// Runs the command and reports its outcome.
pub(crate) fn run(args: &RewindArgs, persona: &'static Persona) -> ExitCode {
    let screen = Arc::new(Screen::of(persona));
    logging::init(Arc::clone(&screen), args.shown.verbosity());
    let started = Timestamp::now();
    match rewind(args, &screen) {
        Ok(outcome) => {
            let zone = TimeZone::system();
            let mut lines = report::closing_lines(&outcome, persona.narration, &zone);
            let last = lines.pop();
            lines.iter().for_each(|line| screen.message(Kind::Info, line));
            last.iter().for_each(|line| screen.message(Kind::Success, line));
            let target = args.target_data.as_deref().unwrap_or(Path::new(""));
            let result = match (args.format, persona.narration) {
                (Format::Json, _) => Some(report::json::of_outcome(&outcome)),
                (Format::Text, Narration::Kbrecover) => {
                    report::plan_text(&outcome, &target.display().to_string(), &zone)
                }
                // pg_rewind and sys_rewind print no plan.
                (Format::Text, _) => None,
            };
            let result = result.unwrap_or_default();
            let status = match outcome {
                Outcome::Rewound(_) => {
                    output::print_report(&screen, &result);
                    ExitCode::SUCCESS
                }
                _ => output::print(&result, ExitCode::SUCCESS),
            };
            if persona.narration == Narration::Kbrecover {
                let lines = report::next_steps::next_steps(&outcome, target);
                lines.iter().for_each(|(kind, text)| screen.message(*kind, text));
            }
            status
        }
        Err(failed) => {
            if args.format == Format::Json {
                screen::to_stdout(&report::json::of_failure(&failed, persona, started, Timestamp::now()));
            }
            failed.show(&screen)
        }
    }
}

fn rewind(args: &RewindArgs, screen: &Arc<Screen>) -> Result<Outcome, Failed> {
    let options = options(args, screen.persona())?;
    adopt_owner_of(&options.target)?;
    signals::listen(&options.stop, &options.target, screen)?;
    let progress = progress::progress(screen, args.shown.narrator(screen, false));
    kbrecover_rewind::run(&options, &*progress).map_err(|failure| {
        let may_be_swapped = args.source_data.is_some() && may_be_swapped(&failure.error);
        let mut failed = Failed::from(failure);
        if may_be_swapped && screen.persona().narration == Narration::Kbrecover {
            let hint = failed.hint.map_or_else(String::new, |hint| hint + " ");
            failed.hint = Some(hint + SWAPPED);
        }
        failed
    })
}

const SWAPPED: &str = "Or are -D and --source-data swapped? -D is the old primary, which will be changed.";

/// Whether an error is one that exchanging the two directories leads to: the new primary runs, the old one has crashed, and
/// its timeline is the older one.
fn may_be_swapped(error: &RewindError) -> bool {
    let RewindError::Survey(error) = error else { return false };
    match error {
        SurveyError::Content(ContentError::OlderSource { .. })
        | SurveyError::Preflight(PreflightError::SourceNotClean { .. }) => true,
        SurveyError::DataDirectory(error) | SurveyError::Preflight(PreflightError::DataDirectory(error)) => {
            matches!(error, DataDirectoryError::Running { .. } | DataDirectoryError::ServerProcess { .. })
        }
        _ => false,
    }
}

/// The source that the options name.
fn source(args: &RewindArgs, persona: &Persona) -> Result<SourceChoice, SetupError> {
    let (directory, server) = (args.source_data.as_deref(), args.source_server.as_deref());
    if directory.is_some() && server.is_none() && args.write_recovery_conf {
        return Err(SetupError::NoServerForRecoveryConf);
    }
    common::source(directory, server, &persona.environment, "kbrecover rewind")
}

/// The engine's options.
///
/// # Errors
/// Options that are missing, contradict each other or cannot be parsed.
fn options(args: &RewindArgs, persona: &Persona) -> Result<Options, SetupError> {
    let source = source(args, persona)?;
    let target = args.target_data.clone().ok_or(SetupError::NoTarget)?;
    let server = || {
        let mut server = SingleUserServer::default();
        server.bindir.clone_from(&args.bindir);
        server.config_file.clone_from(&args.config_file);
        server
    };
    let unclean_target = match (args.ensure_shutdown, args.no_ensure_shutdown) {
        (true, _) => UncleanTarget::Recover(Arc::new(server())),
        (false, true) => UncleanTarget::Refuse,
        (false, false) => UncleanTarget::Accept,
    };
    let mut options = Options::new(target, source);
    options.flavor = args.flavor.clone();
    options.retry_timeout = Duration::from_secs(args.retry_timeout);
    options.mode = match (args.check, args.dry_run) {
        (true, _) => Mode::Check,
        (false, true) => Mode::DryRun,
        (false, false) => Mode::Rewind,
    };
    options.need = persona.need;
    options.same_timeline = match args.same_timeline_resync {
        true => SameTimeline::Resync,
        false => persona.same_timeline,
    };
    options.older_source = match args.allow_older_source {
        true => OlderSource::Allow,
        false => persona.older_source,
    };
    options.recovery_conf = match args.write_recovery_conf {
        true => RecoveryConf::Write(persona.written_password),
        false => RecoveryConf::Leave,
    };
    options.replication_login = persona.replication_login;
    options.keep = KeepRules::parse(&args.keep)?;
    options.missing_wal =
        common::missing_wal(&args.wal_dir, args.restore_command.as_deref(), args.restore_target_wal);
    options.config_file = args.config_file.clone();
    options.space = if args.ignore_free_space { SpaceCheck::Ignore } else { SpaceCheck::Enforce };
    options.keep_diverged = args.keep_diverged.clone().map(|directory| {
        let mut kept = KeepDiverged::new(directory, args.keep_diverged_blocks);
        kept.all = args.keep_diverged_all;
        kept
    });
    options.keep_root = keep_root(args);
    options.max_lost_transactions = args.max_lost_transactions;
    options.archive_ready = args.archive_ready;
    options.replay_from = match args.replay_from {
        ReplayFromChoice::Auto => ReplayFrom::Auto,
        ReplayFromChoice::Common => ReplayFrom::Common,
        ReplayFromChoice::Newest => ReplayFrom::Newest,
    };
    options.compare_data = args.compare_data.into();
    options.verify = args.verify;
    options.checkpoint_source = args.checkpoint_source;
    options.rebuilt_blocks = if args.copy_all_changed { RebuiltBlocks::Copy } else { RebuiltBlocks::Leave };
    options.sync = match args.sync_method {
        _ if args.no_sync => SyncChoice::Off,
        SyncMethod::Fsync => SyncChoice::Fsync,
        SyncMethod::Syncfs => SyncChoice::Syncfs,
    };
    options.jobs = args.jobs;
    options.delta = args.delta.into();
    options.max_rate = args.max_rate;
    options.unclean_target = unclean_target;
    options.observer = faults::from_environment();
    Ok(options)
}

/// Where discarded data of many rewinds is saved, if anywhere.
fn keep_root(args: &RewindArgs) -> Option<KeepRoot> {
    let mut root = KeepRoot::new(args.keep_diverged_root.clone()?);
    root.blocks = args.keep_diverged_blocks;
    root.all = args.keep_diverged_all;
    root.most = Some(args.keep_diverged_most);
    root.days = args.keep_diverged_days;
    root.bytes = args.keep_diverged_size.and_then(|size| NonZeroU64::new(size.get().saturating_mul(1 << 20)));
    Some(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbrecover_rewind::conninfo::WrittenPassword;
    use kbrecover_rewind::{Delta, RestoreCommand};

    use super::args::rewind_args;
    use crate::persona::KBRECOVER;

    fn of(arguments: &str) -> Result<Options, SetupError> {
        options(&rewind_args(arguments), KBRECOVER)
    }

    #[test]
    fn contradictory_options_are_refused_in_the_words_of_pg_rewind() {
        for (arguments, message) in [
            ("-D /d", "no source specified (--source-data or --source-server)"),
            (
                "-D /d --source-data /s --source-server x",
                "only one of --source-data or --source-server can be specified",
            ),
            ("--source-data /s", "no target data directory specified (--target-data)"),
            (
                "-D /d --source-data /s -R",
                "no source server information (--source-server) specified for --write-recovery-conf",
            ),
        ] {
            let failed = Failed::from(of(arguments).unwrap_err());
            assert_eq!(failed.message, message);
            assert_eq!(failed.hint.as_deref(), Some("Try \"kbrecover rewind --help\" for more information."));
            assert_eq!(failed.status(KBRECOVER), 1);
        }
        let failed = Failed::from(of("-D /d --source-data /s --keep base/*").unwrap_err());
        assert_eq!(failed.message, "cannot keep \"base/1\", which --keep \"base/*\" matches");
        let failed = Failed::from(of("-D /d --source-server host").unwrap_err());
        assert_eq!(failed.message, "missing \"=\" after \"host\" in connection info string");
    }

    #[test]
    fn options_are_passed_to_the_engine() {
        let plain = of("-D /d --source-data /s").unwrap();
        assert_eq!((plain.mode, plain.recovery_conf), (Mode::Rewind, RecoveryConf::Leave));
        assert_eq!((plain.sync, plain.jobs), (SyncChoice::Fsync, None));
        assert_eq!(plain.retry_timeout, Duration::from_secs(60));
        assert_eq!((plain.rebuilt_blocks, plain.checkpoint_source), (RebuiltBlocks::Leave, false));
        assert_eq!((plain.delta, plain.max_rate), (Delta::Auto, None));
        assert_eq!(plain.missing_wal.restore_command, RestoreCommand::Off);
        assert_eq!(
            (plain.space, of("-D /d --source-data /s --check -n").unwrap().mode),
            (SpaceCheck::Enforce, Mode::Check)
        );
        assert_eq!(plain.keep, KeepRules::standard());
        assert!(matches!(plain.unclean_target, UncleanTarget::Accept) && plain.config_file.is_none());
        assert!(matches!(plain.source, SourceChoice::Directory(path) if path == Path::new("/s")));

        let all = of(
            "-D /d --source-server host=a -n -R -c -N -j 3 --retry-timeout 5 --config-file /c --wal-dir /w --ensure-shutdown --keep none \
             --ignore-free-space --copy-all-changed --checkpoint-source",
        )
        .unwrap();
        assert_eq!(
            (all.mode, all.recovery_conf),
            (Mode::DryRun, RecoveryConf::Write(WrittenPassword::IfNeeded))
        );
        assert_eq!((all.sync, all.jobs.map(usize::from)), (SyncChoice::Off, Some(3)));
        assert_eq!(all.missing_wal.restore_command, RestoreCommand::FromTarget);
        assert_eq!(all.space, SpaceCheck::Ignore);
        assert_eq!(all.keep, KeepRules::none());
        assert_eq!((all.rebuilt_blocks, all.checkpoint_source), (RebuiltBlocks::Copy, true));
        assert_eq!(all.missing_wal.directories, [Path::new("/w")]);
        assert_eq!(all.config_file.as_deref(), Some(Path::new("/c")));
        assert_eq!(all.retry_timeout, Duration::from_secs(5));
        assert!(
            matches!(all.unclean_target, UncleanTarget::Recover(_))
                && matches!(all.source, SourceChoice::Server(_))
        );

        let given = of("-D /d --source-data /s -c --restore-command fetch").unwrap();
        assert_eq!(given.missing_wal.restore_command, RestoreCommand::Given("fetch".to_owned()));
    }
}
