//! Progress reports: one line on a terminal, else a line every second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};
use kbrecover_rewind::{Event, Progress, Stage};

use crate::persona::{Narration, Narrator};
use crate::screen::Screen;

/// Reports a run: its events in the words of the narrator, and its progress if that is shown.
pub(crate) fn progress(screen: &Arc<Screen>, narrator: Narrator) -> Box<dyn Progress> {
    let watcher = narrator.progress.then(|| Watcher::new(screen));
    Box::new(Narrated { narrator, watcher })
}

/// Reports the events of a run only.
pub(crate) fn events(narration: Narration) -> impl Progress {
    Narrated { narrator: Narrator { narration, progress: false }, watcher: None }
}

/// Whether progress is shown: if it was asked for, and under our own name on a terminal also if nobody has forbidden it.
pub(crate) fn is_shown(screen: &Screen, asked: bool, forbidden: bool) -> bool {
    asked || screen.has_status_line() && !forbidden
}

struct Narrated {
    narrator: Narrator,
    watcher: Option<Watcher>,
}

impl Progress for Narrated {
    fn begin(&self, stage: Stage, total: Option<u64>) {
        self.watcher.iter().for_each(|watcher| watcher.begin(stage, total));
    }

    fn advance(&self, stage: Stage, amount: u64) {
        self.watcher.iter().for_each(|watcher| watcher.advance(stage, amount));
    }

    fn finish(&self, stage: Stage) {
        self.watcher.iter().for_each(|watcher| watcher.finish(stage));
    }

    fn event(&self, event: &Event) {
        match self.narrator.lines(event) {
            Some(lines) => lines.iter().for_each(|line| tracing::info!("{line}")),
            None => event.log(),
        }
    }
}

/// The interval between lines if the output is not a terminal.
const INTERVAL: Duration = Duration::from_secs(1);

/// The interval between changes of the line on a terminal.
const TICK: Duration = Duration::from_millis(100);

/// Counts the progress and shows it.
struct Watcher {
    screen: Arc<Screen>,
    counts: [Count; STAGES.len()],
}

/// The stages, in the order in which they have the line on a terminal: several can run at a time.
const STAGES: [Stage; 6] =
    [Stage::Copy, Stage::Compare, Stage::SourceWal, Stage::Scan, Stage::Sync, Stage::Inventory];

#[derive(Default)]
struct Count {
    done: AtomicU64,
    running: Mutex<Option<Running>>,
}

/// A stage that runs.
struct Running {
    total: Option<u64>,
    /// When it was last shown.
    shown: Instant,
    /// Estimates the rate. It is never drawn: the line below the messages is the screen's.
    bar: ProgressBar,
}

/// Bytes or files per second of late; `None` as long as that cannot be told.
fn rate(bar: &ProgressBar, done: u64) -> Option<f64> {
    bar.set_position(done);
    let is_early = bar.elapsed() < Duration::from_millis(500);
    Some(bar.per_sec()).filter(|rate| !is_early && *rate > 0.0)
}

impl Watcher {
    fn new(screen: &Arc<Screen>) -> Watcher {
        Watcher { screen: Arc::clone(screen), counts: Default::default() }
    }

    fn count(&self, stage: Stage) -> &Count {
        let at = STAGES.iter().position(|&known| known == stage);
        // Stages that are not known here have no count either.
        &self.counts[at.unwrap_or(STAGES.len() - 1)]
    }

    fn begin(&self, stage: Stage, total: Option<u64>) {
        let (count, now) = (self.count(stage), Instant::now());
        count.done.store(0, Ordering::Relaxed);
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        *lock(&count.running) = Some(Running { total, shown: now, bar });
        if self.screen.has_status_line() {
            self.show_status();
        }
    }

    fn advance(&self, stage: Stage, amount: u64) {
        let count = self.count(stage);
        count.done.fetch_add(amount, Ordering::Relaxed);
        let interval = if self.screen.has_status_line() { TICK } else { INTERVAL };
        {
            // If the lock is held, another thread is checking the interval already.
            let Ok(mut running) = count.running.try_lock() else { return };
            match running.as_mut() {
                Some(running) if running.shown.elapsed() >= interval => running.shown = Instant::now(),
                _ => return,
            }
        }
        if self.screen.has_status_line() { self.show_status() } else { self.show_line(stage, false) }
    }

