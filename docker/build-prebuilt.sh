#!/usr/bin/env bash
# Builds the static binary on this machine, packs it with Dockerfile.prebuilt and prints both sizes.
#
#     docker/build-prebuilt.sh [TAG]           default tag: logferry:latest
#     LOGFERRY_PROFILE=dev docker/build-prebuilt.sh logferry:dev       quick to build, large
#     LOGFERRY_BINARY=path docker/build-prebuilt.sh                    packs that binary, which must be static, and builds nothing
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:-logferry:latest}
roots=${LOGFERRY_ROOTS:-/etc/ssl/certs/ca-certificates.crt}

binary=${LOGFERRY_BINARY:-}
if [ -z "$binary" ]; then binary=$(docker/build-binary.sh); fi
docker/static.sh "$binary"

context=$(mktemp -d)
trap 'rm -rf "$context" "$context.log"' EXIT
install -m 0755 "$binary" "$context/logferry"
install -m 0644 "$roots" "$context/ca-certificates.crt"
install -d -m 0770 "$context/empty/logferry"
# The classic builder is on every engine; BuildKit is a plugin that may be missing. What it says counts when it fails.
DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-0} docker build --file docker/Dockerfile.prebuilt --tag "$tag" "$context" \
  >"$context.log" 2>&1 || { cat "$context.log" >&2; exit 1; }

echo "binary $(stat -c %s "$binary") bytes"
echo "image  $(docker image inspect --format '{{.Size}}' "$tag") bytes  $tag"
