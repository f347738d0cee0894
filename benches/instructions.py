#!/usr/bin/env python3
"""What one wake costs the gateway in user space, counted by callgrind: a published message, the answer to the held poll that it wakes,
and the next poll.

    benches/instructions.py [GATEWAY...]

Needs valgrind. Without names it counts target/release/pollgate; with several it compares them with the first. One closed loop publishes
2000 messages to 100 held polls in turn, after 500 that warm the gateway up. Unlike times, the counts hardly differ between runs, also on a
busy machine; those of callgrind's 32 KiB caches stand for how much code and data a wake touches, which decides its time on a quiet
machine, where the caches are cold.
"""

import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATEWAYS = sys.argv[1:] or [str(ROOT / "target/release/pollgate")]
POLLS, WARM, COUNTED = 100, 500, 2000
COUNTS = {"instructions": ["Ir"], "code misses": ["I1mr"], "data misses": ["D1mr", "D1mw"]}


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def send(self, method, target, body=""):
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = f"{method} /v1/stream/{target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n{fields}\r\n"
        self.socket.sendall((head + body).encode())

    def receive(self):
        """Returns the header fields of a response, whose body it skips."""
        while b"\r\n\r\n" not in self.received:
            self.fill()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if status.split()[1] not in ("200", "201", "204"):
            raise RuntimeError(status)
        length = int(fields.get("content-length", 0))
        while len(self.received) < length:
            self.fill()
        self.received = self.received[length:]
        return fields

    def fill(self):
        read = self.socket.recv(65536)
        if not read:
            raise RuntimeError("the gateway has closed the connection")
        self.received += read


def held_poll(connection, stream, offset):
    connection.send("GET", f"orders/{stream}?offset={offset}&live=long-poll&timeout=50")


def count(gateway):
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/counts"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=yes", f"--callgrind-out-file={out}"]
        options = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", "memory"]
        process = subprocess.Popen([*valgrind, gateway, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            listening = (re.search(r"listening http://127\.0\.0\.1:(\d+)", line) for line in process.stdout)
            port = int(next(match for match in listening if match).group(1))
            publisher, readers = Connection(port), [Connection(port) for _ in range(POLLS)]
            for stream, reader in enumerate(readers):
                publisher.send("PUT", f"orders/{stream}", "[]")
                held_poll(reader, stream, publisher.receive()["stream-next-offset"])
            for message in range(WARM + COUNTED):
                if message == WARM:
                    instrument("on", process.pid)
                stream = message % POLLS
                publisher.send("POST", f"orders/{stream}", '{"n":1,"what":"something that has happened"}')
                held_poll(readers[stream], stream, readers[stream].receive()["stream-next-offset"])
                publisher.receive()
            instrument("off", process.pid)
        finally:
            process.send_signal(signal.SIGKILL if sys.exc_info()[0] else signal.SIGTERM)
            process.communicate()
        text = pathlib.Path(out).read_text()
    events = re.search(r"^events: (.*)$", text, re.M).group(1).split()
    totals = dict(zip(events, map(int, re.findall(r"^(?:summary|totals): (.*)$", text, re.M)[-1].split())))
    return {name: sum(totals[event] for event in parts) / COUNTED for name, parts in COUNTS.items()}


def instrument(state, process):
    subprocess.run(["callgrind_control", "-i", state, str(process)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    first = None
    for gateway in GATEWAYS:
        counts = count(gateway)
        first = first or counts
        figures = (f"{value:8.0f} {name} ({value / first[name]:.3f})" for name, value in counts.items())
        print(f"{gateway}: {', '.join(figures)} a wake", flush=True)


main()