    fn finish(&self, stage: Stage) {
        if self.screen.has_status_line() {
            *lock(&self.count(stage).running) = None;
            self.show_status();
        } else {
            self.show_line(stage, true);
        }
    }

    fn show_line(&self, stage: Stage, is_last: bool) {
        // pg_rewind and sys_rewind show the progress of the copy only.
        let is_ours = self.screen.persona().narration == Narration::Kbrecover;
        if !is_ours && stage != Stage::Copy {
            return;
        }
        let count = self.count(stage);
        let total = lock(&count.running).as_ref().and_then(|running| running.total);
        match line(stage, count.done.load(Ordering::Relaxed), total, is_ours) {
            Some(line) if is_last => self.screen.line(&line),
            Some(line) => self.screen.passing_line(&line),
            None => {}
        }
    }

    /// Shows the first of the stages that run; none if none runs.
    fn show_status(&self) {
        let status = STAGES.iter().zip(&self.counts).find_map(|(&stage, count)| {
            let mut running = lock(&count.running);
            let Running { total, bar, .. } = running.as_mut()?;
            let done = count.done.load(Ordering::Relaxed);
            Some(status(stage, done, *total, rate(bar, done), self.screen.width()))
        });
        self.screen.status_line(&status.unwrap_or_default());
    }
}

