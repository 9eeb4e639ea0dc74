#!/usr/bin/env python3
"""Makes what is in this folder anew: entries are written to journal files, and systemd-journal-upload sends them to a server that
keeps every byte. Needs python3 and Debian's systemd-journal-remote; neither root nor a systemd that runs. README says more.

    tests/corpus-journal/capture.py
"""

import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
DRIVERS = HERE.parent / "corpus-drivers"
PROGRAMS = next(p for p in ("/lib/systemd", "/usr/lib/systemd") if os.path.exists(p + "/systemd-journal-upload"))
BOOT = b"6c7c6013a26343b29e964691ff25d04c"
START = 1_795_898_357_000_000


# The entries, as lists of names and values.

MACHINE = [(b"_MACHINE_ID", b"a91663387a90b89f185d4e860000001a"), (b"_HOSTNAME", b"node-7")]


def process(comm, pid, unit, exe, cmdline, uid=b"0"):
    return MACHINE + [
        (b"_PID", pid), (b"_UID", uid), (b"_GID", uid), (b"_COMM", comm), (b"_EXE", exe), (b"_CMDLINE", cmdline),
        (b"_CAP_EFFECTIVE", b"1ffffffffff"), (b"_SELINUX_CONTEXT", b"unconfined"),
        (b"_SYSTEMD_CGROUP", b"/system.slice/" + unit), (b"_SYSTEMD_UNIT", unit), (b"_SYSTEMD_SLICE", b"system.slice"),
        (b"_SYSTEMD_INVOCATION_ID", b"41e1a2fd6e4c4a5aa4d0a8a4b7d0d4aa"), (b"_RUNTIME_SCOPE", b"system"),
    ]


SSHD = process(b"sshd", b"811", b"ssh.service", b"/usr/sbin/sshd", b"sshd: root [priv]")
APP = process(b"app", b"4711", b"app.service", b"/usr/bin/app", b"/usr/bin/app --serve")
SYSTEMD = process(b"systemd", b"1", b"init.scope", b"/usr/lib/systemd/systemd", b"/sbin/init")
CONTAINERD = process(b"containerd", b"620", b"containerd.service", b"/usr/bin/containerd", b"/usr/bin/containerd")
DOCKERD = process(b"dockerd", b"700", b"docker.service", b"/usr/bin/dockerd", b"/usr/bin/dockerd -H fd://")
CONMON = process(b"conmon", b"900", b"web.service", b"/usr/bin/conmon", b"/usr/bin/conmon --api-version 1")
NATIVE = [(b"_TRANSPORT", b"journal")]
STDOUT = [(b"_TRANSPORT", b"stdout"), (b"_STREAM_ID", b"5f0d1b0f7be6454f9c0a3d8b7f5ac8f1"), (b"SYSLOG_FACILITY", b"3"),
          (b"SYSLOG_IDENTIFIER", b"app")]

