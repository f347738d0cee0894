#!/usr/bin/env python3
"""Resident memory of a gateway for each held poll, without TLS and over TLS 1.3.

    benches/held_over_tls.py [CLIENTS]

Needs openssl, and target/release/pollgate (or GATEWAY_BINARY). 200 clients warm the gateway up; CLIENTS more (3000) are counted, four
seconds after the last one has sent its request. One process of Python holds all connections.
"""

import asyncio
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATEWAY = os.environ.get("GATEWAY_BINARY", str(ROOT / "target/release/pollgate"))
CLIENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
WARM = 200
AT_ONCE = 50
CREATE = b"PUT /v1/stream/s HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n"
POLL = b"GET /v1/stream/s?offset=now&live=long-poll&timeout=55 HTTP/1.1\r\nhost: localhost\r\n\r\n"


def resident(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the gateway has ended")


async def measure(process, port, context):
    turn, held = asyncio.Semaphore(AT_ONCE), []

    async def hold(first=b""):
        async with turn:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            if first:
                writer.write(first)
                await reader.readuntil(b"\r\n\r\n")
            writer.write(POLL)
            held.append(writer)

    await hold(CREATE)
    await asyncio.gather(*[hold() for _ in range(WARM)])
    await asyncio.sleep(1)
    before = resident(process)
    await asyncio.gather(*[hold() for _ in range(CLIENTS)])
    await asyncio.sleep(4)
    return (resident(process) - before) / CLIENTS


def run(folder, has_tls):
    command = [GATEWAY, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", "memory"]
    context = None
    if has_tls:
        command += ["--tls-certificate", f"{folder}/certificate.pem", "--tls-key", f"{folder}/key.pem"]
        context = ssl.create_default_context(cafile=f"{folder}/certificate.pem")
        context.check_hostname = False
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            port = int(process.stdout.readline().strip().rsplit(":", 1)[1])
            return asyncio.run(measure(process, port, context))
        finally:
            process.kill()


with tempfile.TemporaryDirectory() as folder:
    certificate = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    certificate += ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/certificate.pem", "-subj", "/CN=localhost"]
    subprocess.run(certificate, check=True, capture_output=True)
    for has_tls in (False, True):
        print(f"{'TLS' if has_tls else 'plain'}: {run(folder, has_tls):.0f} bytes for each of {CLIENTS} held polls")
