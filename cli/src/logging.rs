//! Shows the tracing events of the libraries as messages on the screen.

use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::persona::{Milestone, Narrator};
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
pub(crate) fn init(screen: Arc<Screen>, verbosity: Verbosity, narrator: Narrator) {
    let subscriber = tracing_subscriber::registry().with(Lines { screen, verbosity, narrator });
    // Fails only if a subscriber is set already; that one stays in use.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Lines {
    screen: Arc<Screen>,
    verbosity: Verbosity,
    narrator: Narrator,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut message = Message::default();
        event.record(&mut message);
        if let Some(lines) =
            message.name.as_deref().and_then(|name| self.narrator.lines(name, &message.milestone))
        {
            return lines.iter().for_each(|line| self.screen.message(Kind::Info, line));
        }
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        let ours = matches!(crate_name, "kbrecover" | "kbrecover_hooks" | "kbrecover_rewind" | "walparse");
        let least = if self.verbosity == Verbosity::Debug && ours { Level::DEBUG } else { Level::INFO };
        // Of other crates only warnings and errors are of interest to an operator.
        if *metadata.level() > least || (!ours && *metadata.level() > Level::WARN) {
            return;
        }
        if metadata.target() == kbrecover_rewind::command::CHILD {
            return self.screen.line(&message.milestone.message);
        }
        let kind = match *metadata.level() {
            Level::ERROR => Kind::Error,
            Level::WARN => Kind::Warning,
            _ => Kind::Info,
        };
        self.screen.message(kind, &message.milestone.message);
    }
}

/// The message of an event, and the fields that the narrator uses.
#[derive(Default)]
struct Message {
    /// The name of the milestone, if the event is one.
    name: Option<String>,
    milestone: Milestone,
}

impl Visit for Message {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "fetch_bytes" => self.milestone.fetch_bytes = value,
            "total_bytes" => self.milestone.total_bytes = value,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "milestone" {
            self.name = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.milestone.message, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persona::Narration;
    use crate::screen;

    fn messages_of(verbosity: Verbosity, events: impl FnOnce()) -> String {
        narrated(Narration::Kbrecover, verbosity, events)
    }

    fn narrated(narration: Narration, verbosity: Verbosity, events: impl FnOnce()) -> String {
        let lines = screen::Lines::default();
        let screen = Arc::new(Screen::to(lines.clone()));
        let narrator = Narrator { narration, progress: true };
        let subscriber = tracing_subscriber::registry().with(Lines { screen, verbosity, narrator });
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
    fn milestones_are_shown_in_the_words_of_the_persona() {
        use kbrecover_rewind::milestone;
        let events = || {
            tracing::info!(target: "kbrecover_rewind", milestone = milestone::CONNECTED, "connected to x");
            tracing::debug!(
                target: "kbrecover_rewind", milestone = milestone::PLANNED, fetch_bytes = 3u64 << 20, total_bytes = 4u64 << 20, "so much"
            );
            tracing::info!(target: "kbrecover_rewind", milestone = milestone::DIVERGED, "servers diverged");
        };
        assert_eq!(
            narrated(Narration::Kbrecover, Verbosity::Normal, events),
            "kbrecover: connected to x\nkbrecover: servers diverged\n"
        );
        assert_eq!(
            narrated(Narration::PgRewind, Verbosity::Normal, events),
            "kbrecover: connected to server\nkbrecover: need to copy 3 MB (total source directory size is 4 MB)\n\
             kbrecover: servers diverged\n"
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
