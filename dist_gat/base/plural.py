"""`plural`: of a noun that names nodes."""

from __future__ import annotations


def plural(kind: str) -> str:
    """Of the name of a node type, for people."""
    return f"{kind[:-1]}ies" if kind.endswith("y") and kind[-2:-1] not in "aeiou" else f"{kind}s"
