# Finds PostgreSQL and what a build needs of OpenSSL, or installs them. Sourced by demo.sh and run.sh, not run by itself.
#
# Sets PG_BINDIR, the directory of the server programs. Starts and stops no server: Debian's package would start one of
# its own when it is installed, which is switched off first.

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "need root to run: $*" >&2
        echo "Run this as root, install sudo, or install the packages yourself." >&2
        return 1
    fi
}

# Services that packages bring are neither started nor left to be started: Debian's scripts ask this policy.
apt_install() {
    echo "Installing: $*"
    (
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap 'as_root rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
            as_root chmod 755 "$policy"
        fi
        # Somebody else may be installing something.
        install=(as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600
            install -qq -y --no-install-recommends "$@")
        # A package list that is out of date names files that are gone: fetch it anew and try once more.
        "${install[@]}" >/dev/null 2>&1 || {
            for attempt in 1 2 3; do
                as_root apt-get update -qq && break
                sleep "$attempt"
            done
            "${install[@]}" >/dev/null
        }
    )
}

# Where tests put servers and what is built for them: in memory, if there is room, as the scenarios do.
scratch() {
    local directory=/dev/shm free available
    free=$(df --output=avail -BG "$directory" 2>/dev/null | tr -dc '0-9\n' | tail -n 1)
    available=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
    if [ "${free:-0}" -lt 6 ] || [ "${available:-0}" -lt 6 ] || findmnt -no OPTIONS -T "$directory" | grep -qw noexec; then
        directory=/tmp
    fi
    echo "$directory"
}

# What the crate openssl is built against, and the command the tests make certificates with.
need_openssl() {
    command -v pkg-config >/dev/null || apt_install pkg-config
    pkg-config --exists openssl || apt_install libssl-dev
    command -v openssl >/dev/null || apt_install openssl
}

# find_server VERSIONS DIRECTORY...: sets PG_BINDIR to the first directory with a server whose version fits the expression.
find_server() {
    local versions=$1 dir
    shift
    for dir in "${PG_BINDIR:-}" "$@" "$(pg_config --bindir 2>/dev/null)"; do
        if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && "$dir/postgres" --version | grep -Eq " $versions\."; then
            PG_BINDIR=$dir
            export PG_BINDIR
            return 0
        fi
    done
    return 1
}

find_postgresql() {
    find_server 15 /usr/lib/postgresql/15/bin
}

# Debian's package makes and starts a server of its own, unless it is told not to.
make_no_server() {
    [ ! -e /etc/postgresql-common/createcluster.conf ] || return 0
    as_root mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
}

# The packages that only Debian 12 has, PostgreSQL 15 among them, for installing on a later Debian, from the same mirror.
# With the priority of 100 apt takes what no other of its sources has. What packages of PostgreSQL 15 need in their own version is
# taken from there, too.
add_debian_12() {
    local mirror list=/etc/apt/sources.list.d/debian-12.list
    [ ! -e "$list" ] || return 0
    mirror=$(debian_sources | sed -n 's/ [^ ]* main$//p' | grep -v security | head -n 1)
    printf 'Package: %s\nPin: release n=bookworm\nPin-Priority: %s\n\n' \
        '*' 100 'pg-auto-failover-cli repmgr repmgr-common' 990 |
        as_root tee /etc/apt/preferences.d/debian-12 >/dev/null
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" | as_root tee "$list" >/dev/null
}

need_postgresql() {
    find_postgresql && return
    make_no_server
    # A later Debian has another version.
    apt_install postgresql-15 || { add_debian_12 && apt_install postgresql-15; }
    find_postgresql || {
        echo "PostgreSQL 15 was installed but is not where it should be; set PG_BINDIR." >&2
        return 1
    }
}

# Any version that kbrecover knows.
find_any_postgresql() {
    find_server '1[0-9]' $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV)
}

