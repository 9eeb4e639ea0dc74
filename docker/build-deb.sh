#!/usr/bin/env bash
# Builds the Debian package of a static binary: the program, the config, systemd's units, manual pages, completions. Needs
# cargo-deb (`cargo install --locked cargo-deb@3.8.0`).
#
#     docker/build-deb.sh [DIR]                                       builds the binary; default: target/debian
#     LOGFERRY_BINARY=path docker/build-deb.sh [DIR]                  packs that binary
#     LOGFERRY_ARCH=aarch64-unknown-linux-gnu LOGFERRY_BINARY=path …  which is for another machine
set -euo pipefail
cd "$(dirname "$0")/.."

to=${1:-target/debian}
binary=${LOGFERRY_BINARY:-}
if [ -z "$binary" ]; then binary=$(docker/build-binary.sh); fi
docker/static.sh "$binary"

# What `assets` in Cargo.toml names.
stage=target/deb
rm -rf "$stage"
mkdir -p "$stage"
install -m 0755 "$binary" "$stage/logferry"
cargo run --quiet --locked --example manual -- "$stage"
# The units, for a program that is where packages have theirs, and settings that are in /etc/logferry.toml alone.
for unit in logferry.service logferry.socket; do
  sed -e '1,/^$/d' -e 's,/usr/local/bin/,/usr/bin/,' -e '/^Environment=LOGFERRY_/d' \
    -e 's,^# Overrides the above.*,# Overrides /etc/logferry.toml.,' "docker/systemd/$unit" >"$stage/$unit"
done

mkdir -p "$to"
cargo deb --quiet --locked --no-build --no-strip --compress-system --output "$to" ${LOGFERRY_ARCH:+--target "$LOGFERRY_ARCH"}
