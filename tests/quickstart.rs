//! The commands of README.md and of docs/quickstart.md do what the text says: each is run on a throwaway pair, with its data directory
//! and its connection string in the place of those of the text.
//!
//!     old  ──┬── lost ──╳   ▶ rewind -n ▶ rewind -R ▶ start ▶ status --wait
//!     new    └── kept ───────────────────────────────────────▶

use std::process::Command;

use crate::harness::{
    AsServerUser, Failover, Run, Sandbox, assert_same_content, binary, bindir, run_command,
};

const DIRECTORY: &str = "/var/lib/postgresql/15/main";
const CONNINFO: &str = "host=192.168.1.102 port=5432 user=rewind_user dbname=postgres";

/// The commands in the blocks of a document that are marked as such, one per element; those of this program only, and what
/// they need of the shell.
fn commands(document: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let joined = blocks.collect::<String>().replace("\\\n", " ");
    let is_wanted = |line: &&str| line.starts_with("kbrecover ") || line.starts_with("export ");
    joined.lines().filter(is_wanted).map(str::to_owned).collect()
}

/// Runs a command with what was exported before it.
fn shell(exports: &[String], line: &str) -> Run {
    let directory = binary().parent().expect("the program's directory");
    let path = format!("{}:{}:/usr/bin:/bin", directory.display(), bindir().display());
    let script = format!("{}\n{line}", exports.join("\n"));
    let mut command = Command::new("bash");
    command.args(["-euc", &script]).env("PATH", path).env("TZ", "UTC").as_server_user();
    run_command(command)
}

fn try_commands_of(document: &str) {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    let (directory, conninfo) = (old.data.to_str().expect("UTF-8").to_owned(), new.conninfo());
    let lost = sandbox.path("lost");
    let ours = |line: String| {
        let line = line.replace(DIRECTORY, &directory).replace(CONNINFO, &conninfo);
        line.replace("LOSTDIR", lost.to_str().expect("UTF-8"))
    };
    let all = commands(document).into_iter().map(ours);
    let (exports, mut lines): (Vec<_>, Vec<_>) = all.partition(|line| line.starts_with("export "));
    // What is lost can be seen before the rewind only.
    lines.sort_by_key(|line| !line.starts_with("kbrecover lost "));
    let mut runs = Vec::new();
    for line in lines {
        if line.starts_with("kbrecover status ") {
            old.start();
        }
        let run = shell(&exports, &line);
        assert_eq!(run.code, 0, "{document}: {line}\n{run}");
        if line.starts_with("kbrecover lost ") {
            assert!(lost.join("apply.sql").is_file(), "{run}");
            continue;
        }
        runs.push(run);
    }
    let [plan, rewind, streams] = &runs[..] else { panic!("{document} has {} commands", runs.len()) };
    assert!(plan.stdout.contains("Rewind plan for ") && plan.stdout.contains("lost transactions"), "{plan}");
    assert!(rewind.stderr.contains("kbrecover: Done!\n"), "{rewind}");
    let next = format!("next: wait until it streams: kbrecover status -D {directory} --wait\n");
    assert!(rewind.stderr.contains(&next), "{rewind}");
    assert!(streams.stdout.contains("streams"), "{streams}");
    old.catch_up(&new);
    assert_same_content(&old, &new);
}

#[test]
fn readme() {
    try_commands_of("README.md");
}

#[test]
fn quickstart() {
    try_commands_of("docs/quickstart.md");
}
