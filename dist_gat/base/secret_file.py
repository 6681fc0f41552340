"""Files of 32 secret bytes, as hex, that their owner alone may read."""

from __future__ import annotations

import os
from pathlib import Path

from dist_gat.base.errors import StorageError

SECRET_BYTES = 32


def read_secret(path: Path, remedy: str) -> bytes:
    """Raises `StorageError` with the remedy where there is no such file, or another one."""
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise StorageError(f"{path}: expected a secret, {SECRET_BYTES} bytes as hex; {remedy}")
    return secret


def write_secret(path: Path, secret: bytes) -> None:
    """Replaces what stood there."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secret.hex())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
