"""`Progress`: who hears what long work is doing."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]


def be_silent(message: str) -> None:
    """A `Progress` that shows nothing."""
