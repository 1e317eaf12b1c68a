//! `kbrecover status --wait`: follows replay, and shows its progress.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kbrecover_rewind::conninfo::ConninfoText;
use kbrecover_rewind::{ReplayProgress, WaitOptions, Waited, wait_until_streaming};

use crate::failure::{Failed, SetupError};
use crate::logging::{self, Verbosity};
use crate::report;
use crate::screen::Screen;

/// The time between two lines if standard error is not a terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Waits until the standby on the directory streams, for at most `limit` seconds. `login` is a connection string or the name
/// of a database.
pub(super) fn until_streaming(
    directory: &Path,
    limit: Option<u64>,
    login: Option<&str>,
) -> Result<Waited, Failed> {
    let screen = Arc::new(Screen::stderr());
    logging::init(Arc::clone(&screen), Verbosity::Normal);
    let conninfo = login.map_or_else(|| Ok(ConninfoText::new()), options_of).map_err(SetupError::from)?;
    let environment = &screen.persona().environment;
    let options = WaitOptions { limit: limit.map(Duration::from_secs), conninfo, environment };
    let mut watcher = Watcher { screen: &screen, shown: None };
    let waited = wait_until_streaming(directory, &options, &mut |progress| watcher.show(progress));
    screen.status_line("");
    waited.map_err(|error| Failed::untouched(&error, error.hint()))
}

/// As psql takes it: a connection string, or the name of a database.
fn options_of(text: &str) -> Result<ConninfoText, kbrecover_rewind::conninfo::ConninfoError> {
    if text.contains('=') || text.starts_with("postgresql://") || text.starts_with("postgres://") {
        return ConninfoText::parse(text);
    }
    let mut options = ConninfoText::new();
    options.set("dbname", text);
    Ok(options)
}

/// Shows progress: on one line of a terminal, else a line every ten seconds.
struct Watcher<'a> {
    screen: &'a Screen,
    shown: Option<Duration>,
}

impl Watcher<'_> {
    fn show(&mut self, progress: &ReplayProgress) {
        let line = report::status::progress_line(progress);
        if self.screen.has_status_line() {
            self.screen.status_line(&line);
        } else if self.shown.is_none_or(|shown| progress.waited >= shown + INTERVAL) {
            self.screen.line(&line);
            self.shown = Some(progress.waited);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_a_connection_string_or_a_database() {
        assert_eq!(options_of("app").unwrap().text(), "dbname=app");
        assert_eq!(options_of("user=x port=1").unwrap().text(), "user=x port=1");
        assert_eq!(options_of("postgresql://h/app").unwrap().get("dbname"), Some("app"));
        assert!(options_of("nonsense=1").is_err());
    }
}
