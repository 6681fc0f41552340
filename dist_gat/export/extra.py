"""Libraries of the extra `export`, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dist_gat.base.errors import ConfigError


def need(module: str, what: str) -> Any:
    """The module. Raises `ConfigError`, which names the extra, where it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        raise ConfigError(f"{what} needs the library {module}: pip install 'dist-gat[export]'") from None
