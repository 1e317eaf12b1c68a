//! Whether messages are colored, and how.

use std::ffi::OsString;
use std::sync::OnceLock;

use clap::ValueEnum;

/// The values of `--color`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Also in a file or a pipe
    Always,
    /// Never
    Never,
}

/// What the command line says. Messages about the command line itself are written before it is set.
static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// Sets what the command line says.
pub(crate) fn choose(choice: ColorChoice) {
    // The command line is read once.
    let _ = CHOICE.set(choice);
}

/// Whether messages are colored.
pub(crate) fn is_wanted(is_terminal: bool) -> bool {
    let choice = CHOICE.get().copied().unwrap_or_default();
    decide(choice, is_terminal && !is_dumb(), std::env::var_os("NO_COLOR"))
}

/// Whether the terminal, if it is one, understands no control sequences.
pub(crate) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// An empty `NO_COLOR` counts as none: see <https://no-color.org>.
fn decide(choice: ColorChoice, is_terminal: bool, no_color: Option<OsString>) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => is_terminal && no_color.is_none_or(|value| value.is_empty()),
    }
}

/// A color of the terminal: the number in its control sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Color {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
}

impl Color {
    /// The text in this color, bold.
    pub(crate) fn paint(self, text: &str) -> String {
        format!("\x1b[1;{}m{text}\x1b[0m", self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn color_is_for_terminals_unless_it_is_chosen() {
        let set = || Some(OsString::from("1"));
        for (choice, is_terminal, no_color, expected) in [
            (ColorChoice::Auto, true, None, true),
            (ColorChoice::Auto, true, Some(OsString::new()), true),
            (ColorChoice::Auto, true, set(), false),
            (ColorChoice::Auto, false, None, false),
            (ColorChoice::Always, false, set(), true),
            (ColorChoice::Never, true, None, false),
        ] {
            assert_eq!(decide(choice, is_terminal, no_color.clone()), expected, "{choice:?} {no_color:?}");
        }
    }
}