SYSTEM = [
    SSHD + [(b"_TRANSPORT", b"syslog"), (b"PRIORITY", b"6"), (b"SYSLOG_FACILITY", b"10"), (b"SYSLOG_IDENTIFIER", b"sshd"),
            (b"SYSLOG_PID", b"811"), (b"SYSLOG_TIMESTAMP", b"Nov 28 20:39:17 "),
            (b"_SOURCE_REALTIME_TIMESTAMP", b"1795898356999321"), (b"MESSAGE", b"Server listening on 0.0.0.0 port 22.")],
    MACHINE + [(b"_TRANSPORT", b"kernel"), (b"PRIORITY", b"4"), (b"SYSLOG_FACILITY", b"0"), (b"SYSLOG_IDENTIFIER", b"kernel"),
               (b"_KERNEL_SUBSYSTEM", b"block"), (b"_KERNEL_DEVICE", b"b8:0"), (b"_UDEV_SYSNAME", b"sda"),
               (b"_UDEV_DEVLINK", b"/dev/disk/by-id/a"), (b"_UDEV_DEVLINK", b"/dev/disk/by-path/b"),
               (b"_SOURCE_MONOTONIC_TIMESTAMP", b"3456789"), (b"MESSAGE", b"sd 0:0:0:0: [sda] Attached SCSI disk")],
    SYSTEMD + NATIVE + [(b"PRIORITY", b"6"), (b"SYSLOG_FACILITY", b"3"), (b"SYSLOG_IDENTIFIER", b"systemd"),
                        (b"MESSAGE_ID", b"39f53479d3a045ac8e11786248231fbf"), (b"UNIT", b"app.service"), (b"JOB_ID", b"123"),
                        (b"CODE_FILE", b"src/core/job.c"), (b"CODE_LINE", b"768"), (b"MESSAGE", "Started app – serves.".encode())],
    APP + STDOUT + [(b"PRIORITY", b"6"), (b"MESSAGE", b"a line of stdout = one entry")],
    APP + NATIVE + [(b"PRIORITY", b"3"), (b"MESSAGE", b"Traceback:\n  at a\n  at b"), (b"SYSLOG_IDENTIFIER", b"app")],
    APP + STDOUT + [(b"PRIORITY", b"5"), (b"MESSAGE", b"\x1b[31mred\x1b[0m\ttab")],
    APP + STDOUT + [(b"PRIORITY", b"6"), (b"MESSAGE", b"latin1 caf\xe9, nul [\0], equals a=b")],
    APP + STDOUT + [(b"PRIORITY", b"6"), (b"MESSAGE", b"")],
    APP + NATIVE + [(b"EVENT", b"no message at all"), (b"COUNT", b"7")],
    APP + NATIVE + [(b"MESSAGE", b"no priority"), (b"BLOB", bytes(range(256))), (b"SYSLOG_FACILITY", b"99")],
    APP + NATIVE + [(b"PRIORITY", b"2"), (b"MESSAGE", b"Process 4711 (app) dumped core."), (b"COREDUMP_PID", b"4711"),
                    (b"COREDUMP_PROC_MAPS", b"55f0-55f1 r-xp /usr/bin/app\n" * 600)],
    APP + NATIVE + [(b"PRIORITY", b"6"), (b"MESSAGE", b"long " + b"x" * 5000)],
    MACHINE + [(b"_TRANSPORT", b"audit"), (b"_AUDIT_TYPE", b"1130"), (b"_AUDIT_TYPE_NAME", b"SERVICE_START"),
               (b"_AUDIT_FIELD_UNIT", b"app"), (b"_AUDIT_SESSION", b"4294967295"), (b"_AUDIT_LOGINUID", b"1000"), (b"_UID", b"0"),
               (b"SYSLOG_FACILITY", b"4"), (b"SYSLOG_IDENTIFIER", b"audit"), (b"MESSAGE", b"SERVICE_START pid=1 uid=0 auid=1000")],
    CONTAINERD + STDOUT[:1] + [
        (b"PRIORITY", b"6"), (b"SYSLOG_FACILITY", b"3"), (b"SYSLOG_IDENTIFIER", b"containerd"),
        (b"MESSAGE", b'time="2026-11-28T20:39:17.412345678Z" level=info msg="starting containerd" revision= version=1.6.20')],
    CONTAINERD + [
        (b"_TRANSPORT", b"syslog"), (b"PRIORITY", b"4"), (b"SYSLOG_FACILITY", b"1"), (b"SYSLOG_IDENTIFIER", b"kata"),
        (b"SYSLOG_PID", b"5120"),
        (b"MESSAGE", b'time="2026-11-28T20:39:18.000000123Z" level=warning msg="Could not add to cgroup" name=containerd-shim-v2'
                     b' pid=5120 sandbox=8a3f source=virtcontainers subsystem=sandbox')],
    CONMON + NATIVE + [
        (b"PRIORITY", b"6"), (b"CONTAINER_ID_FULL", b"2a9052a5c36e" * 5 + b"abcd"), (b"CONTAINER_ID", b"2a9052a5c36e"),
        (b"CONTAINER_NAME", b"web"), (b"SYSLOG_IDENTIFIER", b"web"), (b"CONTAINER_PARTIAL_MESSAGE", b"true"),
        (b"MESSAGE", b"half of ")],
    [],
]


def docker():
    """The datagrams that Docker's journald driver sent to a socket, as journald would store them."""
    rows = [line.split("\t") for line in (DRIVERS / "index.tsv").read_text().split("\n") if line.startswith("journald\t")]
    for row in rows:
        datagram = (DRIVERS / row[3]).read_bytes()[int(row[4]):][:int(row[5])]
        fields = []
        while datagram:
            line, _, rest = datagram.partition(b"\n")
            if b"=" in line:
                fields.append(tuple(line.split(b"=", 1)))
                datagram = rest
            else:
                length = struct.unpack("<Q", rest[:8])[0]
                fields.append((line, rest[8:8 + length]))
                datagram = rest[9 + length:]
        yield DOCKERD + NATIVE + fields


def counted(first, count):
    return [MACHINE + NATIVE + [(b"_COMM", b"app"), (b"MESSAGE", b"line %d" % n)] for n in range(first, first + count)]


# From entries to journal files to what is on the wire.

