#!/usr/bin/env bash
# Builds the Debian package and tries it in a clean system: bash tests/package.sh
#
# The system is a minimal Debian made by debootstrap, below target/package. There the package is installed by apt, the
# program, its manual pages, its completions and its other names are tried, and the package is removed again. Needs root
# or sudo for that.
#
# Environment: PROFILE, of cargo (default: release); CARGO_DEB, a cargo-deb to use instead of installing one.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh

profile=${PROFILE:-release}
built=target/$profile
[ "$profile" != dev ] || built=target/debug
package=target/package

command -v debootstrap >/dev/null || apt_install debootstrap
command -v dpkg-shlibdeps >/dev/null || apt_install dpkg-dev
if [ -z "${CARGO_DEB:-}" ]; then
    CARGO_DEB=$PWD/$package/tools/bin/cargo-deb
    [ -x "$CARGO_DEB" ] || cargo install --quiet --locked --root "$package/tools" cargo-deb
fi

echo "Building"
# With all targets, as the tests are built, nothing is left to build after them.
targets=()
[ "$profile" != dev ] || targets=(--all-targets)
cargo build --locked --quiet --profile "$profile" --workspace "${targets[@]}"
rm -rf "$package"/{man,completions,bin,deb}
mkdir -p "$package"/{man,completions,bin,deb}
"$built/kbrecover" man --out "$package/man"
"$built/kbrecover" completions bash >"$package/completions/kbrecover"
"$built/kbrecover" completions zsh >"$package/completions/_kbrecover"
"$built/kbrecover" completions fish >"$package/completions/kbrecover.fish"
for name in pg_rewind sys_rewind; do
    ln -s /usr/bin/kbrecover "$package/bin/$name"
done
(cd cli && "$CARGO_DEB" deb --quiet --no-build --profile "$profile" --output "$PWD/../$package/deb/kbrecover.deb")
deb=$package/deb/kbrecover.deb
dpkg-deb --field "$deb" Package Version Architecture Depends

root=$package/chroot
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
[ -e "$root/.made" ] || {
    echo "Making a clean Debian"
    # In mount namespaces of their own: whatever debootstrap mounts there is gone with it, however it ends.
    as_root unshare --mount rm -rf --one-file-system "$root"
    mirror=$(debian_sources | sed -n "s/ $suite main\$//p" | head -n 1)
    as_root unshare --mount debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$package/debootstrap.log" 2>&1 || {
        tail -n 20 "$package/debootstrap.log" >&2
        exit 1
    }
    as_root touch "$root/.made"
}
as_root cp "$deb" "$root/kbrecover.deb"
[ ! -e /etc/resolv.conf ] || as_root cp /etc/resolv.conf "$root/etc/resolv.conf"

# dpkg leaves manual pages out in minimal systems.
as_root sh -c 'rm -f "$1"/etc/dpkg/dpkg.cfg.d/*' sh "$root"
as_root tee "$root/try.sh" >/dev/null <<'TRY'
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
apt-get install -qq -y --no-install-recommends /kbrecover.deb >/dev/null
kbrecover --version
# One page for each command, and for each command of a command.
pages() {
    local command
    echo "kbrecover${1// /-}"
    for command in $(kbrecover $1 --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z0-9-]*\) .*/\1/p'); do
        pages "$1 $command"
    done
}
pages '' >/pages
for page in $(cat /pages); do
    gzip -cd "/usr/share/man/man1/$page.1.gz" >/page
    for line in '.TH kbrecover' '.SH EXAMPLES' '.SH "EXIT STATUS"' '.SH ENVIRONMENT' '.SH FILES' '.SH "SEE ALSO"'; do
        grep -qF -- "$line" /page || { echo "no $line in page $page" >&2; exit 1; }
    done
done
for page in kbrecover kbrecover-rewind kbrecover-status kbrecover-grants kbrecover-inspect-wal kbrecover-hook-v8r6-rejoin; do
    grep -qx "$page" /pages || { echo "no command of the page $page" >&2; exit 1; }
done
rm /pages /page
. /usr/share/bash-completion/completions/kbrecover
complete -p kbrecover
COMP_WORDS=(kbrecover rewind --targ) COMP_CWORD=2
_kbrecover kbrecover --targ rewind
[[ " ${COMPREPLY[*]} " = *" --target-data "* ]] || { echo "no completion: ${COMPREPLY[*]}" >&2; exit 1; }
[ -s /usr/share/zsh/vendor-completions/_kbrecover ] && [ -s /usr/share/fish/vendor_completions.d/kbrecover.fish ]
[ -s /usr/share/doc/kbrecover/copyright ]
update-alternatives --quiet --install /usr/bin/pg_rewind pg_rewind /usr/lib/kbrecover/bin/pg_rewind 10
pg_rewind --version | grep '^pg_rewind (kbrecover) '
status=0
pg_rewind 2>/said || status=$?
[ "$status" = 1 ] && grep '^pg_rewind: error: no source specified' /said
rm /said
/usr/lib/kbrecover/bin/sys_rewind --help | grep -q -- --target-data
apt-get remove -qq -y kbrecover >/dev/null
left=$(find /usr /etc -name '*kbrecover*' -o -name pg_rewind)
[ -z "$left" ] || { echo "left behind: $left" >&2; exit 1; }
TRY
as_root unshare --mount chroot "$root" bash /try.sh
echo "The package installs, works and goes away without a trace."
