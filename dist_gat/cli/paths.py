"""`path` and `place`: how the command line reads the name of a file or a folder."""

from __future__ import annotations

from pathlib import Path

import typer

from dist_gat.base.addresses import is_url
from dist_gat.config.section import expand


def path(text: str | Path) -> Path:
    """With ~ and variables, as in a recipe, where the shell has left them."""
    try:
        return Path(expand(str(text)))
    except ValueError as err:
        raise typer.BadParameter(str(err)) from None


def place(text: str | Path) -> str | Path:
    """The same of what may also be at a URL, which stays as it is: of a path `//` is `/`."""
    return str(text) if is_url(text) else path(text)
