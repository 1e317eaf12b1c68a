//! The command line itself: help, version, and what it refuses before it looks at anything.

use crate::harness::{ControlData, Failover, Rewind, Run, Sandbox, SourceKind, command, run_kbrecover};

fn run(args: &[&str]) -> Run {
    run_kbrecover(args)
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["rewind", "--help"], &["status", "--help"], &["--version"], &["-V"]] {
        let run = run(args);
        assert_eq!(run.code, 0, "{args:?}: {run}");
        assert!(run.stderr.is_empty(), "{args:?} wrote to standard error\n{run}");
        assert!(run.stdout.contains("kbrecover"), "{args:?}: {run}");
    }
    assert!(run(&["--version"]).stdout.starts_with("kbrecover "), "a version line");
}

#[test]
fn help_names_every_option() {
    let help = run(&["rewind", "--help"]).stdout;
    let options = [
        "--target-data",
        "--source-server",
        "--source-data",
        "--dry-run",
        "--check",
        "--ignore-free-space",
        "--keep",
        "--progress",
        "--write-recovery-conf",
        "--restore-target-wal",
        "--restore-command",
        "--config-file",
        "--ensure-shutdown",
        "--bindir",
        "--wal-dir",
        "--no-sync",
        "--delta",
        "--max-rate",
        "--jobs",
        "--debug",
        "--format",
    ];
    for option in options {
        assert!(help.contains(option), "no word of {option} in\n{help}");
    }
}

/// What was meant is told, and a command's help is had in either way.
#[test]
fn typing_errors_and_help() {
    for (args, error, meant) in [
        (&["rewynd"][..], "unrecognized subcommand 'rewynd'", "rewind"),
        (&["rewind", "--dry-rum"], "unexpected argument '--dry-rum' found", "--dry-run"),
    ] {
        let run = run(args);
        let meant = format!("kbrecover: hint: Did you mean \"{meant}\"?\n");
        assert!(run.code == 1 && run.stderr.contains(error) && run.stderr.contains(&meant), "{run}");
    }
    assert!(!run(&["zzz"]).stderr.contains("Did you mean"));
    for command in [&["rewind"][..], &["inspect", "wal"], &[]] {
        let (help, other) = (run(&[&["help"], command].concat()), run(&[command, &["--help"]].concat()));
        assert!(help.code == 0 && help.stdout == other.stdout, "{help}\n{other}");
    }
    assert_eq!(run(&["version"]).stdout, run(&["--version"]).stdout);
    let help = run(&["rewind", "--help"]).stdout;
    assert!(help.contains("\nExamples:\n") && help.contains("reference/messages.md"), "{help}");
}

/// A plan that nobody can have read is no success; a reader that has gone has read enough.
#[test]
fn what_cannot_be_written_is_told() {
    let sandbox = Sandbox::new();
    let failover = Failover::of_one_table(&sandbox);
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full");
    let expected = "could not write to standard output: No space left on device";
    for args in [&["--dry-run"][..], &["--check"], &["--dry-run", "--format", "json"]] {
        let rewind = Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).args(args);
        let mut command = rewind.command();
        let output = command.stdout(full()).output().expect("run kbrecover");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains(&format!("kbrecover: error: {expected}\n")), "{args:?}: {said}");
    }
    for args in [&["--help"][..], &["grants", "--source-version", "15"], &["man"], &["completions", "bash"]] {
        let output = command(args).stdout(full()).output().expect("run kbrecover");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(expected), "{args:?}: {said}");
    }
    let (reader, writer) = std::io::pipe().expect("make a pipe");
    drop(reader);
    let status = command(["--help"]).stdout(writer).status().expect("run kbrecover");
    assert_eq!(status.code(), Some(0));

    // What is done is done: the report is missing, and the rewind is not.
    let rewind = Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).args(["--format", "json"]);
    let output = rewind.command().stdout(full()).output().expect("run kbrecover");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("kbrecover: warning: {expected}\n")) && said.contains("Done!"), "{said}");
}

