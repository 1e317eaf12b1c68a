#!/usr/bin/env bash
# Plays both stories of a cluster's own recovery on real servers of this machine, and shows what the nodes log: a standby's
# server goes down and comes back; the primary is lost, another node takes over, and the old primary comes back.
#
#     bash tests/flows.sh v8r3     KingbaseES V8R3's flow, on pgpool-II
#     bash tests/flows.sh v8r6     KingbaseES V8R6's flow, on repmgr and ssh
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

case ${1:-} in
v8r3 | v8r6) ;;
*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 1
    ;;
esac
command -v cargo >/dev/null || {
    echo "cargo is missing: see https://rustup.rs" >&2
    exit 1
}
command -v cc >/dev/null || apt_install gcc libc6-dev
need_openssl
need_postgresql
need_cluster_managers
KBRECOVER_SHOW_LOGS=1 cargo test --locked --quiet --workspace --test suite -- "hook_$1::" --nocapture --test-threads=1
