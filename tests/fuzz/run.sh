#!/usr/bin/env bash
# Builds the fuzz targets and runs each of them for a while, on its committed corpus.
#
#     bash tests/fuzz/run.sh                  5 seconds each
#     bash tests/fuzz/run.sh 60               60 seconds each
#     bash tests/fuzz/run.sh 60 record names  60 seconds each for these targets
#
# An input that breaks a target is left in target/fuzz/artifacts. What else is found on the way is kept in
# target/fuzz/corpus, so that the next run starts where this one ended; tests/fuzz/corpus is only read.
#
# This is libFuzzer without a sanitizer, so that a stable compiler will do: the code under test has no
# unsafe blocks, and overflow checks and assertions are on.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-5}
shift $(($# > 0 ? 1 : 0))
host=$(rustc -vV | sed -n 's/^host: //p')
out=$PWD/../../target/fuzz
# Files that a target writes for each input are best in memory.
scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" kbrecover-fuzz.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

export CARGO_TARGET_DIR=$out
# Segments are copied all the time: memory given back to the system would only have to be mapped again.
export MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=268435456
export RUSTFLAGS="-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 --cfg fuzzing"
# With --target, build scripts and macros are built without these flags.
cargo build --locked --quiet --release --target "$host"

fuzz() {
    local target=$1 log=$out/$1.log length
    mkdir -p "$out/corpus/$target" "$out/artifacts/$target" "$scratch/$target"
    # Nothing but WAL is long: longer input would only be slower.
    case $target in wal_*) length=65536 ;; *) length=2048 ;; esac
    if ! TMPDIR="$scratch/$target" "$out/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=$length \
        -print_final_stats=1 -artifact_prefix="$out/artifacts/$target/" \
        "$out/corpus/$target" "corpus/$target" >"$log" 2>&1; then
        tail -n 30 "$log"
        echo "fuzz target $target failed: see $log" >&2
        return 1
    fi
    printf '%-14s %s executions\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
}

# One on each processor.
[ $# -gt 0 ] || set -- $(basename -s .rs targets/*.rs)
running=()
for target in "$@"; do
    [ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n || true
    fuzz "$target" &
    running+=($!)
done
for process in "${running[@]}"; do
    wait "$process"
done
