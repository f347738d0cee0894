#!/usr/bin/env python3
"""Full TLS 1.3 handshakes for a second of the server's CPU time, beside nginx with the same certificate. The bar is a ratio of 0.9.

    benches/handshakes.py [--no-check]

Needs openssl, nginx, and target/release/pollgate (or GATEWAY_BINARY). The client is `openssl s_time`, which closes each connection after
the handshake. Rounds of both servers alternate, so that other load of the machine affects both alike; the result is the median of the
ratios of all rounds. CPU time is counted, not the clock, since client and server share the processors.
"""

import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GATEWAY = os.environ.get("GATEWAY_BINARY", str(ROOT / "target/release/pollgate"))
ROUNDS = 7
SECONDS = 3
RATIO_MIN = 0.9
NGINX = """
daemon off; master_process off; pid FOLDER/pid; error_log stderr crit; worker_rlimit_nofile 65536;
events { worker_connections 32768; }
http {
  access_log off; client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi; uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
  ssl_protocols TLSv1.3;
  server {
    listen 127.0.0.1:PORT ssl backlog=4096;
    ssl_certificate FOLDER/certificate.pem; ssl_certificate_key FOLDER/key.pem;
  }
}
"""


def gateway(folder):
    command = [GATEWAY, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off", "--store", "memory"]
    command += ["--tls-certificate", f"{folder}/certificate.pem", "--tls-key", f"{folder}/key.pem"]
    command += ["--limit", "connections_per_second_max=1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return process, int(process.stdout.readline().strip().rsplit(":", 1)[1])


def nginx(folder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pathlib.Path(folder, "nginx.conf").write_text(NGINX.replace("FOLDER", folder).replace("PORT", str(port)))
    process = subprocess.Popen(["nginx", "-e", "stderr", "-c", f"{folder}/nginx.conf"])
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise RuntimeError("nginx does not start")


def cpu_seconds(process):
    tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def handshakes(process, port):
    """Returns the handshakes for a second of CPU time."""
    before = cpu_seconds(process)
    client = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-tls1_3", "-time", str(SECONDS)]
    told = subprocess.run(client, check=True, capture_output=True, text=True).stdout
    return int(re.search(r"(\d+) connections in \d+ real seconds", told)[1]) / (cpu_seconds(process) - before)


with tempfile.TemporaryDirectory() as folder:
    certificate = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    certificate += ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/certificate.pem", "-subj", "/CN=localhost"]
    subprocess.run(certificate, check=True, capture_output=True)
    os.chmod(folder, 0o755)
    servers = {"pollgate": gateway(folder), "nginx": nginx(folder)}
    try:
        rounds = [{name: handshakes(*server) for name, server in servers.items()} for _ in range(ROUNDS)]
    finally:
        for process, _ in servers.values():
            process.kill()
            process.wait()

for name in servers:
    print(f"{name:9} {statistics.median(one[name] for one in rounds):6.0f} handshakes for a second of CPU time")
ratio = statistics.median(one["pollgate"] / one["nginx"] for one in rounds)
print(f"ratio     {ratio:6.2f}, the median of {ROUNDS} rounds of {SECONDS} s")
if ratio < RATIO_MIN and "--no-check" not in sys.argv:
    sys.exit(f"at least {RATIO_MIN} is asked for")
