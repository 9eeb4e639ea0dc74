#!/usr/bin/env bash
# Builds docker/Dockerfile where no registry can be reached: its build image is replaced by a stand-in made of Debian
# packages and this machine's Rust. Needs root and debootstrap.
#
#     docker/try-build.sh [TAG]           default tag: logferry:source
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:-logferry:source}
stand_in=$tag-stand-in
work=$(mktemp -d)
trap 'docker image rm --force "$stand_in" "$stand_in-stage" >/dev/null 2>&1; rm -rf "$work"' EXIT
# Long and dull, unless it fails.
quietly() { "$@" >"$work/log" 2>&1 || { tail -n 60 "$work/log" >&2; exit 1; }; }

# What rust:…-slim-bookworm has beside the toolchain.
quietly debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev bookworm "$work/rootfs"
cp "$(rustc --print sysroot)"/bin/{cargo,rustc} "$work/rootfs/usr/local/bin/"
cp -a "$(rustc --print sysroot)/lib/." "$work/rootfs/usr/local/lib/"
# Where this machine trusts a CA of its own, crates.io may be behind it.
cp /etc/ssl/certs/ca-certificates.crt "$work/rootfs/etc/ssl/certs/"
tar -C "$work/rootfs" --exclude=./usr/local/lib/rustlib/src -c . | docker import - "$stand_in" >/dev/null

build() {
  DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0} quietly docker build --network host --force-rm --build-arg RUST="$stand_in" \
    --file docker/Dockerfile "$@" .
}
build --target build --tag "$stand_in-stage"      # named, so that it does not stay behind: it is 1.5 GB
build --tag "$tag"
echo "image  $(docker image inspect --format '{{.Size}}' "$tag") bytes  $tag"
