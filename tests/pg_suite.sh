#!/usr/bin/env bash
# Runs PostgreSQL 15's own tests of pg_rewind on kbrecover: bash tests/pg_suite.sh
#
# They are fetched from the Debian source package (with the modules they use) and run by prove, as a user who is not root,
# with kbrecover first on PATH under the name pg_rewind. The servers are those of tests/run.sh. What is fetched stays in
# target/pg_suite; the machine's own package sources are not changed. Fails if a file fails, or if fewer ran than there must be.
#
#     bash tests/pg_suite.sh 006_options.pl    only this file
#
# Environment: KBRECOVER, a program to use instead of building one; PG_BINDIR, the directory of the server programs.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

# What PostgreSQL 15 has.
files=10

need_postgresql
perl -MIPC::Run -e1 2>/dev/null || apt_install libipc-run-perl
command -v prove >/dev/null || apt_install perl

source=target/pg_suite/source
if [ ! -e "$source/src/bin/pg_rewind/t" ]; then
    echo "Fetching the source package postgresql-15"
    archive=$(postgresql_source)
    rm -rf "$source" "$source.new"
    mkdir -p "$source.new"
    tar -xjf "$archive" -C "$source.new" --strip-components=1 --wildcards '*/src/test/perl/*' '*/src/bin/pg_rewind/t/*'
    mv "$source.new" "$source"
fi

if [ -z "${KBRECOVER:-}" ]; then
    # All targets, as the tests are built: otherwise the libraries would be built anew with fewer features.
    cargo build --locked --quiet --workspace --all-targets
    KBRECOVER=target/debug/kbrecover
fi

# The servers' user must get at everything, and sockets have short paths.
work=$(mktemp -d "$(scratch)/kbs.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/run"
cp -r "$source/src/bin/pg_rewind/t" "$work/t"
cp -r "$source/src/test/perl" "$work/perl"
cp "$KBRECOVER" "$work/bin/kbrecover"
ln -s kbrecover "$work/bin/pg_rewind"
chmod -R a+rX "$work"
as_user=()
if [ "$(id -u)" = 0 ]; then
    chown -R postgres "$work"
    as_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi

# Cluster.pm runs pg_regress to set up authentication on Windows; here there is nothing to set up.
cd "$work/run"
echo "PostgreSQL: $("$PG_BINDIR/postgres" --version); $(PATH="$work/bin:$PG_BINDIR:$PATH" pg_rewind --version)"
tests=("$work"/t/*.pl)
[ $# = 0 ] || tests=("$work/t/$1")
result=0
"${as_user[@]}" env -i HOME="$work" LC_ALL=C TZ=UTC TMPDIR="$work/run" TESTDIR="$work/run" PG_REGRESS=true \
    PATH="$work/bin:$PG_BINDIR:/usr/bin:/bin" \
    prove --jobs 4 --timer -I "$work/perl" -I "$work/t" "${tests[@]}" >prove.log 2>&1 || result=$?
if [ $result != 0 ]; then
    for log in tmp_check/log/regress_log_*; do
        if grep -q 'not ok\|^Bail\|died' "$log"; then tail -n 60 "$log" >&2; fi
    done
fi
sed "s|$work/t/||" prove.log
[ $result = 0 ] || exit 1
ran=$(sed -n 's/^Files=\([0-9]*\),.*/\1/p' prove.log)
if [ $# = 0 ] && [ "${ran:-0}" -lt $files ]; then
    echo "$ran of $files files ran" >&2
    exit 1
fi
grep -q '^Result: PASS' prove.log
