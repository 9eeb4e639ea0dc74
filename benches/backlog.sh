#!/usr/bin/env bash
# A backlog of many gigabytes: how soon a relay opens it, and how fast it drains while 20,000 new messages a second come.
#
#     benches/backlog.sh [LINES]        default 40000000: a spool of 10 GB, below $TMPDIR; needs python3
#     LOGFERRY_BINARY=path benches/backlog.sh         another binary than target/release/logferry
set -euo pipefail

lines=${1:-40000000}
binary=${LOGFERRY_BINARY:-target/release/logferry}
dir=$(mktemp -d)
text=$(printf 'x%.0s' {1..110})
line="<30>Nov 21 10:00:00 registry.local:5000/team/app:1.2.3/proj-web-1/0123456789ab[1234]: $text"
relay= collector= sender=

clean_up() {
  for pid in $sender $relay $collector; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap clean_up EXIT

free_port() {
  local port
  while port=$((RANDOM % 20000 + 20000)) && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}
# The value of a metric, 0 while there is none.
metric() {
  { printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; sed -n "s/^$1\({[^}]*}\)\? \([0-9]*\).*/\2/p" <&3 | head -n 1; } \
    3<>"/dev/tcp/127.0.0.1/$admin" 2>/dev/null || echo 0
}
start_relay() {
  "$binary" run --config "$dir/logferry.toml" 2>"$dir/log" &
  relay=$!
  until (: <"/dev/tcp/127.0.0.1/$in") 2>/dev/null; do
    kill -0 "$relay" || { cat "$dir/log"; exit 1; }
  done
}
milliseconds() { echo $((${EPOCHREALTIME/./} / 1000)); }
cpu() { awk '{ print ($14 + $15) * 10 }' "/proc/$relay/stat"; }

in=$(free_port) out=$(free_port) admin=$(free_port)
cat >"$dir/logferry.toml" <<END
[[listen]]
address = "tcp://127.0.0.1:$in"
[spool]
dir = "$dir/spool"
max-size = "$((lines / 2000000 + 1)) GiB"
[[forward]]
name = "central"
to = ["tcp://127.0.0.1:$out"]
[admin]
listen = "127.0.0.1:$admin"
END
mkdir "$dir/spool"

start_relay
# `yes` ends with a broken pipe when `head` has enough.
{ yes "$line" || true; } | head -n "$lines" >"/dev/tcp/127.0.0.1/$in"
until [ "$(metric logferry_spool_spooled_total)" -ge "$lines" ]; do sleep 0.2; done
kill "$relay"; wait "$relay" || true
echo "spool: $(du -s --block-size=1000000 "$dir/spool" | cut -f1) MB, $lines lines"

python3 - "$out" <<'END' &
import socket, sys
connection, _ = socket.create_server(("127.0.0.1", int(sys.argv[1]))).accept()
buffer = bytearray(1 << 20)
while connection.recv_into(buffer): pass
END
collector=$!
since=$(milliseconds)
start_relay
echo "open after $(($(milliseconds) - since)) ms"

yes "$line" 2>/dev/null | head -n 2000 >"$dir/two-thousand" || true
(while :; do cat "$dir/two-thousand"; sleep 0.1; done) >"/dev/tcp/127.0.0.1/$in" &
sender=$!
until delivered=$(metric logferry_forward_delivered_total) && [ "$delivered" -ge "$lines" ]; do sleep 0.1; done
took=$(($(milliseconds) - since))
new=$(($(metric logferry_spool_spooled_total)))
echo "$delivered lines delivered in $took ms: $((delivered / took)),000 a second, with $new new ones meanwhile;" \
  "$(cpu) ms of CPU time, $(awk '/VmHWM/ { print int($2 / 1000) }' "/proc/$relay/status") MB resident at most"
