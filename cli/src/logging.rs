//! The libraries' events as lines on the screen.

use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::screen::{Kind, Screen};

/// How much is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verbosity {
    /// What an operator wants to know.
    Normal,
    /// Everything our own code says.
    Debug,
}

/// Shows the events of this process from now on.
pub(crate) fn init(screen: Arc<Screen>, verbosity: Verbosity) {
    let subscriber = tracing_subscriber::registry().with(Lines { screen, verbosity });
    // Fails only where a subscriber is set already; then that one has the events.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Lines {
    screen: Arc<Screen>,
    verbosity: Verbosity,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        let ours = matches!(crate_name, "kbrecover" | "hooks" | "rewind" | "walparse");
        let least = if self.verbosity == Verbosity::Debug && ours { Level::DEBUG } else { Level::INFO };
        // Other crates have nothing to say to an operator short of a warning.
        if *metadata.level() > least || (!ours && *metadata.level() > Level::WARN) {
            return;
        }
        let mut message = Message::default();
        event.record(&mut message);
        if metadata.target() == rewind::command::CHILD {
            return self.screen.line(&message.0);
        }
        let kind = match *metadata.level() {
            Level::ERROR => Kind::Error,
            Level::WARN => Kind::Warning,
            _ => Kind::Info,
        };
        self.screen.message(kind, &message.0);
    }
}

/// The text of an event; fields other than the message are for other readers.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen;

    fn lines_of(verbosity: Verbosity, events: impl FnOnce()) -> String {
        let lines = screen::Lines::default();
        let screen = Arc::new(Screen::to(lines.clone()));
        let subscriber = tracing_subscriber::registry().with(Lines { screen, verbosity });
        tracing::subscriber::with_default(subscriber, events);
        lines.text()
    }

    fn say_things() {
        tracing::info!(target: "rewind::divergence", bytes = 1, "servers diverged at {}", "0/1");
        tracing::warn!(target: "rewind", "odd");
        tracing::debug!(target: "rewind", "a detail");
        tracing::trace!(target: "rewind", "too much");
        tracing::error!(target: "hooks", "bad");
        tracing::info!(target: "rewind::command", "ours");
        tracing::info!(target: rewind::command::CHILD, "a child's line");
        tracing::info!(target: "tokio", "noise");
        tracing::debug!(target: "tokio", "more noise");
    }

    #[test]
    fn events_become_lines() {
        assert_eq!(
            lines_of(Verbosity::Normal, say_things),
            "kbrecover: servers diverged at 0/1\nkbrecover: warning: odd\nkbrecover: error: bad\n\
             kbrecover: ours\na child's line\n"
        );
    }

    #[test]
    fn details_only_when_asked_for() {
        let text = lines_of(Verbosity::Debug, say_things);
        assert!(
            text.contains("kbrecover: a detail\n") && !text.contains("too much") && !text.contains("noise")
        );
    }
}
