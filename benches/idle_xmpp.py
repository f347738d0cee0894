#!/usr/bin/env python3
"""Resident memory of an idle XMPP client over WebSocket, beside an idle WebSocket that reads a stream.

    benches/idle_xmpp.py [CLIENTS]

Needs target/release/pollgate (or GATEWAY_BINARY). 200 clients warm the gateway up; CLIENTS more (3000) are counted, four seconds after the last one
is there. An XMPP client has logged in and bound a resource; `resumable` ones have enabled stream management, and `subscribed` ones
have one subscription besides.
"""

import asyncio
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATEWAY = os.environ.get("GATEWAY_BINARY", str(ROOT / "target/release/pollgate"))
CLIENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
WARM = 200
AT_ONCE = 50
DOMAIN = "b.example"
OPEN = f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{DOMAIN}' version='1.0'/>"
IQ = "<iq xmlns='jabber:client' type='set' id='1'{}>{}</iq>"
BIND = IQ.format("", "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")
LOGIN = [
    (OPEN, "mechanisms"),
    ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFubmEAdA==</auth>", "<success"),
    (OPEN, "<bind"),
    (BIND, "<jid>"),
]
ENABLE = [("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", "<enabled")]
SUBSCRIBE = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='idle' jid='anna@b.example'/></pubsub>"
SUBSCRIBED = [(IQ.format(f" to='{DOMAIN}'", SUBSCRIBE), "subscribed")]
KINDS = {
    "WebSocket": ("/v1/stream/idle?live=websocket&offset=now", "", []),
    "XMPP": ("/v1/xmpp", "sec-websocket-protocol: xmpp\r\n", LOGIN),
    "XMPP, resumable": ("/v1/xmpp", "sec-websocket-protocol: xmpp\r\n", LOGIN + ENABLE),
    "XMPP, subscribed": ("/v1/xmpp", "sec-websocket-protocol: xmpp\r\n", LOGIN + ENABLE + SUBSCRIBED),
}


def frame(text):
    """A text frame whose mask is zero."""
    body = text.encode()
    length = bytes([0x80 | len(body)]) if len(body) < 126 else b"\xfe" + len(body).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + body


def resident(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the gateway has ended")


async def measure(kind):
    path, fields, exchange = KINDS[kind]
    options = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", "memory", "--xmpp-domain", DOMAIN]
    process = subprocess.Popen([GATEWAY, *options, "--limit", "websocket_ping=1h"], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline().rsplit(":", 1)[1])
    turn, held = asyncio.Semaphore(AT_ONCE), []

    async def request(head):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}\r\nhost: localhost\r\n".encode())
        return reader, writer

    async def hold():
        async with turn:
            reader, writer = await request(f"GET {path} HTTP/1.1")
            writer.write(
                f"{fields}upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
                "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 101 " in head, head
            for said, answer in exchange:
                writer.write(frame(said))
                await reader.readuntil(answer.encode())
            held.append((reader, writer))

    try:
        reader, writer = await request("PUT /v1/stream/idle HTTP/1.1")
        writer.write(b"content-type: application/json\r\ncontent-length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.gather(*(hold() for _ in range(WARM)))
        await asyncio.sleep(2)
        before = resident(process)
        await asyncio.gather(*(hold() for _ in range(CLIENTS)))
        await asyncio.sleep(4)
        print(f"{kind:18} {(resident(process) - before) / CLIENTS:8.0f} bytes", flush=True)
    finally:
        process.kill()
        process.wait()
        for _, writer in held:
            writer.close()


for kind in KINDS:
    asyncio.run(measure(kind))
