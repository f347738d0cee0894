#!/usr/bin/env python3
"""What it costs to store a BOSH response (XEP-0124) before it is sent: one client in a closed loop, over each kind of store.

    benches/bosh_store.py [REQUESTS]

Needs target/release/pollgate (or GATEWAY_BINARY), and redis-server for the engine. The client logs in with SASL ANONYMOUS, subscribes a stream
and sends REQUESTS (2000) requests with a ping, one after the other. A memory store stores no sessions, so it is what the others are
compared with. Printed are the times from a request to its response, and the processor time of the gateway for each.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATEWAY = os.environ.get("GATEWAY_BINARY", str(ROOT / "target/release/pollgate"))
REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
WARM = 200
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "<iq xmlns='jabber:client' type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
PING = "<iq xmlns='jabber:client' type='get' id='3'><ping xmlns='urn:xmpp:ping'/></iq>"


class Session:
    """A session over one connection. Responses have a Content-Length."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input, self.rid, self.sid = self.socket.makefile("rb"), 1_000_000, ""

    def said(self, expected, attributes="", payload=""):
        self.rid += 1
        body = f"<body xmlns='http://jabber.org/protocol/httpbind' rid='{self.rid}'{self.sid}{attributes}>{payload}</body>"
        head = f"POST /v1/bosh HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/xml; charset=utf-8\r\ncontent-length: {len(body)}\r\n\r\n"
        self.socket.sendall((head + body).encode())
        length = 0
        while (line := self.input.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = self.input.read(length).decode()
        if expected not in answer:
            raise RuntimeError(f"answered {answer!r}")
        return answer

    def log_in(self):
        opened = self.said("ANONYMOUS", " to='localhost' ver='1.6' hold='1' wait='60'")
        self.sid = " sid='%s'" % re.search(r"sid='([^']*)", opened).group(1)
        self.said("success", payload=f"<auth xmlns='{SASL}' mechanism='ANONYMOUS'>=</auth>")
        self.said("bind", " xmlns:xmpp='urn:xmpp:xbosh' xmpp:restart='true'")
        jid = re.search("<jid>(.*)</jid>", self.said("<jid>", payload=BIND)).group(1)
        publish = "<publish node='s'><item><json xmlns='urn:xmpp:json:0'>1</json></item></publish>"
        for action in (publish, f"<subscribe node='s' jid='{jid}'/>"):
            pubsub = f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{action}</pubsub>"
            self.said("result", payload=f"<iq xmlns='jabber:client' type='set' id='2' to='localhost'>{pubsub}</iq>")


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name, options):
    command = [GATEWAY, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--xmpp-domain", "localhost", *options]
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        while not (line := gateway.stdout.readline()).startswith("listening http://"):
            if not line:
                raise RuntimeError(f"{name}: the gateway does not start")
        session = Session(int(line.strip().rsplit(":", 1)[1]))
        session.log_in()
        for _ in range(WARM):
            session.said("result", payload=PING)
        times, spent = [], processor_seconds(gateway.pid)
        for _ in range(REQUESTS):
            begin = time.perf_counter()
            session.said("result", payload=PING)
            times.append(time.perf_counter() - begin)
        spent = processor_seconds(gateway.pid) - spent
    finally:
        gateway.kill()
        gateway.wait()
    times.sort()
    p50, p99 = (times[int(share * len(times))] * 1e6 for share in (0.5, 0.99))
    print(f"{name:28} p50 {p50:6.0f} us   p99 {p99:6.0f} us   processor {spent / REQUESTS * 1e6:5.0f} us", flush=True)


with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
    measure("memory, not stored", ["--store", "memory"])
    measure("disk, --sync never", ["--store", f"{folder}/never", "--sync", "never"])
    measure("disk, --sync interval:100ms", ["--store", f"{folder}/interval", "--sync", "interval:100ms"])
    measure("disk, --sync always", ["--store", f"{folder}/always", "--sync", "always"])
    if shutil.which("redis-server"):
        words = ["--port", "0", "--unixsocket", f"{folder}/redis", "--save", "", "--appendonly", "no", "--dir", folder]
        redis = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        try:
            while not os.path.exists(f"{folder}/redis"):
                time.sleep(0.02)
            measure("engine, Redis in memory", ["--store", f"redis+unix://{folder}/redis", "--gateway-name", "one"])
        finally:
            redis.kill()
            redis.wait()
