#!/usr/bin/env bash
# Runs scenarios on a server that no package has: PostgreSQL 15 built with data pages of 16 kB and WAL pages of 4 kB, and
# with an extension that has a resource manager of its own.
#
#     bash tests/other_sizes.sh [SCENARIO]...
#
# The source is that of the Debian source package. Building takes some minutes, once: it stays in target/servers.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

need_postgresql
server=$PWD/target/servers/15-other-sizes
if [ ! -e "$server/built" ]; then
    command -v make >/dev/null || apt_install make
    command -v cc >/dev/null || apt_install gcc libc6-dev
    command -v perl >/dev/null || apt_install perl
    archive=$(postgresql_source)
    build=$(mktemp -d -p "$(scratch)")
    trap 'rm -rf "$build"' EXIT
    tar -xjf "$archive" -C "$build" --strip-components=1
    echo "Building PostgreSQL 15 with other sizes"
    (
        cd "$build"
        ./configure --quiet --prefix="$server" --with-blocksize=16 --with-wal-blocksize=4 \
            --without-readline --without-zlib CFLAGS=-O1
        make -s -j"$(nproc)" -C src/backend generated-headers
        make -s -j"$(nproc)"
        make -s install
        make -s -C contrib/amcheck install
        make -s -C contrib/pageinspect install
    ) >"$build.log" 2>&1 || {
        tail -n 30 "$build.log" >&2
        exit 1
    }
    rm -f "$build.log"
    touch "$server/built"
fi

pg_config=$server/bin/pg_config
cc -O1 -Wall -Werror -shared -fPIC -I"$("$pg_config" --includedir-server)" \
    -o "$("$pg_config" --pkglibdir)/kbrecover_test.so" tests/custom_rmgr.c

# The servers' user must get at the programs.
copy=$(mktemp -d "$(scratch)/kbo.XXXXXX")
trap 'rm -rf "$copy" "${build:-}"' EXIT
cp -r "$server" "$copy/15"
chmod -R a+rX "$copy"
export PG_BINDIR=$copy/15/bin
"$PG_BINDIR/initdb" --version
[ $# -gt 0 ] || set -- basic:: zoo:: crashed_target:: custom_rmgr::
cargo test --locked --workspace --test suite -- "$@"