/// Usage errors leave with 1, as all errors do that have touched nothing.
#[test]
fn usage_errors() {
    let sandbox = Sandbox::new();
    let directory = sandbox.make_dir("directory");
    let directory = directory.to_str().expect("UTF-8");
    let target = ["rewind", "--target-data", directory];
    let source = ["--source-server", "host=/nowhere"];
    let both = ["--source-data", directory];
    let wrong: [(&str, Vec<&str>); 11] = [
        ("nothing at all", vec!["rewind"]),
        ("an unknown command", vec!["rewynd"]),
        ("an unknown option", [&target[..], &source, &["--rewind-faster"]].concat()),
        ("no target", [&["rewind"][..], &source].concat()),
        ("no source", target.to_vec()),
        ("two sources", [&target[..], &source, &both].concat()),
        ("an argument too many", [&target[..], &source, &["surplus"]].concat()),
        ("no number of jobs", [&target[..], &source, &["--jobs", "many"]].concat()),
        ("zero jobs", [&target[..], &source, &["--jobs", "0"]].concat()),
        ("no rate", [&target[..], &source, &["--max-rate", "0"]].concat()),
        ("an unknown format", [&target[..], &source, &["--format", "xml"]].concat()),
    ];
    for (what, args) in wrong {
        let run = run(&args);
        assert_eq!(run.code, 1, "{what}: {run}");
        // Not an error of the run, which /nowhere would have, too.
        assert!(run.stderr.contains("--help\" for more information"), "{what}: {run}");
        assert!(run.stdout.is_empty(), "{what}: {run}");
    }
    let run = run(&[&target[..], &source, &both].concat());
    assert!(run.stderr.contains("--source-server") && run.stderr.contains("--source-"), "{run}");
}

/// The options of the original, and everything that is printed on the way.
#[test]
fn reports_what_it_does() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::new(
        &sandbox,
        |old| old.sql("CREATE TABLE entry AS SELECT 'shared' AS origin FROM generate_series(1, 1000)"),
        |old| old.sql("UPDATE entry SET origin = 'lost'"),
        |new| new.sql("INSERT INTO entry SELECT 'kept' FROM generate_series(1, 1000)"),
    );
    failover.old.stop();
    let fork = failover.fork();
    let arguments = [
        "rewind",
        "--target-pgdata",
        failover.old.data.to_str().expect("UTF-8"),
        "-N",
        "-P",
        "--debug",
        "-j",
        "2",
    ];
    let run = run_kbrecover(arguments.iter().copied().chain(["--source-server", &failover.new.conninfo()]))
        .expect_done();
    assert!(run.stdout.is_empty(), "text goes to standard error\n{run}");
    let end = ControlData::of(&failover.old.data).lsn("Minimum recovery ending location");
    for line in [
        format!("servers diverged at WAL location {fork} on timeline 1"),
        "rewinding from last common checkpoint at ".into(),
        "common checkpoint found in ".into(),
        format!("set minRecoveryPoint in the control file to {end} on timeline 2: "),
        "first WAL file of replay: 0000000100000000000000".into(),
        ", last: 0000000200000000000000".into(),
        "rewound in ".into(),
        "Done!".into(),
    ] {
        assert!(run.stderr.contains(&line), "no line that says: {line}\n{run}");
    }
}

#[test]
fn reports_in_json() {
    let sandbox = Sandbox::new();
    let mut failover = Failover::new(
        &sandbox,
        |_| (),
        |old| old.sql("CREATE TABLE lost ()"),
        |new| new.sql("CREATE TABLE kept ()"),
    );
    let rewind = |failover: &Failover| {
        Rewind::of(&failover.old).from(&failover.new, SourceKind::Server).args(["--format", "json"])
    };

    // A failure is reported the same way.
    let run = rewind(&failover).run();
    assert_eq!(run.code, 1, "a running target\n{run}");
    let json = run.json();
    assert_eq!((&json["outcome"], &json["exit_code"]), (&"failed".into(), &1.into()), "{run}");
    assert!(json["error"].is_string() && json["hint"].is_string(), "{run}");

    failover.old.stop();
    let run = rewind(&failover).run();
    assert_eq!(run.code, 0, "{run}");
    let json = run.json();
    assert_eq!(json["outcome"], "rewound", "{run}");
    assert_eq!(json["divergence"]["lsn"], failover.fork().to_string(), "{run}");
    assert_eq!(json["divergence"]["timeline"], 1, "{run}");
    let control = ControlData::of(&failover.old.data);
    assert_eq!(json["min_recovery_point"]["lsn"], control.get("Minimum recovery ending location"), "{run}");
    assert_eq!(json["min_recovery_point"]["timeline"], 2, "{run}");
    assert!(json["checkpoint"]["redo"].is_string(), "{run}");
    let stages = json["stages"].as_array().expect("stages");
    assert!(
        stages.len() > 2
            && stages.iter().all(|stage| stage["name"].is_string() && stage["seconds"].is_number()),
        "{run}"
    );
    assert!(json["total_seconds"].as_f64().expect("total_seconds") > 0.0, "{run}");
    assert!(json["files"].is_object() && json["bytes"].is_object(), "{run}");
}

