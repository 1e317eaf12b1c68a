//! What `--help` and the manual page of each command say beyond its options.

/// A name and what it means.
pub(super) type Row = (&'static str, &'static str);

/// What is said about one command.
pub(super) struct Page {
    /// Its full name, as it is called.
    pub(super) command: &'static str,
    /// A command line, and before it what it does.
    pub(super) examples: &'static [Row],
    /// The exit statuses; none where the usual ones hold.
    pub(super) exit_status: &'static [Row],
    /// Environment variables, before those that hold for all commands.
    pub(super) environment: &'static [&'static [Row]],
    /// Files that the command uses, before those that hold for all commands.
    pub(super) files: &'static [Row],
    /// Other commands, by the names of their pages.
    pub(super) see_also: &'static [&'static str],
    /// Documents, by their paths below `docs/`.
    pub(super) documents: &'static [&'static str],
}

/// What a page leaves out.
const PLAIN: Page = Page {
    command: "",
    examples: &[],
    exit_status: &[],
    environment: &[],
    files: &[],
    see_also: &[],
    documents: &[],
};

/// The exit statuses of a command that has none of its own.
pub(super) const USUAL_EXIT_STATUS: &[Row] = &[("0", "done"), ("1", "failed, or used in the wrong way")];

/// Variables that every command reads.
pub(super) const USUAL_ENVIRONMENT: &[Row] =
    &[("NO_COLOR", "if it is set and not empty, messages are not colored unless --color=always is given")];

/// Files that belong to every command.
pub(super) const USUAL_FILES: &[Row] =
    &[("/usr/share/doc/kbrecover/docs", "the documentation, where the Debian package puts it")];

/// The document that explains every error message.
pub(super) const MESSAGES: &str = "reference/messages.md";

const CONNECTION: &[Row] = &[
    (
        "PGHOST, PGPORT, PGUSER, PGDATABASE, PGSSLMODE and others",
        "what a connection string leaves out, as in libpq",
    ),
    ("PGPASSWORD, PGPASSFILE", "the password, and the file that it is looked up in"),
    ("PGSERVICE, PGSERVICEFILE, PGSYSCONFDIR", "the service, and where services are looked up"),
];

const TEMPORARY: &[Row] = &[("TMPDIR", "where WAL files from an archive are put while they are read")];

const NOT_USED: &[Row] = &[("PGDATA", "not used: the directory is named on the command line")];

const CONNECTION_FILES: [Row; 3] = [
    ("~/.pgpass", "passwords"),
    ("~/.pg_service.conf", "services"),
    ("~/.postgresql/", "certificates and keys for encrypted connections"),
];

const ANSWER: &[Row] = &[("0", "yes"), ("1", "failed"), ("3", "no")];

const CRON_FILE: &[Row] =
    &[("HAmodule.conf", "the node's configuration"), ("/etc/cron.d/KINGBASECRON", "the cron entry")];

const REPMGR_CONF: &[Row] = &[("repmgr.conf", "the node's configuration")];

