#!/usr/bin/env bash
# Opens the report of a lost history in a headless browser, and uses it as a reader would. By hand, and with --full: it needs
# Chromium, which is large.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/postgresql.sh
[ -x /usr/bin/chromium ] || apt_install chromium fonts-noto-cjk
command -v zstd >/dev/null || apt_install zstd
cargo build --locked --workspace --bin kbrecover
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
zstd -q -d -c --long=28 tests/fixtures/pg12.tar.zst | tar -x -C "$work" ./target ./source
target/debug/kbrecover lost -D "$work/target" --source-data "$work/source" --export "$work/lost" >/dev/null
python3 tests/report_browser.py "$work/lost/report.html"
