#!/usr/bin/env bash
# A failover and a rewind to watch, on throwaway servers: bash tests/demo.sh
#
# Builds kbrecover, gets PostgreSQL if there is none, loses a primary, promotes its standby, lets both go their own way,
# and brings the old primary back as a standby of the new one. Everything happens on loopback, in a temporary directory,
# as a user who is not root, and is gone at the end.
#
# Environment: KBRECOVER, a program to use instead of building one; PG_BINDIR, the directory of the server programs.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

bold='' colour='' plain=''
if [ -t 1 ]; then
    bold=$'\033[1m' colour=$'\033[36m' plain=$'\033[0m'
fi
step=0
title() {
    step=$((step + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$plain"
}
say() { printf '   %s\n' "$*"; }
indent() { sed 's/^/     /'; }

# Servers and kbrecover refuse root.
run_as=()
if [ "$(id -u)" = 0 ]; then
    run_as=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi
as_user() { "${run_as[@]}" "$@"; }

# Runs a command after showing it, without the directories that only blur it.
show() {
    local argument line=
    for argument in "$@"; do
        case $argument in
        *' '*) line+=" '$argument'" ;;
        *) line+=" $argument" ;;
        esac
    done
    line=${line//"$PG_BINDIR/"/}
    printf '   %s$%s%s\n' "$colour" "${line//"$work/"/}" "$plain"
    as_user "$@" 2>&1 | indent
}

# sql NODE STATEMENT: shows and runs it.
sql() {
    printf '   %s%s=# %s%s\n' "$colour" "$1" "$2" "$plain"
    as_user "$PG_BINDIR/psql" -X -q -h 127.0.0.1 -p "${port[$1]}" -U postgres -d postgres -v ON_ERROR_STOP=1 -c "$2" | indent
}

# ask NODE QUERY: one value, shown by nobody.
ask() {
    as_user "$PG_BINDIR/psql" -X -q -A -t -h 127.0.0.1 -p "${port[$1]}" -U postgres -d postgres -v ON_ERROR_STOP=1 -c "$2"
}

# wait_until NODE QUERY: until the query says t.
wait_until() {
    local tries
    for tries in $(seq 300); do
        [ "$(ask "$1" "$2" 2>/dev/null)" = t ] && return
        sleep 0.1
    done
    echo "node $1 never said yes to: $2" >&2
    tail -n 20 "$work/$1.log" >&2
    return 1
}

declare -A port server
start() {
    # A child of this shell, so that it is gone without a trace when it is killed.
    "${run_as[@]}" "$PG_BINDIR/postgres" -D "$work/$1" -p "${port[$1]}" -h 127.0.0.1 -k "$work" -c "cluster_name=$1" \
        >>"$work/$1.log" 2>&1 </dev/null &
    server[$1]=$!
    wait_until "$1" "SELECT true"
}

stop() {
    [ -z "${server[$1]:-}" ] || kill -QUIT "${server[$1]}" 2>/dev/null || true
    { wait "${server[$1]:-}"; } 2>/dev/null || true
}

free_port() {
    local candidate=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null; do
        candidate=$((candidate + 1))
    done
    echo "$candidate"
}

work=
clean_up() {
    [ -n "$work" ] || return 0
    stop A
    stop B
    rm -rf "$work"
}
trap 'clean_up 2>/dev/null' EXIT
trap 'exit 130' INT TERM

# Settings of whoever watches must not reach the servers.
unset PGHOST PGPORT PGUSER PGDATABASE PGDATA PGOPTIONS PGSERVICE PGPASSFILE
export LC_ALL=C PSQL_PAGER=

title "The program and PostgreSQL"
if [ -z "${KBRECOVER:-}" ]; then
    command -v cc >/dev/null || apt_install gcc libc6-dev
    need_openssl
    say "cargo build --release"
    cargo build --locked --release --quiet --bin kbrecover
    KBRECOVER=${CARGO_TARGET_DIR:-target}/release/kbrecover
fi
need_any_postgresql
work=$(mktemp -d "${TMPDIR:-/tmp}/kbrecover-demo.XXXXXX")
chmod 755 "$work"
# A copy, since the user who runs it may not be allowed into this directory.
cp "$KBRECOVER" "$work/kbrecover"
[ "$(id -u)" != 0 ] || chown -R postgres "$work"
cd "$work"
# The home of root is closed to the user who runs the rest.
export HOME=$work
say "$(as_user "$work/kbrecover" --version), $("$PG_BINDIR/postgres" --version)"

port[A]=$(free_port 54320)
port[B]=$(free_port $((port[A] + 1)))

title "Node A, a primary, and node B, its standby"
as_user "$PG_BINDIR/initdb" -D "$work/A" -U postgres --auth=trust --data-checksums --encoding=UTF8 --no-locale >/dev/null
echo "wal_keep_size = 256MB" >>"$work/A/postgresql.conf"
start A
sql A "CREATE TABLE payment (id int PRIMARY KEY, amount int, written_on text)"
sql A "INSERT INTO payment SELECT n, n % 100, 'A, before' FROM generate_series(1, 50000) n"
as_user "$PG_BINDIR/pg_basebackup" -D "$work/B" -h 127.0.0.1 -p "${port[A]}" -U postgres --checkpoint=fast --write-recovery-conf
start B
wait_until A "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"
say "B streams from A, and has what A writes:"
sql A "UPDATE payment SET amount = amount + 1 WHERE id % 7 = 0"
wait_until B "SELECT pg_last_wal_replay_lsn() >= '$(ask A 'SELECT pg_current_wal_flush_lsn()')'"
sql A "SELECT application_name, state, sync_state FROM pg_stat_replication"

title "B is cut off, A goes on alone, and is lost"
say "The connection breaks. These payments are committed on A and nowhere else:"
ask B "ALTER SYSTEM SET primary_conninfo = ''" && ask B "SELECT pg_reload_conf()" >/dev/null
wait_until A "SELECT count(*) = 0 FROM pg_stat_replication"
sql A "INSERT INTO payment SELECT n, 1, 'A, after the cut' FROM generate_series(50001, 53000) n"
sql A "UPDATE payment SET amount = amount + 1000 WHERE id % 10 = 0"
say "Then A is killed with all its processes: kill -9."
children=$(cat "/proc/${server[A]}/task/${server[A]}/children" 2>/dev/null || true)
# shellcheck disable=SC2086
{ kill -9 "${server[A]}" $children && wait "${server[A]}"; } 2>/dev/null || true

title "B becomes the primary and goes its own way"
show "$PG_BINDIR/pg_ctl" promote -s -w -D "$work/B"
sql B "INSERT INTO payment SELECT n, 2, 'B, after the failover' FROM generate_series(50001, 51000) n"
sql B "DELETE FROM payment WHERE id % 1000 = 0 AND id <= 50000"
say "Two histories now: A on timeline 1 with payments B never saw, B on timeline 2."

title "A is rewound"
say "What would be done:"
show "$work/kbrecover" rewind --target-data "$work/A" --source-server "host=127.0.0.1 port=${port[B]} user=postgres" --write-recovery-conf --dry-run
say "And now it is done, and A is told to follow B:"
show "$work/kbrecover" rewind --target-data "$work/A" --source-server "host=127.0.0.1 port=${port[B]} user=postgres" \
    --write-recovery-conf

title "A starts as a standby of B"
start A
wait_until B "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"
sql B "INSERT INTO payment VALUES (99999, 3, 'B, after the rewind')"
wait_until A "SELECT pg_last_wal_replay_lsn() >= '$(ask B 'SELECT pg_current_wal_flush_lsn()')'"
sql B "SELECT application_name, state, sent_lsn, replay_lsn FROM pg_stat_replication"

title "Both have the same"
for node in A B; do
    sql "$node" "SELECT written_on, count(*) AS payments, sum(amount) FROM payment GROUP BY 1 ORDER BY 1"
done
content="SELECT count(*) || ' payments, md5 ' || md5(string_agg(p::text, ',' ORDER BY id)) FROM payment p"
on_a=$(ask A "$content")
on_b=$(ask B "$content")
say "A: $on_a"
say "B: $on_b"
lost=$(ask A "SELECT count(*) FROM payment WHERE written_on = 'A, after the cut'")
if [ "$on_a" != "$on_b" ] || [ "$lost" != 0 ] || [ "$(ask A 'SELECT pg_is_in_recovery()')" != t ]; then
    echo "The contents differ, or A does not follow." >&2
    exit 1
fi
say "Equal. The 3000 payments that only A had are gone, the 1000 of B have arrived, and A follows B."
