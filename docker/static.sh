#!/bin/sh
# Says whether a file is a program that needs nothing of the machine it runs on, as the image and the Debian package need it:
# exit code 0. Else 65, with what it is on stderr.
#
#     docker/static.sh FILE
set -eu

file=$1
refuse() {
  echo "$file $1. Give a static binary: docker/build-binary.sh builds one and prints where it is." >&2
  exit 65
}
if [ ! -f "$file" ]; then refuse "is not there"; fi

# A number of the ELF header: where it is, and how many bytes it has. Little endian, as x86-64 and Arm are.
number() { od -A n -t "u$2" -j "$1" -N "$2" "$file" | tr -d ' '; }
if [ "$(od -A n -t x1 -N 5 "$file" | tr -d ' \n')" != 7f454c4602 ]; then refuse "is not a 64-bit program for Linux"; fi

# A program that is not static names the loader which must start it (a header of type 3, PT_INTERP).
header=$(number 32 8)
size=$(number 54 2)
left=$(number 56 2)
while [ "$left" -gt 0 ]; do
  if [ "$(number "$header" 4)" = 3 ]; then
    loader=$(od -A n -c -v -j "$(number $((header + 8)) 8)" -N "$(($(number $((header + 32)) 8) - 1))" "$file" | tr -d ' \n')
    refuse "is not static: it needs the loader $loader, which is not in the image"
  fi
  header=$((header + size))
  left=$((left - 1))
done
