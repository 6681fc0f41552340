"""`dist-gat forget`: a user out of the prepared data and the saved model of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dist_gat.cli.output import open_output
from dist_gat.cli.paths import path, place


def forget(
    run: Annotated[Path, typer.Argument(parser=place, help="a run folder, or the recipe of a run")],
    overrides: Annotated[list[str] | None, typer.Argument(help="settings of the recipe as key=value")] = None,
    user: Annotated[str, typer.Option(help="the user's ID as in the input")] = ...,  # type: ignore[assignment]
    key: Annotated[
        Path | None,
        typer.Option(parser=path, help="the key file of data with pseudonyms: the ID is a clear one"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON object")] = False,
) -> None:
    """Take a user out of prepared data and saved model, delete the checkpoints, and say what is left of the user."""
    from dist_gat import api

    with open_output(as_json) as output:
        done = api.forget(run, user, overrides or [], key)
        gone = f"{done['pairs']:,} pairs are gone, and {len(done['checkpoints'])} checkpoints"
        output.result(done, notes="\n".join([gone, "what still depends on the user:", *done["remains"]]))