/// Every command has a page of its own and is known to the completions; bash understands its script.
#[test]
fn manual_pages_and_completions() {
    let sandbox = Sandbox::new();
    let pages = sandbox.make_dir("pages");
    assert_eq!(run(&["man", "--out", pages.to_str().expect("UTF-8")]).code, 0);
    let help = run(&["--help"]).stdout;
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() >= 5, "{help}");
    let bash = run(&["completions", "bash"]);
    for command in commands {
        let page = std::fs::read_to_string(pages.join(format!("kbrecover-{command}.1"))).expect("a page");
        assert!(page.contains(&format!(".TH kbrecover-{command} 1")), "{page}");
        assert!(bash.stdout.contains(&format!("kbrecover,{command})")), "{command} is not completed");
    }
    let mut names: Vec<_> = std::fs::read_dir(&pages).expect("list the pages").flatten().collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    assert!(names.len() > 20, "only {} pages", names.len());
    for name in names {
        let page = std::fs::read_to_string(name.path()).expect("a page");
        let titles = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "EXIT STATUS",
            "EXAMPLES",
            "ENVIRONMENT",
            "FILES",
            "SEE ALSO",
        ];
        let lines: Vec<_> = page.lines().collect();
        for title in titles {
            let is_title = |line: &&str| line.trim_start_matches(".SH ").trim_matches('"') == title;
            assert!(lines.iter().any(is_title), "{:?} has no {title}\n{page}", name.file_name());
        }
        let examples = lines.iter().filter(|line| line.starts_with("kbrecover "));
        assert!(examples.count() >= 2, "{:?} has no examples\n{page}", name.file_name());
    }
    let page = std::fs::read_to_string(pages.join("kbrecover-rewind.1")).expect("the page of rewind");
    assert!(page.contains("restore\\-target\\-wal") && page.contains("messages.md"), "{page}");
    assert!(run(&["man"]).stdout.contains(".TH kbrecover 1"));

    let script = sandbox.path("completion");
    std::fs::write(&script, &bash.stdout).expect("write the script");
    let words = "COMP_WORDS=(kbrecover rewind --targ) COMP_CWORD=2; _kbrecover kbrecover --targ rewind; echo ${COMPREPLY[@]}";
    let shell =
        std::process::Command::new("bash").arg("-c").arg(format!(". {}; {words}", script.display())).output();
    let offered = String::from_utf8(shell.expect("run bash").stdout).expect("UTF-8");
    assert!(offered.split_whitespace().any(|word| word == "--target-data"), "{offered}");
    assert!(run(&["completions", "zsh"]).stdout.starts_with("#compdef kbrecover"));
    assert!(run(&["completions", "fish"]).stdout.contains("complete -c kbrecover"));

    let run = run(&["man", "--out", "/nix/pages"]);
    let expected =
        "kbrecover: error: could not write manual pages to \"/nix/pages\": No such file or directory";
    let [error, page] = run.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{run}") };
    assert!(run.code == 1 && error == expected, "{run}");
    assert!(page.starts_with("kbrecover: hint: reference/messages.md in "), "{run}");
    assert_eq!(run_kbrecover(["completions", "tcsh"]).code, 1);
}
