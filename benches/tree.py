#!/usr/bin/env python3
"""A tree of gateways: the time from an append at the root to the response to a poll that is held at an edge of an edge of it.

    benches/tree.py [ROUNDS] [--bar]
    benches/tree.py --thin [READERS]

Needs target/release/pollgate (or GATEWAY_BINARY). Starts a root, an edge of it and an edge of that edge, all in memory on this
machine, and in ROUNDS rounds (2000) holds one poll at each of the three in turn, appends 64 bytes at the root, and takes the time from
before the append to the last byte of the response. `--bar` fails if the median over three hops is above 3 ms.

`--thin` puts a line of 8 KiB/s with 150 ms of delay each way between a root and its edge. READERS (200) poll at the edge while 40
messages of 250 bytes are appended there; fails unless each reader gets each message once and in order. Tells the bytes on the line.
"""

import asyncio
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATEWAY = os.environ.get("GATEWAY_BINARY", str(ROOT / "target/release/pollgate"))
BAR_MS = 3.0
PAYLOAD = json.dumps("x" * 62)


def start(*options):
    """Starts a gateway on free ports; returns it with its address."""
    command = [GATEWAY, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", "memory", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, process.stdout.readline().strip().rpartition("//")[2]


class Connection:
    """A keep-alive connection, on which one request is under way at a time."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = self.socket.makefile("rb")

    def send(self, method, target, body=""):
        head = f"{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.socket.sendall((head + body).encode())

    def receive(self):
        """Returns the status and the fields, after the whole body."""
        return self.receive_whole()[:2]

    def receive_whole(self):
        status = int(self.read.readline().split()[1])
        fields = {}
        while (line := self.read.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            fields[name.lower()] = value.strip()
        return status, fields, self.read.read(int(fields.get("content-length", 0)))

    def exchange(self, *request):
        self.send(*request)
        return self.receive()


def rounds(publisher, reader, count):
    """Returns the times of rounds in milliseconds, sorted."""
    times = []
    _, fields = reader.exchange("GET", "/v1/stream/s?offset=now")
    for number in range(count + count // 10):
        offset = fields["stream-next-offset"]
        reader.send("GET", f"/v1/stream/s?offset={offset}&live=long-poll&timeout=50")
        time.sleep(0.002)
        began = time.perf_counter()
        publisher.send("POST", "/v1/stream/s", PAYLOAD)
        status, fields = reader.receive()
        times.append((time.perf_counter() - began) * 1000)
        assert status == 200, status
        assert publisher.receive()[0] == 204
    # The first rounds warm up.
    return sorted(times[count // 10 :])


class ThinLine(threading.Thread):
    """A relay in a thread of its own that passes on `RATE` bytes a second each way, `DELAY` seconds later."""

    RATE, DELAY = 8 * 1024, 0.15

    def __init__(self, to):
        super().__init__(daemon=True)
        self.to, self.bytes, self.connections, self.is_up = to, 0, 0, threading.Event()
        # When the line is free again, each way.
        self.free = {"up": 0.0, "down": 0.0}
        self.start()
        self.is_up.wait()

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        self.address = "%s:%d" % server.sockets[0].getsockname()
        self.is_up.set()
        await server.serve_forever()

    async def carry(self, reader, writer):
        self.connections += 1
        host, _, port = self.to.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(self.pass_on("up", reader, far_writer), self.pass_on("down", far_reader, writer))

    async def pass_on(self, way, reader, writer):
        try:
            while data := await reader.read(512):
                self.bytes += len(data)
                self.free[way] = max(self.free[way], time.monotonic()) + len(data) / self.RATE
                await asyncio.sleep(self.free[way] + self.DELAY - time.monotonic())
                writer.write(data)
            writer.close()
        except ConnectionError:
            writer.close()


def thin(readers):
    """Serves a site behind a thin line."""
    count, processes = 40, []
    try:
        process, root = start()
        processes.append(process)
        line = ThinLine(root)
        process, edge = start("--upstream", f"http://{line.address}")
        processes.append(process)
        publisher = Connection(edge)
        assert publisher.exchange("PUT", "/v1/stream/s")[0] == 201
        _, fields = publisher.exchange("GET", "/v1/stream/s?offset=now")
        read = []

        def follow(offset):
            connection, seen = Connection(edge), b""
            while seen.count(b'"n"') < count:
                connection.send("GET", f"/v1/stream/s?offset={offset}&live=long-poll&timeout=50")
                status, fields, body = connection.receive_whole()
                offset, seen = fields["stream-next-offset"], seen + body
            read.append([message["n"] for array in seen.decode().replace("][", "]\n[").splitlines() for message in json.loads(array)])

        threads = [threading.Thread(target=follow, args=(fields["stream-next-offset"],)) for _ in range(readers)]
        for thread in threads:
            thread.start()
        time.sleep(3)
        before, began = line.bytes, time.monotonic()
        for number in range(count):
            status, _ = publisher.exchange("POST", "/v1/stream/s", json.dumps({"n": number, "text": "x" * 230}))
            assert status == 204, status
        for thread in threads:
            thread.join()
        took, passed = time.monotonic() - began, line.bytes - before
        print(f"{readers} readers, {count} messages in {took:.1f} s; {passed} bytes on {line.connections} connections of the line")
        assert read == [list(range(count))] * readers, "a message was lost, doubled or out of order"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main():
    if "--thin" in sys.argv:
        return thin(int(sys.argv[-1]) if sys.argv[-1].isdigit() else 200)
    arguments = [argument for argument in sys.argv[1:] if argument != "--bar"]
    count = int(arguments[0]) if arguments else 2000
    processes = []
    try:
        process, root = start()
        processes.append(process)
        addresses = [root]
        for _ in range(2):
            process, address = start("--upstream", f"http://{addresses[-1]}")
            processes.append(process)
            addresses.append(address)
        publisher = Connection(root)
        assert publisher.exchange("PUT", "/v1/stream/s")[0] == 201
        for hops, address in enumerate(addresses, 1):
            times = rounds(publisher, Connection(address), count)
            p50, p99 = statistics.median(times), times[len(times) * 99 // 100]
            print(f"{hops} hops: p50 {p50:.3f} ms, p99 {p99:.3f} ms, {count} rounds", flush=True)
        if "--bar" in sys.argv and p50 > BAR_MS:
            sys.exit(f"the median over {hops} hops is above {BAR_MS} ms")
    finally:
        for process in processes:
            process.kill()
            process.wait()


main()