impl Drop for Watcher {
    /// A run that fails does not finish its stage.
    fn drop(&mut self) {
        self.screen.status_line("");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A line of pg_rewind's form: `  12345/67890 kB (18%) copied`; of our own: `  12.1/66.3 MiB (18%) copied`. `None` for a stage
/// without a count.
fn line(stage: Stage, done: u64, total: Option<u64>, is_ours: bool) -> Option<String> {
    let verb = match stage {
        Stage::Scan => "of WAL read",
        Stage::SourceWal => "of the source's WAL read",
        Stage::Compare => "compared",
        Stage::Copy => "copied",
        Stage::Sync => "synced",
        _ => return None,
    };
    let unit = if stage == Stage::Sync {
        "files"
    } else if is_ours {
        "MiB"
    } else {
        "kB"
    };
    let amount = |count: u64| match unit {
        "MiB" => mebibytes(count as f64),
        "kB" => (count / 1024).to_string(),
        _ => count.to_string(),
    };
    let Some(total) = total else { return Some(format!("{} {unit} {verb}", amount(done))) };
    // A file that has grown since it was listed makes the count exceed the total.
    let total = total.max(done);
    let (percent, done, total) = (percent(done, total), amount(done), amount(total));
    Some(format!("{done:>width$}/{total} {unit} ({percent}%) {verb}", width = total.len()))
}

fn percent(done: u64, total: u64) -> u128 {
    if total == 0 { 100 } else { u128::from(done) * 100 / u128::from(total) }
}

/// The line on a terminal: `copying: 18%, 12.1 of 66.3 MiB, 9.4 MiB/s, 0:06 left`. What does not fit into the width is
/// left out, the rate first; where there is room, a bar stands before it.
fn status(stage: Stage, done: u64, total: Option<u64>, rate: Option<f64>, width: usize) -> String {
    let doing = match stage {
        Stage::Scan => "reading WAL",
        Stage::SourceWal => "reading the source's WAL",
        Stage::Compare => "comparing",
        Stage::Copy => "copying",
        Stage::Sync => "syncing",
        _ => return "listing files".to_owned(),
    };
    let is_files = stage == Stage::Sync;
    let amount = |count: u64| if is_files { count.to_string() } else { mebibytes(count as f64) };
    let unit = if is_files { "files" } else { "MiB" };
    let total = total.map(|total| total.max(done));
    let counted = match total {
        Some(total) => {
            format!("{doing}: {}%, {} of {} {unit}", percent(done, total), amount(done), amount(total))
        }
        None => format!("{doing}: {} {unit}", amount(done)),
    };
    let speed = rate.filter(|_| !is_files).map(|rate| format!(", {} MiB/s", mebibytes(rate)));
    let left = total.zip(rate).map(|(total, rate)| format!(", {} left", clock((total - done) as f64 / rate)));
    let (speed, left) = (speed.unwrap_or_default(), left.unwrap_or_default());
    let long = format!("{counted}{speed}{left}");
    let text = if long.len() <= width { long } else { format!("{counted}{left}") };
    match total {
        Some(total) if text.len() + BAR + 3 <= width => format!("[{}] {text}", bar(done, total)),
        _ => text,
    }
}

/// The length of a bar.
const BAR: usize = 20;

fn bar(done: u64, total: u64) -> String {
    let full = (percent(done, total) as usize * BAR / 100).min(BAR);
    "#".repeat(full) + &".".repeat(BAR - full)
}

/// `9.4`, `1234`.
fn mebibytes(bytes: f64) -> String {
    let mebibytes = bytes / f64::from(1 << 20);
    if mebibytes < 100.0 { format!("{mebibytes:.1}") } else { format!("{mebibytes:.0}") }
}

/// `0:06`, `1:02:03`.
fn clock(seconds: f64) -> String {
    // A float that is too large for it becomes the largest number.
    let seconds = seconds.ceil() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours == 0 { format!("{minutes}:{seconds:02}") } else { format!("{hours}:{minutes:02}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging;
    use crate::persona::KBRECOVER;
    use crate::screen::Lines;

    #[test]
    fn lines_have_the_form_of_pg_rewind() {
        let ours = |stage, done, total| line(stage, done, total, true).unwrap();
        let line = |stage, done, total| line(stage, done, total, false).unwrap();
        assert_eq!(line(Stage::Copy, 12_345 << 10, Some(67_890 << 10)), "12345/67890 kB (18%) copied");
        assert_eq!(line(Stage::Copy, 5 << 10, Some(67_890 << 10)), "    5/67890 kB (0%) copied");
        assert_eq!(line(Stage::Copy, 3 << 10, Some(2 << 10)), "3/3 kB (100%) copied");
        assert_eq!(line(Stage::Copy, 0, Some(0)), "0/0 kB (100%) copied");
        assert_eq!(line(Stage::Scan, 2048, None), "2 kB of WAL read");
        assert_eq!(ours(Stage::Copy, 12_345 << 10, Some(678_900 << 10)), "12.1/663 MiB (1%) copied");
        assert_eq!(
            ours(Stage::SourceWal, 1 << 20, Some(20 << 20)),
            " 1.0/20.0 MiB (5%) of the source's WAL read"
        );
        assert_eq!(line(Stage::Sync, 7, Some(10)), " 7/10 files (70%) synced");
        assert!(line(Stage::Copy, u64::MAX, Some(u64::MAX)).contains("(100%)"));
    }

    #[test]
    fn few_lines_are_printed_but_always_the_last_one() {
        let lines = Lines::default();
        let progress = progress(
            &Arc::new(Screen::to(lines.clone())),
            Narrator { narration: Narration::Kbrecover, progress: true },
        );
        progress.begin(Stage::Inventory, None);
        progress.finish(Stage::Inventory);
        progress.begin(Stage::Copy, Some(4 << 20));
        (0..4).for_each(|_| progress.advance(Stage::Copy, 1 << 20));
        progress.finish(Stage::Copy);
        assert_eq!(lines.text(), "4.0/4.0 MiB (100%) copied\n");
    }

    #[test]
    fn events_are_shown_in_the_words_of_the_persona() {
        let events = [
            Event::Connected { server: "x".to_owned(), version: 150_000, connections: 2 },
            Event::Planned { fetch_bytes: 3 << 20, total_bytes: 4 << 20 },
            Event::Copying { fetch_bytes: 3 << 20 },
        ];
        let shown = |narration| {
            let lines = Lines::default();
            let screen = Arc::new(Screen::to(lines.clone()));
            logging::with_messages_on(Arc::clone(&screen), || {
                let progress = progress(&screen, Narrator { narration, progress: true });
                events.iter().for_each(|event| progress.event(event));
            });
            lines.text()
        };
        assert_eq!(
            shown(Narration::Kbrecover),
            "kbrecover: connected to x, version 150000, 2 connection(s)\nkbrecover: copying 3.0 MiB from the source\n"
        );
        assert_eq!(
            shown(Narration::PgRewind),
            "kbrecover: connected to server\nkbrecover: need to copy 3 MB (total source directory size is 4 MB)\n"
        );
    }

    #[test]
    fn the_line_on_a_terminal_fits_its_width() {
        let rate = Some(9.4 * 1_048_576.0);
        let text = |width| status(Stage::Copy, 12_345 << 10, Some(67_890 << 10), rate, width);
        assert_eq!(text(60), "copying: 18%, 12.1 of 66.3 MiB, 9.4 MiB/s, 0:06 left");
        assert_eq!(text(80), "[###.................] copying: 18%, 12.1 of 66.3 MiB, 9.4 MiB/s, 0:06 left");
        assert_eq!(text(45), "copying: 18%, 12.1 of 66.3 MiB, 0:06 left");
        let (done, total) = (1 << 40, Some(3 << 40));
        for width in [59, 79, 119] {
            let text = status(Stage::SourceWal, done, total, rate, width);
            let begin = "reading the source's WAL: 33%, 1048576 of 3145728 MiB";
            assert!(text.len() <= width.max(75) && text.contains(begin), "{text}");
        }
        assert_eq!(status(Stage::Copy, 5 << 20, None, None, 80), "copying: 5.0 MiB");
        assert_eq!(status(Stage::Sync, 7, Some(10), Some(1.0), 40), "syncing: 70%, 7 of 10 files, 0:03 left");
        assert_eq!(status(Stage::Copy, 0, Some(0), None, 40), "copying: 100%, 0.0 of 0.0 MiB");
        assert_eq!(status(Stage::Inventory, 0, None, None, 40), "listing files");
        assert!(status(Stage::Copy, u64::MAX, Some(u64::MAX), rate, 200).contains("100%"));
        assert_eq!([clock(0.2), clock(61.0), clock(3723.0)], ["0:01", "1:01", "1:02:03"]);
    }

    #[test]
    fn a_terminal_has_one_line_of_progress_and_none_at_the_end() {
        let lines = Lines::default();
        let screen = Arc::new(Screen::terminal(KBRECOVER, lines.clone()));
        let narrator = Narrator { narration: Narration::Kbrecover, progress: true };
        let watched = progress(&screen, narrator);
        watched.begin(Stage::Inventory, None);
        watched.begin(Stage::Scan, Some(2 << 20));
        watched.finish(Stage::Scan);
        watched.finish(Stage::Inventory);
        watched.begin(Stage::Copy, Some(4 << 20));
        screen.line("message");
        drop(watched);
        let text = lines.text();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        let last = text.rsplit('\r').next().unwrap();
        assert_eq!(last, "\x1b[K", "{text:?}");
        for begin in ["listing files", "reading WAL: 0%, 0.0 of 2.0 MiB", "copying: 0%, 0.0 of 4.0 MiB"] {
            assert!(text.contains(begin), "{begin}: {text:?}");
        }
    }

    #[test]
    fn progress_is_shown_on_a_terminal_unless_it_is_forbidden_and_by_others_only_if_asked_for() {
        let terminal = Screen::terminal(KBRECOVER, Lines::default());
        let (file, other) = (
            Screen::to(Lines::default()),
            Screen::terminal(crate::persona::of("pg_rewind", 150_000), Lines::default()),
        );
        for (screen, asked, forbidden, expected) in [
            (&terminal, false, false, true),
            (&terminal, false, true, false),
            (&terminal, true, false, true),
            (&file, false, false, false),
            (&file, true, false, true),
            (&other, false, false, false),
            (&other, true, false, true),
        ] {
            assert_eq!(is_shown(screen, asked, forbidden), expected, "{asked} {forbidden}");
        }
    }
}
