"""Sockets have short names, however long TMPDIR is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dist_gat.launcher.sockets import MOST_BYTES, PROCESS_SOCKET, RAY_SOCKET, short_folder

START = """
from multiprocessing.connection import Listener
from dist_gat.launcher.sockets import shorten_process_sockets
shorten_process_sockets()
listener = Listener(family="AF_UNIX")
print(listener.address)
"""


def test_a_folder_that_is_short_enough_stays() -> None:
    for socket in (PROCESS_SOCKET, RAY_SOCKET):
        room = MOST_BYTES - len(socket) - 1
        assert short_folder("/" + "x" * (room - 1), socket) is None
        assert short_folder("/" + "x" * room, socket) == "/tmp"
        assert short_folder("/" + "\u00e9" * (room // 2 + 1), socket) == "/tmp", "bytes count"


def test_a_socket_of_multiprocessing_below_a_long_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("scratch" * 10) / ("job" * 10)
    deep.mkdir(parents=True)
    command = [sys.executable, "-c", START]
    done = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(deep)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("/tmp/")
    assert not Path(done.stdout.strip()).parent.exists(), "the folder ends with the process"
