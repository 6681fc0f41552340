"""`StockPeer`: a peer's step in a process of its own, with the C allocator and the OpenMP settings that it comes with.

Our workers run with an allocator that keeps freed memory and threads that sleep, because the launcher sets them. Inside
one process both sides have these settings, which compares kernels fairly. A script that uses the library alone has
neither, which compares products fairly. The benchmarks print both.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe

from dist_gat.launcher.host import WAIT_POLICY

# torch first: it reads the OpenMP settings when it is loaded, and importing the benchmarks sets ours
CHILD = "import sys, torch; from benchmarks.peer import serve; serve(*sys.argv[1:])"
STOCK = "as it comes"


class StockPeer:
    """Each call runs one step in the child: what `module.build(*arguments)` returns there, given strings."""

    def __init__(self, module: str, build: str, *arguments: object) -> None:
        self.connection, theirs = Pipe()
        environment = {name: value for name, value in os.environ.items() if name not in WAIT_POLICY}
        with theirs:
            command = [sys.executable, "-c", CHILD, str(theirs.fileno()), module, build, *map(str, arguments)]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)

    def __call__(self) -> None:
        self.connection.send_bytes(b"step")
        # where the child has ended, this raises, and the child has printed why
        self.connection.recv_bytes()

    def close(self) -> None:
        self.connection.close()
        self.process.wait()


def serve(connection: str, module: str, build: str, *arguments: str) -> None:
    """The child: one step for each message, until the parent closes the connection."""
    channel = Connection(int(connection))
    step = getattr(importlib.import_module(module), build)(*arguments)
    while True:
        try:
            channel.recv_bytes()
        except EOFError:
            return
        step()
        channel.send_bytes(b"done")
