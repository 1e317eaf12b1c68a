//! Progress reports: bars on a terminal, else a line every second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kbrecover_rewind::{Event, Progress, Stage};

use crate::persona::{Narration, Narrator};
use crate::screen::Screen;

/// Reports a run: its events in the words of the narrator, and with `-P` its progress.
pub(crate) fn progress(screen: &Arc<Screen>, narrator: Narrator) -> Box<dyn Progress> {
    let watcher = narrator.progress.then(|| Watcher::new(screen, screen.bars().cloned()));
    Box::new(Narrated { narrator, watcher })
}

/// Reports the events of a run only.
pub(crate) fn events(narration: Narration) -> impl Progress {
    Narrated { narrator: Narrator { narration, progress: false }, watcher: None }
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

/// Counts the progress and shows it.
struct Watcher {
    screen: Arc<Screen>,
    bars: Option<MultiProgress>,
    counts: [Count; 6],
}

#[derive(Default)]
struct Count {
    done: AtomicU64,
    total: Mutex<Option<u64>>,
    /// When the last line was printed.
    shown: Mutex<Option<Instant>>,
    bar: Mutex<Option<ProgressBar>>,
}

impl Watcher {
    fn new(screen: &Arc<Screen>, bars: Option<MultiProgress>) -> Watcher {
        Watcher { screen: Arc::clone(screen), bars, counts: Default::default() }
    }

    fn count(&self, stage: Stage) -> &Count {
        match stage {
            Stage::Scan => &self.counts[0],
            Stage::Copy => &self.counts[1],
            Stage::Sync => &self.counts[2],
            Stage::Compare => &self.counts[3],
            Stage::SourceWal => &self.counts[4],
            // Stages without a count.
            _ => &self.counts[5],
        }
    }

    fn show_line(&self, stage: Stage, is_last: bool) {
        // pg_rewind and sys_rewind show the progress of the copy only.
        if self.screen.persona().narration != Narration::Kbrecover && stage != Stage::Copy {
            return;
        }
        let count = self.count(stage);
        let total = *lock(&count.total);
        match line(stage, count.done.load(Ordering::Relaxed), total) {
            Some(line) if is_last => self.screen.line(&line),
            Some(line) => self.screen.passing_line(&line),
            None => {}
        }
    }
}

impl Watcher {
    fn begin(&self, stage: Stage, total: Option<u64>) {
        let count = self.count(stage);
        count.done.store(0, Ordering::Relaxed);
        *lock(&count.total) = total;
        *lock(&count.shown) = Some(Instant::now());
        if let Some(bars) = &self.bars {
            *lock(&count.bar) = Some(bars.add(bar(stage, total)));
        }
    }

    fn advance(&self, stage: Stage, amount: u64) {
        let count = self.count(stage);
        count.done.fetch_add(amount, Ordering::Relaxed);
        if self.bars.is_some() {
            if let Some(bar) = &*lock(&count.bar) {
                bar.inc(amount);
            }
            return;
        }
        // If the lock is held, another thread is checking the interval already.
        let Ok(mut shown) = count.shown.try_lock() else { return };
        if shown.is_none_or(|shown| shown.elapsed() >= INTERVAL) {
            *shown = Some(Instant::now());
            self.show_line(stage, false);
        }
    }

    fn finish(&self, stage: Stage) {
        if let Some(bar) = lock(&self.count(stage).bar).take() {
            bar.finish_and_clear();
        }
        self.show_line(stage, true);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The unit of a stage's count, its name, and what has been done; `None` for a stage without a count.
fn words(stage: Stage) -> Option<(u64, &'static str, &'static str)> {
    match stage {
        Stage::Scan => Some((1024, "kB", "of WAL read")),
        Stage::SourceWal => Some((1024, "kB", "of the source's WAL read")),
        Stage::Compare => Some((1024, "kB", "compared")),
        Stage::Copy => Some((1024, "kB", "copied")),
        Stage::Sync => Some((1, "files", "synced")),
        _ => None,
    }
}

/// A line of pg_rewind's form: `  12345/67890 kB (18%) copied`.
fn line(stage: Stage, done: u64, total: Option<u64>) -> Option<String> {
    let (unit, name, verb) = words(stage)?;
    let Some(total) = total else { return Some(format!("{} {name} {verb}", done / unit)) };
    // A file that has grown since it was listed makes the count exceed the total.
    let total = total.max(done);
    let percent = if total == 0 { 100 } else { u128::from(done) * 100 / u128::from(total) };
    let (done, total) = (done / unit, (total / unit).to_string());
    Some(format!("{done:>width$}/{total} {name} ({percent}%) {verb}", width = total.len()))
}

fn bar(stage: Stage, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    if let Ok(style) = ProgressStyle::with_template(template(stage, total)) {
        bar.set_style(style);
    }
    bar.set_message(words(stage).map_or("", |(_, _, verb)| verb));
    bar
}

fn template(stage: Stage, total: Option<u64>) -> &'static str {
    match (words(stage), total) {
        (None, _) => "{spinner} listing files",
        (Some((1, ..)), _) => "{bar:30} {pos}/{len} files {msg} ({percent}%)",
        (Some(_), None) => "{spinner} {binary_bytes} {msg} ({binary_bytes_per_sec})",
        (Some(_), Some(_)) => {
            "{bar:30} {binary_bytes}/{binary_total_bytes} {msg} ({percent}%, {binary_bytes_per_sec}, eta {eta})"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging;
    use crate::screen::Lines;

    #[test]
    fn lines_have_the_form_of_pg_rewind() {
        let line = |stage, done, total| line(stage, done, total).unwrap();
        assert_eq!(line(Stage::Copy, 12_345 << 10, Some(67_890 << 10)), "12345/67890 kB (18%) copied");
        assert_eq!(line(Stage::Copy, 5 << 10, Some(67_890 << 10)), "    5/67890 kB (0%) copied");
        assert_eq!(line(Stage::Copy, 3 << 10, Some(2 << 10)), "3/3 kB (100%) copied");
        assert_eq!(line(Stage::Copy, 0, Some(0)), "0/0 kB (100%) copied");
        assert_eq!(line(Stage::Scan, 2048, None), "2 kB of WAL read");
        assert_eq!(line(Stage::SourceWal, 2048, Some(4096)), "2/4 kB (50%) of the source's WAL read");
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
        progress.begin(Stage::Copy, Some(4 << 10));
        (0..4).for_each(|_| progress.advance(Stage::Copy, 1 << 10));
        progress.finish(Stage::Copy);
        assert_eq!(lines.text(), "4/4 kB (100%) copied\n");
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
            "kbrecover: connected to x, version 150000, 2 connection(s)\nkbrecover: copying 3072 kB from the source\n"
        );
        assert_eq!(
            shown(Narration::PgRewind),
            "kbrecover: connected to server\nkbrecover: need to copy 3 MB (total source directory size is 4 MB)\n"
        );
    }

    #[test]
    fn every_bar_has_a_valid_template() {
        let counted = [Stage::Scan, Stage::SourceWal, Stage::Compare, Stage::Copy, Stage::Sync];
        for stage in [Stage::Inventory].into_iter().chain(counted) {
            for total in [None, Some(10)] {
                assert!(ProgressStyle::with_template(template(stage, total)).is_ok());
            }
        }
    }
}
