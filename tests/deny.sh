#!/usr/bin/env bash
# Checks what kbrecover is built of: licenses, duplicates, registries. bash tests/deny.sh
#
# By cargo-deny and deny.toml. Where it is not installed it is built, once, into target/tools, which takes minutes. Its fourth
# check, for advisories, needs a database from the network: it is a step of a release, `cargo deny check advisories`.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools=$PWD/target/tools
PATH=$tools/bin:$PATH
if [ "$(cargo-deny --version 2>/dev/null)" != "cargo-deny $version" ]; then
    echo "Building cargo-deny $version"
    # Unoptimised: it is sooner built than it would save in all its runs.
    CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --debug --root "$tools" "cargo-deny@$version"
    rm -rf "$tools/build"
fi
# What is built for other systems, too: all of it is looked at, and nothing is asked of the network afterwards.
cargo fetch --quiet --locked
cargo-deny --locked --offline check licenses bans sources
