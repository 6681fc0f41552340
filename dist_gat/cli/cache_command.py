"""`dist-gat cache`: what this host keeps of data, runs and models at URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dist_gat.cli.output import make_table, open_output
from dist_gat.cli.paths import path


def cache(
    folder: Annotated[
        Path | None, typer.Option(parser=path, help="launch.cache of the recipe; default: ~/.cache/dist_gat")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="delete it; nothing may be running that reads it")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object")] = False,
) -> None:
    """Show what this host has fetched from URLs, or delete it: all of it is fetched again where it is needed."""
    from dist_gat.base.fetched_folder import clear_fetched, list_fetched

    with open_output(as_json) as output:
        found = list_fetched(folder)
        if clear:
            clear_fetched(folder)
        total = sum(one["bytes"] for one in found) / 1e6
        rows = [[one["url"], one["what"], f"{one['bytes'] / 1e6:.1f}"] for one in found]
        told = f"{total:.1f} MB {'deleted' if clear else 'in all; --clear deletes it'}"
        output.result(
            {"folders": found, "cleared": clear}, make_table("cache", ["URL", "what", "MB"], rows), notes=told
        )
