//! Signals that end a run.
//!
//! The first signal asks the engine to stop at the next safe point. A second signal ends the program at
//! once, and so does a timeout if the engine reaches no safe point, because a source does not answer for
//! example. That is as safe as kill -9. Child processes of the run are terminated with their own children,
//! and killed if they do not exit within seconds; only an `archive_command` may finish.
//!
//! SIGPIPE is ignored from the start, and SIGCHLD is not. SIGXFSZ (a file exceeds `ulimit -f`) becomes an error of the write.

use std::io;
use std::os::raw::c_int;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use kbrecover_rewind::command;
use kbrecover_rewind::{RewindError, StopFlag, TargetState};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use kbrecover_hooks::recovery_log::RecoveryLog;

use crate::failure::{Failed, SetupError};
use crate::screen::{Kind, Screen};

/// How long the engine may take to reach a safe point.
const GRACE: Duration = Duration::from_secs(10);

/// A parent that ignores SIGCHLD hands that down, and how a program has ended that this one has started would not be known. With any
/// handler installed it is.
pub(crate) fn know_children() {
    let _ = signal_hook::flag::register(SIGCHLD, Arc::new(AtomicBool::new(false)));
}

/// Handles signals from now on.
pub(crate) fn listen(stop: &StopFlag, target: &Path, screen: &Arc<Screen>) -> Result<(), SetupError> {
    // With any handler installed the write fails instead of ending the program.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map_err(SetupError::Signals)?;
    let mut wanted = vec![SIGINT, SIGTERM];
    // Respects `nohup`.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).map_err(SetupError::Signals)?;
    let (stop, target, screen) = (stop.clone(), target.to_owned(), Arc::clone(screen));
    let (asked_to_end, is_asked) = mpsc::channel();
    let ender = Arc::new(Ender { stop, target, screen, ending: Mutex::default(), asked: asked_to_end });
    // Started now: later there may be too many threads.
    let of_grace = Arc::clone(&ender);
    let grace = thread::Builder::new().name("grace".into()).spawn(move || {
        if is_asked.recv().is_ok() {
            thread::sleep(GRACE);
            of_grace.end("terminated by a signal: no safe point was reached in time");
        }
    });
    grace.map_err(SetupError::Signals)?;
    let started = thread::Builder::new().name("signals".into()).spawn(move || {
        let asked = AtomicBool::new(false);
        for signal in signals.forever() {
            if asked.swap(true, Ordering::SeqCst) {
                ender.end("terminated by a second signal");
            }
            Ender::ask(&ender, signal);
        }
    });
    started.map(drop).map_err(SetupError::Signals)
}

struct Ender {
    stop: StopFlag,
    target: PathBuf,
    screen: Arc<Screen>,
    ending: Mutex<()>,
    /// Tells the thread that ends the program after a time.
    asked: Sender<()>,
}

impl Ender {
    /// Asks the engine to stop, and ends the program if it does not.
    fn ask(ender: &Arc<Ender>, signal: c_int) {
        let name = name_of(signal);
        if !ender.stop.request() {
            ender.screen.message(
                Kind::Info,
                &format!("received {name}, but the rewind is complete except for cleanup"),
            );
            return;
        }
        command::end_all();
        ender.screen.message(
            Kind::Info,
            &format!("received {name}, stopping at the next safe point (a second signal stops immediately)"),
        );
        // Without that thread a second signal still ends the program.
        let _ = ender.asked.send(());
    }

    /// Ends the program, with the messages and the exit status of a run that was stopped.
    fn end(&self, message: &str) -> ! {
        // Two threads may get here at once; only one reports.
        let _ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        command::end_all();
        command::wait_for_end();
        self.screen.status_line("");
        let is_touched = kbrecover_rewind::is_unfinished(&self.target) || !self.stop.is_requested();
        let target = if is_touched { TargetState::Unfinished } else { TargetState::Untouched };
        let hint = RewindError::Stopped.hint();
        let failed = Failed { message: message.to_owned(), hint, target };
        failed.show(&self.screen);
        std::process::exit(i32::from(failed.status(self.screen.persona())));
    }
}

/// On SIGTERM, SIGINT and SIGHUP, unless ignored, terminates the child processes of a flow and then the
/// flow itself, with the default action of the signal. A flow that was ended at any point can be run again.
pub(crate) fn end_with_children(log: &Arc<RecoveryLog>) -> io::Result<()> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)))?;
    let log = Arc::clone(log);
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            log.release();
            log.line(&format!("received {}, stopping; the next run continues", name_of(signal)));
            command::end_all();
            command::wait_for_end();
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

fn name_of(signal: c_int) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}

/// Whether this signal was ignored when the program was started.
fn is_ignored(signal: c_int) -> bool {
    let mask = || -> io::Result<Option<u64>> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Ok(line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()))
    };
    // Bit 0 is signal 1.
    mask().ok().flatten().is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
