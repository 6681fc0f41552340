"""`dist-gat rotate-key`: pseudonyms of another key for a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dist_gat.cli.output import open_output
from dist_gat.cli.paths import path


def rotate_key(
    run: Annotated[Path, typer.Argument(parser=path, help="a run folder, or the recipe of a run")],
    key: Annotated[Path, typer.Option(parser=path, help="the present key file")],
    new_key: Annotated[Path, typer.Option("--new-key", parser=path, help="another; a new key where there is no file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings of the recipe as key=value")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object")] = False,
) -> None:
    """Give prepared data and saved model pseudonyms of another key; weights stay."""
    from dist_gat import api

    with open_output(as_json) as output:
        done = api.rotate_key(run, key, new_key, overrides or [], output.progress)
        output.result(done, notes=f"{done['nodes']:,} nodes have new pseudonyms; the old key opens nothing here")
