#!/usr/bin/env bash
# Builds the image's binary twice from the last commit, in two clones in folders of other names, with two homes of cargo,
# and compares them byte by byte. Takes as long as two builds.
#
#     docker/reproduce.sh              the two with each other
#     docker/reproduce.sh FILE         and with this one: of an image (docker cp), or of another machine
#
# The same bytes need the same Rust, C compiler and libc (in the image: Debian 12's).
set -euo pipefail
cd "$(dirname "$0")/.."

given=${1:+$(realpath "$1")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# $1: the name of a folder; prints the binary's path. Downloads are shared, by a home that only leads to them.
build() {
  mkdir -p "$work/$1/home"
  git clone --quiet . "$work/$1/logferry"
  ln -s "$(realpath "${CARGO_HOME:-$HOME/.cargo}")"/* "$work/$1/home/"
  CARGO_HOME=$work/$1/home CARGO_TARGET_DIR=$work/$1/target "$work/$1/logferry/docker/build-binary.sh"
}

first=$(build one)
second=$(build another-folder)
sha256sum "$first" "$second" ${given:+"$given"}
cmp "$first" "$second"
if [ -n "$given" ]; then cmp "$first" "$given"; fi
echo "the same $(stat -c %s "$first") bytes"
