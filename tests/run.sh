#!/usr/bin/env bash
# Builds kbrecover and runs its tests, on a Debian machine that has cargo. Installs what else is missing.
#
#     bash tests/run.sh                 everything a change must pass: lint, t0, t2 (which has all of t1), t3
#     bash tests/run.sh lint            formatting, clippy, the crates' documentation, licenses of dependencies
#     bash tests/run.sh t0              unit tests, examples of the documentation, the architecture: no server is needed
#     bash tests/run.sh t1              a dozen scenarios on PostgreSQL 15
#     bash tests/run.sh t2              all scenarios on servers of their own, PostgreSQL 10 to 19
#     bash tests/run.sh t3              cluster managers, PostgreSQL's own tests, page sizes, package, fuzzing, benchmarks
#     bash tests/run.sh --full          everything, in every version and mode where the usual run picks one: by hand
#     bash tests/run.sh same_timeline   only the tests whose names contain this
#
# Several words run one after another: bash tests/run.sh t0 t1.
#
# Environment:
#     PG_BINDIR             the directory of PostgreSQL 15's server programs, if it is an unusual one
#     KBRECOVER_TEST_SEED   the number that picks one version or mode of several; a run prints its own, to be repeated
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh
. tests/tiers.sh

# Waiting for servers, not computing, is most of what a scenario does; more so where a cluster manager has to notice things.
scenario_threads=$(($(nproc) * 2))
manager_threads=$(($(nproc) * 3))

# What is built and what the tests make, with room to spare. A full disk looks like every test failing.
need_gigabytes=8

started=$SECONDS
times=()
step() {
    local begin=$SECONDS
    printf '\n== %s\n' "$*"
    "$@"
    times+=("$(printf '%5d s  %s' $((SECONDS - begin)) "$*" | cut -c1-100)")
}

have() { command -v "$1" >/dev/null; }

need_space() {
    local directory free
    for directory in . "${TMPDIR:-/tmp}"; do
        free=$(df --output=avail -BG "$directory" | tr -dc '0-9\n' | tail -n 1)
        [ "$free" -ge "$need_gigabytes" ] || {
            echo "the tests need ${need_gigabytes} GB free in $(realpath "$directory"), and there are ${free} GB" >&2
            exit 1
        }
    done
}

# A part of the Rust distribution, as the subcommand of cargo that it is.
need_component() {
    cargo "$1" --version >/dev/null 2>&1 || rustup component add "$2" || {
        echo "cargo $1 is missing: install $2 of this Rust, or rustup, which fetches it" >&2
        exit 1
    }
}

need_cargo() {
    have cargo || {
        echo "cargo is missing: see https://rustup.rs" >&2
        exit 1
    }
    have cc || apt_install gcc libc6-dev
    need_openssl
    echo "cargo:      $(cargo --version)"
}

need_servers() {
    need_postgresql
    echo "PostgreSQL: $("$PG_BINDIR/postgres" --version), in $PG_BINDIR"
}

# Scenarios on servers: those whose names contain one of these words.
scenarios() {
    cargo test --locked --workspace --test suite -- "$@"
}

lint() {
    need_component fmt rustfmt
    need_component clippy clippy
    step cargo fmt --all --check
    step cargo clippy --locked --workspace --all-targets -- -D warnings
    step env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
    step bash tests/deny.sh
}

t0() {
    step cargo test --locked --workspace --lib --bins --examples
    step cargo test --locked --workspace --test architecture
    step cargo test --locked --workspace --doc
}

t1() {
    need_servers
    step scenarios --test-threads="$scenario_threads" "${T1[@]}"
}

# What the scenarios of t2 need beside PostgreSQL 15.
need_other_versions() {
    have zstd || apt_install zstd
    have python3 || apt_install python3
    bash tests/servers.sh
}

t2() {
    need_servers
    need_other_versions
    step scenarios --test-threads="$scenario_threads" "${not_managers[@]}" "${not_other_sizes[@]}"
}

managers() {
    need_servers
    need_cluster_managers
    bash tests/servers.sh
    step scenarios --test-threads="$manager_threads" "${MANAGERS[@]}"
}

# All that is neither a unit test nor a scenario.
beyond_scenarios() {
    # That the benchmarks still run; what they measure says nothing here.
    step cargo test --locked --workspace --bench wal
    step cargo test --locked --workspace --bench plan
    step cargo bench --locked --workspace --profile dev --bench end_to_end -- --smoke
    step cargo bench --locked --workspace --profile dev --bench lost -- --smoke
    # Page sizes and resource managers that no package has.
    step bash tests/other_sizes.sh
    # PostgreSQL's own tests of pg_rewind, with this program in its place.
    step bash tests/pg_suite.sh
    # The Debian package, in a clean system.
    step env PROFILE=dev bash tests/package.sh
    # A short run on what earlier ones have found; see there for a long one.
    have c++ || apt_install g++
    step bash tests/fuzz/run.sh 5
}

t3() {
    managers
    beyond_scenarios
}

everything() {
    lint
    step cargo build --locked --workspace --all-targets
    t0
    # The scenarios of t2 and of t3 at once: some compute while others wait for a cluster manager.
    need_servers
    need_other_versions
    need_cluster_managers
    step scenarios --test-threads="$manager_threads" "${not_other_sizes[@]}"
    beyond_scenarios
}

only() {
    need_servers
    need_cluster_managers
    need_other_versions
    step cargo test --locked --workspace -- "$@"
}

need_space
need_cargo
# What only speeds up building again after a change takes gigabytes.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0
export KBRECOVER_TEST_SEED=${KBRECOVER_TEST_SEED:-$(($(date +%s) % 100000))}
echo "seed:       KBRECOVER_TEST_SEED=$KBRECOVER_TEST_SEED"

[ $# -gt 0 ] || set -- everything
names=()
for word in "$@"; do
    case $word in
    everything | lint | t0 | t1 | t2 | t3) "$word" ;;
    --full)
        export KBRECOVER_TEST_FULL=1
        everything
        step bash tests/report_browser.sh
        ;;
    *) names+=("$word") ;;
    esac
done
[ ${#names[@]} = 0 ] || only "${names[@]}"
printf '\nAll tests passed, in %d s:\n' $((SECONDS - started))
printf '%s\n' "${times[@]}"
