# Which scenarios of tests/suite.rs are in which tier: for run.sh, which includes it, and the architecture test, which reads it.

# A dozen that together go once through the house: the main job, each kind of target and source, each end of a run.
T1=(
    basic::
    crashed_target::
    interrupted::
    keep::
    missing_wal::
    not_needed::
    same_timeline::
    standby_source::
    standby_target::
    status::
    tablespaces::
    unlogged_tables::
    wal_files::
)

# Those under a cluster manager or a pooler: t3. All others, whatever is added, are in t2.
MANAGERS=(hook_ patroni:: pg_auto_failover:: pgbouncer:: pgpool:: repmgr::)
not_managers=("${MANAGERS[@]/#/--skip=}")

# Those on the server that other_sizes.sh builds, which runs them: t3.
OTHER_SIZES=(custom_rmgr::)
not_other_sizes=("${OTHER_SIZES[@]/#/--skip=}")
