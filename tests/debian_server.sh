#!/usr/bin/env bash
# Fetches the newest PostgreSQL 19 of Debian's suites unstable and experimental, with all its tools and libraries, into
# target/servers/19. What is there already stays. Called by servers.sh.
#
#     bash tests/debian_server.sh
#
# By a private apt configuration: nothing outside of target/servers is changed, and apt checks the signatures. The mirror
# is that of the machine's own package sources.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

major=19
directory=$PWD/target/servers/$major
[ -e "$directory/bin/postgres" ] && exit

# The mirror from which this machine gets Debian's packages.
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Origin: Debian" "Label: Debian" | sed q)
[ -n "$mirror" ] || {
    echo "no Debian mirror among the package sources of this machine, which has to provide PostgreSQL $major" >&2
    exit 1
}
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || apt_install debian-archive-keyring

mkdir -p target/servers
fetched=$(mktemp -d "$PWD/target/servers/new.XXXXXX")
trap 'rm -rf "$fetched"' EXIT
mkdir -p "$fetched/lists/partial" "$fetched/archives/partial"
: >"$fetched/status"
for suite in unstable experimental; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$fetched/sources.list"
{
    private_apt "$fetched"
    echo "Dir::State::status \"$fetched/status\";"
} >"$fetched/apt.conf"
export APT_CONFIG=$fetched/apt.conf

apt-get -qq update
packages=(postgresql-$major postgresql-client-$major)
version=$(apt-cache policy "${packages[0]}" | sed -n 's/^ *Candidate: \([^(].*\)/\1/p')
[ -n "$version" ] || {
    echo "no package ${packages[0]} in unstable and experimental of $mirror" >&2
    exit 1
}
echo "Fetching PostgreSQL $version"
# The libraries, down to libc: this machine's may be too old.
mapfile -t libraries < <(apt-cache depends "${packages[@]}" | sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p' | sort -u)
mapfile -t libraries < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances "${libraries[@]}" | grep '^lib' | sort -u)
(cd "$fetched/archives" && apt-get -qq download "${packages[@]}" "${libraries[@]}")

mkdir -p "$fetched/all" "$fetched/server/lib" "$fetched/server/share"
for package in "$fetched/archives/"*.deb; do
    dpkg-deb --extract "$package" "$fetched/all"
done
mv "$fetched/all/usr/share/postgresql" "$fetched/server/share/"
mv "$fetched/all/usr/lib/postgresql" "$fetched/all/usr/lib/$(uname -m)-linux-gnu" "$fetched/server/lib/"
# A program's loader has to be an absolute path, but the tests copy the directory. So each program is a script that calls
# the loader with the program. PostgreSQL finds its files relative to the name by which it was called.
bin=$fetched/server/lib/postgresql/$major/bin
mv "$bin" "${bin%/bin}/programs"
mkdir "$bin"
for program in "${bin%/bin}/programs/"*; do
    name=$(basename "$program")
    [ "$(head -c 4 "$program")" = $'\177ELF' ] || continue
    cat >"$bin/$name" <<EOF
#!/bin/sh
bin=\$(dirname "\$(readlink -f "\$0")")
libraries=\$bin/../../../$(uname -m)-linux-gnu
exec "\$libraries"/ld-linux-*.so.* --library-path "\$libraries" --argv0 "\$bin/$name" "\$bin/../programs/$name" "\$@"
EOF
    chmod 755 "$bin/$name"
done
ln -s "lib/postgresql/$major/bin" "$fetched/server/bin"
"$fetched/server/bin/postgres" --version
chmod -R a+rX "$fetched/server"
rm -rf "$directory"
mv "$fetched/server" "$directory"
