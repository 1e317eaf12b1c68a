#!/usr/bin/env bash
# Builds kbrecover and passes all tests, on a Debian machine that has cargo. Installs what else is missing.
#
#     bash tests/run.sh                 everything
#     bash tests/run.sh same_timeline   only the tests whose names contain this
#
# Environment: PG_BINDIR, the directory of PostgreSQL 15's server programs, if it is an unusual one.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

# What is built and what the tests make, with room to spare. A full disk looks like every test failing.
need_gigabytes=8
for directory in . "${TMPDIR:-/tmp}"; do
    free=$(df --output=avail -BG "$directory" | tr -dc '0-9\n' | tail -n 1)
    [ "$free" -ge "$need_gigabytes" ] || {
        echo "the tests need ${need_gigabytes} GB free in $(realpath "$directory"), and there are ${free} GB" >&2
        exit 1
    }
done
# What only speeds up building again after a change takes gigabytes.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

command -v cargo >/dev/null || {
    echo "cargo is missing: see https://rustup.rs" >&2
    exit 1
}
command -v cc >/dev/null || apt_install gcc libc6-dev
command -v c++ >/dev/null || apt_install g++
command -v zstd >/dev/null || apt_install zstd
need_openssl
command -v python3 >/dev/null || apt_install python3
need_postgresql
need_cluster_managers
bash tests/servers.sh
echo "PostgreSQL: $("$PG_BINDIR/postgres" --version), in $PG_BINDIR"
echo "cargo:      $(cargo --version)"

if cargo fmt --version >/dev/null 2>&1; then
    step cargo fmt --all --check
fi
step cargo build --workspace --all-targets
if cargo clippy --version >/dev/null 2>&1; then
    step cargo clippy --workspace --all-targets -- -D warnings
fi
step cargo test --workspace -- "$@"
# That the benchmarks still run; what they measure says nothing here.
[ $# -gt 0 ] || step cargo test -p kbrecover-walparse --bench wal
[ $# -gt 0 ] || step cargo test -p kbrecover-rewind --bench plan
[ $# -gt 0 ] || step cargo bench --profile dev --bench end_to_end -- --smoke
# Page sizes and resource managers that no package has.
[ $# -gt 0 ] || step bash tests/other_sizes.sh
# PostgreSQL's own tests of pg_rewind, with this program in its place.
[ $# -gt 0 ] || step bash tests/pg_suite.sh
# The Debian package, in a clean system.
[ $# -gt 0 ] || step env PROFILE=dev bash tests/package.sh
# A short run on what earlier ones have found; see there for a long one.
[ $# -gt 0 ] || step bash tests/fuzz/run.sh 5
printf '\nAll tests passed.\n'
