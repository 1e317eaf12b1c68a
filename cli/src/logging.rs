//! Shows the tracing events of the libraries as messages on the screen.

use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::screen::{Kind, Screen};

/// Which messages are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verbosity {
    /// Messages for an operator.
    Normal,
    /// Debug messages of our own crates, too.
    Debug,
}

/// Shows the events of this process from now on.
pub(crate) fn init(screen: Arc<Screen>, verbosity: Verbosity) {
    let subscriber = tracing_subscriber::registry().with(Lines { screen, verbosity });
    // Fails only if a subscriber is set already; that one stays in use.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Shows the events that `work` causes on this thread.
#[cfg(test)]
pub(crate) fn with_messages_on(screen: Arc<Screen>, work: impl FnOnce()) {
    let subscriber = tracing_subscriber::registry().with(Lines { screen, verbosity: Verbosity::Normal });
    tracing::subscriber::with_default(subscriber, work);
}

struct Lines {
    screen: Arc<Screen>,
    verbosity: Verbosity,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut message = Message::default();
        event.record(&mut message);
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        let ours = matches!(crate_name, "kbrecover" | "kbrecover_hooks" | "kbrecover_rewind" | "walparse");
        let least = if self.verbosity == Verbosity::Debug && ours { Level::DEBUG } else { Level::INFO };
        // Of other crates only warnings and errors are of interest to an operator.
        if *metadata.level() > least || (!ours && *metadata.level() > Level::WARN) {
            return;
        }
        if metadata.target() == kbrecover_rewind::command::CHILD {
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

/// The message of an event.
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

    fn messages_of(verbosity: Verbosity, events: impl FnOnce()) -> String {
        let lines = screen::Lines::default();
        let screen = Arc::new(Screen::to(lines.clone()));
        let subscriber = tracing_subscriber::registry().with(Lines { screen, verbosity });
        tracing::subscriber::with_default(subscriber, events);
        lines.text()
    }

    fn emit_events() {
        tracing::info!(target: "kbrecover_rewind::divergence", bytes = 1, "servers diverged at {}", "0/1");
        tracing::warn!(target: "kbrecover_rewind", "odd");
        tracing::debug!(target: "kbrecover_rewind", "a detail");
        tracing::trace!(target: "kbrecover_rewind", "too much");
        tracing::error!(target: "kbrecover_hooks", "bad");
        tracing::info!(target: "kbrecover_rewind::command", "ours");
        tracing::info!(target: kbrecover_rewind::command::CHILD, "a child's line");
        tracing::info!(target: "tokio", "noise");
        tracing::debug!(target: "tokio", "more noise");
    }

    #[test]
    fn events_are_shown_as_messages() {
        assert_eq!(
            messages_of(Verbosity::Normal, emit_events),
            "kbrecover: servers diverged at 0/1\nkbrecover: warning: odd\nkbrecover: error: bad\n\
             kbrecover: ours\na child's line\n"
        );
    }

    #[test]
    fn debug_messages_are_shown_on_request() {
        let text = messages_of(Verbosity::Debug, emit_events);
        assert!(
            text.contains("kbrecover: a detail\n") && !text.contains("too much") && !text.contains("noise")
        );
    }
}
