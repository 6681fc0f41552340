"""Folders for sockets, whose names have at most `MOST_BYTES`: a short one where TMPDIR is too long.

A batch job often has a TMPDIR of its own, deep below a scratch folder.
"""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile

MOST_BYTES = 107  # of a socket's name, in Linux; one less elsewhere
SHORT = ("/tmp", "/var/tmp", "/dev/shm")
# what Ray and multiprocessing put below the folder for temporary files
RAY_SOCKET = "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
PROCESS_SOCKET = "pymp-12345678/listener-12345678"


def short_folder(folder: str, socket: str) -> str | None:
    """None where the name of a socket below `folder` is short enough, else another folder that can be written to.

    `folder` again where there is none.
    """
    if len(os.fsencode(os.path.join(folder, socket))) <= MOST_BYTES:
        return None
    return next((short for short in SHORT if os.access(short, os.W_OK | os.X_OK)), folder)


def shorten_process_sockets() -> None:
    """Let the sockets of multiprocessing have short names, before this process makes its first."""
    before = tempfile.tempdir
    short = short_folder(tempfile.gettempdir(), PROCESS_SOCKET)
    if short is None:
        return
    try:
        tempfile.tempdir = short
        multiprocessing.util.get_temp_dir()  # makes one, and keeps to it
    finally:
        tempfile.tempdir = before
