#!/bin/sh
# Builds the image's static binary with this machine's Rust and prints where it is. Dockerfile, build-prebuilt.sh and
# reproduce.sh all build with it. LOGFERRY_PROFILE=dev: quick to build, large.
#
# The flags stand here and not in .cargo/config.toml: a plain `cargo build` must work on any Linux.
set -eu
cd "$(dirname "$0")/.."

profile=${LOGFERRY_PROFILE:-image}
host=$(rustc -vV | sed -n 's/^host: //p')
cargo fetch --locked --quiet --target "$host"

# One static file, that still is loaded where nobody can tell beforehand (static-PIE).
flags="-C target-feature=+crt-static"

# Packed relocations make it 200 kB smaller (on Arm, bookworm's linker warns that it knows none, and goes on), no unwind
# tables 540 kB (why that is safe: see no-unwind.ld).
flags="$flags -C link-arg=-Wl,-z,pack-relative-relocs,-T,docker/no-unwind.ld"

# Functions of the same machine code are there once: 50 kB smaller. Nothing of ours compares the addresses of functions. Only lld knows how, with
# which Rust links for x86-64 from 1.90 on.
if [ "$host" = x86_64-unknown-linux-gnu ] && [ "$(rustc -V | cut -d . -f 2)" -ge 90 ]; then
  flags="$flags -C link-arg=-Wl,--icf=all,-O2"
fi

# Panics name the file they come from. Without the builder's home in front the binary is 27 kB smaller, and the same
# wherever it was built. The last prefix that fits counts: crates.io's directory, or any.
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
flags="$flags --remap-path-prefix=$registry/="
for index in "$registry"/*/; do
  if [ -d "$index" ]; then flags="$flags --remap-path-prefix=$index="; fi
done

# The explicit --target keeps crt-static away from build scripts and proc-macros, which cannot be built with it.
RUSTFLAGS=$flags cargo build --locked --profile "$profile" --target "$host" --bin logferry >&2

# The folder of cargo's oldest profile has another name.
if [ "$profile" = dev ]; then profile=debug; fi
echo "${CARGO_TARGET_DIR:-target}/$host/$profile/logferry"
