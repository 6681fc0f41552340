"""Which versions of what a run is made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("dist_gat", "torch", "dgl", "ray", "numpy")


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on; without those that are not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
