#!/usr/bin/env python3
"""What the most frequent requests cost the gateway in user space, counted by callgrind.

    benches/instructions.py [--what wake|wake-of-many|short-poll|append]... [GATEWAY...]

Needs valgrind. Without names it counts target/release/pollgate; with several it compares them with the first.

* wake: a published message, the answer to the held poll that it wakes, and the next poll. One closed loop publishes to 100 held polls in turn.
* wake-of-many: the same with polls of two streams each, such as the clients of this project hold.
* short-poll: a short poll at the tail of a stream, to which 32 connections send one each before any response is read.
* append: the same with messages of 100 bytes, each connection to a stream of its own.

Counted are 2000 of them (of the last two 3200), after a quarter as many that warm the gateway up. Unlike times, the counts hardly differ between
runs, also on a busy machine; those of callgrind's 32 KiB caches stand for how much code and data a request touches, which decides its time on a
quiet machine, where the caches are cold. Allocations are calls of the allocator that return new memory.
"""

import argparse
import itertools
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
POLLS, WARM, COUNTED = 100, 500, 2000
AT_ONCE, WARM_TURNS, COUNTED_TURNS = 32, 25, 100
COUNTS = {"instructions": ["Ir"], "code misses": ["I1mr"], "data misses": ["D1mr", "D1mw"], "allocations": ["allocations"]}
ALLOCATORS = re.compile(r"_rjem_(malloc|calloc|mallocx|realloc|rallocx|aligned_alloc|posix_memalign)")


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def send(self, method, target, body=""):
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = f"{method} /v1/{target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n{fields}\r\n"
        self.socket.sendall((head + body).encode())

    def receive(self):
        """Returns the header fields of a response, and its body."""
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
        body, self.received = self.received[:length], self.received[length:]
        return fields, body

    def fill(self):
        read = self.socket.recv(65536)
        if not read:
            raise RuntimeError("the gateway has closed the connection")
        self.received += read


def poll_of_one(connection, stream, response):
    fields, _ = response
    connection.send("GET", f"stream/orders/{stream}?offset={fields['stream-next-offset']}&live=long-poll&timeout=50")


def poll_of_many(connection, stream, response):
    """Holds a poll, or asks for the resume token if this is the response to the creation of the stream."""
    _, body = response
    target = f"streams?stream=orders/{stream}&stream=quiet/{stream}"
    if body:
        target += f"&resume={json.loads(body)['resume']}&live=long-poll&timeout=50"
    connection.send("GET", target)
    if not body:
        poll_of_many(connection, stream, connection.receive())


def wakes(port, count, held_poll=poll_of_one):
    """Yields after each wake."""
    publisher, readers = Connection(port), [Connection(port) for _ in range(POLLS)]
    for stream, reader in enumerate(readers):
        publisher.send("PUT", f"stream/orders/{stream}", "[]")
        held_poll(reader, stream, publisher.receive())
    while True:
        yield
        stream = next(count) % POLLS
        publisher.send("POST", f"stream/orders/{stream}", '{"n":1,"what":"something that has happened"}')
        held_poll(readers[stream], stream, readers[stream].receive())
        publisher.receive()


def wakes_of_many(port, count):
    return wakes(port, count, poll_of_many)


def short_polls(port, _):
    """Yields after one short poll on each connection."""
    connections = [Connection(port) for _ in range(AT_ONCE)]
    connections[0].send("PUT", "stream/orders/1", "[]")
    fields, _ = connections[0].receive()
    while True:
        yield
        for connection in connections:
            connection.send("GET", f"stream/orders/1?offset={fields['stream-next-offset']}")
        for connection in connections:
            connection.receive()


def appends(port, _):
    """Yields after one append on each connection."""
    connections = [Connection(port) for _ in range(AT_ONCE)]
    for stream, connection in enumerate(connections):
        connection.send("PUT", f"stream/orders/{stream}", "[]")
        connection.receive()
    while True:
        yield
        for stream, connection in enumerate(connections):
            connection.send("POST", f"stream/orders/{stream}", f'"{"x" * 98}"')
        for connection in connections:
            connection.receive()


# What each name counts: the requests, how many of them one turn has, and the turns that are not counted and those that are.
SUBJECTS = {
    "wake": (wakes, 1, WARM, COUNTED),
    "wake-of-many": (wakes_of_many, 1, WARM, COUNTED),
    "short-poll": (short_polls, AT_ONCE, WARM_TURNS, COUNTED_TURNS),
    "append": (appends, AT_ONCE, WARM_TURNS, COUNTED_TURNS),
}


def count(gateway, what, kept=None):
    requests, each, warm, counted = SUBJECTS[what]
    with tempfile.TemporaryDirectory() as folder:
        out = kept or f"{folder}/counts"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=yes", f"--callgrind-out-file={out}"]
        options = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", "memory"]
        process = subprocess.Popen([*valgrind, gateway, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            listening = (re.search(r"listening http://127\.0\.0\.1:(\d+)", line) for line in process.stdout)
            port = int(next(match for match in listening if match).group(1))
            turns = requests(port, itertools.count())
            for turn in range(warm + counted + 1):
                if turn == warm:
                    instrument("on", process.pid)
                next(turns)
            instrument("off", process.pid)
        finally:
            process.send_signal(signal.SIGKILL if sys.exc_info()[0] else signal.SIGTERM)
            process.communicate()
        text = pathlib.Path(out).read_text()
    events = re.search(r"^events: (.*)$", text, re.M).group(1).split()
    totals = dict(zip(events, map(int, re.findall(r"^(?:summary|totals): (.*)$", text, re.M)[-1].split())))
    totals["allocations"] = allocations(text)
    return {name: sum(totals[event] for event in parts) / (each * counted) for name, parts in COUNTS.items()}


def allocations(text):
    """Counts the calls of allocators in the output of callgrind, which gives the name of a function only the first time."""
    names, calls, called = {}, 0, None
    for line in text.splitlines():
        if line.startswith(("fn=", "cfn=")):
            number, _, name = line.partition("=")[2].partition(" ")
            if name:
                names[number] = name
            if line.startswith("c"):
                called = names.get(number, "")
        elif line.startswith("calls=") and ALLOCATORS.fullmatch(called):
            calls += int(line[6:].split()[0])
    return calls


def instrument(state, process):
    subprocess.run(["callgrind_control", "-i", state, str(process)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description="Counts instructions of frequent requests.")
    parser.add_argument("--what", action="append", choices=list(SUBJECTS), help="what to count (repeatable; by default all)")
    parser.add_argument("--keep", metavar="FILE", help="keep the last output of callgrind, for callgrind_annotate")
    parser.add_argument("gateways", nargs="*", default=[str(ROOT / "target/release/pollgate")], metavar="GATEWAY")
    options = parser.parse_args()
    for what in options.what or SUBJECTS:
        first = None
        for gateway in options.gateways:
            counts = count(gateway, what, options.keep)
            first = first or counts
            figures = (f"{value:8.1f} {name} ({value / first[name]:.3f})" for name, value in counts.items())
            print(f"{what:12} {gateway}: {', '.join(figures)}", flush=True)


main()