# Sets PG_BINDIR to the newest version that is there, or else installs the one of this Debian.
need_any_postgresql() {
    find_any_postgresql && return
    make_no_server
    apt_install postgresql
    find_any_postgresql || {
        echo "no PostgreSQL of version 10 to 19 was found; set PG_BINDIR to the directory of its server programs" >&2
        return 1
    }
}

# What tests/hook_*.rs, patroni.rs, pg_auto_failover.rs, pgbouncer.rs, pgpool.rs and repmgr.rs run. None of it is started here.
need_cluster_managers() {
    local missing=()
    [ -x /usr/bin/patroni ] || missing+=(patroni)
    python3 -c 'import etcd' 2>/dev/null || missing+=(python3-etcd)
    [ -x /usr/bin/etcd ] || missing+=(etcd-server)
    # Minimal systems have no documentation, and some of it is run: the sample scripts.
    [ -e /usr/share/doc/pgpool2/examples/follow_primary.sh.sample ] || missing+=(pgpool2)
    [ -x /usr/bin/pg_autoctl ] && [ -e "$PG_BINDIR/../lib/pgautofailover.so" ] || missing+=(postgresql-15-auto-failover)
    [ -x /usr/sbin/pgpool ] || missing+=(pgpool2)
    [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
    [ -x /bin/kill ] || missing+=(procps)
    [ -x "$PG_BINDIR/repmgr" ] || missing+=(postgresql-15-repmgr)
    [ -x /usr/sbin/sshd ] || missing+=(openssh-server)
    command -v ssh >/dev/null || missing+=(openssh-client)
    command -v ping >/dev/null || missing+=(iputils-ping)
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
    let_servers_ping
}

# Since 13 Debian's ping has no capability of its own: who may ping depends on a setting of the system that minimal ones lack.
let_servers_ping() {
    local as_server=()
    [ "$(id -u)" != 0 ] || as_server=(runuser -u postgres --)
    ! "${as_server[@]}" ping -q -c 1 127.0.0.1 >/dev/null 2>&1 || return 0
    command -v setcap >/dev/null || apt_install libcap2-bin
    as_root setcap cap_net_raw+ep "$(readlink -f "$(command -v ping)")"
}

# Where this machine gets Debian's packages from, as apt has it configured: lines of URI, release and component.
debian_sources() {
    local list=(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian')
    # Before the first update apt does not know whose they are.
    [ -n "$("${list[@]}")" ] || as_root apt-get update -qq >&2
    "${list[@]}" | sort -u | grep . || {
        echo "apt has no package sources of Debian configured" >&2
        return 1
    }
}

# A configuration with which apt changes nothing outside of a directory, and reads the sources.list there.
private_apt() {
    cat <<EOF
Dir::Etc::sourcelist "$1/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$1/lists";
Dir::Cache "$1";
Dir::Cache::archives "$1/archives";
APT::Sandbox::User "";
EOF
}

# Fetches the source package of PostgreSQL 15 and says where its archive is, which apt has checked. By a private apt
# configuration: source packages only, nothing outside of target/postgresql_source.
postgresql_source() {
    local apt=$PWD/target/postgresql_source version uri release component
    command -v bzip2 >/dev/null || apt_install bzip2 >&2
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    debian_sources | while read -r uri release component; do
        echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $release $component"
    done >"$apt/sources.list"
    private_apt "$apt" >"$apt/apt.conf"
    ls "$apt/archives/"*.orig.tar.bz2 2>/dev/null && return
    (
        export APT_CONFIG=$apt/apt.conf
        apt-get -qq update
        # Not every mirror has the newest yet.
        for version in $(apt-cache showsrc postgresql-15 | sed -n 's/^Version: //p' | sort -rV); do
            (cd "$apt/archives" && apt-get -qq source --download-only "postgresql-15=$version") && break
        done
    ) >&2
    ls "$apt/archives/"*.orig.tar.bz2 || {
        echo "no mirror has the source package postgresql-15" >&2
        return 1
    }
}
