#!/bin/sh
# Writes what the image's binary is made of, crates with their versions, checksums and licences, as CycloneDX 1.5. Needs
# cargo-cyclonedx (`cargo install --locked cargo-cyclonedx@0.5.9`). The same bytes for the same commit.
#
#     docker/sbom.sh [FILE]           default: logferry.cdx.json
set -eu
cd "$(dirname "$0")/.."

to=${1:-logferry.cdx.json}
host=$(rustc -vV | sed -n 's/^host: //p')
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# Its own name for the file: the tool writes beside Cargo.toml and knows no other place.
made=sbom-$$
trap 'rm -f "$made.json"' EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target "$host" \
  --override-filename "$made"

# It may name more than is built (optional crates of crates, which cargo's own metadata have too), but never less.
cargo tree --locked --edges normal --target "$host" --prefix none --format '{p}' | cut -d' ' -f1,2 | sort -u |
  while read -r name version; do
    [ "$name" = logferry ] || grep -qF "pkg:cargo/$name@${version#v}" "$made.json" ||
      { echo "the list does not name $name ${version#v}" >&2; exit 1; }
  done
mv "$made.json" "$to"
echo "$to: $(grep -c '"purl": "pkg:cargo/' "$to") crates"
