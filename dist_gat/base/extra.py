"""Libraries of extras, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dist_gat.base.errors import ConfigError


def need(module: str, what: str, extra: str) -> Any:
    """The module. Raises `ConfigError`, which names the extra, where its library is not installed."""
    try:
        return import_module(module)
    except ImportError as err:
        raise missing(module.partition(".")[0], what, extra, err) from None


def missing(library: str, what: str, extra: str, error: ImportError | None = None) -> ConfigError:
    """The error where a library of an extra is not installed.

    error: of the import that failed, which names another library where that one is what `library` lacks.
    """
    if error is not None and error.name:
        # distributions have hyphens where modules have underscores
        lacked = error.name.partition(".")[0].replace("_", "-")
        library = library if lacked == library.replace("_", "-") else lacked
    return ConfigError(f"{what} needs the library {library}: pip install 'dist-gat[{extra}]'")
