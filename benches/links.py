#!/usr/bin/env python3
"""Slow and long links: what a relay with a backlog carries over them to a collector, by TCP and by RELP, beside a bare TCP sender.

    python3 benches/links.py [BINARY] [WORDS]     default target/release/logferry, all rows; needs root, ip and tc

WORDS: rows whose name has one of them, with commas between: `32 kbit,300 ms`. Two machines are network namespaces with veth between
them. A rate is TBF's; a delay is a third namespace whose program carries each packet on later, since not every kernel has netem.
"""
import collections, ctypes, fcntl, os, re, shutil, signal, socket, struct, subprocess, sys, tempfile, threading, time

HERE, THERE, PORT = "10.98.0.1", "10.98.0.2", 5514
LINE = 200  # bytes of a line
SEND_BUFFER = 4 << 20  # tcp_wmem's maximum
NUMBER = re.compile(rb" (\d{9}) x")


def run(command):
    subprocess.run(command.split(), check=True)


def offloads_nothing(device):
    """Each packet has its checksum, and no packet is longer than the MTU."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for command in (0x17, 0x1F, 0x24, 0x2C):  # ETHTOOL_STXCSUM, STSO, SGSO, SGRO
        value = ctypes.create_string_buffer(struct.pack("II", command, 0))
        fcntl.ioctl(probe, 0x8946, struct.pack("16sP", device.encode(), ctypes.addressof(value)))


def carry(delay):
    """The namespace in the middle: what comes at one end goes out at the other, `delay` seconds later."""
    ends = []
    for device in ("m0", "m1"):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        end.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        end.bind((device, 0))
        ends.append(end)

    def take(end, queue):
        while True:
            packet, address = end.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                queue.append((time.monotonic() + delay, packet))

    def give(end, queue):
        while True:
            if not queue:
                time.sleep(0.0005)
                continue
            at, packet = queue[0]
            wait = at - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            end.send(packet)
            queue.popleft()

    for source, sink in (ends, ends[::-1]):
        queue = collections.deque()
        threading.Thread(target=take, args=(source, queue), daemon=True).start()
        threading.Thread(target=give, args=(sink, queue), daemon=True).start()
    signal.pause()


class Count:
    """The highest number of a line that was read, as often as something was."""

    def __init__(self):
        self.highest, self.bytes, self.tail = 0, 0, b""

    def see(self, data):
        self.bytes += len(data)
        end = (self.tail + data)[-2 * LINE :]
        found, self.tail = NUMBER.findall(end), end[-LINE:]
        if found:
            self.highest = max(self.highest, int(found[-1]))


def relp(connection, count, read):
    held = b""
    while True:
        data = read()
        if not data:
            return
        count.see(data)
        held += data
        while True:
            head = re.match(rb"(\d+) (\w+) (\d+)[ \n]", held)
            if not head:
                break
            number, command, length = int(head[1]), head[2], int(head[3])
            end = head.end() + length + 1 if length else head.end()
            if len(held) < end:
                break
            answer = b"200 OK" + (b"\n" + held[head.end() : end - 1] if command == b"open" else b"")
            connection.sendall(b"%d rsp %d %s\n" % (number, len(answer), answer))
            held = held[end:]


def collect(protocol, rate, wait, seconds):
    """The collector: prints the bytes of lines a second that it has read between `wait` and `wait + seconds`."""
    listener, count = socket.create_server((THERE, PORT)), Count()

    def serve():
        while True:
            connection = listener.accept()[0]
            # Answers that wait for the acknowledgement of the answer before them come a round trip late.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def read():
                if rate:
                    time.sleep(0.1)
                return connection.recv(rate // 10 if rate else 1 << 20)

            if protocol == "relp":
                relp(connection, count, read)
            else:
                while data := read():
                    count.see(data)

    threading.Thread(target=serve, daemon=True).start()
    while not count.highest:
        time.sleep(0.01)
    time.sleep(wait)
    before = count.highest
    time.sleep(seconds)
    print((count.highest - before) * LINE / seconds, flush=True)


def send(address, lines):
    """Numbered lines, as fast as they are taken."""
    for _ in range(600):
        try:
            connection = socket.create_connection(address, timeout=600)
            break
        except OSError:
            time.sleep(0.05)
    for first in range(1, lines, 1000):
        block = []
        for number in range(first, first + 1000):
            line = b"<13>1 2026-11-29T03:00:00.000000Z host app 1 - - %09d x" % number
            block.append(line.ljust(LINE - 1, b"x") + b"\n")
        connection.sendall(b"".join(block))
    signal.pause()


def measure(name, who, link, reads, trip, times, binary):
    """`link`: TBF's rate; `reads`: bytes a second that the collector's program reads; `trip`: seconds there and back."""
    own, (wait, seconds) = f"lf{os.getpid()}-{abs(hash((name, who))) % 10**6}", times
    spaces, started, directory = [f"{own}{end}" for end in "abm"], [], tempfile.mkdtemp()
    here, there, middle = spaces

    def start(space, *words, **options):
        started.append(subprocess.Popen(["ip", "netns", "exec", space, *map(str, words)], **options))
        return started[-1]

    def myself(space, *words, **options):
        return start(space, sys.executable, __file__, *words, **options)

    try:
        for space in spaces:
            run(f"ip netns add {space}")
            run(f"ip -n {space} link set lo up")
        if trip:
            run(f"ip -n {here} link add a0 type veth peer name m0 netns {middle}")
            run(f"ip -n {there} link add b0 type veth peer name m1 netns {middle}")
        else:
            run(f"ip -n {here} link add a0 type veth peer name b0 netns {there}")
        run(f"ip -n {here} addr add {HERE}/24 dev a0")
        run(f"ip -n {there} addr add {THERE}/24 dev b0")
        devices = [(here, "a0"), (there, "b0")] + ([(middle, "m0"), (middle, "m1")] if trip else [])
        for space, device in devices:
            mtu = 9000 if not link else 1500
            run(f"ip -n {space} link set {device} mtu {mtu} up")
            subprocess.run(["ip", "netns", "exec", space, sys.executable, __file__, "plain", device], check=True)
        if link:
            run(f"ip netns exec {here} tc qdisc add dev a0 root tbf rate {link} burst 1600 latency 20s")
        if trip:
            myself(middle, "carry", trip / 2)
        protocol = "relp" if who == "relp" else "tcp"
        collector = myself(there, "collect", protocol, reads or 0, wait, seconds, stdout=subprocess.PIPE, text=True)
        lines = {"32kbit": 20_000, "1mbit": 100_000}.get(link, 20_000 if reads else 4_000_000)
        if who == "bare":
            myself(here, "send", THERE, PORT, lines)
        else:
            with open(f"{directory}/logferry.toml", "w") as config:
                config.write(f"""[[listen]]
