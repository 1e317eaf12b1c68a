#!/usr/bin/env bash
# Checks what kbrecover is built of: licenses, duplicates, registries. bash tests/deny.sh
#
# By cargo-deny and deny.toml. It is built once, which takes minutes, into target/tools. Its fourth check, for advisories,
# needs a database from the network: before a release, target/tools/bin/cargo-deny check advisories.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools=$PWD/target/tools
deny=$tools/bin/cargo-deny
if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
    echo "Building cargo-deny $version"
    # Unoptimised: it is sooner built than it would save in all its runs.
    CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --debug --root "$tools" "cargo-deny@$version"
    rm -rf "$tools/build"
fi
"$deny" --locked --offline check licenses bans sources
