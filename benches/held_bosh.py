#!/usr/bin/env python3
"""Held BOSH requests (XEP-0124): memory of each session whose request waits, beside Prosody's mod_bosh.

    benches/held_bosh.py [SESSIONS]

Needs target/release/pollgate (or GATEWAY_BINARY). Prosody is measured if it is installed. Each session logs in with SASL ANONYMOUS, binds
a resource and sends presence; then one request waits. 200 sessions warm a server up; SESSIONS more (10000) are counted, four seconds after
the last request was sent. One process of Python holds all connections. The gateway is measured with sessions that read nothing, with
sessions that have subscribed to one stream, which waiting clients do, and with long polls for comparison.
"""

import asyncio
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATEWAY = os.environ.get("GATEWAY_BINARY", str(ROOT / "target/release/pollgate"))
SESSIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
WARM = 200
AT_ONCE = 50
DOMAIN = "localhost"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "<iq xmlns='jabber:client' type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
PRESENCE = "<presence xmlns='jabber:client'/>"
SUBSCRIBE = (
    f"<iq xmlns='jabber:client' type='set' id='2' to='{DOMAIN}'><pubsub xmlns='http://jabber.org/protocol/pubsub'>"
    "<subscribe node='s' jid='JID'/></pubsub></iq>"
)
PROSODY = """
daemonize = false
run_as_root = true
pidfile = "FOLDER/prosody.pid"
data_path = "FOLDER/data"
log = { { levels = { min = "error" }, to = "console" } }
modules_enabled = { "saslauth", "bosh", "presence" }
modules_disabled = { "s2s", "tls", "offline", "c2s" }
authentication = "anonymous"
allow_unencrypted_plain_auth = true
c2s_require_encryption = false
consider_bosh_secure = true
bosh_max_inactivity = 600
bosh_max_wait = 600
http_ports = { PORT }
https_ports = {}
c2s_ports = {}
s2s_ports = {}
http_interfaces = { "127.0.0.1" }
http_max_connections = 65536
network_backend = "epoll"
VirtualHost "localhost"
"""


class Session:
    """A session over one connection. Responses have a Content-Length."""

    def __init__(self, server):
        self.server, self.rid, self.sid = server, 1_000_000, None

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.server.port)

    def send(self, attributes="", payload=""):
        self.rid += 1
        sid = f" sid='{self.sid}'" if self.sid else ""
        body = f"<body xmlns='http://jabber.org/protocol/httpbind' rid='{self.rid}'{sid}{attributes}>{payload}</body>"
        head = f"POST {self.server.path} HTTP/1.1\r\nhost: {DOMAIN}\r\ncontent-type: text/xml; charset=utf-8\r\n"
        self.writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())

    async def said(self, expected, attributes="", payload=""):
        self.send(attributes, payload)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.I)
        body = (await self.reader.readexactly(int(length.group(1)))).decode()
        if expected not in body:
            raise RuntimeError(f"{self.server.name} answered {body!r}")
        return body

    async def log_in(self):
        opened = await self.said("ANONYMOUS", f" to='{DOMAIN}' ver='1.6' hold='1' wait='600' xml:lang='en' content='text/xml; charset=utf-8' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'")
        self.sid = re.search(r"sid=['\"]([^'\"]*)", opened).group(1)
        await self.said("success", payload=f"<auth xmlns='{SASL}' mechanism='ANONYMOUS'/>" if self.server.is_prosody else f"<auth xmlns='{SASL}' mechanism='ANONYMOUS'>=</auth>")
        await self.said("bind", f" to='{DOMAIN}' xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh'")
        jid = re.search(r"<jid>([^<]*)", await self.said("jid", payload=BIND)).group(1)
        if self.server.subscribes:
            await self.said("subscribed", payload=SUBSCRIBE.replace("JID", jid))
        self.send(payload=PRESENCE)


class LongPoll:
    """A held poll of HTTP, for comparison."""

    def __init__(self, server):
        self.server = server

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.server.port)

    async def log_in(self):
        self.writer.write(b"GET /v1/stream/s?offset=now&live=long-poll&timeout=60 HTTP/1.1\r\nhost: localhost\r\n\r\n")


class Server:
    def __init__(self, name, process, port, client=Session, path="/v1/bosh", is_prosody=False, subscribes=False):
        self.name, self.process, self.port, self.client = name, process, port, client
        self.path, self.is_prosody, self.subscribes = path, is_prosody, subscribes

    def resident(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"{self.name} has ended")


async def measure(server):
    turn, held = asyncio.Semaphore(AT_ONCE), []

    async def hold():
        async with turn:
            client = server.client(server)
            await client.open()
            await client.log_in()
            held.append(client)

    await asyncio.gather(*[hold() for _ in range(WARM)])
    await asyncio.sleep(1)
    before, begin = server.resident(), time.monotonic()
    await asyncio.gather(*[hold() for _ in range(SESSIONS)])
    await asyncio.sleep(4)
    memory = (server.resident() - before) / SESSIONS
    print(f"{server.name:48} {memory:8.0f} bytes each of {SESSIONS}   in {time.monotonic() - begin:5.1f} s", flush=True)
    return memory


def gateway(name, **further):
    command = [GATEWAY, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", "memory"]
    command += ["--xmpp-domain", DOMAIN, "--hold-max", "300s"]
    for limit in ["bosh_wait_max=600s", "bosh_sessions_per_address_max=100000", "connections_per_second_max=100000"]:
        command += ["--limit", limit]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = int(process.stdout.readline().strip().rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as creation:
        creation.sendall(b"PUT /v1/stream/s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n")
        creation.recv(4096)
    return Server(name, process, port, **further)


def prosody(folder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = PROSODY.replace("FOLDER", folder).replace("PORT", str(port))
    pathlib.Path(folder, "prosody.cfg.lua").write_text(configuration)
    process = subprocess.Popen(["prosody", "--config", f"{folder}/prosody.cfg.lua"], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return Server("Prosody, mod_bosh", process, port, path="/http-bind", is_prosody=True)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise RuntimeError("Prosody does not start")


def servers(folder):
    yield lambda: gateway("pollgate, held long polls", client=LongPoll)
    yield lambda: gateway("pollgate, BOSH")
    yield lambda: gateway("pollgate, BOSH, each subscribed to one stream", subscribes=True)
    if shutil.which("prosody"):
        yield lambda: prosody(folder)


# The limit is inherited by the servers; each has one descriptor for each session.
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
with tempfile.TemporaryDirectory() as folder:
    for start in servers(folder):
        server = start()
        try:
            asyncio.run(measure(server))
        finally:
            server.process.kill()
            server.process.wait()
