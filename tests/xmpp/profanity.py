"""A user of profanity, which runs in a terminal of this process.

Arguments: host and port of the server, address and password of the user, a folder for what profanity keeps. Each line of standard
input is typed. Standard output gets what appears on the terminal, as text.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios

ACCOUNT = """[user]
enabled=true
jid={jid}
password={password}
server={host}
port={port}
tls.policy=disable
"""

# What moves the cursor or changes colours (ECMA-48, section 5.4), and other sequences of terminals.
CONTROLS = re.compile(rb"\x1b\[[0-9;?>]*[@-~]|\x1b[()][0AB]|\x1b\][^\x07]*\x07|\x1b[=>78M]|[\x00-\x08\x0b-\x1f]")

# Wide, so that no stanza is broken into lines.
ROWS, COLUMNS = 60, 2000


def main(host, port, jid, password, folder):
    accounts = os.path.join(folder, "profanity")
    os.makedirs(accounts)
    with open(os.path.join(accounts, "accounts"), "w") as file:
        file.write(ACCOUNT.format(host=host, port=port, jid=jid, password=password))
    child, terminal = pty.fork()
    if child == 0:
        places = {"HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_DATA_HOME": folder, "TERM": "xterm", "LANG": "C.UTF-8"}
        os.execvpe("profanity", ["profanity", "--account", "user"], {**os.environ, **places})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        relay(terminal)
    finally:
        # It writes into its folder until it has ended.
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def relay(terminal):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    while True:
        readable, _, _ = select.select([terminal, sys.stdin], [], [])
        if terminal in readable:
            try:
                bytes = os.read(terminal, 65536)
            except OSError:
                break
            sys.stdout.write(CONTROLS.sub(b" ", bytes).decode(errors="replace") + "\n")
            sys.stdout.flush()
        if sys.stdin in readable:
            line = os.read(sys.stdin.fileno(), 65536)
            if not line:
                break
            os.write(terminal, line.replace(b"\n", b"\r"))


main(*sys.argv[1:])
