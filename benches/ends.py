#!/usr/bin/env python3
"""What a message costs by other inputs and destinations than plain syslog: at 10,000 a second from 10 senders, and flat out from one.

    python3 benches/ends.py [--runs N] [--only PREFIX]     all rows, medians of 3 runs; LOGFERRY_BINARY, default target/release/logferry

PREFIX: rows whose name begins with it: `--only relp`. The relay runs alone on the last CPU. This program, its senders and its stub
servers run on the others. A line of Docker's syslog driver has 200 bytes, 120 of them text; JSON has 300. Each message differs.

- CPU: user and system time of the relay, from the first message until all are delivered.
- Wake-ups: how often the relay's threads began to wait, while the senders sent.
- Messages a second: until the server has read nine tenths of the bytes. The last batch of a log store waits for `batch-wait`.
"""
import argparse, ctypes, itertools, json, multiprocessing, os, pathlib, re, select, signal, socket, statistics, struct, subprocess, sys, tempfile
import threading, time, urllib.request, zlib

SENDERS, RATE, PACED = 10, 10_000, 50_000
FLAT = 300_000
WARM_UP = 500
TEXT, JSON = 120, 300  # bytes
WINDOW = 128  # frames of RELP without an answer
BLOCK = 64 << 10  # bytes of a write, flat out
PATIENCE = 60  # seconds
CPUS = sorted(os.sched_getaffinity(0))
OURS, RELAYS = set(CPUS[:-1] or CPUS), {CPUS[-1]}
FORK = multiprocessing.get_context("fork")
IMAGE = "registry.local:5000/app:1.2"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"


class Failed(Exception):
    pass


# Messages: each function makes message `number` of a sender's container, with its time.


def container(sender):
    return f"{sender:02x}23456789ab" + "cd" * 26, f"proj-web-{sender}"


