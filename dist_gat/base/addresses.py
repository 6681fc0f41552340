"""Names of things at an address, told from names of files, and where this host keeps what it fetches from there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def is_url(name: str | Path) -> bool:
    """Whether a name is that of something at an address, such as s3://bucket/folder, and not of a file here."""
    return "://" in str(name)


def absolute(name: str | Path) -> str:
    """A name that is right in every folder."""
    return str(name) if is_url(name) else str(Path(name).resolve())


def below(name: str | Path, folder: str) -> str:
    """The name of a folder in a folder; `/` of a path would take `//` for one."""
    return f"{str(name).rstrip('/')}/{folder}" if is_url(name) else str(Path(name) / folder)


def key_of(url: str) -> str:
    """Stands for a URL in the name of a folder."""
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def local_cache(folder: str | Path | None = None) -> Path:
    """Where this host keeps what it fetched: `folder`, or a folder of the user's cache."""
    return Path(folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dist_gat"))