address = "tcp://127.0.0.1:{PORT}"
[spool]
dir = "{directory}/spool"
max-size = "2 GiB"
[[forward]]
name = "central"
to = ["{protocol}://{THERE}:{PORT}"]
[admin]
listen = "off"
""")
            os.mkdir(f"{directory}/spool")
            with open(f"{directory}/log", "w") as log:
                start(here, binary, "run", "--config", f"{directory}/logferry.toml", stderr=log)
            myself(here, "send", "127.0.0.1", PORT, lines)
        return float(collector.communicate()[0])
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)
        shutil.rmtree(directory)


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else "target/release/logferry"
    words = sys.argv[2].split(",") if len(sys.argv) > 2 else [""]
    rows = []
    for what, link, reads in (("reads 4 kB/s", None, 4000), ("link of 32 kbit/s", "32kbit", None), ("link of 1 Mbit/s", "1mbit", None), ("nothing in the way", None, None)):
        # With nothing in the way at all this program is what is measured; benches/compare measures loopback.
        for trip in (0, 0.1, 0.3) if link or reads else (0.1, 0.3):
            rows.append((f"{what}, {trip * 1000:.0f} ms", link, reads, trip))
    rows = [row for row in rows if any(word in row[0] for word in words)]
    found = {}

    def one(row, who):
        name, link, reads, trip = row
        times = (20, 60) if link or reads else (8, 10)
        found[name, who] = measure(name, who, link, reads, trip, times, binary)

    slow = [(row, who) for row in rows if row[1] or row[2] for who in ("bare", "tcp", "relp")]
    for at in range(0, len(slow), 9):
        threads = [threading.Thread(target=one, args=job) for job in slow[at : at + 9]]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    for row in rows:
        if not row[1] and not row[2]:
            [one(row, who) for who in ("bare", "tcp", "relp")]
    print("| | bound | bare TCP | by TCP | by RELP |\n|---|---|---|---|---|")
    for name, link, reads, trip in rows:
        bare, tcp, by_relp = (found[name, who] for who in ("bare", "tcp", "relp"))
        bounds = [{"32kbit": 4000, "1mbit": 125_000}.get(link), reads, SEND_BUFFER / trip if trip else None]
        bound = min([bound for bound in bounds if bound] or [bare])
        share = lambda value: f"{value:,.0f} ({100 * value / bound:.0f} %)"
        print(f"| {name} | {bound:,.0f} | {share(bare)} | {share(tcp)} | {share(by_relp)} |", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["plain", device]:
            offloads_nothing(device)
        case ["carry", delay]:
            carry(float(delay))
        case ["collect", protocol, rate, wait, seconds]:
            collect(protocol, int(rate), float(wait), float(seconds))
        case ["send", host, port, lines]:
            send((host, int(port)), int(lines))
        case _:
            main()