/// All pages.
pub(super) const PAGES: &[Page] = &[
    Page {
        command: "kbrecover",
        examples: &[
            (
                "Show what a rewind of an old primary would do",
                "kbrecover rewind -D /var/lib/postgresql/15/main --source-server 'host=192.168.1.102 user=rewind_user' -n",
            ),
            ("Show the help of a command", "kbrecover help rewind"),
        ],
        see_also: &[
            "kbrecover-rewind",
            "kbrecover-compare",
            "kbrecover-lost",
            "kbrecover-restore",
            "kbrecover-status",
            "kbrecover-grants",
            "kbrecover-inspect",
            "kbrecover-hook",
        ],
        documents: &["README.md", "quickstart.md", "runbook.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover rewind",
        examples: &[
            (
                "Show the plan and change nothing",
                "kbrecover rewind -D /var/lib/postgresql/15/main --source-server 'host=192.168.1.102 user=rewind_user' -n",
            ),
            (
                "Rewind, and make the node a standby of the source",
                "kbrecover rewind -D /var/lib/postgresql/15/main --source-server 'host=192.168.1.102 user=rewind_user' -R",
            ),
            (
                "Keep what will be lost, and read no more than 50 MiB per second from the source",
                "kbrecover rewind -D /var/lib/postgresql/15/main --source-server 'host=192.168.1.102' -R --keep-diverged /srv/lost --max-rate 50MB",
            ),
        ],
        exit_status: &[
            ("0", "the rewind succeeded, or was not needed"),
            ("1", "it failed, and the target is unchanged (also: wrong usage)"),
            ("2", "it failed half-way: no server starts on the target until the same command has finished"),
        ],
        environment: &[CONNECTION, TEMPORARY, NOT_USED],
        files: &[
            CONNECTION_FILES[0],
            CONNECTION_FILES[1],
            CONNECTION_FILES[2],
            ("DIR/kbrecover.journal", "what a later run needs to finish this one; gone at the end"),
            ("DIR/kbrecover.compared", "how far a comparison of all data has come; gone at the end"),
            ("DIR/kbrecover.copied", "how far the copy has come; gone at the end"),
            (
                "DIR/backup_label",
                "from the first change on it keeps every server from starting; at the end it says where replay starts",
            ),
        ],
        see_also: &["kbrecover-status", "kbrecover-compare", "kbrecover-grants"],
        documents: &["quickstart.md", "runbook.md", "reference/rewind.md", "reference/connecting.md"],
    },
    Page {
        command: "kbrecover compare",
        examples: &[
            (
                "Compare a stopped standby with its primary",
                "kbrecover compare -D /var/lib/postgresql/15/main --source-server 'host=192.168.1.102 user=rewind_user'",
            ),
            (
                "The same as JSON, reading no more than 20 MiB per second",
                "kbrecover compare -D /var/lib/postgresql/15/main --source-server 'host=192.168.1.102' --max-rate 20MB --format json",
            ),
        ],
        exit_status: &[
            ("0", "no contents differ, and the node can follow the source"),
            ("1", "the two could not be compared"),
            ("2", "contents differ, or the histories have diverged"),
        ],
        environment: &[CONNECTION, NOT_USED],
        files: &CONNECTION_FILES,
        see_also: &["kbrecover-rewind"],
        documents: &["reference/compare.md", "reference/connecting.md"],
    },
    Page {
        command: "kbrecover lost",
        examples: &[
            (
                "Show what a rewind would give up",
                "kbrecover lost -D /var/lib/postgresql/15/main --source-server 'host=192.168.1.102 user=rewind_user'",
            ),
            (
                "Write every row to files, without the values of a column",
                "kbrecover lost -D /var/lib/postgresql/15/main --fork 0/35726C8 --export /srv/lost --mask customer.name",
            ),
        ],
        exit_status: &[("0", "all was listed"), ("1", "it could not be")],
        environment: &[CONNECTION, TEMPORARY, NOT_USED],
        files: &CONNECTION_FILES,
        see_also: &["kbrecover-rewind", "kbrecover-restore", "kbrecover-inspect-wal"],
        documents: &["reference/lost.md", "lost-data.md"],
    },
    Page {
        command: "kbrecover restore",
        examples: &[
            (
                "Restore the old primary's directory as it was before the rewind",
                "kbrecover restore /srv/kept --to /srv/old_primary",
            ),
            (
                "The same if the rewound directory has been moved",
                "kbrecover restore /srv/kept --to /srv/old_primary -D /srv/rewound",
            ),
        ],
        exit_status: &[
            ("0", "the directory is as it was"),
            (
                "1",
                "it could not be restored: what is in the new directory is not complete, and no server starts on it",
            ),
        ],
        see_also: &["kbrecover-rewind", "kbrecover-lost"],
        documents: &["reference/restore.md", "lost-data.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover grants",
        examples: &[
            (
                "Grant the role rewind_user what a rewind needs",
                "kbrecover grants --source-version 15 | psql -d postgres",
            ),
            ("Show what another role needs", "kbrecover grants --source-version 15 --role recovery"),
        ],
        see_also: &["kbrecover-rewind"],
        documents: &["install.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover status",
        examples: &[
            ("Show the state of a data directory", "kbrecover status -D /var/lib/postgresql/15/main"),
            (
                "Wait for at most ten minutes until the standby streams",
                "kbrecover status -D /var/lib/postgresql/15/main --wait 600",
            ),
        ],
        exit_status: &[
            ("0", "cleanly shut down; with --wait: the standby streams"),
            ("1", "unknown: not a data directory, or a file that is needed cannot be read"),
            ("2", "a rewind has not finished: no server starts, run the rewind again"),
            ("3", "a server is running"),
            ("4", "kbrecover is running"),
            ("5", "rewound, and not started since"),
            ("6", "not shut down cleanly: the next start performs recovery"),
            ("7", "a base backup that has not been started yet"),
            ("8", "with --wait: the time is over, and it does not stream yet"),
            (
                "9",
                "with --wait: no server runs five seconds after the start of this command, or it has ended",
            ),
            ("10", "with --wait: the server is not a standby"),
        ],
        environment: &[CONNECTION, NOT_USED],
        files: &[
            CONNECTION_FILES[0],
            CONNECTION_FILES[1],
            ("DIR/postmaster.pid", "tells whether a server runs, and on which socket"),
        ],
        see_also: &["kbrecover-rewind"],
        documents: &["reference/status.md", "runbook.md"],
    },
    Page {
        command: "kbrecover inspect",
        examples: &[
            ("Show a control file", "kbrecover inspect control /var/lib/postgresql/15/main"),
            (
                "Count the WAL records of each resource manager",
                "kbrecover inspect wal /var/lib/postgresql/15/main --stats",
            ),
        ],
        see_also: &[
            "kbrecover-inspect-control",
            "kbrecover-inspect-wal",
            "kbrecover-inspect-pagemap",
            "kbrecover-inspect-history",
        ],
        documents: &["reference/inspect.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover inspect control",
        examples: &[
            ("Show every field", "kbrecover inspect control /var/lib/postgresql/15/main"),
            (
                "The same as JSON",
                "kbrecover inspect control /var/lib/postgresql/15/main/global/pg_control --format json",
            ),
        ],
        files: &[
            ("DIR/global/pg_control", "the control file"),
            ("DIR/global/sys_control", "that of KingbaseES V8R3"),
        ],
        see_also: &["kbrecover-inspect"],
        documents: &["reference/inspect.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover inspect wal",
        examples: &[
            (
                "Show the transactions from a position on, such as a plan's point of divergence",
                "kbrecover inspect wal /var/lib/postgresql/15/main --rmgr Transaction --start 0/35726C8",
            ),
            (
                "Show who has changed a block",
                "kbrecover inspect wal /var/lib/postgresql/15/main --relation 1663/5/16384 --block 7",
            ),
        ],
        files: &[("DIR/pg_wal", "the WAL files")],
        see_also: &["kbrecover-inspect", "kbrecover-inspect-pagemap"],
        documents: &["reference/inspect.md", "lost-data.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover inspect pagemap",
        examples: &[
            (
                "Show which blocks were changed between two positions",
                "kbrecover inspect pagemap /var/lib/postgresql/15/main --start 0/3000000 --end 0/35726C8",
            ),
            (
                "The same as JSON",
                "kbrecover inspect pagemap /var/lib/postgresql/15/main --start 0/3000000 --end 0/35726C8 --format json",
            ),
        ],
        files: &[("DIR/pg_wal", "the WAL files")],
        see_also: &["kbrecover-inspect", "kbrecover-inspect-wal"],
        documents: &["reference/inspect.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover inspect history",
        examples: &[
            ("Show the timelines of a node", "kbrecover inspect history /var/lib/postgresql/15/main"),
            (
                "Show a history file from an archive",
                "kbrecover inspect history /archive/00000003.history --format json",
            ),
        ],
        files: &[("DIR/pg_wal/*.history", "the history files")],
        see_also: &["kbrecover-inspect"],
        documents: &["reference/inspect.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook",
        examples: &[
            (
                "Show what the V8R3 flow would do on this node",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf --dry-run",
            ),
            (
                "Show the nodes of a V8R6 or repmgr cluster",
                "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf status",
            ),
        ],
        see_also: &["kbrecover-hook-v8r3", "kbrecover-hook-v8r6"],
        documents: &["kingbase/v8r3.md", "kingbase/v8r6.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3",
        examples: &[
            (
                "Show what each step would do",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf --dry-run",
            ),
            (
                "Recover the node now, even if it was the primary",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf --force",
            ),
        ],
        exit_status: &[
            ("0", "all is well"),
            ("1", "refused; with --force or --dry-run also because another run is at work"),
            ("66", "failed"),
        ],
        environment: &[CONNECTION],
        files: &[
            ("HAmodule.conf", "the node's configuration"),
            ("/dev/shm/kb.lock", "the lock; --run-dir names another directory"),
            ("/dev/shm/KB_RECOVERY_FLAG", "there while a recovery is under way"),
        ],
        see_also: &["kbrecover-hook", "kbrecover-rewind"],
        documents: &["kingbase/v8r3.md"],
    },
    Page {
        command: "kbrecover hook v8r3 install",
        examples: &[
            (
                "Have cron run the flow each minute",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf install",
            ),
            (
                "The same for a data directory of another user",
                "kbrecover hook v8r3 -f /srv/etc/HAmodule.conf install --user postgres",
            ),
        ],
        files: CRON_FILE,
        see_also: &["kbrecover-hook-v8r3", "kbrecover-hook-v8r3-disable"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3 disable",
        examples: &[
            (
                "Leave the node alone during maintenance",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf disable",
            ),
            (
                "The same with another cron file",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf disable --cron-file /etc/cron.d/kbrecover",
            ),
        ],
        files: CRON_FILE,
        see_also: &["kbrecover-hook-v8r3", "kbrecover-hook-v8r3-enable"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3 enable",
        examples: &[
            (
                "Have the node recovered again",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf enable",
            ),
            (
                "The same with another cron file",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf enable --cron-file /etc/cron.d/kbrecover",
            ),
        ],
        files: CRON_FILE,
        see_also: &["kbrecover-hook-v8r3", "kbrecover-hook-v8r3-disable"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3 status",
        examples: &[
            (
                "Show whether cron runs the flow",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf status",
            ),
            (
                "The same with another cron file",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf status --cron-file /etc/cron.d/kbrecover",
            ),
        ],
        exit_status: ANSWER,
        files: CRON_FILE,
        see_also: &["kbrecover-hook-v8r3"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3 state",
        examples: &[
            (
                "Show whether this node may be the primary",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf state",
            ),
            (
                "The same for a program",
                "kbrecover hook v8r3 -f /home/kingbase/etc/HAmodule.conf state --format json",
            ),
        ],
        files: &[("HAmodule.conf", "the node's configuration")],
        see_also: &["kbrecover-hook-v8r3"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3 pool",
        examples: &[
            (
                "Show what would be done about the pool of this node",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool --dry-run",
            ),
            (
                "Start the pool if it is gone",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool",
            ),
        ],
        exit_status: &[("0", "all is well"), ("1", "refused"), ("66", "failed")],
        files: &[
            ("HAmodule.conf", "the node's configuration"),
            ("/dev/shm/kb_pool.lock", "the lock; --run-dir names another directory"),
        ],
        see_also: &["kbrecover-hook-v8r3"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3 pool install",
        examples: &[
            (
                "Have cron check the pool each minute",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool install",
            ),
            (
                "The same as another user",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool install --user kingbase",
            ),
        ],
        files: CRON_FILE,
        see_also: &["kbrecover-hook-v8r3-pool"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3 pool disable",
        examples: &[
            (
                "Leave the pool alone during maintenance",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool disable",
            ),
            (
                "The same with another cron file",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool disable --cron-file /etc/cron.d/kbrecover",
            ),
        ],
        files: CRON_FILE,
        see_also: &["kbrecover-hook-v8r3-pool"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3 pool enable",
        examples: &[
            (
                "Have the pool checked again",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool enable",
            ),
            (
                "The same with another cron file",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool enable --cron-file /etc/cron.d/kbrecover",
            ),
        ],
        files: CRON_FILE,
        see_also: &["kbrecover-hook-v8r3-pool"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r3 pool status",
        examples: &[
            (
                "Show whether cron checks the pool",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool status",
            ),
            (
                "The same with another cron file",
                "kbrecover hook v8r3 -f /home/kingbase/cluster/HAR3/kingbasecluster/etc/HAmodule.conf pool status --cron-file /etc/cron.d/kbrecover",
            ),
        ],
        exit_status: ANSWER,
        files: CRON_FILE,
        see_also: &["kbrecover-hook-v8r3-pool"],
        documents: &["kingbase/v8r3.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r6",
        examples: &[
            ("Show the nodes of the cluster", "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf status"),
            (
                "Attach this node to a primary, and rewind it if it has diverged",
                "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf rejoin -h 192.168.1.102 --force-rewind",
            ),
        ],
        environment: &[CONNECTION],
        files: REPMGR_CONF,
        see_also: &[
            "kbrecover-hook-v8r6-daemon",
            "kbrecover-hook-v8r6-rejoin",
            "kbrecover-hook-v8r6-startdb",
            "kbrecover-hook-v8r6-status",
        ],
        documents: &["kingbase/v8r6.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r6 startdb",
        examples: &[
            ("Start this node's server", "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf startdb"),
            ("The same on another node", "kbrecover hook v8r6 --config-file /srv/etc/repmgr.conf startdb"),
        ],
        files: REPMGR_CONF,
        see_also: &["kbrecover-hook-v8r6"],
        documents: &["kingbase/v8r6.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r6 rejoin",
        examples: &[
            (
                "Show what each step would do",
                "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf rejoin -h 192.168.1.102 --force-rewind -n",
            ),
            (
                "Attach this node, and rewind it if it has diverged",
                "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf rejoin -h 192.168.1.102 --force-rewind",
            ),
        ],
        environment: &[CONNECTION],
        files: REPMGR_CONF,
        see_also: &["kbrecover-hook-v8r6", "kbrecover-rewind"],
        documents: &["kingbase/v8r6.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r6 daemon",
        examples: &[
            ("Monitor the cluster", "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf daemon"),
            ("Look once", "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf daemon --rounds 1"),
        ],
        environment: &[CONNECTION],
        files: &[
            REPMGR_CONF[0],
            ("kbha.pid", "the daemon's process ID, beside repmgr.conf; kbha_pid_file names another file"),
        ],
        see_also: &["kbrecover-hook-v8r6"],
        documents: &["kingbase/v8r6.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r6 status",
        examples: &[
            ("Show the nodes", "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf status"),
            (
                "The same as JSON",
                "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf status --format json",
            ),
        ],
        exit_status: &[
            ("0", "shown"),
            ("1", "the cluster could not be asked; the state of this node's data directory is shown instead"),
        ],
        environment: &[CONNECTION],
        files: REPMGR_CONF,
        see_also: &["kbrecover-hook-v8r6", "kbrecover-status"],
        documents: &["kingbase/v8r6.md"],
    },
    Page {
        command: "kbrecover hook v8r6 is-standby",
        examples: &[
            ("Check this node", "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf is-standby"),
            (
                "Start its server if that is all it needs",
                "kbrecover hook v8r6 -f /srv/etc/repmgr.conf is-standby && kbrecover hook v8r6 -f /srv/etc/repmgr.conf startdb",
            ),
        ],
        exit_status: ANSWER,
        files: REPMGR_CONF,
        see_also: &["kbrecover-hook-v8r6"],
        documents: &["kingbase/v8r6.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover hook v8r6 is-running",
        examples: &[
            ("Check this node", "kbrecover hook v8r6 -f /home/kingbase/etc/repmgr.conf is-running"),
            (
                "Start its server if it does not run",
                "kbrecover hook v8r6 -f /srv/etc/repmgr.conf is-running || kbrecover hook v8r6 -f /srv/etc/repmgr.conf startdb",
            ),
        ],
        exit_status: ANSWER,
        files: REPMGR_CONF,
        see_also: &["kbrecover-hook-v8r6"],
        documents: &["kingbase/v8r6.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover completions",
        examples: &[
            (
                "Complete commands and options in this shell",
                "kbrecover completions bash > ~/.kbrecover && . ~/.kbrecover",
            ),
            (
                "For all users of fish",
                "kbrecover completions fish > /usr/share/fish/vendor_completions.d/kbrecover.fish",
            ),
        ],
        see_also: &["kbrecover"],
        documents: &["install.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover man",
        examples: &[
            ("Read the manual page", "kbrecover man | man -l -"),
            ("Write the pages of all commands", "kbrecover man --out /usr/local/share/man/man1"),
        ],
        see_also: &["kbrecover"],
        documents: &["install.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover help",
        examples: &[
            ("Show the help of a command", "kbrecover help rewind"),
            ("Show that of a command's command", "kbrecover help inspect wal"),
        ],
        see_also: &["kbrecover"],
        documents: &["README.md"],
        ..PLAIN
    },
    Page {
        command: "kbrecover version",
        examples: &[("Show the version", "kbrecover version"), ("The same", "kbrecover --version")],
        see_also: &["kbrecover"],
        documents: &["README.md"],
        ..PLAIN
    },
];