def scattered(number):
    """64 bits that hardly compress, as IDs do."""
    return (number + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1


def text(number):
    id = scattered(number)
    line = f"GET /api/v1/orders/{number:09d} {200 + id % 5} client=10.0.{id % 251}.{id % 241} request={id:016x} took={id % 997 / 8:.3f} "
    return line.ljust(TEXT, ".")


def json_text(number):
    id = scattered(number)
    fields = {
        "level": ("info", "warn", "debug", "error")[id % 4],
        "logger": "http.access",
        "msg": f"order {number:09d} was served",
        "method": "GET",
        "path": f"/api/v1/orders/{number:09d}",
        "status": 200 + id % 5,
        "duration_ms": id % 997 / 8,
        "trace_id": f"{id:016x}{scattered(id):016x}",
        "client": f"10.0.{id % 251}.{id % 241}",
        "agent": "",
    }
    write = json.JSONEncoder(separators=(",", ":")).encode
    fields["agent"] = AGENT[: JSON - len(write(fields))]
    return write(fields)


def docker_line(say):
    """A line as Docker's `syslog` driver writes it by default."""

    def prepare(sender):
        identity, name = container(sender)
        after = f"{IMAGE}/{name}/{identity[:12]}[1234]: "
        stamps = {}

        def message(number, at):
            second = int(at)
            if second not in stamps:
                stamps[second] = f"<30>{time.strftime('%b %e %H:%M:%S', time.localtime(second))} {after}"
            return f"{stamps[second]}{say(number)}\n".encode()

        return message

    return prepare


def forward_message(sender):
    """Message mode, as Docker's `fluentd` driver writes it: Go gives the keys of a record any order."""

    def string(value):
        value = value.encode()
        head = bytes([0xA0 | len(value)]) if len(value) < 32 else bytes([0xD9, len(value)])
        return head + value

    identity, name = container(sender)
    record = {"container_id": identity, "container_name": f"/{name}", "source": "stdout"}
    pairs = [string(key) + string(value) for key, value in record.items()] + [None]
    orders = list(itertools.permutations(pairs))
    head = b"\x94" + string(f"{IMAGE}/{name}/{identity[:12]}") + b"\xd7\x00"

    def message(number, at):
        log = string("log") + string(text(number))
        second, fraction = divmod(at, 1)
        record = b"".join([pair or log for pair in orders[number * 7 % len(orders)]])
        return head + struct.pack(">II", int(second), int(fraction * 1e9)) + b"\x84" + record + b"\x80"

    return message


def gelf_message(sender):
    """GELF as Docker's `gelf` driver writes it by TCP."""
    identity, name = container(sender)
    more = {
        "_command": "/usr/bin/app --serve",
        "_container_id": identity,
        "_container_name": name,
        "_created": "2026-11-30T08:00:00.123456789Z",
        "_image_id": "sha256:" + "37f262d5" * 8,
        "_image_name": IMAGE,
        "_tag": f"{IMAGE}/{name}/{identity[:12]}",
    }
    after = "," + json.dumps(more, separators=(",", ":"))[1:] + "\0"

    def message(number, at):
        return f'{{"version":"1.1","host":"node-7","short_message":"{text(number)}","timestamp":{at:.3f},"level":6{after}'.encode()

    return message


# Senders: each class is a connection to the relay.


class Plain:
    number = 0  # of the first message

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send = self.socket.sendall

    @staticmethod
    def frame(number, message):
        return message

    @staticmethod
    def blocks(messages):
        each = BLOCK // len(messages[0])
        return [b"".join(messages[at : at + each]) for at in range(0, len(messages), each)]

    def send_blocks(self, blocks):
        for block in blocks:
            self.send(block)

    def finish(self):
        pass


class Relp(Plain):
    OFFERS = b"relp_version=0\nrelp_software=ends\ncommands=syslog"
    number = 2  # 1 is `open`

    def __init__(self, port):
        super().__init__(port)
        self.unanswered, self.held = 0, b""
        self.socket.sendall(b"1 open %d %s\n" % (len(self.OFFERS), self.OFFERS))
        # The answer to `open` has several lines. Nothing comes after it.
        while not (answer := re.match(rb"1 rsp (\d+) ", self.held)) or len(self.held) < answer.end() + int(answer[1]) + 1:
            self.held += self.receive()
        if not self.held[answer.end() :].startswith(b"200 "):
            raise Failed(f"the relay answers {self.held}")
        self.held = b""
        self.send = self.send_frame

    @staticmethod
    def frame(number, message):
        line = message.removesuffix(b"\n")
        return b"%d syslog %d %s\n" % (number, len(line), line)

    @staticmethod
    def blocks(messages):
        return messages

    def receive(self):
        data = self.socket.recv(BLOCK)
        if not data:
            raise Failed("the relay has closed the session")
        return data

    def read_answers(self):
        data = self.held + self.receive()
        answers, _, self.held = data.rpartition(b"\n")
        good, all = answers.count(b" rsp 6 200 OK"), answers.count(b"\n") + bool(answers)
        if good != all:
            raise Failed(f"the relay answers {answers[:1000]}")
        self.unanswered -= all

    def send_frame(self, frame):
        # A read with MSG_DONTWAIT would wait: a socket with a timeout asks the kernel first whether it is readable.
        if select.select([self.socket], [], [], 0)[0]:
            self.read_answers()
        while self.unanswered >= WINDOW:
            self.read_answers()
        self.unanswered += 1
        self.socket.sendall(frame)

    def send_blocks(self, frames):
        at = 0
        while at < len(frames):
            room = WINDOW - self.unanswered
            if not room:
                self.read_answers()
                continue
            some = frames[at : at + room]
            self.unanswered += len(some)
            self.socket.sendall(b"".join(some))
            at += len(some)

    def finish(self):
        while self.unanswered:
            self.read_answers()


def send_paced(links, messages):
    """`messages[i]` are those of `links[i]`. One is sent each 100 µs. One that is late goes at once."""
    turns = [(link.send, message) for turn in zip(*messages) for link, message in zip(links, turn)]
    start = time.monotonic()
    for turn, (send, message) in enumerate(turns):
        wait = start + turn / RATE - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        send(message)


def send_from(pipe, row, port, paced):
    """The process of the senders. It waits for a word before it warms up, and before it sends."""
    # A sleep ends within a microsecond of its time, and not within 50.
    ctypes.CDLL(None).prctl(29, 1000, 0, 0, 0)  # PR_SET_TIMERSLACK, in ns
    try:
        senders, count = (SENDERS, PACED) if paced else (1, FLAT)
        warm, each = WARM_UP // senders, (WARM_UP + count) // senders
        soon, step = time.time() + 2, 1 / RATE if paced else 1e-6
        messages = []
        for sender in range(senders):
            message = row.prepare(sender)
            first = row.sender.number
            messages.append([
                row.sender.frame(first + number, message(sender * each + number, soon + number * step * senders)) for number in range(each)
            ])
        links = [row.sender(port) for _ in range(senders)]
        for phase in (slice(warm), slice(warm, None)):
            now = [some[phase] for some in messages]
            blocks = None if paced else row.sender.blocks(now[0])
            pipe.send("ready")
            pipe.recv()
            start = time.monotonic()
            if paced:
                send_paced(links, now)
            else:
                links[0].send_blocks(blocks)
            [link.finish() for link in links]
            pipe.send((start, time.monotonic()))
        pipe.recv()
    except (OSError, EOFError, Failed) as error:
        pipe.send(f"{type(error).__name__}: {error}")


# Servers: each function serves a connection. It tells `note` how many bytes it has read.


def serve_syslog(connection, note):
    while data := connection.recv(1 << 18):
        note(len(data))


def serve_relp(connection, note):
    head_of = re.compile(rb"(\d+) (\w+) (\d+)[ \n]")
    held = b""
    while data := connection.recv(1 << 18):
        note(len(data))
        held += data
        at, answers = 0, []
        while head := head_of.match(held, at):
            length = int(head[3])
            end = head.end() + length + 1 if length else head.end()
            if len(held) < end:
                break
            if head[2] == b"open":
                answer = b"200 OK\n" + Relp.OFFERS
                answers.append(b"%s rsp %d %s\n" % (head[1], len(answer), answer))
            else:
                answers.append(b"%s rsp 6 200 OK\n" % head[1])
            at = end
        held = held[at:]
        connection.sendall(b"".join(answers))


def serve_http(answer_to):
    """`answer_to(path, body)` gives status and body of the answer."""

    def serve(connection, note):
        file = connection.makefile("rb", 1 << 18)
        while request := file.readline():
            headers = {}
            while (line := file.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                headers[name.strip().lower()] = value.strip().lower()
            if b"transfer-encoding" in headers:
                raise Failed("a request in chunks")
            body = file.read(int(headers.get(b"content-length", 0)))
            note(len(body))
            if headers.get(b"content-encoding") == b"gzip":
                body = zlib.decompress(body, 31)
            status, answer = answer_to(request.split()[1], body)
            length = b"" if status.startswith(b"204") else b"content-length: %d\r\n" % len(answer)
            connection.sendall(b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n%s\r\n%s" % (status, length, answer))

    return serve


def bulk(path, body):
    if not path.split(b"?")[0].endswith(b"/_bulk"):
        return b"200 OK", b"{}"
    documents = body.count(b"\n") // 2
    items = b",".join([b'{"create":{"status":201}}'] * documents)
    return b"200 OK", b'{"took":1,"errors":false,"items":[%s]}' % items


def otlp(path, body):
    return b"200 OK", b""


def loki(path, body):
    return b"204 No Content", b""


def serve_from(pipe, serve):
    """The process of the server. It sends its port, and at the end what was read when: pairs of time and bytes."""
    listener, read, troubles = socket.create_server(("127.0.0.1", 0)), [], []

    def one(connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            serve(connection, lambda count: read.append((time.monotonic(), count)))
        except ConnectionError:
            pass
        except Exception as error:
            troubles.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    def accept():
        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    pipe.send(listener.getsockname()[1])
    try:
        pipe.recv()
        pipe.send((read, troubles))
    except EOFError:
        pass


# The relay.


class Relay:
    def __init__(self, binary, directory, row, server_port):
        self.log, address = directory / "log", directory / "admin"
        (directory / "spool").mkdir()
        (directory / "logferry.toml").write_text(f"""hostname = "node-7"
[[listen]]
address = "{row.listen}://127.0.0.1:0"
[spool]
dir = "{directory}/spool"
[[forward]]
name = "central"
to = "{row.to}://127.0.0.1:{server_port}"
{row.more}
[admin]
listen = "127.0.0.1:0"
address-file = "{address}"
""")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [binary, "run", "--config", directory / "logferry.toml"],
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, RELAYS),
            )
        try:
            self.wait_for(lambda: address.exists() and address.read_text().strip(), "does not start")
            self.admin = f"http://{address.read_text().strip()}"
            self.wait_for(lambda: self.value("logferry_forward_connected") == 1, "does not connect")
            listeners = json.loads(self.get("/status"))["listeners"]
            self.port = next(int(url.rsplit(":", 1)[1]) for url in (one["address"] for one in listeners) if "://" in url)
        except BaseException:
            self.end()
            raise

    def get(self, path):
        with urllib.request.urlopen(self.admin + path, timeout=PATIENCE) as answer:
            return answer.read().decode()

    def value(self, name):
        return sum(int(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\d+)$", self.get("/metrics"), re.M))

    def wait_for(self, condition, fault, pause=0.05):
        until = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                raise Failed(f"the relay has ended with {self.process.returncode}")
            if time.monotonic() > until:
                raise Failed(f"the relay {fault() if callable(fault) else fault} in {PATIENCE} s")
            time.sleep(pause)

    def wait_until_delivered(self, count):
        delivered = 0

        def all_are():
            nonlocal delivered
            delivered = self.value("logferry_forward_delivered_total")
            return delivered >= count

        self.wait_for(all_are, lambda: f"has delivered {delivered} of {count} messages")
        if delivered > count:
            raise Failed(f"the relay has delivered {delivered} messages, and {count} were sent")

    def cpu(self):
        # utime and stime of /proc/PID/stat, but not in ticks of 10 ms: this is what clock_getcpuclockid(3) makes of a PID.
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def waits(self):
        total = 0
        for thread in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (thread / "status").read_text(), re.M)[1])
        return total

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Row:
    def __init__(self, name, listen, prepare, to, serve, more="", sender=Plain):
        self.name, self.listen, self.prepare, self.to, self.serve, self.more, self.sender = name, listen, prepare, to, serve, more, sender


ROWS = [
    Row("forward -> syslog", "fluent", forward_message, "tcp", serve_syslog),
    Row("gelf -> _bulk", "gelf+tcp", gelf_message, "http", serve_http(bulk), 'api = "elasticsearch"'),
    Row("syslog -> otlp", "tcp", docker_line(text), "http", serve_http(otlp), 'api = "otlp"'),
    Row("relp -> relp", "relp", docker_line(text), "relp", serve_relp, sender=Relp),
    Row("json -> loki", "tcp", docker_line(json_text), "http", serve_http(loki), 'api = "loki"\nparse = "json"'),
    Row("syslog -> syslog", "tcp", docker_line(text), "tcp", serve_syslog),
]


class Helper:
    """A process of this program, and a pipe to it."""

    def __init__(self, target, *words):
        self.pipe, theirs = FORK.Pipe()
        # The process must not hold this end itself, or it would never see that we are gone.
        own = self.pipe

        def run():
            own.close()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends this one
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            target(theirs, *words)

        self.process = FORK.Process(target=run, daemon=True)
        self.process.start()
        theirs.close()

    def hear(self, seconds=PATIENCE):
        try:
            if not self.pipe.poll(seconds):
                raise Failed(f"the process {self.process.pid} of ends.py says nothing for {seconds} s")
            word = self.pipe.recv()
        except EOFError:
            raise Failed(f"the process {self.process.pid} of ends.py has ended") from None
        return word

    def say(self):
        self.pipe.send("go")

    def end(self):
        self.process.kill()
        self.process.join()


def measure(binary, row, paced):
    """CPU seconds per million messages, and wake-ups a second or messages a second."""
    started = []

    def start(thing):
        started.append(thing)
        return thing

    with tempfile.TemporaryDirectory(prefix="ends-") as directory:
        directory = pathlib.Path(directory)
        try:
            server = start(Helper(serve_from, row.serve))
            relay = start(Relay(binary, directory, row, server.hear()))
            senders = start(Helper(send_from, row, relay.port, paced))

            def hear_sent():
                word = senders.hear(PACED / RATE + PATIENCE)
                if isinstance(word, str) and word != "ready":
                    raise Failed(f"the senders have failed: {word}")
                return word

            count = PACED if paced else FLAT
            hear_sent()
            senders.say()
            hear_sent()
            relay.wait_until_delivered(WARM_UP)
            hear_sent()
            cpu, waits = relay.cpu(), relay.waits()
            senders.say()
            start_time, end_time = hear_sent()
            waits = relay.waits() - waits
            relay.wait_until_delivered(WARM_UP + count)
            cpu = relay.cpu() - cpu
            server.say()
            read, troubles = server.hear()
            if troubles:
                raise Failed(f"the server has failed: {troubles}")
            seconds = end_time - start_time
            if not paced:
                return cpu / count * 1e6, reached(read, start_time, count)
            if seconds > 1.05 * count / RATE:
                print(f"{row.name}: the senders were late: {seconds:.1f} s", file=sys.stderr)
            return cpu / count * 1e6, waits / seconds
        except (Failed, OSError) as error:
            log = (directory / "log").read_text() if (directory / "log").exists() else ""
            sys.exit(f"{row.name}, {'paced' if paced else 'flat out'}: {error}\nthe relay's log:\n{log}")
        finally:
            for thing in reversed(started):
                thing.end()


def reached(read, start, count):
    """Messages a second, until nine tenths of the bytes were read."""
    read = [(at, size) for at, size in read if at >= start]
    all, so_far = sum(size for _, size in read), 0
    for at, size in read:
        so_far += size
        if so_far >= 0.9 * all:
            return count * so_far / all / (at - start)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--only", default="", metavar="PREFIX")
    options = options.parse_args()
    binary = os.environ.get("LOGFERRY_BINARY", "target/release/logferry")
    if not os.access(binary, os.X_OK):
        sys.exit(f"there is no {binary}: cargo build --release, or set LOGFERRY_BINARY")
    rows = [row for row in ROWS if row.name.startswith(options.only)]
    if not rows or options.runs < 1:
        sys.exit(f"nothing to measure; rows: {', '.join(row.name for row in ROWS)}")
    os.sched_setaffinity(0, OURS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and so is what was started
    print("| row | CPU s per million, 10,000/s | wake-ups/s | CPU s per million, flat out | messages/s flat out |\n|---|---|---|---|---|", flush=True)
    for row in rows:
        runs = [(*measure(binary, row, True), *measure(binary, row, False)) for _ in range(options.runs)]
        paced, waits, flat, rate = map(statistics.median, zip(*runs))
        print(f"| {row.name} | {paced:.1f} | {waits:,.0f} | {flat:.2f} | {rate:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
