#!/usr/bin/env python3
"""Held polls over TLS 1.3: resident memory of each, and the time from an append to the response, beside nginx with nchan.

    benches/held_over_tls.py [CLIENTS]

Needs openssl, and target/release/pollgate (or GATEWAY_BINARY; GATEWAY_BEFORE names another one to compare). nginx is measured if it is
installed with nchan. 200 clients warm a server up; CLIENTS more (3000) are counted, four seconds after the last one has sent its
request. One process of Python holds all connections. The times are of 3000 rounds of one client that waits and one that appends,
while CLIENTS others wait on another stream.
"""

import asyncio
import os
import pathlib
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATEWAY = os.environ.get("GATEWAY_BINARY", str(ROOT / "target/release/pollgate"))
BEFORE = os.environ.get("GATEWAY_BEFORE")
NCHAN = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CLIENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
WARM = 200
AT_ONCE = 50
ROUNDS = 3000
NGINX = """
load_module MODULE;
daemon off; master_process off; pid FOLDER/pid; error_log stderr crit; worker_rlimit_nofile 65536;
events { worker_connections 32768; }
http {
  access_log off; client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi; uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
  nchan_shared_memory_size 256M; keepalive_requests 100000; ssl_protocols TLSv1.3;
  server {
    listen 127.0.0.1:PORT ssl backlog=4096;
    ssl_certificate FOLDER/certificate.pem; ssl_certificate_key FOLDER/key.pem;
    location ~ ^/v1/stream/(.*)$ { nchan_pubsub longpoll http; nchan_channel_id $1; nchan_subscriber_first_message newest; nchan_subscriber_timeout 0; }
  }
}
"""


class Server:
    """A server process; `now` is what a poll for new messages has behind its path."""

    def __init__(self, name, process, port, context, now):
        self.name, self.process, self.port, self.context, self.now = name, process, port, context, now

    def poll(self, stream):
        return f"GET /v1/stream/{stream}{self.now} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()

    def resident(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"{self.name} has ended")

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(connection) if self.context else connection


def request(method, stream, body=""):
    head = f"{method} /v1/stream/{stream} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


async def measure(server):
    turn, held = asyncio.Semaphore(AT_ONCE), []

    async def hold(first=b""):
        async with turn:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=server.context)
            if first:
                writer.write(first)
                await reader.readuntil(b"\r\n\r\n")
            writer.write(server.poll("s"))
            held.append(writer)

    await hold(request("PUT", "s"))
    await asyncio.gather(*[hold() for _ in range(WARM)])
    await asyncio.sleep(1)
    before = server.resident()
    await asyncio.gather(*[hold() for _ in range(CLIENTS)])
    await asyncio.sleep(4)
    memory = (server.resident() - before) / CLIENTS
    waited = await asyncio.get_running_loop().run_in_executor(None, wake, server)
    tls = f", {held[0].get_extra_info('cipher')[0]}" if server.context else ""
    print(f"{server.name:32} {memory:8.0f} bytes each of {CLIENTS}   woken in {waited * 1e6:5.0f} us (p50){tls}", flush=True)


def wake(server):
    reader, publisher = server.connect(), server.connect()
    publisher.sendall(request("PUT", "w"))
    publisher.recv(4096)
    reader.settimeout(1)
    times = []
    for _ in range(ROUNDS):
        reader.sendall(server.poll("w"))
        # Usually long enough for the server to begin to wait.
        time.sleep(0.0005)
        received = b""
        while not received:
            begin = time.perf_counter()
            publisher.sendall(request("POST", "w", "x" * 64))
            try:
                received = reader.recv(4096)
                times.append(time.perf_counter() - begin)
            except TimeoutError:
                pass  # The poll came after the message.
            publisher.recv(4096)
    return statistics.median(times)


def client(folder):
    context = ssl.create_default_context(cafile=f"{folder}/certificate.pem")
    context.check_hostname = False
    return context


def gateway(folder, name, binary, has_tls):
    command = [binary, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", "memory"]
    if has_tls:
        command += ["--tls-certificate", f"{folder}/certificate.pem", "--tls-key", f"{folder}/key.pem"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = int(process.stdout.readline().strip().rsplit(":", 1)[1])
    return Server(name, process, port, client(folder) if has_tls else None, "?offset=now&live=long-poll&timeout=55")


def nginx(folder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = NGINX.replace("MODULE", str(NCHAN)).replace("FOLDER", folder).replace("PORT", str(port))
    pathlib.Path(folder, "nginx.conf").write_text(configuration)
    process = subprocess.Popen(["nginx", "-e", "stderr", "-c", f"{folder}/nginx.conf"])
    server = Server("nginx with nchan, TLS", process, port, client(folder), "")
    while process.poll() is None:
        try:
            server.connect().close()
            return server
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise RuntimeError("nginx does not start")


def servers(folder):
    yield lambda: gateway(folder, "pollgate, plain", GATEWAY, False)
    yield lambda: gateway(folder, "pollgate, TLS", GATEWAY, True)
    if BEFORE:
        yield lambda: gateway(folder, "pollgate before, TLS", BEFORE, True)
    if shutil.which("nginx") and NCHAN.exists():
        yield lambda: nginx(folder)


with tempfile.TemporaryDirectory() as folder:
    certificate = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    certificate += ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/certificate.pem", "-subj", "/CN=localhost"]
    subprocess.run(certificate, check=True, capture_output=True)
    os.chmod(folder, 0o755)
    for start in servers(folder):
        server = start()
        try:
            asyncio.run(measure(server))
        finally:
            server.process.kill()
            server.process.wait()