def write_journal(path, entries, start=START, step=1, boot=BOOT):
    """Appends entries to a journal file; returns the fields that each will have."""
    sent = b""
    for at, fields in enumerate(entries):
        time = start + step * at
        own = [(b"__REALTIME_TIMESTAMP", b"%d" % time), (b"__MONOTONIC_TIMESTAMP", b"%d" % (time - START + 1_000_000)),
               (b"_BOOT_ID", boot)]
        for name, value in own + fields:
            if b"\n" in value:
                sent += name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
            else:
                sent += name + b"=" + value + b"\n"
        entries[at] = own + fields
        sent += b"\n"
    program = PROGRAMS + "/systemd-journal-remote"
    subprocess.run([program, "-o", path, "-"], input=sent, check=True, stderr=subprocess.DEVNULL)
    return entries


class Server:
    """Answers 200 to each request of one connection, or breaks it after so many bytes."""

    def __init__(self, cut=None):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.cut, self.bytes, self.answers = cut, b"", threading.Semaphore(0)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        connection, _ = self.listener.accept()
        begun, continued = 0, False
        while received := connection.recv(65536):
            self.bytes += received
            request = self.bytes[begun:]
            if b"\r\n\r\n" in request and not continued:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                continued = True
            if self.cut and len(self.bytes) > self.cut:
                self.bytes = self.bytes[:self.cut]
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                break
            if ended(request):
                begun, continued = len(self.bytes), False
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\n")
                self.answers.release()
        connection.close()


def ended(request):
    """Has the last chunk come?"""
    _, head, chunks = request.partition(b"\r\n\r\n")
    while head:
        size, line, chunks = chunks.partition(b"\r\n")
        if not line or len(chunks) < int(size, 16) + 2:
            return False
        if int(size, 16) == 0:
            return True
        chunks = chunks[int(size, 16) + 2:]
    return False


def uploader(server, *options):
    program = PROGRAMS + "/systemd-journal-upload"
    return subprocess.Popen([program, "--url", f"http://127.0.0.1:{server.port}", *options], stderr=subprocess.DEVNULL)


EXPECTED = []


def keep(name, server, entries):
    """What was sent; the port in Host is that of journal-remote."""
    server.thread.join()
    sent = server.bytes.replace(b"Host: 127.0.0.1:%d" % server.port, b"Host: 127.0.0.1:19532")
    (HERE / name).write_bytes(sent)
    for fields in entries:
        shown = [[name.decode(), escaped(value)] for name, value in fields]
        EXPECTED.append(json.dumps({"file": name, "fields": shown}))


def escaped(value):
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in value)


def upload(name, entries, *files, cut=None, state=None):
    server = Server(cut)
    options = [f"--file={file}" for file in files] + ["--follow=no"] + ([f"--save-state={state}"] if state else [])
    assert (uploader(server, *options).wait() == 0) == (cut is None)
    keep(name, server, entries)


def main():
    with tempfile.TemporaryDirectory() as folder:
        file = lambda name: os.path.join(folder, name + ".journal")
        system = write_journal(file("system"), SYSTEM)
        upload("system.http", system, file("system"))

        containers = write_journal(file("docker"), list(docker()))
        upload("docker.http", containers, file("docker"))

        # Two machines, their entries interleaved by time.
        ours = write_journal(file("ours"), counted(1, 4), START, 10)
        theirs = write_journal(file("theirs"), counted(101, 4), START + 15, 10, b"0" * 31 + b"1")
        merged = sorted(ours + theirs, key=lambda fields: fields[0][1])
        upload("merged.http", merged, file("ours"), file("theirs"))

        # Requests of one connection: lines come while the uploader follows.
        first = write_journal(file("follow"), counted(1, 3))
        server = Server()
        following = uploader(server, f"--file={file('follow')}", "--follow=yes")
        server.answers.acquire()
        more = write_journal(file("follow"), counted(4, 3), START + 1000)
        while server.bytes.count(b"MESSAGE=line ") < 6:
            server.answers.acquire()
        following.send_signal(signal.SIGTERM)
        following.wait()
        keep("follow.http", server, first + more)

        # A request that is answered, one that is cut, and what the uploader sends when it is started again.
        state = os.path.join(folder, "state")
        answered = write_journal(file("again"), counted(1, 3))
        upload("again-1-answered.http", answered, file("again"), state=state)
        others = write_journal(file("again"), counted(4, 30), START + 1000)
        upload("again-2-cut.http", answered[-1:] + others, file("again"), state=state, cut=5000)
        upload("again-3-answered.http", answered[-1:] + others, file("again"), state=state)
    (HERE / "expected.jsonl").write_text("\n".join(EXPECTED) + "\n")


if __name__ == "__main__":
    main()
