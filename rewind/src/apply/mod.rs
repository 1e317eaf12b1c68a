//! Everything that changes the target, in the order of the run: discarded data is saved, the target is marked, data
//! and WAL are copied, and the directory is sealed.

pub(crate) mod archive_ready;
pub(crate) mod keep_root;
pub(crate) mod kept;
pub(crate) mod save_diverged;
pub(crate) mod restore;
pub(crate) mod mark;
pub(crate) mod copy;
pub(crate) mod wal;
pub(crate) mod seal;
mod verify_data;
mod verify_wal;
mod written_meanwhile;
mod prepared;
mod following;
pub(crate) mod recovery_conf;
pub(crate) mod startup_warnings;
pub(crate) mod wal_kept;
pub(crate) mod error;

use std::sync::atomic::AtomicBool;

use crate::apply::copy::{Transfer, copy_data, create_entries};
use crate::apply::error::ApplyError;
use crate::apply::verify_data::verify_data;
use crate::apply::wal::{Copying, copy_during};
use crate::clock::Clock;
use crate::datadir::server;
use crate::options::Options;
use crate::outcome::Report;
use crate::plan::Planned;
use crate::progress::{Event, Progress, Stage};
use crate::source::page_check::PageCheck;
use crate::source::{RateLimit, Source};
use crate::target::Target;
use crate::target::copied::NotedProgress;

/// Carries out the plan on the marked target: copies everything, and seals the target. Returns the figures of the
/// run.
///
/// # Errors
/// The rewind is unfinished. The next run resumes it.
pub(crate) fn apply(
    options: &Options,
    progress: &dyn Progress,
    clock: &mut Clock,
    target: &Target,
    source: &dyn Source,
    planned: &Planned<'_>,
) -> Result<Report, ApplyError> {
    let facts = &planned.facts;
    source.replayed_from(facts.fork.replay_start.checkpoint.redo);
    let rate_limit = RateLimit::new(options.max_rate);
    let pages = PageCheck::of(&facts.clusters.source, facts.fork.replay_start.checkpoint.redo);
    let fetch_bytes = planned.fetch_bytes();
    let noted = NotedProgress::new(progress, target, fetch_bytes)?;
    let (sync, in_vain) = (options.sync, AtomicBool::default());
    let transfer = Transfer { source, target, progress: &noted, rate_limit, pages, sync, in_vain };
    progress.event(&Event::Copying { fetch_bytes });
    progress.begin(Stage::Copy, Some(fetch_bytes));
    create_entries(&planned.plan, target)?;
    server::check_not_running(target.root(), facts.clusters.target.version().names())?;
    let life = options.source.life();
    let (copied, early) = copy_during(Copying { planned, transfer: &transfer }, life, || {
        Ok(copy_data(&planned.plan, &facts.clusters.target, life, &transfer)?)
    })?;
    clock.end_stage("copy");
    noted.end();
    let verified = match options.verify {
        true => Some(verify_data(options, &transfer, planned)?),
        false => None,
    };
    if verified.is_some() {
        clock.end_stage("verify");
    }
    let (verified, healed) = verified.unzip();
    let sealed = seal::seal(options, clock, &transfer, planned, &early)?;
    let mut report = planned.report(clock);
    report.bytes_fetched =
        facts.files.compared.bytes + early.bytes + copied + healed.unwrap_or(0) + sealed.bytes;
    report.verified = verified;
    report.replay = Some(sealed.replay);
    Ok(report)
}
