//! What a terminal shows: one line of progress that fits its width and leaves nothing behind, and colors.
//!
//!     kbrecover ──stderr──▶ pseudo-terminal of 60, 80 or 120 columns ──▶ Shown: every line that was ever on it, and the last
//!                                                                         state

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::harness::{Change, Failover, Rewind, Sandbox, SourceKind, command, command_as, recorded};

/// What a terminal has shown.
struct Shown {
    /// Its exit code.
    code: Option<i32>,
    /// All that was written.
    raw: String,
    /// What is on the terminal at the end, line by line, without colors.
    lines: Vec<String>,
    /// What was on a line and has been cleared or overwritten since.
    passed: Vec<String>,
}

/// Runs a command with its standard error on a terminal of this width.
fn on_terminal(columns: u16, mut command: Command) -> Shown {
    let master =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("open a terminal");
    grantpt(&master).expect("grant the terminal");
    unlockpt(&master).expect("unlock the terminal");
    tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
        .expect("its size");
    let name = ptsname(&master, Vec::new()).expect("the terminal's name");
    let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("open its other end");
    let mut child =
        command.env("TERM", "xterm").stdout(Stdio::null()).stderr(slave).spawn().expect("run kbrecover");
    // It holds the other end; the read ends when the last process with it has ended.
    drop(command);
    let (mut raw, mut master) = (Vec::new(), File::from(master));
    // The end of a terminal is an error.
    let _ = master.read_to_end(&mut raw);
    let code = child.wait().expect("wait for kbrecover").code();
    let raw = String::from_utf8(raw).expect("UTF-8");
    let (lines, passed) = draw(&raw);
    Shown { code, raw, lines, passed }
}

/// Draws as a terminal does, as far as it takes: carriage return, line feed, clear to the end of the line, colors.
fn draw(raw: &str) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut passed, mut column) = (vec![Vec::new()], Vec::new(), 0);
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        let line: &mut Vec<char> = lines.last_mut().expect("a line");
        match character {
            '\r' => column = 0,
            '\n' => lines.push(Vec::new()),
            '\x1b' => {
                let sequence: String = characters.by_ref().take_while(|c| !"mK".contains(*c)).collect();
                // What ended it is gone; only a color has a number.
                if sequence == "[" {
                    passed.push(line.iter().collect());
                    line.truncate(column);
                }
            }
            character => {
                if line.len() <= column {
                    line.resize(column + 1, ' ');
                }
                line[column] = character;
                column += 1;
            }
        }
    }
    let lines: Vec<String> = lines.iter().map(|line| line.iter().collect()).collect();
    (lines, passed.into_iter().filter(|line: &String| !line.is_empty()).collect())
}

fn rewind(failover: &Failover, args: &[&str]) -> Command {
    Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).args(args).command()
}

#[test]
fn progress_is_one_line_that_fits_and_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let failover = Failover::of_one_table(&sandbox);
    for columns in [60, 80, 120] {
        let shown = on_terminal(columns, rewind(&failover, &["--dry-run"]));
        let all = &shown.raw;
        assert_eq!(shown.code, Some(0), "{all}");
        let is_progress = |line: &&String| line.contains(" MiB") || line.contains("listing files");
        let passed: Vec<_> = shown.passed.iter().filter(is_progress).collect();
        assert!(!passed.is_empty(), "no progress\n{all}");
        for line in passed {
            assert!(line.len() < usize::from(columns), "{columns} columns: {line}");
        }
        let is_left = |line: &&String| !line.is_empty() && !line.starts_with("kbrecover: ");
        let left: Vec<_> = shown.lines.iter().filter(is_left).collect();
        assert!(left.is_empty(), "left behind: {left:?}\n{all}");
        // No line is empty but the last, on which the shell's prompt will be.
        assert_eq!(shown.lines.iter().filter(|line| line.is_empty()).count(), 1, "{all}");
        assert_eq!(shown.lines.last().map(String::as_str), Some(""), "{all}");
    }
    let quiet = on_terminal(80, rewind(&failover, &["--dry-run", "--no-progress"]));
    assert!(quiet.passed.is_empty(), "{}", quiet.raw);
    // Other programs show none, and no control sequence at all.
    let data = failover.old.data.to_str().expect("UTF-8");
    let args = ["-n", "-D", data, "--source-server", &failover.new.conninfo()].map(str::to_owned);
    let other = on_terminal(80, command_as("pg_rewind", args));
    assert!(other.code == Some(0) && !other.raw.contains('\x1b'), "{}", other.raw);
    assert!(other.passed.is_empty(), "{}", other.raw);

    let done = on_terminal(80, rewind(&failover, &[]));
    assert!(done.code == Some(0) && done.raw.contains("\x1b[1;32mDone!\x1b[0m"), "{}", done.raw);
    assert!(done.passed.iter().any(|line| line.contains("copying: ")), "{}", done.raw);
}

/// Also a run that fails half-way clears its line.
#[test]
fn a_run_that_fails_leaves_no_line() {
    let sandbox = Sandbox::new();
    let failover = Failover::of_one_table(&sandbox);
    let mut command = rewind(&failover, &["--wal-dir", "/nowhere"]);
    command.env("NO_COLOR", "");
    let shown = on_terminal(80, command);
    assert_eq!(shown.code, Some(1), "{}", shown.raw);
    assert!(
        shown.lines.iter().all(|line| line.is_empty() || line.starts_with("kbrecover: ")),
        "{}",
        shown.raw
    );
    assert!(shown.raw.contains("\x1b[1;31merror:\x1b[0m"), "{}", shown.raw);

    // While it copies, the disk is full.
    let measured = failover.old.copy("measured");
    let (_, changes) = recorded(Rewind::of(&measured).from(&failover.new, SourceKind::Server), &measured);
    let is_copied = |change: &Change| change.kind == "write" && change.path.starts_with("base");
    let first = changes.iter().position(is_copied).expect("a write");
    let mut command = rewind(&failover, &[]);
    command.env("KBRECOVER_FAULT", format!("{}+:28", first + 1));
    let shown = on_terminal(80, command);
    assert!(
        shown.code == Some(2) && shown.passed.iter().any(|line| line.contains("copying: ")),
        "{}",
        shown.raw
    );
    let left = shown.lines.iter().find(|line| !line.is_empty() && !line.starts_with("kbrecover: "));
    assert!(left.is_none(), "left behind: {left:?}\n{}", shown.raw);
}

#[test]
fn colors() {
    let red = "kbrecover: \x1b[1;31merror:\x1b[0m no target data directory specified";
    let plain = "kbrecover: error: no target data directory specified";
    let run = |args: &[&str], no_color: &str| {
        let mut command = command([&["rewind", "--source-data", "/nowhere"], args].concat());
        command.env("NO_COLOR", no_color).env_remove("PGDATA");
        command
    };
    for (args, no_color, on_a_terminal, in_a_pipe) in [
        (&[][..], "", red, plain),
        (&[], "1", plain, plain),
        (&["--color=never"], "", plain, plain),
        (&["--color=always"], "1", red, red),
    ] {
        let shown = on_terminal(80, run(args, no_color));
        assert!(shown.raw.contains(on_a_terminal), "{args:?}: {:?}", shown.raw);
        let output = run(args, no_color).output().expect("run kbrecover");
        let piped = String::from_utf8_lossy(&output.stderr);
        assert!(piped.contains(in_a_pipe), "{args:?}: {piped:?}");
    }
}
